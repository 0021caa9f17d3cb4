"""`kill -9`, ten times: five in the middle of an import, five in the middle of a synchronisation.

The moments come from a seed as counts of rows: a process is killed when so many have been seen, and a chance part of
the work further on. Whatever a command or the import's progress had confirmed is there afterwards, each row once.
"""

import hashlib
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio

from peers.errors import ConnectionLost
from tests.processes.device_process import (
    PEERS,
    ROOT,
    DeviceProcess,
    environment,
    open_devices,
    share_group,
    wait_until,
    wait_until_equal,
)

IMPORT_ROWS = 60_000
SYNC_ROWS = 20_000
TEXT_CHARS = 1200
"""Of hexadecimal digits, which compress to half: the rows travel in a dozen pages of 1 MiB."""
AFTERWARDS_SECONDS = 0.03
"""A kill comes up to so much later than the count that calls for it, so that it falls anywhere in a batch."""
KILLS = 5


def assert_sound(device: DeviceProcess, group: str) -> None:
    assert device.read_file(group, "PRAGMA integrity_check") == [("ok",)]


def numbers(count: int) -> list[tuple[Any, ...]]:
    """What a table of the rows 0, 1, … count − 1, each once, says of itself: rows, distinct, ids, greatest."""
    return [(count, count, count, count - 1)]


NUMBERS = "SELECT count(*), count(DISTINCT n), count(DISTINCT id), max(n) FROM rows"


async def die(device: DeviceProcess, chance: Random) -> None:
    await trio.sleep(chance.uniform(0, AFTERWARDS_SECONDS))
    device.kill()
    assert await device.ended() == -9


async def killed_in_import(device: DeviceProcess, args: dict[str, Any], after: int, chance: Random) -> int:
    """Import in the running device, killed once progress has confirmed more than `after` rows; how many it had."""
    confirmed = 0

    async def show(part: dict[str, Any]) -> None:
        nonlocal confirmed
        if part.get("phase") == "rows":
            confirmed = part["rows"]
            if confirmed > after and not killing.is_set():
                killing.set()

    killing = trio.Event()

    async def kill() -> None:
        await killing.wait()
        await die(device, chance)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(kill)
        with pytest.raises(ConnectionLost):
            await device.ask("import", args, show)
    return confirmed


async def killed_command(device: DeviceProcess, group: str, file: Path, after: int, chance: Random) -> int:
    """`peers import` while no device runs, killed once the file holds more than `after` rows; how many it had."""
    command = [*PEERS, "--home", str(device.home), "import", group, "rows", str(file)]
    process = await trio.lowlevel.open_process(command, env=environment(), cwd=ROOT)
    try:

        async def far_enough() -> bool:
            assert process.poll() is None, "the import ended before it was killed: more rows are needed"
            return device.count(group, "rows") > after

        await wait_until(far_enough, f"more than {after} rows are imported")
        seen = device.count(group, "rows")
        await trio.sleep(chance.uniform(0, AFTERWARDS_SECONDS))
    finally:
        process.kill()
        assert await process.wait() == -9
    return seen


