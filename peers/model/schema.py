"""Schemas: tables and columns as the group's control operations declare them, and the values that they may hold.

Identity of objects is computed, so equal declarations made apart are one object::

    table_id  = BLAKE2b-64( CBOR ["table", generation, name, default id, owned, [[name, type] of each key column]] )
    column_id = BLAKE2b-64( CBOR ["column", table_id, generation, name, type, not null, default] )

Declarations that differ (in the key or ownership of a table, in anything of a column) are different objects under
one name: the one of the lowest (hlc, operation hash) keeps the name, others are shown as `name~xxxx` (first 4 hex
digits of their id). No remote string reaches SQL text unvalidated: `check_name` is applied to whatever arrives.
"""

import math
import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from peers.config import COLUMNS_MAX, NAME_CHARS_MAX, VALUE_BYTES_MAX
from peers.errors import BadValue, SchemaRefused
from peers.model import codec
from peers.model.ids import Hash, blake2b_64

INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1
DEFAULT_ID_NAME = "id"

Value = None | int | float | str | bytes
"""What one cell may hold."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RESERVED_PREFIXES = ("sqlite_", "_peers_", "peers_")
_RESERVED_NAMES = frozenset({"groupmembers", "rowid", "oid", "_rowid_"})


class ColumnType(StrEnum):
    """The types of SQLite's STRICT tables."""

    INTEGER = "INTEGER"
    REAL = "REAL"
    TEXT = "TEXT"
    BLOB = "BLOB"
    ANY = "ANY"


KEY_TYPES = (ColumnType.TEXT, ColumnType.INTEGER, ColumnType.BLOB)
ZERO: dict[ColumnType, Value] = {
    ColumnType.INTEGER: 0, ColumnType.REAL: 0.0, ColumnType.TEXT: "", ColumnType.BLOB: b"", ColumnType.ANY: 0,
}  # fmt: skip
"""What a NOT NULL cell without default shows where no write of it is retained."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `key` is its position in the primary key, from 1; 0 for the others."""

    name: str
    type: ColumnType
    not_null: bool = False
    default: Value = None
    key: int = 0
    id: bytes = b""

    @property
    def shown_default(self) -> Value:
        """What a cell shows that no retained write has set."""
        if self.default is None and self.not_null:
            return ZERO[self.type]
        return self.default


@dataclass(frozen=True, slots=True)
class Table:
    """One declared table. Columns stand in declared order, key columns among them."""

    name: str
    columns: tuple[Column, ...]
    default_id: bool = False
    """The key is one TEXT column `id`, filled with a default row id where an insert names none."""
    owned: bool = False
    """Only the creator of a row or an admin deletes it; the owner's writes beat concurrent ones (default ids only)."""
    generation: int = 0
    id: bytes = b""

    @property
    def key(self) -> tuple[Column, ...]:
        """The key columns, in the order of the key."""
        return tuple(sorted((column for column in self.columns if column.key), key=lambda column: column.key))

    @property
    def values(self) -> tuple[Column, ...]:
        """The columns that are not part of the key, in declared order."""
        return tuple(column for column in self.columns if not column.key)

    def column(self, name: str) -> Column | None:
        folded = name.lower()
        return next((column for column in self.columns if column.name.lower() == folded), None)


@dataclass(frozen=True, slots=True)
class Declaration:
    """One valid schema operation: a new table, or a column added to one. Ordered by (hlc, operation hash)."""

    hlc: int
    hash: Hash
    table: Table | None = None
    table_id: bytes = b""
    column: Column | None = None


@dataclass(frozen=True, slots=True)
class Schema:
    """The tables of a group under the names by which they are shown."""

    tables: tuple[Table, ...] = ()

    def by_id(self, table_id: bytes) -> Table | None:
        return next((table for table in self.tables if table.id == table_id), None)

    def by_name(self, name: str) -> Table | None:
        folded = name.lower()
        return next((table for table in self.tables if table.name.lower() == folded), None)


