"""Devices as real processes over real WebSockets: through a third, large values, keys of several columns, rights."""

from pathlib import Path

import pytest

from peers.cli.control_socket import CommandFailed
from tests.processes.device_process import DeviceProcess, open_devices, share_group, wait_until, wait_until_equal

KIB = 1024
VALUE_BYTES = 200 * KIB


async def connect(one: DeviceProcess, other: DeviceProcess) -> None:
    """`peers connect`, which must succeed at once."""
    done = await one.ask("connect", {"address": other.address})
    assert done["verified"], done


async def test_a_third_device_receives_through_one_that_restarts(tmp_path: Path) -> None:
    """A – B – C, where C only knows B, and B is killed and stopped in the middle."""
    async with open_devices(tmp_path, "A", "B", "C") as (a, b, c):
        for device in (a, b, c):
            await device.start()
        group = await share_group(a, b, c)
        await a.ask("create_table", {"group": group, "sql": "CREATE TABLE notes(text TEXT, n INTEGER)"})
        await connect(b, a)
        await connect(c, b)
        await a.execute(group, "INSERT INTO notes(text, n) VALUES('first', 1)")
        await wait_until_equal(group, a, b, c)
        b.kill()
        assert await b.ended() == -9
        await a.execute(group, "INSERT INTO notes(text, n) VALUES('while B is away', 2)")
        await c.execute(group, "UPDATE notes SET n = 10 WHERE text = 'first'")
        await b.start()  # it dials A again by itself; its own port is another now
        await connect(c, b)
        await wait_until_equal(group, a, b, c)
        await b.stop()
        await a.execute(group, "UPDATE notes SET text = 'first, by A' WHERE text = 'first'")
        await b.start()
        await connect(c, b)
        await wait_until_equal(group, a, b, c)
        assert await c.query(group, "SELECT text, n FROM notes ORDER BY n") == [
            ["while B is away", 2],
            ["first, by A", 10],
        ]
        for ends, other in ((a, c), (c, a)):
            met = {peer["device"] for peer in (await ends.ask("status", {}))["known_peers"]}
            assert met == {b.device}, f"{ends.name} has met {other.name}"
        for device in (a, b, c):
            await device.stop()


async def test_connecting_to_oneself_promises_nothing(tmp_path: Path) -> None:
    async with open_devices(tmp_path, "A") as (a,):
        await a.start()
        assert (await a.cli("connect", a.address)).errors == f"{a.address} is this device itself: it dials it no more\n"
        await a.stop()


async def test_connecting_to_whom_one_is_connected_says_so(tmp_path: Path) -> None:
    """Asked again, and asked after a restart that has dialled by itself: no waiting for an attempt that never comes."""
    async with open_devices(tmp_path, "A", "B") as (a, b):
        for device in (a, b):
            await device.start()
        said = f"remembered {a.address}\nconnected to 'A'\n"
        assert (await b.cli("connect", a.address)).out == said
        assert (await b.cli("connect", a.address)).out == said
        await b.stop()
        await b.start()

        async def dialled() -> bool:
            return bool((await b.ask("status", {}))["connections"])

        await wait_until(dialled, "B dials A by itself")
        assert b.out.count(f"connecting to {a.address}\n") == 2, "the first attempt after a start is told too"
        assert (await b.cli("connect", a.address)).out == said
        for device in (a, b):
            await device.stop()


async def test_who_is_granted_already_is_not_told_to_ask_for_it(tmp_path: Path) -> None:
    async with open_devices(tmp_path, "A", "B") as (a, b):
        for device in (a, b):
            await device.start()
        group = (await a.ask("create_group", {"name": "team"}))["id"]
        asked = (await b.cli("group", "join", "ab" * 32)).out
        assert f"  peers group grant abababab {b.user} writer\n" in asked
        await connect(b, a)
        await a.ask("grant", {"group": group, "user": b.user, "role": "writer"})

        async def invited() -> bool:
            return (await b.ask("status", {}))["invited"] == [group]

        await wait_until(invited, "B hears that A added it")
        assert f"accept with `peers group join {group}`" in (await b.cli("status")).out
        assert "peers group grant" not in (await b.cli("group", "join", group)).out
        await wait_until_equal(group, a, b)
        for device in (a, b):
            await device.stop()