async def test_s2_five_kills_in_mid_import_lose_nothing_confirmed(tmp_path: Path) -> None:
    """S2: `kill -9` between any two syscalls: confirmed writes there; vector consistent with rows."""
    chance = Random(1)
    file = tmp_path / "rows.csv"
    file.write_text("n,text\n" + "".join(f"{n},text of row {n}\n" for n in range(IMPORT_ROWS)))
    args = {"table": "rows", "file": str(file)}
    async with open_devices(tmp_path, "A", "B") as (a, b):
        await a.start()
        group = str((await a.ask("create_group", {"name": "team"}))["id"])
        await a.ask("create_table", {"group": group, "sql": "CREATE TABLE notes(text TEXT)"})
        for number in range(KILLS):
            had = a.count(group, "rows")
            step = chance.randrange(IMPORT_ROWS // 10, IMPORT_ROWS // 6)
            if number % 2:
                await a.stop()
                confirmed = await killed_command(a, group, file, had + step, chance)
            else:
                confirmed = had + await killed_in_import(a, {**args, "group": group}, step, chance)
            assert_sound(a, group)
            await a.start()
            now = a.count(group, "rows")
            assert had + step < confirmed <= now < IMPORT_ROWS
            assert a.read_file(group, NUMBERS) == numbers(now)
            await a.execute(group, "INSERT INTO notes(text) VALUES(?)", f"confirmed {number}")
        await a.cli("import", group, "rows", str(file))
        assert a.read_file(group, NUMBERS) == numbers(IMPORT_ROWS)
        done = await a.cli("import", group, "rows", str(file))
        assert "is already in rows: nothing to do" in done.out
        assert a.read_file(group, NUMBERS) == numbers(IMPORT_ROWS)
        assert a.count(group, "notes") == KILLS
        await b.start()
        await a.ask("grant", {"group": group, "user": b.user, "role": "writer"})
        await b.ask("join", {"group": group})
        await b.ask("connect", {"address": a.address})
        await wait_until_equal(group, a, b)
        for device in (a, b):
            assert_sound(device, group)
            assert device.read_file(group, NUMBERS) == numbers(IMPORT_ROWS)
            await device.stop()


async def test_s2_five_kills_in_mid_sync_lose_nothing_confirmed(tmp_path: Path) -> None:
    """S2, of the receiver and the sender in turn; both also write, before and after each kill."""
    chance = Random(2)
    file = tmp_path / "rows.csv"
    words = (hashlib.shake_128(b"%d" % n).hexdigest(TEXT_CHARS // 2) for n in range(SYNC_ROWS))
    file.write_text("n,text\n" + "".join(f"{n},{word}\n" for n, word in enumerate(words)))
    async with open_devices(tmp_path, "A", "B") as (a, b):
        for device in (a, b):
            await device.start()
        group = await share_group(a, b)
        await a.ask("create_table", {"group": group, "sql": "CREATE TABLE notes(text TEXT)"})
        await b.ask("connect", {"address": a.address})
        await wait_until_equal(group, a, b)
        for device in (a, b):
            await device.ask("offline", {})  # the rows wait until both are online again
        await a.ask("import", {"group": group, "table": "rows", "file": str(file)})
        confirmed: list[str] = []
        for number in range(KILLS):
            victim, other = (a, b) if number % 2 else (b, a)
            had = b.count(group, "rows")
            confirmed += await write(victim, group, f"before kill {number}")
            await meet_again(a, b)
            await until_received(b, group, had + chance.randrange(SYNC_ROWS // 20))
            await die(victim, chance)
            await other.ask("offline", {})
            assert had < b.count(group, "rows") < SYNC_ROWS, "all had arrived before the kill: more rows are needed"
            assert_sound(victim, group)
            assert texts(victim, group) >= {text for text in confirmed if text.endswith(victim.name)}
            confirmed += await write(other, group, f"after kill {number}")
            await victim.start()
            confirmed += await write(victim, group, f"after kill {number}")
        await meet_again(a, b)
        await wait_until_equal(group, a, b)
        for device in (a, b):
            assert_sound(device, group)
            assert device.read_file(group, NUMBERS) == numbers(SYNC_ROWS)
            assert device.count(group, "notes") == len(confirmed)
            assert texts(device, group) == set(confirmed)
            await device.stop()


def texts(device: DeviceProcess, group: str) -> set[str]:
    return {text for (text,) in device.read_file(group, "SELECT text FROM notes")}


async def meet_again(a: DeviceProcess, b: DeviceProcess) -> None:
    """Both come online, B dials A, and this returns without waiting for what they have to tell each other."""
    for device in (a, b):
        await device.ask("online", {})
    await b.ask("connect", {"address": a.address})


async def until_received(device: DeviceProcess, group: str, count: int) -> None:
    async def received() -> bool:
        return device.count(group, "rows") > count

    await wait_until(received, f"{device.name} has received {count} rows")


async def write(device: DeviceProcess, group: str, text: str) -> list[str]:
    """One confirmed write."""
    full = f"{text} by {device.name}"
    await device.execute(group, "INSERT INTO notes(text) VALUES(?)", full)
    return [full]
