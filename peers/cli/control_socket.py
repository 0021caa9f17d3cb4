"""The local socket on which a running device answers commands, and the client that asks it.

A stream socket in the home folder, readable by its owner only. Frames are a 4-byte big-endian length and strict CBOR.
The client sends `[command, arguments]`; the server answers `["progress", value]` any number of times, then
`["result", value]` or `["error", code, message, exit code]`. A client that goes away cancels its command.

`run.json` beside it tells where the socket is: its path may be too long for a socket address (then the socket lies in
a private temporary folder). The file may be stale, after a `kill -9`; a socket that nobody answers counts as none.
"""

import json
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from peers.config import MIB
from peers.errors import ConnectionLost, HomeError, PeersError, UsageError
from peers.home import HomeFolder
from peers.model import codec

Progress = Callable[[Any], Awaitable[None]]
"""Tells the asking side about work in progress."""
Handler = Callable[[dict[str, Any], Progress], Awaitable[Any]]
"""One command: arguments in, a plain value out."""

FRAME_BYTES_MAX = 64 * MIB
"""A page of rows of a result, each of up to 500 cells of 256 KiB, stays below it in any sane use."""
SOCKET_PATH_BYTES_MAX = 100
"""`sockaddr_un` has room for 107 on Linux and 103 elsewhere."""


@dataclass(frozen=True)
class RunInfo:
    """What a running device tells other programs: the contents of run.json."""

    pid: int
    socket: str
    listening: str


def read_run_info(home: HomeFolder) -> RunInfo | None:
    """What run.json says, or None where there is none that can be read."""
    try:
        value = json.loads(home.run_path.read_bytes())
        return RunInfo(int(value["pid"]), str(value["socket"]), str(value["listening"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


# --- the running device ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def open_control_socket(
    home: HomeFolder, handlers: Mapping[str, Handler], *, listening: str
) -> AsyncIterator[Path]:
    """Answer commands while the block runs. The caller holds the home's lock, so what lies there is stale."""
    path, made_folder = _socket_path(home)
    try:
        listener = _listen(path)
        info = {"pid": os.getpid(), "socket": str(path), "listening": listening}
        _write_private(home.run_path, json.dumps(info).encode() + b"\n")
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, lambda stream: _serve(stream, handlers), [listener])
            yield path
            nursery.cancel_scope.cancel()
    finally:
        home.run_path.unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        if made_folder is not None:
            shutil.rmtree(made_folder, ignore_errors=True)


def _socket_path(home: HomeFolder) -> tuple[Path, Path | None]:
    if len(os.fsencode(home.socket_path)) <= SOCKET_PATH_BYTES_MAX:
        return home.socket_path, None
    folder = Path(tempfile.mkdtemp(prefix="peers-"))
    return folder / "socket", folder


def _listen(path: Path) -> trio.SocketListener:
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        sock.bind(str(path))
        sock.listen(16)
    except OSError as error:
        sock.close()
        raise HomeError(f"{path}: the control socket cannot be made: {error.strerror}", code="home_socket") from error
    finally:
        os.umask(mask)
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock))


def _write_private(path: Path, data: bytes) -> None:
    """Replace a file in one step, readable by its owner only."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with open(descriptor, "wb") as file:
        file.write(data)
    new.replace(path)


async def _serve(stream: trio.SocketStream, handlers: Mapping[str, Handler]) -> None:
    """One client. Whatever it sends or does ends at most its own connection."""
    try:
        async with stream:
            request = await _receive_frame(stream)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_when_gone, stream, nursery.cancel_scope)
                await _answer(stream, handlers, request)
                nursery.cancel_scope.cancel()
    except* (ConnectionLost, codec.BadEncoding, trio.BrokenResourceError, trio.ClosedResourceError):
        pass


async def _cancel_when_gone(stream: trio.SocketStream, scope: trio.CancelScope) -> None:
    try:
        while await stream.receive_some(1024):
            pass
    finally:
        scope.cancel()


async def _answer(stream: trio.SocketStream, handlers: Mapping[str, Handler], request: Any) -> None:
    async def progress(value: Any) -> None:
        await stream.send_all(_frame(["progress", value]))

    try:
        match request:
            case [str(command), dict(arguments)] if command in handlers:
                answer = _frame(["result", await handlers[command](arguments, progress)])
            case [str(command), _]:
                raise UsageError(f"the running device knows no command {command}: is it of another version?")
            case _:
                raise UsageError("a request is [command, arguments]")
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        raise
    except PeersError as error:
        answer = _frame(["error", error.code, str(error), error.exit_code])
    except Exception as error:  # noqa: BLE001 - the edge: a bug in one command must not end the device
        answer = _frame(["error", "internal", f"{type(error).__name__}: {error}", 70])
    await stream.send_all(answer)


# --- the client ------------------------------------------------------------------------------------------------------


class CommandFailed(PeersError):
    """The running device answered with an error, which names its own exit code."""

    def __init__(self, code: str, message: str, answered_exit_code: int) -> None:
        super().__init__(message, code=code)
        self.answered_exit_code = answered_exit_code


async def _no_progress(_: Any) -> None:
    pass


async def connect_control_socket(home: HomeFolder) -> trio.SocketStream | None:
    """A stream to the running device, or None where none answers."""
    info = read_run_info(home)
    if info is None:
        return None
    try:
        return await trio.open_unix_socket(info.socket)
    except (OSError, ValueError, RuntimeError):
        return None


async def ask_device(
    stream: trio.SocketStream, command: str, arguments: dict[str, Any], progress: Progress = _no_progress
) -> Any:
    """Send one command over a new stream and return its result.

    Raises:
        CommandFailed: the device's own error, with its code.
        ConnectionLost: the device stopped before it answered.
    """
    async with stream:
        try:
            await stream.send_all(_frame([command, arguments]))
            while True:
                match await _receive_frame(stream):
                    case ["progress", value]:
                        await progress(value)
                    case ["result", value]:
                        return value
                    case ["error", str(code), str(message), int(exit_code)]:
                        raise CommandFailed(code, message, exit_code)
                    case _:
                        raise codec.BadEncoding("not an answer")
        except (trio.BrokenResourceError, codec.BadEncoding) as error:
            raise ConnectionLost("the running device stopped before it answered: look at its own output") from error


# --- frames ----------------------------------------------------------------------------------------------------------


def _frame(value: Any) -> bytes:
    data = codec.dumps(value)
    if len(data) > FRAME_BYTES_MAX:
        raise UsageError(f"a message is larger than {FRAME_BYTES_MAX // MIB} MiB: ask for less, with LIMIT or WHERE")
    return len(data).to_bytes(4) + data


async def _receive_frame(stream: trio.SocketStream) -> Any:
    size = int.from_bytes(await _receive_exactly(stream, 4))
    if size > FRAME_BYTES_MAX:
        raise codec.BadEncoding("a frame beyond the limit")
    return codec.loads(await _receive_exactly(stream, size))


async def _receive_exactly(stream: trio.SocketStream, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        part = await stream.receive_some(count - len(data))
        if not part:
            raise ConnectionLost("the device stopped before it answered")
        data += part
    return bytes(data)
