"""`peers demo`: three devices on this machine share a CSV file, part, edit apart, meet again, and are equal.

The sample that ships with the program (data/trades.csv) is made by bench/make_trades.py. What is done is in
`demo_story`; the devices are real processes on real sockets (`demo_device`). This file prepares the folder, shows the
outcome and judges it.
"""

import os
import shlex
import sys
import tempfile
from importlib import resources
from pathlib import Path

import click
import trio

from peers.cli.demo_device import DemoDevice, DemoFailed
from peers.cli.demo_story import Outcome, Story
from peers.cli.output import complain, print_table, say, show_cell
from peers.cli.run import run_until_signal

SAMPLE = "data/trades.csv"


@click.command()
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, readable=True, path_type=Path))
@click.option("--null", metavar="TEXT", help="Cells that equal TEXT are NULL, as empty ones are.")
@click.option("--break", "broken", is_flag=True, help="Keep one entry from the third device: the demo must notice.")
def demo(file: Path | None, null: str | None, broken: bool) -> int:
    """Show three devices converging, with FILE (a CSV) or with sample trades. Exit code 0 only if they are equal."""
    with resources.as_file(resources.files("peers.cli").joinpath(SAMPLE)) as sample:
        csv = (file or sample).absolute()
        folder = _new_folder()
        say(f"Three devices, each a process of its own with a home in {folder}")
        try:
            outcome = run_until_signal(_play, folder, csv, null, broken)
        finally:
            _say_where(folder)
    _show(outcome)
    problems = outcome.problems()
    for problem in problems:
        complain(f"peers: demo_failed: {problem}")
    if not problems:
        say("Equal on all three devices.")
    return 1 if problems else 0


def _new_folder() -> Path:
    """Beside the user where that can be written, else in the temporary folder; it stays."""
    here = Path.cwd()
    return Path(tempfile.mkdtemp(prefix="peers-demo-", dir=here if os.access(here, os.W_OK) else None))


async def _play(folder: Path, csv: Path, null: str | None, broken: bool) -> Outcome:
    devices: list[DemoDevice] = []
    try:
        async with trio.open_nursery() as nursery:
            devices += [DemoDevice(name, folder) for name in "ABC"]
            outcome = await Story(*devices, csv=csv, null=null, broken=broken).play(nursery)
            await _stop(devices)
            return outcome
    finally:
        await _stop(devices)


async def _stop(devices: list[DemoDevice]) -> None:
    with trio.CancelScope(shield=True):
        async with trio.open_nursery() as nursery:
            for device in devices:
                nursery.start_soon(device.stop)


def _say_where(folder: Path) -> None:
    shown = Path(os.path.relpath(folder)) if folder.is_relative_to(Path.cwd()) else folder
    program = "peers" if Path(sys.argv[0]).name == "peers" else f"{shlex.quote(sys.executable)} -m peers"
    say("")
    say(f"The devices' homes stay in {folder}. Look inside:")
    say(f'  {program} --home {shlex.quote(str(shown / "B"))} sql demo "SELECT * FROM trades LIMIT 5"')


def _show(outcome: Outcome) -> None:
    say("")
    say(f"import on A       {outcome.import_rate:>12,.0f} rows a second")
    say(f"A → B → C         {outcome.sync_rate:>12,.0f} rows a second, {outcome.wire_bytes_a_row:.1f} bytes a row")
    for conflict in outcome.conflicts:
        values = ", ".join(show_cell(value) for value in conflict.values)
        say(f"conflict          column {conflict.column}: {values}; shown: {show_cell(conflict.shown)}")
    say("")
    rows = [(d.name, d.rows, d.conflicts, d.state_hash[:16], ", ".join(d.met)) for d in outcome.devices]
    print_table(("device", "rows", "conflicts", "state hash", "ever connected to"), rows)
    say("")


__all__ = ["DemoFailed", "demo"]
