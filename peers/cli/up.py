"""`peers up`: run this device: listen, keep its connections, answer commands, and say what happens."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click
import trio

from peers.cli.commands import handlers, parse_id
from peers.cli.control_socket import Progress, open_control_socket
from peers.cli.output import complain, say
from peers.cli.run import Interrupted, run_until_signal
from peers.config import NetConfig
from peers.device import Device, open_device
from peers.errors import UsageError
from peers.home import HomeFolder
from peers.sync.connection_events import ConnectionEvent, ConnectionEventKind, EventStream
from peers.testing.byzantine import withhold_one_entry

DEFAULT_LISTEN = f"0.0.0.0:{NetConfig().port}"


@click.command()
@click.option(
    "--listen",
    default=DEFAULT_LISTEN,
    show_default=True,
    metavar="HOST:PORT",
    help="Where others connect to; port 0 is any free one.",
)
@click.option("--until-stdin-closes", is_flag=True, hidden=True, help="Stop when standard input ends (for the demo).")
@click.option("--withhold-from", metavar="DEVICE", hidden=True, help="Allow the demo to break the exchange on purpose.")
@click.pass_obj
def up(home: Path, listen: str, until_stdin_closes: bool, withhold_from: str | None) -> None:
    """Run this device until Ctrl-C. Other commands in other terminals work on it while it runs."""
    victim = None if withhold_from is None else parse_id(withhold_from, "device")
    try:
        run_until_signal(_run, home, listen, until_stdin_closes, victim)
    except Interrupted:
        say("stopped")


async def _run(home: Path, listen: str, until_stdin_closes: bool, victim: bytes | None) -> None:
    async with open_device(home) as device:
        with device.events() as events:
            address = await _listen(device, listen)
            commands = handlers(device)
            if victim is not None:
                commands["withhold"] = partial(_withhold, device, victim)
            async with open_control_socket(HomeFolder(home), commands, listening=address):
                say(f"device {device.name!r} {device.device_id.hex()[:8]} is up")
                say(f"listening on {address}")
                with _logging():
                    await _tell(events, until_stdin_closes)


async def _listen(device: Device, address: str) -> str:
    try:
        return await device.listen(address)
    except UsageError as error:
        hint = "choose another with --listen HOST:PORT; port 0 is any free one"
        raise UsageError(f"{error}: {hint}", code=error.code) from error


class _Lines(logging.Handler):
    """What goes wrong beside any command, such as an actor that is started anew: one line each."""

    def emit(self, record: logging.LogRecord) -> None:
        complain(f"peers: {record.levelname.lower()}: {record.getMessage()}")


@contextmanager
def _logging() -> Iterator[None]:
    log = logging.getLogger("peers")
    handler = _Lines(logging.WARNING)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


async def _tell(events: EventStream, until_stdin_closes: bool) -> None:
    async with trio.open_nursery() as nursery:
        if until_stdin_closes:
            nursery.start_soon(_stop_with_stdin, nursery.cancel_scope)
        async for event in events:
            say(describe(event))


async def _stop_with_stdin(scope: trio.CancelScope) -> None:
    """A pipe that its writer holds open as long as it lives: no device is left behind, however the writer ends."""
    async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as stream:
        while await stream.receive_some(1024):
            pass
    scope.cancel()


async def _withhold(device: Device, victim: bytes, args: dict[str, Any], progress: Progress) -> None:
    """For `peers demo --break`: the group named keeps one entry from the victim from now on."""
    withhold_one_entry(device.group(args["group"])._context.replica, victim)


def describe(event: ConnectionEvent) -> str:
    """One line for one event."""
    way = "to" if event.dialled else "from"
    who = f"{event.name!r} {event.device.hex()[:8]} " if event.device else ""
    match event.kind:
        case ConnectionEventKind.CONNECTING:
            return f"connecting {way} {event.remote}"
        case ConnectionEventKind.VERIFIED:
            return f"verified {who}{way} {event.remote}"
        case ConnectionEventKind.CLOSED:
            return f"closed {who}{way} {event.remote}: {event.why}"
