"""What the columns of a CSV file are: names, types and values. Pure: cells in, columns and values out.

A column is INTEGER if every cell that is not NULL is a 64-bit integer as Python prints it (no leading zeros, no plus,
so that `007` and `+1` stay what they are); REAL if every such cell is a finite decimal number, none of which would
lose digits of its integer part; else TEXT. Empty cells, and cells that equal the given null text, are NULL.

May assume that rows have the number of fields of the header. Does no I/O; the caller streams the file twice, once
through `TypeInference`, once through `convert_rows`, so memory is bounded by a batch of rows.
"""

import math
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from peers.config import COLUMNS_MAX, NAME_CHARS_MAX
from peers.errors import BadValue, SchemaRefused, UsageError
from peers.model.schema import (
    DEFAULT_ID_NAME,
    INT64_MAX,
    INT64_MIN,
    Column,
    ColumnType,
    Value,
    check_name,
    check_values,
    normalize_values,
)

_INTEGER = r"(?:0|-?[1-9][0-9]*)"
_DECIMAL = r"-?(?:0|[1-9][0-9]*)?(?:(?<=[0-9])|(?=\.[0-9]))(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?"
_INTEGER_CELL = re.compile(_INTEGER)
_DECIMAL_CELL = re.compile(_DECIMAL)
_SHORT_INTEGERS = re.compile(r"(?:(?:0|-?[1-9][0-9]{0,17})\n)*")
"""Up to 18 digits need no comparison with the bounds of int64; a newline cannot be part of such a cell."""
_EXACT_IN_REAL = 1 << 53
"""Integers up to here are exact as a float."""


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is not imported. `number` counts from 1, the header included, as an editor shows it."""

    number: int
    reason: str


def column_names(header: Sequence[str], *, default_id: bool) -> list[str]:
    """Valid and distinct column names for a header, changed as little as possible.

    Where the table gets a default id, a column of the file named `id` becomes `source_id`.

    Raises:
        UsageError: the header has more columns than a table may have.
    """
    if len(header) > COLUMNS_MAX - default_id:
        raise UsageError(f"the file has {len(header)} columns; a table has at most {COLUMNS_MAX}")
    taken = {DEFAULT_ID_NAME} if default_id else set[str]()
    names = []
    for position, text in enumerate(header, start=1):
        name = _valid_name(text, position)
        if default_id and name.lower() == DEFAULT_ID_NAME:
            name = f"source_{name}"
        name = _distinct_name(name, taken)
        taken.add(name.lower())
        names.append(name)
    return names


def _valid_name(text: str, position: int) -> str:
    name = re.sub(r"[^A-Za-z0-9_]+", "_", text.strip()).strip("_" if not text.strip().startswith("_") else "")
    if not name.strip("_"):
        return f"column_{position}"
    if name[0].isdigit():
        name = f"c_{name}"
    name = name[:NAME_CHARS_MAX]
    try:
        check_name(name, "column")
        check_name(f"{name}_"[:NAME_CHARS_MAX], "column")  # what `_distinct_name` may begin with
    except SchemaRefused:
        name = f"c_{name.lstrip('_')}"[:NAME_CHARS_MAX]
    return name


def _distinct_name(name: str, taken: Collection[str]) -> str:
    candidate, count = name, 1
    while candidate.lower() in taken:
        count += 1
        suffix = f"_{count}"
        candidate = name[: NAME_CHARS_MAX - len(suffix)] + suffix
    return candidate


class TypeInference:
    """Narrows the type of each column while batches of rows pass: INTEGER, then REAL, then TEXT."""

    def __init__(self, columns: int, nulls: frozenset[str]) -> None:
        self._nulls = nulls
        self._types = [ColumnType.INTEGER] * columns
        self._seen = [False] * columns
        self._exact = [True] * columns
        self._real = [True] * columns

    def add(self, rows: Sequence[Sequence[str]]) -> None:
        for position, cells in enumerate(zip(*rows, strict=True)):
            if self._types[position] is not ColumnType.TEXT:
                self._narrow(position, set(cells) - self._nulls)

    def types(self) -> list[ColumnType]:
        """The types so far; a column without any value is TEXT."""
        return [kind if seen else ColumnType.TEXT for kind, seen in zip(self._types, self._seen, strict=True)]

    def _narrow(self, position: int, cells: set[str]) -> None:
        if not cells:
            return
        self._seen[position] = True
        text = "\n".join(cells) + "\n"
        if text.count("\n") == len(cells) and _SHORT_INTEGERS.fullmatch(text):
            self._exact[position] = self._exact[position] and all(len(c) < 16 or _is_exact(c) for c in cells)
            if self._types[position] is ColumnType.REAL and not self._exact[position]:
                self._types[position] = ColumnType.TEXT
            return
        integers = self._types[position] is ColumnType.INTEGER
        for cell in cells:
            is_integer = _INTEGER_CELL.fullmatch(cell) is not None
            integers = integers and is_integer and len(cell) <= 20 and INT64_MIN <= int(cell) <= INT64_MAX
            if is_integer:
                self._exact[position] = self._exact[position] and _is_exact(cell)
            else:
                self._real[position] = self._real[position] and _is_decimal(cell)
        if integers:
            return
        numbers = self._real[position] and self._exact[position]
        self._types[position] = ColumnType.REAL if numbers else ColumnType.TEXT


def _is_exact(integer: str) -> bool:
    return len(integer) <= 17 and abs(int(integer)) <= _EXACT_IN_REAL


def _is_decimal(cell: str) -> bool:
    return _DECIMAL_CELL.fullmatch(cell) is not None and math.isfinite(float(cell))


def columns_of(names: Sequence[str], types: Sequence[ColumnType], key: Sequence[str]) -> list[Column]:
    """The columns to declare. A key column of numbers with fractions becomes TEXT: REAL cannot be a key."""
    columns = []
    for name, kind in zip(names, types, strict=True):
        column = Column(name, kind)
        if name in key:
            kind = ColumnType.TEXT if kind is ColumnType.REAL else kind
            column = replace(column, type=kind, not_null=True, key=key.index(name) + 1)
        columns.append(column)
    return columns


@dataclass(frozen=True, slots=True)
class Converted:
    """A batch as values: one list per column, all of length `count`; and the lines that did not fit."""

    columns: list[list[Value]]
    count: int
    bad: list[BadLine]


def convert_rows(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], numbers: Sequence[int], nulls: frozenset[str]
) -> Converted:
    """The rows as values of their columns, and the lines that do not fit with the reason of each.

    Column by column while all is well; only a batch with a misfit is looked at row by row.
    """
    cells = list(zip(*rows, strict=True)) if rows else [()] * len(columns)
    try:
        values = [_convert(column, part, nulls) for column, part in zip(columns, cells, strict=True)]
    except BadValue:
        return _convert_singly(columns, rows, numbers, nulls)
    return Converted(values, len(rows), [])


def _convert_singly(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], numbers: Sequence[int], nulls: frozenset[str]
) -> Converted:
    good, bad = [], []
    for number, row in zip(numbers, rows, strict=True):
        try:
            good.append([_convert(column, (cell,), nulls)[0] for column, cell in zip(columns, row, strict=True)])
        except BadValue as error:
            bad.append(BadLine(number, str(error)))
    values = [list(part) for part in zip(*good, strict=True)] if good else [[] for _ in columns]
    return Converted(values, len(good), bad)


def _convert(column: Column, cells: Sequence[str], nulls: frozenset[str]) -> list[Value]:
    parse = _PARSERS[column.type]
    text = "".join(cells)
    if column.type in _PLAIN_PARSERS and text.isascii() and "_" not in text:
        parse = _PLAIN_PARSERS[column.type]
    values: list[Value]
    if parse is None:
        values = [None if cell in nulls else cell for cell in cells]
    else:
        try:
            values = [None if cell in nulls else parse(cell) for cell in cells]
        except (ValueError, OverflowError) as error:
            shown = cells[0] if len(cells) == 1 else ""
            raise BadValue(f"column {column.name}: {shown[:40]!r} is not {_KINDS[column.type]}") from error
    if column.type is ColumnType.REAL:
        return normalize_values(column, values)
    check_values(column, values)
    return values


def _integer(cell: str) -> int:
    return int(cell) if cell.isascii() and "_" not in cell and len(cell) <= 20 else _refuse(cell)


def _real(cell: str) -> float:
    return float(cell) if cell.isascii() and "_" not in cell else _refuse(cell)


def _refuse(cell: str) -> int:
    raise ValueError(cell)


_PARSERS: dict[ColumnType, Callable[[str], Value] | None] = {
    ColumnType.INTEGER: _integer,
    ColumnType.REAL: _real,
    ColumnType.TEXT: None,
    ColumnType.BLOB: bytes.fromhex,
    ColumnType.ANY: None,
}
_PLAIN_PARSERS: dict[ColumnType, Callable[[str], Value]] = {ColumnType.INTEGER: int, ColumnType.REAL: float}
"""For cells without underscores and foreign digits, which `int` and `float` would take: twice as fast."""
_KINDS = {ColumnType.INTEGER: "an integer", ColumnType.REAL: "a number", ColumnType.BLOB: "hexadecimal bytes"}
