"""What commands print: consoles, tables, JSON and CSV, and the escaping that keeps other people's text harmless.

Every text that may come from a peer or a file (names, cells, reasons) passes `escape` before it reaches a terminal:
control characters, including the C1 range and the marks that reverse the direction of writing, become `\\x1b`-like
escapes. Output that is meant for programs (JSON, CSV into a pipe) carries the values themselves.
"""

import csv
import io
import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

TABLE_ROWS_MAX = 1000
"""Rows of a result that a person is shown; more belong into --csv or --json."""
_WIDE = 100_000
"""Width of a table that goes into a file or pipe: lines are never folded there."""

_HARMFUL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
_JSON_HARMFUL = re.compile("[\x7f-\x9f\u2028\u2029]")


def escape(text: str) -> str:
    """The text with all characters that could move a cursor, hide or reorder text made visible."""
    return _HARMFUL.sub(lambda match: _visible(match.group()), text)


def _visible(character: str) -> str:
    code = ord(character)
    known = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return known.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


class _Console(Console):
    """A console that leaves a closed pipe to `main`, which ends quietly."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def console(stream: TextIO | None = None) -> Console:
    """A console for standard output (or another stream), which never interprets markup in what it prints."""
    stream = stream or sys.stdout
    width = None if stream.isatty() else _WIDE
    return _Console(file=stream, width=width, markup=False, highlight=False, emoji=False, soft_wrap=not stream.isatty())


def prepare_streams() -> None:
    """A stream that cannot encode a character writes an escape instead of failing (a C or ASCII locale)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def abandon_stdout() -> None:
    """After the reader of a pipe has gone: let the interpreter flush into nothing instead of complaining."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)


def say(text: str) -> None:
    """One line to standard output, at once, so that whoever reads a pipe sees it when it happens."""
    sys.stdout.write(escape(text) + "\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    """One line to standard error."""
    sys.stderr.write(escape(text) + "\n")
    sys.stderr.flush()


def show_cell(value: Any) -> str:
    """A value for a person. NULL and an empty text look different."""
    match value:
        case None:
            return "NULL"
        case bytes():
            return f"x'{value.hex()}'"
        case float():
            return repr(value)
        case _:
            return escape(str(value))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, to: Console | None = None) -> None:
    """An aligned table; numbers to the right."""
    to = to or console()
    rows = list(rows)
    table = Table(box=None if not to.is_terminal else box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for position, name in enumerate(columns):
        numeric = all(isinstance(row[position], int | float | None) for row in rows) and bool(rows)
        table.add_column(Text(escape(name)), justify="right" if numeric else "left", overflow="fold")
    for row in rows[:TABLE_ROWS_MAX]:
        table.add_row(*(Text(show_cell(value), style="dim" if value is None else "") for value in row))
    with to.capture() as printed:
        to.print(table)
    to.file.writelines(line.rstrip() + "\n" for line in printed.get().splitlines())
    to.file.flush()
    if len(rows) > TABLE_ROWS_MAX:
        complain(f"… {len(rows) - TABLE_ROWS_MAX:,} more rows: --csv or --json prints all")


def to_json(value: Any, *, indent: int | None = None) -> str:
    """JSON in which bytes are hexadecimal text; harmless on a terminal too."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, default=_bytes_to_json)
    return _JSON_HARMFUL.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def _bytes_to_json(value: object) -> str:
    if isinstance(value, bytes):
        return value.hex()
    raise TypeError(f"{type(value).__name__} is not JSON")


def print_json_rows(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """An array of objects, one row a line."""
    write = sys.stdout.write
    write("[")
    for count, row in enumerate(rows):
        write(",\n " if count else "\n ")
        write(to_json(dict(zip(columns, row, strict=True))))
    write("\n]\n")


def print_csv_rows(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """RFC 4180. NULL is an empty field, bytes are hexadecimal. On a terminal, cells are escaped."""
    shown = escape if sys.stdout.isatty() else str
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([shown(name) for name in columns])
    for row in rows:
        writer.writerow([value.hex() if isinstance(value, bytes) else _csv_cell(value, shown) for value in row])


def _csv_cell(value: Any, shown: Any) -> Any:
    return shown(value) if isinstance(value, str) else value


def short_bytes(count: float) -> str:
    """1536 → 1.5 KiB."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
