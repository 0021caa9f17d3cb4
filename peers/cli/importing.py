"""`peers import GROUP TABLE FILE.csv`: a CSV file into a table, with a progress bar and the bad lines named."""

import sys
from pathlib import Path
from typing import Any

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from peers.cli.output import complain, console, say
from peers.cli.run import run_command

BAD_LINES_SHOWN = 20
"""Bad lines that are printed one by one; the rest is counted."""


@click.command("import")
@click.argument("group")
@click.argument("table")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, readable=True, path_type=Path))
@click.option(
    "--null", "nulls", multiple=True, metavar="TEXT", help="Cells that equal TEXT are NULL, as empty ones are."
)
@click.option("--key", metavar="COL[,COL]", help="The columns that identify a row.  [default: rows get ids]")
@click.option("--delimiter", default=",", show_default=True, help="What separates the cells.")
@click.option("--again", is_flag=True, help="Import from the first line even if this file was imported before.")
@click.pass_obj
def import_csv(
    home: Path, group: str, table: str, file: Path, nulls: tuple[str, ...], key: str | None, delimiter: str, again: bool
) -> None:
    """Import FILE (CSV with a header, UTF-8) into TABLE of GROUP, which is declared if it does not exist.

    Column types come from the whole file. Lines that do not fit are named and left out; the rest is imported. After
    an interruption the same command continues where it stopped.
    """
    names = [name.strip() for name in key.split(",")] if key else []
    arguments: dict[str, Any] = {
        "group": group, "table": table, "file": str(file.absolute()), "nulls": list(nulls), "key": names,
        "delimiter": delimiter, "again": again,
    }  # fmt: skip
    with ImportProgress() as shown:
        done = run_command(home, "import", arguments, shown.show)
    if shown.bad > BAD_LINES_SHOWN:
        complain(f"… and {done['bad'] - BAD_LINES_SHOWN:,} more bad lines")
    if done["continued_at"] and not done["rows"] and not done["bad"]:
        say(f"{file} is already in {done['table']}: nothing to do (--again imports it once more)")
        return
    if done["continued_at"]:
        say(f"continued at line {done['continued_at']:,}")
    if done["created"]:
        say(f"table {done['table']}: " + ", ".join(f"{name} {kind}" for name, kind in done["columns"]))
    rate = done["rows"] / done["seconds"] if done["seconds"] > 0 else 0
    say(f"{done['rows']:,} rows imported ({rate:,.0f} a second), {done['bad']:,} bad lines left out")


class ImportProgress:
    """A progress bar on standard error while it is a terminal, and the bad lines as they are found."""

    def __init__(self) -> None:
        self.bad = 0
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
        rows = (TextColumn("{task.fields[rows]:,} rows"), TimeElapsedColumn())
        to = console(sys.stderr)
        self._bar = Progress(*columns, *rows, console=to, disable=not to.is_terminal, transient=True)
        self._task = self._bar.add_task("reading", total=None, rows=0)

    def __enter__(self) -> "ImportProgress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    async def show(self, part: dict[str, Any]) -> None:
        if "bad" in part:
            self.bad += 1
            if self.bad <= BAD_LINES_SHOWN:
                number, reason = part["bad"]
                complain(f"line {number}: {reason}")
            return
        label = "reading types" if part["phase"] == "types" else "importing"
        self._bar.update(
            self._task, description=label, completed=part["bytes"], total=part["of_bytes"] or 1, rows=part["rows"]
        )