def schema_of(declarations: Iterable[Declaration]) -> Schema:
    """The schema that a *set* of declarations makes, whatever their order of arrival."""
    tables: dict[bytes, Table] = {}
    first: dict[bytes, tuple[int, Hash]] = {}
    columns: dict[bytes, list[Column]] = {}
    ordered = sorted(declarations, key=lambda item: (item.hlc, item.hash))
    for item in ordered:
        if item.table is None:
            continue
        table = item.table
        if table.id not in tables:
            tables[table.id] = table
            first[table.id] = (item.hlc, item.hash)
            columns[table.id] = []
        _add_columns(columns[table.id], table.columns)
    for item in ordered:  # a column of a table whose declaration sorts later counts all the same
        if item.column is not None and item.table_id in tables:
            _add_columns(columns[item.table_id], (item.column,))
    shown = [
        replace(tables[table_id], columns=_shown_columns(columns[table_id]))
        for table_id in sorted(tables, key=lambda table_id: first[table_id])
    ]
    return Schema(_shown_tables(shown))


def _add_columns(known: list[Column], new: Sequence[Column]) -> None:
    ids = {column.id for column in known}
    known.extend(column for column in new if column.id not in ids)


def _shown_columns(columns: list[Column]) -> tuple[Column, ...]:
    taken: set[str] = set()
    return tuple(replace(column, name=_shown_name(column.name, column.id, taken)) for column in columns)


def _shown_tables(tables: list[Table]) -> tuple[Table, ...]:
    taken: set[str] = set()
    return tuple(replace(table, name=_shown_name(table.name, table.id, taken)) for table in tables)


def _shown_name(name: str, identifier: bytes, taken: set[str]) -> str:
    """The name, or `name~xxxx` where it is taken; as many digits of the id as it needs (ids can be searched for)."""
    digits, shown = 4, name
    while shown.lower() in taken:
        shown = f"{name}~{identifier.hex()[:digits]}"
        digits += 2
    taken.add(shown.lower())
    return shown


# --- Declarations: building, checking, and their fields in a control operation ---------------------------------------


def declare_table(
    name: str, columns: Sequence[Column], *, default_id: bool = False, owned: bool = False, generation: int = 0
) -> Table:
    """A checked table with the ids computed. Raises SchemaRefused with the reason."""
    check_name(name, "table")
    if not 1 <= len(columns) <= COLUMNS_MAX:
        raise SchemaRefused(f"table {name}: a table has 1 to {COLUMNS_MAX} columns")
    seen: set[str] = set()
    for column in columns:
        check_column(column)
        if column.name.lower() in seen:
            raise SchemaRefused(f"table {name}: column {column.name} is declared twice")
        seen.add(column.name.lower())
    keys = sorted((column for column in columns if column.key), key=lambda column: column.key)
    if not keys or [column.key for column in keys] != list(range(1, len(keys) + 1)):
        raise SchemaRefused(f"table {name}: a table needs a primary key")
    if default_id and (len(keys) != 1 or keys[0].type is not ColumnType.TEXT or keys[0].name != DEFAULT_ID_NAME):
        raise SchemaRefused(f"table {name}: the default id is one TEXT column named id")
    if owned and not default_id:
        raise SchemaRefused(f"table {name}: owned tables have default ids only (the id tells the owner)")
    key_names = [[column.name, column.type.value] for column in keys]
    table_id = blake2b_64(codec.dumps(["table", generation, name, default_id, owned, key_names]))
    named = tuple(replace(column, id=column_id(table_id, generation, column)) for column in columns)
    return Table(name, named, default_id, owned, generation, table_id)


def column_id(table_id: bytes, generation: int, column: Column) -> bytes:
    declared = [column.name, column.type.value, column.not_null, column.default]
    return blake2b_64(codec.dumps(["column", table_id, generation, *declared]))


def declare_column(table_id: bytes, column: Column, generation: int = 0) -> Column:
    """A checked column to add to a table. Raises SchemaRefused."""
    check_column(column)
    if column.key:
        raise SchemaRefused(f"column {column.name}: a key column cannot be added")
    return replace(column, id=column_id(table_id, generation, column))


