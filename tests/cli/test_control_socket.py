"""The control socket: a real Unix socket between a server and clients."""

import contextlib
import json
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from peers.cli.control_socket import (
    CommandFailed,
    Handler,
    Progress,
    ask_device,
    connect_control_socket,
    open_control_socket,
    read_run_info,
)
from peers.errors import ConnectionLost, NotFound
from peers.home import HomeFolder


class Desk:
    """Commands of a device that is not there."""

    def __init__(self) -> None:
        self.waiting = trio.Event()
        self.cancelled = trio.Event()

    async def echo(self, args: dict[str, Any], progress: Progress) -> Any:
        for step in range(args.get("steps", 0)):
            await progress({"step": step})
        return args

    async def wait(self, args: dict[str, Any], progress: Progress) -> Any:
        self.waiting.set()
        try:
            await trio.sleep_forever()
        finally:
            self.cancelled.set()

    async def missing(self, args: dict[str, Any], progress: Progress) -> Any:
        raise NotFound("no group 'x' here")

    async def bug(self, args: dict[str, Any], progress: Progress) -> Any:
        raise KeyError("oops")

    async def huge(self, args: dict[str, Any], progress: Progress) -> Any:
        return b"x" * (65 << 20)

    def handlers(self) -> dict[str, Handler]:
        return {"echo": self.echo, "wait": self.wait, "missing": self.missing, "bug": self.bug, "huge": self.huge}


def make_folder(path: Path) -> None:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)


@asynccontextmanager
async def running(path: Path) -> AsyncIterator[tuple[HomeFolder, Desk]]:
    make_folder(path)
    home, desk = HomeFolder(path), Desk()
    async with open_control_socket(home, desk.handlers(), listening="ws://127.0.0.1:1"):
        yield home, desk


async def ask(home: HomeFolder, command: str, **args: Any) -> Any:
    stream = await connect_control_socket(home)
    assert stream is not None
    return await ask_device(stream, command, args)


async def test_a_command_is_answered_with_progress_and_a_result(tmp_path: Path) -> None:
    seen = []

    async def progress(value: Any) -> None:
        seen.append(value)

    async with running(tmp_path / "home") as (home, _):
        stream = await connect_control_socket(home)
        assert stream is not None
        result = await ask_device(stream, "echo", {"steps": 3, "blob": b"\0", "text": "é"}, progress)
    assert result == {"steps": 3, "blob": b"\0", "text": "é"}
    assert seen == [{"step": 0}, {"step": 1}, {"step": 2}]


async def test_errors_keep_code_message_and_exit_code(tmp_path: Path) -> None:
    async with running(tmp_path / "home") as (home, _):
        for command, code, exit_code, text in [
            ("missing", "not_found", 2, "no group 'x' here"),
            ("bug", "internal", 70, "KeyError: 'oops'"),
            ("unheard", "bad_usage", 2, "the running device knows no command unheard: is it of another version?"),
            ("huge", "bad_usage", 2, "a message is larger than 64 MiB: ask for less, with LIMIT or WHERE"),
        ]:
            with pytest.raises(CommandFailed) as caught:
                await ask(home, command)
            assert (caught.value.code, caught.value.answered_exit_code, str(caught.value)) == (code, exit_code, text)
        assert await ask(home, "echo", still=1) == {"still": 1}


async def test_a_client_that_goes_away_cancels_its_command_only(tmp_path: Path) -> None:
    async with running(tmp_path / "home") as (home, desk), trio.open_nursery() as nursery:
        nursery.start_soon(ask, home, "wait")
        await desk.waiting.wait()
        assert await ask(home, "echo", other=1) == {"other": 1}
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True), trio.fail_after(5):
            await desk.cancelled.wait()
            assert await ask(home, "echo", later=1) == {"later": 1}


async def test_stopping_the_device_ends_waiting_clients_with_an_error(tmp_path: Path) -> None:
    async def expect_loss(home: HomeFolder) -> None:
        with pytest.raises(ConnectionLost, match="stopped before it answered"):
            await ask(home, "wait")

    async with trio.open_nursery() as nursery, running(tmp_path / "home") as (home, desk):
        nursery.start_soon(expect_loss, home)
        await desk.waiting.wait()


@pytest.mark.parametrize(
    "garbage",
    [b"", b"\0", b"\xff\xff\xff\xff", b"\0\0\0\x01\xc0", b"\0\0\0\x02\x82\x01", b"\0\0\0\x01\x01", b"GET / HTTP"],
)
async def test_garbage_ends_its_own_connection_only(tmp_path: Path, garbage: bytes) -> None:
    async with running(tmp_path / "home") as (home, _):
        stream = await connect_control_socket(home)
        assert stream is not None
        await stream.send_all(garbage)
        await stream.send_eof()
        with trio.fail_after(5), contextlib.suppress(trio.BrokenResourceError):
            while await stream.receive_some():
                pass
        await stream.aclose()
        assert await ask(home, "echo") == {}


async def test_socket_and_run_file_are_private_and_vanish(tmp_path: Path) -> None:
    async with running(tmp_path / "home") as (home, _):
        assert stat.S_IMODE(home.socket_path.stat().st_mode) == 0o600
        assert stat.S_IMODE(home.run_path.stat().st_mode) == 0o600
        info = read_run_info(home)
        assert info is not None
        assert (info.pid, info.socket, info.listening) == (os.getpid(), str(home.socket_path), "ws://127.0.0.1:1")
    assert list(home.path.iterdir()) == []
    assert await connect_control_socket(home) is None


async def test_a_path_too_long_for_a_socket_goes_to_a_private_folder(tmp_path: Path) -> None:
    async with running(tmp_path / ("long" * 40)) as (home, _):
        info = read_run_info(home)
        assert info is not None
        folder = Path(info.socket).parent
        assert folder != home.path
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert await ask(home, "echo") == {}
    assert not folder.exists()


async def test_l2_stale_run_file_and_socket_count_as_not_running(tmp_path: Path) -> None:
    """L2: wrong socket / stale pid file: as if none ran; the next device replaces both."""
    path = tmp_path / "home"
    make_folder(path)
    home = HomeFolder(path)
    for content in (
        b"",
        b"{",
        b"[]",
        b'{"pid": "x"}',
        json.dumps({"pid": 1, "socket": str(path), "listening": ""}).encode(),
    ):
        home.run_path.write_bytes(content)
        assert await connect_control_socket(home) is None
    home.socket_path.write_bytes(b"not a socket")
    stale = {"pid": 999_999_999, "socket": str(home.socket_path), "listening": ""}
    home.run_path.write_text(json.dumps(stale))
    assert await connect_control_socket(home) is None
    async with running(path) as (home, _):
        assert await ask(home, "echo") == {}
