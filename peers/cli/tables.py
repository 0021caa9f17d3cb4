"""`peers table create`: declare a table by plain SQL."""

from pathlib import Path

import click

from peers.cli.output import say
from peers.cli.run import run_command


@click.group()
def table() -> None:
    """Tables of a group."""


@table.command()
@click.argument("group")
@click.argument("statement", metavar="SQL")
@click.option("--owned", is_flag=True, help="Only a row's creator or an admin may delete it.")
@click.pass_obj
def create(home: Path, group: str, statement: str, owned: bool) -> None:
    """Declare a table in GROUP: "CREATE TABLE notes(text TEXT, stars INTEGER DEFAULT 0)".

    Without a primary key rows get ids that are unique everywhere.
    """
    made = run_command(home, "create_table", {"group": group, "sql": statement, "owned": owned})
    say(f"table {made['table']} in {made['group']}")
