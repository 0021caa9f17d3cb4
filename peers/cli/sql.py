"""`peers sql GROUP "…"`: one statement, its rows as a table, JSON or CSV."""

from pathlib import Path
from typing import Any

import click

from peers.cli.output import complain, print_csv_rows, print_json_rows, print_table, say, to_json
from peers.cli.run import run_command


@click.command()
@click.argument("group")
@click.argument("statement", metavar="SQL")
@click.option("--json", "style", flag_value="json", help="Rows as a JSON array of objects.")
@click.option("--csv", "style", flag_value="csv", help="Rows as CSV with a header.")
@click.pass_obj
def sql(home: Path, group: str, statement: str, style: str | None) -> None:
    """Run one SQL statement in GROUP. Changes are signed, durable, and travel to the group's other devices."""
    columns: list[str] = []
    rows: list[list[Any]] = []

    async def collect(part: dict[str, Any]) -> None:
        columns.extend(part.get("columns", ()))
        rows.extend(part.get("rows", ()))

    result = run_command(home, "sql", {"group": group, "sql": statement}, collect)
    if "rows_changed" in result:
        changed = result["rows_changed"]
        say(to_json(result) if style == "json" else f"{changed:,} row{'' if changed == 1 else 's'} changed")
    elif style == "json":
        print_json_rows(columns, rows)
    elif style == "csv":
        print_csv_rows(columns, rows)
    elif columns:
        print_table(columns, rows)
        complain(f"({len(rows):,} row{'' if len(rows) == 1 else 's'})")
