"""Another program holds a group's file: the command says so, nothing breaks, and work goes on when it lets go."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from tests.processes.device_process import DeviceProcess, open_devices, share_group, wait_until, wait_until_equal


@contextmanager
def write_lock(device: DeviceProcess, group: str) -> Iterator[None]:
    """What a database browser with an open transaction does."""
    connection = apsw.Connection(str(device.home / "groups" / f"{group}.db"))
    try:
        connection.set_busy_timeout(5000)
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")
    finally:
        connection.close()


async def test_s6_a_file_that_another_program_holds_is_named_and_waited_for(tmp_path: Path) -> None:
    """S6: database locked by another process: reads by tools allowed; busy timeout 5 s then `db_locked`."""
    async with open_devices(tmp_path, "A", "B") as (a, b):
        for device in (a, b):
            await device.start()
        group = await share_group(a, b)
        await a.ask("create_table", {"group": group, "sql": "CREATE TABLE notes(text TEXT)"})
        await b.ask("connect", {"address": a.address})
        await wait_until_equal(group, a, b)
        with write_lock(b, group):
            await a.execute(group, "INSERT INTO notes(text) VALUES('arrives while B cannot write')")
            done = await b.cli("sql", "team", "INSERT INTO notes(text) VALUES('not confirmed')", code=1)
            assert done.errors.startswith("peers: db_locked: ")
            assert f"{group}.db" in done.errors
            assert done.errors.count("\n") == 1
            assert b.count(group, "notes") == 0

        async def writes() -> bool:
            done = await b.cli("sql", "team", "INSERT INTO notes(text) VALUES('confirmed')")
            return done.code == 0

        await wait_until(writes, "B writes again")
        await wait_until_equal(group, a, b)
        texts = "SELECT text FROM notes ORDER BY text"
        assert await a.query(group, texts) == [["arrives while B cannot write"], ["confirmed"]]
        for device in (a, b):
            await device.stop()
