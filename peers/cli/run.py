"""Runs a command where it belongs: in the device that runs, else on a device opened from the files.

Also the one place where signals are caught: the first Ctrl-C or SIGTERM cancels what runs, so that everything closes
in order; the second ends the process at once with 130.
"""

import os
import shlex
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import trio

from peers.cli.commands import COMMANDS, NEEDS_RUNNING
from peers.cli.control_socket import Progress, ask_device, connect_control_socket
from peers.device import open_device
from peers.errors import AlreadyRunning, NotRunning, PeersError
from peers.home import HomeFolder

T = TypeVar("T")

BUSY_WAIT_SECONDS = 5.0
"""How long a command waits for another short one that has the home open: as long as for a locked database."""
_BUSY_RETRY_SECONDS = 0.05


class Interrupted(PeersError):
    """Ctrl-C or SIGTERM ended the command in order."""

    code = "interrupted"
    exit_code = 130


async def _silent(_: Any) -> None:
    pass


def run_command(home: Path, command: str, args: dict[str, Any], progress: Progress = _silent) -> Any:
    """The result of one of `COMMANDS`, from whichever device can give it. Raises PeersError."""
    return run_until_signal(perform, home, command, args, progress)


async def perform(home: Path, command: str, args: dict[str, Any], progress: Progress = _silent) -> Any:
    """As `run_command`, inside trio."""
    folder = HomeFolder(home)
    deadline = trio.current_time() + BUSY_WAIT_SECONDS
    while True:
        stream = await connect_control_socket(folder)
        if stream is not None:
            return await ask_device(stream, command, args, progress)
        if command in NEEDS_RUNNING and folder.has_keys():
            start = f"peers --home {shlex.quote(str(folder.path))} up"
            raise NotRunning(f"no device runs at {folder.path}: start it with `{start}`, then repeat this")
        try:
            async with open_device(folder.path) as device:
                return await COMMANDS[command](device, args, progress)
        except AlreadyRunning:
            if trio.current_time() > deadline:
                raise
        await trio.sleep(_BUSY_RETRY_SECONDS)


def run_until_signal(function: Callable[..., Awaitable[T]], *args: Any) -> T:
    """`trio.run(function, *args)`. Raises Interrupted after a first signal, when all is closed."""
    outcome: list[T] = []

    async def main() -> None:
        with trio.CancelScope() as scope, _signals(scope):
            outcome.append(await function(*args))

    trio.run(main, strict_exception_groups=True)
    if not outcome:
        raise Interrupted("stopped")
    return outcome[0]


@contextmanager
def _signals(scope: trio.CancelScope) -> Iterator[None]:
    token = trio.lowlevel.current_trio_token()
    seen = 0

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal seen
        seen += 1
        if seen > 1:
            os._exit(130)
        token.run_sync_soon(scope.cancel)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