def check_name(name: str, what: str) -> None:
    """Raises SchemaRefused unless `name` may stand in generated SQL and means a user's object."""
    folded = name.lower()
    if not _NAME.fullmatch(name) or len(name) > NAME_CHARS_MAX:
        rule = f"1 to {NAME_CHARS_MAX} letters, digits and _, not starting with a digit"
        raise SchemaRefused(f"{what} name {name[:80]!r}: {rule}")
    if folded.startswith(_RESERVED_PREFIXES) or folded in _RESERVED_NAMES:
        raise SchemaRefused(f"{what} name {name!r} is reserved")


def check_column(column: Column) -> None:
    check_name(column.name, "column")
    if column.key and (column.type not in KEY_TYPES or not column.not_null):
        raise SchemaRefused(f"column {column.name}: a key is TEXT, INTEGER or BLOB, and NOT NULL")
    if column.key and column.default is not None:
        raise SchemaRefused(f"column {column.name}: a key column has no default")
    if column.default is not None:
        try:
            check_values(replace(column, key=0), [column.default])
        except BadValue as error:
            raise SchemaRefused(f"column {column.name}: its default is not a value of its type") from error


def table_to_fields(table: Table) -> list[Any]:
    """The fields of a `table` operation."""
    columns = [[c.name, c.type.value, c.not_null, c.default, c.key] for c in table.columns]
    return [table.name, table.generation, table.default_id, table.owned, columns]


def table_from_fields(fields: Sequence[Any]) -> Table:
    """Raises SchemaRefused for fields of another shape, or that `declare_table` would refuse."""
    if len(fields) != 5 or not isinstance(fields[4], list):
        raise SchemaRefused("a table operation has 5 fields")
    name, generation, default_id, owned, columns = fields
    if (
        type(name) is not str
        or type(default_id) is not bool
        or type(owned) is not bool
        or not _is_generation(generation)
    ):
        raise SchemaRefused("a table operation is malformed")
    read = [_column_from_fields(column) for column in columns]
    return declare_table(name, read, default_id=default_id, owned=owned, generation=generation)


def column_to_fields(table_id: bytes, column: Column, generation: int = 0) -> list[Any]:
    """The fields of a `column` operation."""
    return [table_id, generation, [column.name, column.type.value, column.not_null, column.default, 0]]


def column_from_fields(fields: Sequence[Any]) -> tuple[bytes, Column]:
    """(table id, column). Raises SchemaRefused."""
    if len(fields) != 3 or type(fields[0]) is not bytes or len(fields[0]) != 8 or not _is_generation(fields[1]):
        raise SchemaRefused("a column operation has 3 fields")
    return fields[0], declare_column(fields[0], _column_from_fields(fields[2]), fields[1])


def _column_from_fields(value: Any) -> Column:
    if not isinstance(value, list) or len(value) != 5:
        raise SchemaRefused("a column is [name, type, not null, default, key]")
    name, kind, not_null, default, key = value
    if (
        type(name) is not str
        or type(kind) is not str
        or kind not in ColumnType.__members__
        or type(not_null) is not bool
    ):
        raise SchemaRefused("a column is [name, type, not null, default, key]")
    if type(key) is not int or not 0 <= key <= COLUMNS_MAX:
        raise SchemaRefused("a column's key position is a small number")
    return Column(name, ColumnType(kind), not_null, default, key)


