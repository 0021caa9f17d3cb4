"""The file itself: what SQLite's own failures become."""

import resource
import signal
from pathlib import Path
from typing import NoReturn

import pytest

from peers.config import StoreConfig
from peers.errors import DiskFull
from peers.store.database import Database


def test_s1_a_full_disk_is_named_when_a_file_is_opened(tmp_path: Path) -> None:
    """Disk full at every write …: API call fails `disk_full`; earlier data intact; resumes when space returns."""
    path = tmp_path / "group.db"
    made = Database(path, StoreConfig(), create=True)
    made.connection.execute("CREATE TABLE t(a); INSERT INTO t VALUES(1)")
    made.close()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16 * 1024, hard))  # the index of the WAL takes 32 KiB
    try:
        with pytest.raises(DiskFull, match="free some"):
            Database(path, StoreConfig(), create=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    again = Database(path, StoreConfig(), create=False)
    assert again.connection.execute("SELECT a FROM t").get == 1
    again.close()


class Heard(Exception):
    pass


@pytest.mark.parametrize("which", ["writer", "reader"])
def test_l5_signals_are_heard_while_a_statement_runs(tmp_path: Path, which: str) -> None:
    """Ctrl-C / SIGTERM …, twice: second forces exit 130. Also in the middle of a statement that would never end."""
    database = Database(tmp_path / "group.db", StoreConfig(), create=True)
    connection = database.connection if which == "writer" else database.reader()

    def on_signal(*_: object) -> NoReturn:
        raise Heard

    before = signal.signal(signal.SIGALRM, on_signal)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Heard):
            connection.execute("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT max(x) FROM c")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        database.close()
