"""One process a home, and how a device stops in the middle of work: in order, in time, and at once if asked again."""

import signal
from pathlib import Path

import pytest
import trio

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

STOP_SECONDS = 5.0


async def test_s6_a_second_process_on_a_home_is_refused(tmp_path: Path) -> None:
    """S6: second instance started: exits `already_running (pid)`; reads by tools allowed."""
    async with open_devices(tmp_path, "A") as (a,):
        await a.start()
        group = await share_group(a)
        refused = await a.cli("up", "--listen", "127.0.0.1:0", code=3)
        assert refused.errors.startswith("peers: already_running: ")
        assert str(a.process.pid) in refused.errors
        assert str(a.home) in refused.errors
        assert refused.errors.count("\n") == 1
        assert refused.out == ""
        assert a.read_file(group, "PRAGMA integrity_check") == [("ok",)]
        assert (await a.ask("id", {}))["device"] == a.device  # the first goes on
        await a.stop()
        await a.start()  # a home that was left in order can be entered again
        a.kill()
        await a.ended()
        await a.start()  # and one that was not
        await a.stop()


@pytest.mark.parametrize(("who", "number"), [("sender", signal.SIGTERM), ("receiver", signal.SIGINT)])
async def test_l5_a_signal_in_mid_sync_stops_in_order(tmp_path: Path, who: str, number: signal.Signals) -> None:
    """L5: Ctrl-C / SIGTERM during sync: clean stop ≤ 5 s; what arrived stays, the rest comes after a restart."""
    async with open_devices(tmp_path, "A", "B") as (a, b):
        files, group = await meet(tmp_path, a, b)
        victim, cut_short = (a if who == "sender" else b), False
        while not cut_short:
            await begin_sync(files, group, a, b)
            began = trio.current_time()
            victim.process.send_signal(number)
            assert await victim.ended() == 0
            assert trio.current_time() - began < STOP_SECONDS
            assert victim.errors == ""
            assert not (victim.home / "run.json").exists()
            cut_short = b.count(group, "rows") < files.total
            await victim.start()
        await b.ask("connect", {"address": a.address})
        await wait_until_equal(group, a, b)
        for device in (a, b):
            files.assert_complete(device, group)
            await device.stop()


async def meet(folder: Path, a: DeviceProcess, b: DeviceProcess) -> tuple[RowFiles, str]:
    """Both run, share a group and are connected; A has rows that B has no part of, because it is offline."""
    for device in (a, b):
        await device.start()
    group = await share_group(a, b)
    await b.ask("connect", {"address": a.address})
    await wait_until_equal(group, a, b)
    await a.ask("offline", {})
    files = RowFiles(folder, rows=20_000, text_bytes=600)
    await a.ask("import", {"group": group, "table": "rows", "file": str(files.current)})
    return files, group


async def begin_sync(files: RowFiles, group: str, a: DeviceProcess, b: DeviceProcess) -> None:
    """B has received some rows and receives more."""
    had = b.count(group, "rows")
    if had == files.total:
        await a.ask("offline", {})
        await a.ask("import", {"group": group, "table": "rows", "file": str(files.grow())})
    await a.ask("online", {})
    await b.ask("connect", {"address": a.address})

    async def some() -> bool:
        return b.count(group, "rows") > had

    await wait_until(some, "B has received some rows")


async def test_l5_a_peer_that_hangs_does_not_hold_up_a_stop(tmp_path: Path) -> None:
    """L5: clean stop ≤ 5 s, also while the other side neither reads nor answers."""
    async with open_devices(tmp_path, "A", "B") as (a, b):
        files, group = await meet(tmp_path, a, b)
        await begin_sync(files, group, a, b)
        b.process.send_signal(signal.SIGSTOP)
        began = trio.current_time()
        a.process.terminate()
        assert await a.ended() == 0
        assert trio.current_time() - began < STOP_SECONDS
        assert a.errors == ""
        b.process.send_signal(signal.SIGCONT)
        await b.stop()


async def test_l5_a_second_signal_forces_the_end(tmp_path: Path) -> None:
    """L5: twice: second forces exit 130. The first is held up for a second by a peer that does not say goodbye."""
    async with open_devices(tmp_path, "A", "B") as (a, b):
        files, group = await meet(tmp_path, a, b)
        code, tries = 0, 0
        while code == 0 and tries < 5:  # on a busy machine the second signal may find that all is over
            tries += 1
            await begin_sync(files, group, a, b)
            b.process.send_signal(signal.SIGSTOP)
            a.process.terminate()
            await wait_until(lambda: refuses(a.address), "A stops listening, so it has seen the first signal")
            a.process.terminate()
            code = await a.ended()
            b.process.send_signal(signal.SIGCONT)
            await a.start()
        assert code == 130
        await a.stop()
        await b.stop()


async def refuses(address: str) -> bool:
    host, _, port = address.removeprefix("ws://").rpartition(":")
    try:
        stream = await trio.open_tcp_stream(host, int(port))
    except OSError:
        return True
    await stream.aclose()
    return False


async def test_l5_sigterm_in_mid_import_keeps_what_was_confirmed(tmp_path: Path) -> None:
    """L5, of a command that works on the files itself: one line, 130, and the same command continues."""
    files = RowFiles(tmp_path, rows=60_000, text_bytes=8)
    async with open_devices(tmp_path, "A") as (a,):
        await a.cli("group", "create", "team")
        (group,) = (path.stem for path in (a.home / "groups").glob("*.db") if path.stem != a.user)
        while True:
            had = a.count(group, "rows")
            code, errors = await interrupted_import(a, group, files.current)
            assert code in (130, 0)
            assert errors == ("peers: interrupted: stopped\n" if code else "")
            now = a.count(group, "rows")
            assert had < now
            assert_first(a, group, now)
            if now < files.total:
                assert code == 130
                break
            files.grow()
        assert "continued at line" in (await a.cli("import", "team", "rows", str(files.current))).out
        files.assert_complete(a, group)


async def interrupted_import(device: DeviceProcess, group: str, file: Path) -> tuple[int, str]:
    """`peers import` on the files, sent a SIGTERM when some rows are there; its exit code and what it said."""
    had = device.count(group, "rows")
    command = [*PEERS, "--home", str(device.home), "import", group, "rows", str(file)]
    errors = device.home.parent / "import.err"
    with errors.open("wb") as output:
        process = await trio.lowlevel.open_process(command, env=environment(), cwd=ROOT, stderr=output)
    try:

        async def some() -> bool:
            return process.poll() is not None or device.count(group, "rows") > had

        await wait_until(some, "the first rows are imported")
        began = trio.current_time()
        process.terminate()
        with trio.fail_after(STOP_SECONDS):
            code = await process.wait()
        assert trio.current_time() - began < STOP_SECONDS
    finally:
        process.kill()
        await process.wait()
    return code, errors.read_text()