def _is_generation(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 32


# --- Values ----------------------------------------------------------------------------------------------------------


def normalize_values(column: Column, values: Sequence[Any]) -> list[Value]:
    """Values of one column as they are stored and signed: bool becomes 0 or 1, int becomes float in a REAL column,
    −0.0 becomes 0.0, byte buffers become bytes. Raises BadValue for anything that `check_values` refuses."""
    kinds = types_of(values)
    result = list(values)
    if not kinds <= _USUAL_TYPES[column.type]:
        result = _converted(column, result, kinds)
        kinds = set(map(type, result))
    if float in kinds and 0.0 in result:
        result = [value + 0.0 if type(value) is float else value for value in result]
    _check(column, result, kinds)
    return result


def _converted(column: Column, values: list[Any], kinds: set[type]) -> list[Any]:
    """The values with those of a wrong type converted, where there is a way to."""
    if bool in kinds and column.type in (ColumnType.INTEGER, ColumnType.ANY, ColumnType.REAL):
        values = [int(value) if value is True or value is False else value for value in values]
    if column.type is ColumnType.REAL:
        values = [_int_to_float(column, value) if type(value) is int else value for value in values]
    if bytearray in kinds or memoryview in kinds:
        values = [bytes(value) if isinstance(value, bytearray | memoryview) else value for value in values]
    return values


def types_of(values: Sequence[Any]) -> set[type]:
    """The types among the values; where all have one, in two thirds of the time of a set of all."""
    types = list(map(type, values))
    return {types[0]} if types and types.count(types[0]) == len(types) else set(types)


def check_values(column: Column, values: Sequence[Any]) -> None:
    """Raises BadValue unless every value may stand in the column as it is: the one validator of write and receive."""
    _check(column, values, types_of(values))


def _check(column: Column, values: Sequence[Any], kinds: set[type]) -> None:
    """`check_values`, where `kinds` are the types of the values."""
    mixed = len(kinds) > 1
    if type(None) in kinds:
        if column.not_null:
            raise BadValue(f"column {column.name}: NULL in a NOT NULL column")
        kinds.discard(type(None))
    if not kinds <= _PYTHON_TYPES[column.type]:
        wrong = next(value for value in values if value is not None and type(value) not in _PYTHON_TYPES[column.type])
        raise BadValue(f"column {column.name}: {type(wrong).__name__} in a column of type {column.type.value}")
    for kind in kinds:
        # Set-wise, because a bulk write has thousands of values per column.
        chosen: Sequence[Any] = [value for value in values if type(value) is kind] if mixed else values
        if kind is int and not _are_int64(chosen):
            raise BadValue(f"column {column.name}: an integer beyond 64 bits")
        if kind is float and not _are_plain_floats(chosen):
            raise BadValue(f"column {column.name}: NaN, infinity or negative zero")
        if kind is str and not _are_plain_texts(chosen):
            raise BadValue(f"column {column.name}: text over 256 KiB or with lone surrogates")
        if kind is bytes and max(map(len, chosen)) > VALUE_BYTES_MAX:
            raise BadValue(f"column {column.name}: a blob over 256 KiB")


_PYTHON_TYPES: dict[ColumnType, frozenset[type]] = {
    ColumnType.INTEGER: frozenset({int}),
    ColumnType.REAL: frozenset({float}),
    ColumnType.TEXT: frozenset({str}),
    ColumnType.BLOB: frozenset({bytes}),
    ColumnType.ANY: frozenset({int, float, str, bytes}),
}
_USUAL_TYPES = {of: types | {type(None)} for of, types in _PYTHON_TYPES.items()}


def _are_int64(values: Sequence[int]) -> bool:
    try:
        struct.pack(f"{len(values)}q", *values)
    except struct.error:
        return False
    return True


def _are_plain_floats(values: Sequence[float]) -> bool:
    # A finite sum has finite terms; one that is not may still come from finite terms.
    if not math.isfinite(sum(values)) and not all(map(math.isfinite, values)):
        return False
    return all(values) or all(math.copysign(1.0, value) > 0 for value in values if value == 0.0)


def _are_plain_texts(values: Sequence[str]) -> bool:
    together = "".join(values)
    if together.isascii() and (len(together) <= VALUE_BYTES_MAX or max(map(len, values)) <= VALUE_BYTES_MAX):
        return True
    try:
        return all(len(value.encode()) <= VALUE_BYTES_MAX for value in values)
    except UnicodeEncodeError:
        return False


def _int_to_float(column: Column, value: int) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise BadValue(f"column {column.name}: an integer beyond the range of REAL") from error
