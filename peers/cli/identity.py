"""`peers init` and `peers id`: make the user and his first device; say who this is."""

import platform
from pathlib import Path
from typing import Any

import click

from peers.cli.output import say, to_json
from peers.cli.run import run_command
from peers.clocks import random_bytes, wall_clock_ms
from peers.home import create_home
from peers.model.trust import shown_name


@click.command()
@click.option("--name", help="The device's name, as others will see it.  [default: the computer's name]")
@click.pass_obj
def init(home: Path, name: str | None) -> None:
    """Make a user and this first device. Prints the 24 words of the root key, once."""
    chosen = name if name is not None else shown_name(platform.node()) or "device"
    made, words = create_home(home, name=chosen, random_bytes=random_bytes, now_ms=wall_clock_ms)
    with made:
        say(f"Made the device {made.name!r} in {made.path}")
        say(f"user    {made.user.hex()}")
        say(f"device  {made.device.hex()}")
    say("")
    say("These 24 words are your root key. Write them down now: they are shown this once and kept nowhere.")
    say("")
    for start in range(0, len(words), 6):
        say("  " + " ".join(f"{number + 1:2} {words[number]:9}" for number in range(start, start + 6)).rstrip())


@click.command("id")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_obj
def show_id(home: Path, as_json: bool) -> None:
    """Print this user's and this device's id."""
    who: dict[str, Any] = run_command(home, "id", {})
    if as_json:
        say(to_json(who))
        return
    say(f"user    {who['user']}")
    say(f"device  {who['device']}")
    say(f"name    {who['name']}")
