"""`peers status`: who this device is, whom it is connected to, and how its groups stand."""

from pathlib import Path
from typing import Any

import click

from peers.cli.control_socket import read_run_info
from peers.cli.output import print_table, say, short_bytes, to_json
from peers.cli.run import run_command
from peers.home import HomeFolder


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_obj
def status(home: Path, as_json: bool) -> None:
    """Show this device, its connections and its groups."""
    found = run_command(home, "status", {})
    if as_json:
        say(to_json(found, indent=2))
        return
    _show_device(found, HomeFolder(home))
    _show_connections(found)
    _show_groups(found)


def _show_device(found: dict[str, Any], home: HomeFolder) -> None:
    info = read_run_info(home)
    say(f"device  {found['name']!r} {found['device']}")
    say(f"user    {found['user']}")
    say(f"home    {found['home']}")
    say(
        f"running {f'yes, process {info.pid}, listening on {info.listening}' if info else 'no: start it with peers up'}"
    )


def _show_connections(found: dict[str, Any]) -> None:
    say("")
    if not found["connections"]:
        say("no connections")
    else:
        columns = ("connected to", "device", "address", "in", "out", "groups")
        rows = [
            (c["name"], c["device"][:8], ("→ " if c["dialled"] else "← ") + c["remote"], short_bytes(c["bytes_in"]),
             short_bytes(c["bytes_out"]), len(c["groups"]))
            for c in found["connections"]
        ]  # fmt: skip
        print_table(columns, rows)
    for address in found["addresses"]:
        say(f"dials {address}")
    for group in found["invited"]:
        say(f"you were added to the group {group}: accept with `peers group join {group}`")


def _show_groups(found: dict[str, Any]) -> None:
    say("")
    if not found["groups"]:
        say("no groups yet: peers group create NAME, or peers group join ID")
        return
    columns = ("group", "id", "role", "members", "rows", "conflicts", "parked", "held", "refused")
    rows = []
    for group in found["groups"]:
        role = group["role"] or "waiting"
        rows_held = sum(group.get("rows", {}).values())
        counts = [group.get(name, 0) for name in columns[5:]]
        rows.append((group["name"], group["id"][:8], role, group.get("members", 0), rows_held, *counts))
    print_table(columns, rows)
