"""Reads of whole rows by key or by equal values, for transactions and tables."""

from collections.abc import Mapping
from typing import Any

import apsw

from peers.errors import NotFound
from peers.model.schema import Value, normalize_values
from peers.store.cells import nullable
from peers.store.door_table import DoorTable
from peers.store.rows import quote


def find_table(tables: Mapping[str, DoorTable], name: str) -> DoorTable:
    """Raises NotFound."""
    table = tables.get(name.lower())
    if table is None:
        raise NotFound(f"no table {name[:80]!r} in this group; declare it with create_table")
    return table


def get_row(connection: apsw.Connection, table: DoorTable, key: Any) -> dict[str, Value] | None:
    rows = connection.execute(table.select_one, table.check_key(key)).fetchall()
    return table.as_mapping(rows[0]) if rows else None


def find_rows(connection: apsw.Connection, table: DoorTable, equal: Mapping[str, Any]) -> list[dict[str, Value]]:
    """Rows of the table whose columns are these values (NULL is NULL), ordered by key."""
    keys, cells = table.split_row(equal)
    wanted = [(table.key[place], value) for place, value in keys.items()]
    wanted += [(table.values[place], value) for place, value in cells.items()]
    where = " AND ".join(f"{quote(column.name)} IS ?" for column, _ in wanted) or "1"
    values = [normalize_values(nullable(column), [value])[0] for column, value in wanted]
    names = ",".join(quote(column.name) for column in (*table.key, *table.values))
    order = ",".join(quote(column.name) for column in table.key)
    found = connection.execute(f"SELECT {names} FROM {table.quoted} WHERE {where} ORDER BY {order}", values)
    return [table.as_mapping(row) for row in found]
