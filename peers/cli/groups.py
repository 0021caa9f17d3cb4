"""`peers group …`: create, list, members, grant, join."""

from pathlib import Path

import click

from peers.cli.output import print_table, say, to_json
from peers.cli.run import run_command
from peers.model.membership import Role

_ROLES = [role.name.lower() for role in sorted(Role) if role is not Role.OWNER]


@click.group()
def group() -> None:
    """Groups: who shares what. A group is named by its name or by the beginning of its id."""


@group.command()
@click.argument("name")
@click.option(
    "--schema",
    type=click.Choice(["admins", "writers"]),
    default="admins",
    show_default=True,
    help="Who may declare tables and columns.",
)
@click.pass_obj
def create(home: Path, name: str, schema: str) -> None:
    """Create a group NAME, which this user owns."""
    made = run_command(home, "create_group", {"name": name, "schema": schema})
    say(f"created group {made['name']}")
    say(f"id      {made['id']}")
    say(f"Others join with: peers group join {made['id']}")


@group.command("list")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_obj
def list_groups(home: Path, as_json: bool) -> None:
    """List the groups that this user wants or is in."""
    found = run_command(home, "groups", {})
    if as_json:
        say(to_json(found))
    elif not found:
        say("no groups yet: peers group create NAME, or peers group join ID")
    else:
        rows = [(g["name"], g["role"] or "waiting", g["members"], g["id"]) for g in found]
        print_table(("name", "role", "members", "id"), rows)


@group.command()
@click.argument("group")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_obj
def members(home: Path, group: str, as_json: bool) -> None:
    """List who is in GROUP, and in which role."""
    found = run_command(home, "members", {"group": group})
    if as_json:
        say(to_json(found))
    else:
        print_table(("role", "user", ""), [(m["role"], m["user"], "you" if m["self"] else "") for m in found])


@group.command()
@click.argument("group")
@click.argument("user")
@click.argument("role", type=click.Choice(_ROLES), default="writer")
@click.pass_obj
def grant(home: Path, group: str, user: str, role: str) -> None:
    """Give USER (an id, as `peers id` prints it) a ROLE in GROUP."""
    given = run_command(home, "grant", {"group": group, "user": user, "role": role})
    say(f"granted {given['role']} in {given['group']} to {given['user']}")


@group.command()
@click.argument("group_id")
@click.pass_obj
def join(home: Path, group_id: str) -> None:
    """Ask for the group GROUP_ID: it arrives once an admin of it grants this user and a member is reachable."""
    joined = run_command(home, "join", {"group": group_id})
    if not joined["pending"]:
        say(f"this device has the group {joined['id']}")
        return
    say(f"waiting for the group {joined['id']}")
    if joined["granted"]:
        say("You are granted already, says a member that is connected: it comes by itself.")
        return
    say("It comes when a member is connected. If nobody has granted you yet, an admin or the owner must:")
    say(f"  peers group grant {joined['id'][:8]} {joined['user']} writer")
