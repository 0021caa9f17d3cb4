"""`kill -9`, ten times: five in the middle of an import, five in the middle of a synchronisation.

The moments come from a seed as counts of rows: a process is killed when so many have been seen, and a chance part of
the work further on. Whatever a command or the import's progress had confirmed is there afterwards, each row once.
"""

from pathlib import Path
from random import Random
from typing import Any

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
from tests.processes.row_files import RowFiles, assert_first

KILLS = 5
STEPS = 10
"""A kill comes within the first tenth of a file's rows that are seen after the last one …"""
AFTERWARDS_SECONDS = 0.03
"""… and up to so much later, so that it falls anywhere in a batch."""


async def die(device: DeviceProcess, chance: Random) -> None:
    await trio.sleep(chance.uniform(0, AFTERWARDS_SECONDS))
    device.kill()
    assert await device.ended() == -9


# --- import ----------------------------------------------------------------------------------------------------------


async def killed_in_import(device: DeviceProcess, args: dict[str, Any], step: int, chance: Random) -> int:
    """Import in the running device, which is killed when progress has confirmed more than `step` rows; how many."""
    confirmed = 0
    killing = trio.Event()

    async def show(part: dict[str, Any]) -> None:
        nonlocal confirmed
        if part.get("phase") == "rows":
            confirmed = part["rows"]
            if confirmed > step:
                killing.set()

    async def kill() -> None:
        await killing.wait()
        await die(device, chance)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(kill)
        try:
            await device.ask("import", args, show)
        except ConnectionLost:
            assert killing.is_set()
        killing.set()
    return confirmed


async def killed_command(device: DeviceProcess, group: str, file: Path, step: int, chance: Random) -> int:
    """`peers import` while no device runs, killed when the file holds more than `step` rows more; how many it had."""
    command = [*PEERS, "--home", str(device.home), "import", group, "rows", str(file)]
    had = device.count(group, "rows")
    process = await trio.lowlevel.open_process(command, env=environment(), cwd=ROOT)
    try:

        async def far_enough() -> bool:
            return process.poll() is not None or device.count(group, "rows") > had + step

        await wait_until(far_enough, f"{step} more rows are imported")
        confirmed = device.count(group, "rows") - had
        await trio.sleep(chance.uniform(0, AFTERWARDS_SECONDS))
    finally:
        process.kill()
        assert await process.wait() in (-9, 0)
    return confirmed


async def test_s2_five_kills_in_mid_import_lose_nothing_confirmed(tmp_path: Path) -> None:
    """S2: `kill -9` between any two syscalls: confirmed writes there; vector consistent with rows."""
    chance = Random(1)
    files = RowFiles(tmp_path, rows=60_000, text_bytes=8)
    kills = 0
    async with open_devices(tmp_path, "A", "B") as (a, b):
        await a.start()
        group = str((await a.ask("create_group", {"name": "team"}))["id"])
        await a.ask("create_table", {"group": group, "sql": "CREATE TABLE notes(text TEXT)"})
        while kills < KILLS:
            had, step = a.count(group, "rows"), chance.randrange(60_000 // STEPS)
            if kills % 2:
                await a.stop()
                confirmed = await killed_command(a, group, files.current, step, chance)
            else:
                args = {"group": group, "table": "rows", "file": str(files.current)}
                confirmed = await killed_in_import(a, args, step, chance)
            await a.start()
            now = a.count(group, "rows")
            assert had + confirmed <= now
            assert_first(a, group, now)
            if now == files.total:
                files.grow()
                continue
            kills += 1
            await a.execute(group, "INSERT INTO notes(text) VALUES(?)", f"confirmed {kills}")
        await a.cli("import", group, "rows", str(files.current))
        files.assert_complete(a, group)
        done = await a.cli("import", group, "rows", str(files.current))
        assert "is already in rows: nothing to do" in done.out
        files.assert_complete(a, group)
        assert a.count(group, "notes") == KILLS
        await b.start()
        await a.ask("grant", {"group": group, "user": b.user, "role": "writer"})
        await b.ask("join", {"group": group})
        await b.ask("connect", {"address": a.address})
        await wait_until_equal(group, a, b)
        for device in (a, b):
            files.assert_complete(device, group)
            await device.stop()


# --- synchronisation -------------------------------------------------------------------------------------------------


async def test_s2_five_kills_in_mid_sync_lose_nothing_confirmed(tmp_path: Path) -> None:
    """S2, of the receiver and the sender in turn; both also write, before and after each kill."""
    chance = Random(2)
    files = RowFiles(tmp_path, rows=20_000, text_bytes=600)  # a dozen pages of 1 MiB
    kills, confirmed = 0, list[str]()
    async with open_devices(tmp_path, "A", "B") as (a, b):
        for device in (a, b):
            await device.start()
        group = await share_group(a, b)
        await a.ask("create_table", {"group": group, "sql": "CREATE TABLE notes(text TEXT)"})
        await b.ask("connect", {"address": a.address})
        await wait_until_equal(group, a, b)
        for device in (a, b):
            await device.ask("offline", {})  # the rows wait until both are online again
        await a.ask("import", {"group": group, "table": "rows", "file": str(files.current)})
        while kills < KILLS:
            victim, other = (a, b) if kills % 2 else (b, a)
            had = b.count(group, "rows")
            confirmed += await write(victim, group, f"before kill {len(confirmed)}")
            await meet_again(a, b)
            await until_received(b, group, had + chance.randrange(20_000 // STEPS))
            await die(victim, chance)
            await other.ask("offline", {})
            arrived = b.count(group, "rows")
            assert had < arrived
            assert texts(victim, group) >= {text for text in confirmed if text.endswith(victim.name)}
            assert victim.read_file(group, "PRAGMA integrity_check") == [("ok",)]
            confirmed += await write(other, group, f"after kill {len(confirmed)}")
            await victim.start()
            confirmed += await write(victim, group, f"after kill {len(confirmed)}")
            if arrived < files.total:
                kills += 1
            if files.total - arrived < 20_000 // 4:
                await a.ask("offline", {})
                await a.ask("import", {"group": group, "table": "rows", "file": str(files.grow())})
        await meet_again(a, b)
        await wait_until_equal(group, a, b)
        for device in (a, b):
            files.assert_complete(device, group)
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
