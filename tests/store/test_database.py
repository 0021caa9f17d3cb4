"""The file itself: what SQLite's own failures become."""

import resource
from pathlib import Path

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
