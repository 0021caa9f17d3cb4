"""`peers connect ADDRESS`: tell the running device to keep a connection to another one."""

from pathlib import Path

import click

from peers.cli.output import complain, say
from peers.cli.run import run_command
from peers.errors import WireFault


@click.command()
@click.argument("address")
@click.option("--forget", is_flag=True, help="Stop dialling ADDRESS instead.")
@click.pass_obj
def connect(home: Path, address: str, forget: bool) -> None:
    """Connect to another device at ADDRESS (HOST[:PORT]) and keep connected, also after a restart."""
    if forget:
        done = run_command(home, "forget", {"address": address})
        say(f"forgot {address}" if done["known"] else f"{address} was not remembered")
        return
    done = run_command(home, "connect", {"address": address})
    say(f"remembered {done['address']}")
    if done["verified"]:
        say(f"connected to {done['name']!r}")
    elif done["why"].startswith(WireFault.SELF_CONNECTION.value):
        complain(f"{done['address']} is this device itself: it dials it no more")
    else:
        complain(f"not connected yet ({done['why']}): the device goes on trying")
