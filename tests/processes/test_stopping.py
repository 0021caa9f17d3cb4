"""One process a home, and how a device stops in the middle of work: in order, in time, and at once if asked again."""

import hashlib
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

STOP_SECONDS = 5.0
ROWS = 20_000


def large_file(folder: Path) -> Path:
    """About 12 MB when compressed: a dozen pages."""
    file = folder / "rows.csv"
    lines = (f"{n},{hashlib.shake_128(b'%d' % n).hexdigest(600)}\n" for n in range(ROWS))
    file.write_text("n,text\n" + "".join(lines))
    return file


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
        group = await begin_sync(a, b, large_file(tmp_path))
        victim = a if who == "sender" else b
        began = trio.current_time()
        victim.process.send_signal(number)
        assert await victim.ended() == 0
        assert trio.current_time() - began < STOP_SECONDS
        assert victim.errors == ""
        assert not (victim.home / "run.json").exists()
        assert 0 < b.count(group, "rows") < ROWS, "all had arrived before the signal: more rows are needed"
        await victim.start()
        await b.ask("connect", {"address": a.address})
        await wait_until_equal(group, a, b)
        for device in (a, b):
            assert device.read_file(group, "SELECT count(*), sum(n) FROM rows") == [(ROWS, ROWS * (ROWS - 1) // 2)]
            await device.stop()


async def begin_sync(a: DeviceProcess, b: DeviceProcess, file: Path) -> str:
    """A has the file's rows, B some of them and receives more; the group."""
    for device in (a, b):
        await device.start()
    group = await share_group(a, b)
    await a.ask("import", {"group": group, "table": "rows", "file": str(file)})
    await b.ask("connect", {"address": a.address})

    async def some() -> bool:
        return b.count(group, "rows") > 0

    await wait_until(some, "B has received the first rows")
    return group


async def test_l5_a_peer_that_hangs_does_not_hold_up_a_stop(tmp_path: Path) -> None:
    """L5: clean stop ≤ 5 s, also while the other side neither reads nor answers."""
    async with open_devices(tmp_path, "A", "B") as (a, b):
        await begin_sync(a, b, large_file(tmp_path))
        b.process.send_signal(signal.SIGSTOP)
        began = trio.current_time()
        a.process.terminate()
        assert await a.ended() == 0
        assert trio.current_time() - began < STOP_SECONDS
        assert a.errors == ""
        b.process.send_signal(signal.SIGCONT)
        await b.stop()


async def test_l5_a_second_signal_forces_the_end(tmp_path: Path) -> None:
    """L5: twice: second forces exit 130. The first is held up by a peer that does not answer the goodbye."""
    async with open_devices(tmp_path, "A", "B") as (a, b):
        await begin_sync(a, b, large_file(tmp_path))
        b.process.send_signal(signal.SIGSTOP)
        a.process.terminate()
        await wait_until(lambda: refuses(a.address), "A stops listening, so it has seen the first signal")
        assert a.process.poll() is None
        a.process.terminate()
        assert await a.ended() == 130
        b.process.send_signal(signal.SIGCONT)
        await a.start()
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
    file = large_file(tmp_path)
    async with open_devices(tmp_path, "A") as (a,):
        await a.cli("group", "create", "team")
        command = [*PEERS, "--home", str(a.home), "import", "team", "rows", str(file)]
        (path,) = (path for path in (a.home / "groups").glob("*.db") if path.stem != a.user)
        errors = tmp_path / "import.err"
        with errors.open("wb") as output:
            process = await trio.lowlevel.open_process(command, env=environment(), cwd=ROOT, stderr=output)
        try:

            async def some() -> bool:
                assert process.poll() is None
                return a.count(path.stem, "rows") > 0

            await wait_until(some, "the first rows are imported")
            had = a.count(path.stem, "rows")
            began = trio.current_time()
            process.terminate()
            with trio.fail_after(STOP_SECONDS):
                assert await process.wait() == 130
            assert trio.current_time() - began < STOP_SECONDS
        finally:
            process.kill()
            await process.wait()
        assert errors.read_text() == "peers: interrupted: stopped\n"
        assert had <= a.count(path.stem, "rows") < ROWS
        assert "continued at line" in (await a.cli("import", "team", "rows", str(file))).out
        assert a.read_file(path.stem, "SELECT count(*), sum(n) FROM rows") == [(ROWS, ROWS * (ROWS - 1) // 2)]