async def test_large_values_many_rows_and_keys_of_several_columns(tmp_path: Path) -> None:
    """Text and blobs of 200 KiB, 20,000 rows, a key of two columns; written before and after the meeting."""
    file = tmp_path / "many.csv"
    file.write_text("region,number,text\n" + "".join(f"r{n % 7},{n},text of {n}\n" for n in range(20_000)))
    text, blob = "ä" * (VALUE_BYTES // 2), bytes(range(256)) * (VALUE_BYTES // 256)
    async with open_devices(tmp_path, "A", "B") as (a, b):
        for device in (a, b):
            await device.start()
        group = await share_group(a, b)
        await a.ask("create_table", {"group": group, "sql": "CREATE TABLE large(text TEXT, data BLOB)"})
        await a.execute(group, "INSERT INTO large(text, data) VALUES(?, ?)", text, blob)
        done = await a.cli("import", group, "many", str(file), "--key", "region,number")
        assert "20,000 rows imported" in done.out
        await connect(b, a)
        await wait_until_equal(group, a, b)
        assert await b.query(group, "SELECT text, data FROM large") == [[text, blob]]
        await b.execute(group, "INSERT INTO large(text, data) VALUES(?, ?)", text[::-1], blob[::-1])
        await a.execute(group, "UPDATE many SET text = 'A' WHERE region = 'r3' AND number = 3")
        await b.execute(group, "UPDATE many SET text = 'B' WHERE region = 'r4' AND number = 4")
        assert await b.execute(group, "DELETE FROM many WHERE number >= 19000 AND region = 'r0'") > 100
        await wait_until_equal(group, a, b)
        large = "SELECT count(*), sum(length(CAST(text AS BLOB))), sum(length(data)) FROM large"
        assert await a.query(group, large) == [[2, 2 * VALUE_BYTES, 2 * VALUE_BYTES]]
        changed = "SELECT text FROM many WHERE number IN (3, 4) ORDER BY number"
        assert await a.query(group, changed) == await b.query(group, changed) == [["A"], ["B"]]
        for device in (a, b):
            assert device.read_file(group, "PRAGMA integrity_check") == [("ok",)]
            await device.stop()


async def test_a_reader_receives_and_cannot_write(tmp_path: Path) -> None:
    async with open_devices(tmp_path, "A", "B") as (a, b):
        for device in (a, b):
            await device.start()
        group = await share_group(a, b, role="reader")
        await a.ask("create_table", {"group": group, "sql": "CREATE TABLE notes(text TEXT)"})
        await a.execute(group, "INSERT INTO notes(text) VALUES('for reading')")
        await connect(b, a)
        await wait_until_equal(group, a, b)
        assert await b.query(group, "SELECT text FROM notes") == [["for reading"]]
        done = await b.cli("sql", "team", "UPDATE notes SET text = 'mine'", code=1)
        assert done.errors == "peers: not_allowed: group team: a reader cannot write; ask an admin to grant writer\n"
        assert done.out == ""
        done = await b.cli("table", "create", "team", "CREATE TABLE other(text TEXT)", code=1)
        assert done.errors.startswith("peers: not_allowed: group team: a reader cannot change the schema")
        done = await b.cli("group", "grant", "team", b.user, "writer", code=1)
        assert done.errors.startswith("peers: not_allowed: group team: a reader cannot grant writer")
        file = tmp_path / "rows.csv"
        file.write_text("text\nmore\n")
        done = await b.cli("import", "team", "notes", str(file), code=1)
        assert done.errors.startswith("peers: not_allowed: group team: a reader cannot write")
        await a.ask("grant", {"group": group, "user": b.user, "role": "writer"})

        async def may_write() -> bool:
            return (await b.group(group))["role"] == "writer"

        await wait_until(may_write, "B learns that it may write")
        await b.execute(group, "UPDATE notes SET text = 'mine'")
        await wait_until_equal(group, a, b)
        assert await a.query(group, "SELECT text FROM notes") == [["mine"]]
        for device in (a, b):
            await device.stop()


async def test_a_stranger_connects_and_gets_nothing(tmp_path: Path) -> None:
    """It knows the group's id and wants it; A's log does not name it, so nothing of the group crosses."""
    async with open_devices(tmp_path, "A", "B", "stranger") as (a, b, stranger):
        for device in (a, b, stranger):
            await device.start()
        group = await share_group(a, b)
        await a.ask("create_table", {"group": group, "sql": "CREATE TABLE notes(text TEXT)"})
        await connect(b, a)
        await stranger.ask("join", {"group": group})
        await connect(stranger, a)
        for n in range(5):
            await a.execute(group, "INSERT INTO notes(text) VALUES(?)", f"secret {n}")
        await wait_until_equal(group, a, b)  # what A pushes has gone out: a member has it
        status = await stranger.ask("status", {})
        assert [one["groups"] for one in status["connections"]] == [[]]
        assert status["invited"] == []
        assert (await stranger.group(group))["pending"] is True
        assert not list((stranger.home / "groups").glob(f"{group}*"))
        with pytest.raises(CommandFailed) as refused:
            await stranger.execute(group, "INSERT INTO notes(text) VALUES('let me in')")
        assert refused.value.code == "pending"
        seen = await a.ask("status", {})
        (one,) = [one for one in seen["connections"] if one["device"] == stranger.device]
        assert one["bytes_out"] < 1000  # the handshake, an empty offer, pings
        for device in (a, b, stranger):
            await device.stop()
