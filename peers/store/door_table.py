"""One declared table as the doors use it: places of its columns on disk, and the SQL texts that every write needs.

Made once per table and schema, because a write may cost no more than a few microseconds. The order of columns on disk
is asked of SQLite: a column that was declared earlier, but learned later, stands last there.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import apsw

from peers.errors import BadValue, NotFound
from peers.model.schema import Column, Value, normalize_values
from peers.store.rows import LocalTable, quote

Key = tuple[Value, ...]
"""The values of a row's key columns, in the order of the key."""

ROWS_PER_INSERT = 50
"""Rows in one INSERT … VALUES: measured, more gain nothing."""
KEYS_PER_SELECT = 100
"""Rows read at once by their keys: a third of the time of one by one."""
_PARAMETERS_MAX = 16_000
"""Half of what SQLite takes in one statement."""
_LAYOUTS_MAX = 100
"""Sets of column names that are remembered: programs save rows of a few shapes."""


class DoorTable:
    """`values` are the columns beside the key; a *place* is an index into them."""

    def __init__(self, connection: apsw.Connection, local: LocalTable) -> None:
        table = local.table
        self.local = local
        self.number = local.number
        self.name = table.name
        self.default_id = table.default_id
        self.owned = table.owned
        self.key = table.key
        self.values = table.values
        self.all_places = tuple(range(len(self.values)))
        self.quoted = quote(table.name)
        rows = connection.execute(f"PRAGMA table_info({self.quoted})").fetchall()
        on_disk = {row[1]: place for place, row in enumerate(rows)}
        self.width = len(rows)
        self.declared_at = tuple(on_disk[column.name] for column in table.columns)
        self.declared_order = self.declared_at == tuple(range(self.width))
        self.key_at = tuple(on_disk[column.name] for column in self.key)
        self.value_at = tuple(on_disk[column.name] for column in self.values)
        self.place_of = {at: place for place, at in enumerate(self.value_at)}
        self.place_by_name = {column.name.lower(): place for place, column in enumerate(self.values)}
        self.key_by_name = {column.name.lower(): place for place, column in enumerate(self.key)}
        self.defaults = tuple(column.default for column in self.values)
        names = [quote(column.name) for column in (*self.key, *self.values)]
        self._row = f"({','.join('?' * len(names))})"
        self._insert = f"INSERT INTO {self.quoted}({','.join(names)}) VALUES "
        self.where_key = " AND ".join(f"{quote(column.name)}=?" for column in self.key)
        self.insert_one = self._insert + self._row
        self.rows_per_insert = max(1, min(ROWS_PER_INSERT, _PARAMETERS_MAX // len(names)))
        self.insert_many = self._insert + ",".join([self._row] * self.rows_per_insert)
        self.select_one = f"SELECT {','.join(names)} FROM {self.quoted} WHERE {self.where_key}"
        declared = ",".join(quote(column.name) for column in table.columns)
        self.delete_one = f"DELETE FROM {self.quoted} WHERE {self.where_key} RETURNING {declared}"
        self.insert_declared = f"INSERT INTO {self.quoted}({declared}) VALUES ({','.join('?' * len(names))})"
        self._updates: dict[tuple[int, ...], str] = {}
        self._selects: dict[tuple[int, ...], str] = {}
        self._layouts: dict[tuple[str, ...], tuple[list[tuple[int, int]], list[tuple[int, int]]]] = {}

    def update_sql(self, places: tuple[int, ...]) -> str:
        """UPDATE of the columns at `places`, then the key, by parameters."""
        sql = self._updates.get(places)
        if sql is None:
            cells = ",".join(f"{quote(self.values[place].name)}=?" for place in places)
            sql = self._updates[places] = f"UPDATE {self.quoted} SET {cells} WHERE {self.where_key}"
        return sql

    def select_sql(self, places: tuple[int, ...]) -> str:
        """SELECT of the keys and the columns at `places` of up to `KEYS_PER_SELECT` rows, by that many keys."""
        sql = self._selects.get(places)
        if sql is None:
            keys = ",".join(quote(column.name) for column in self.key)
            names = ",".join([keys, *(quote(self.values[place].name) for place in places)])
            if len(self.key) == 1:
                wanted = ",".join("?" * KEYS_PER_SELECT)
            else:
                row = f"({','.join('?' * len(self.key))})"
                keys, wanted = f"({keys})", "VALUES " + ",".join([row] * KEYS_PER_SELECT)
            sql = self._selects[places] = f"SELECT {names} FROM {self.quoted} WHERE {keys} IN ({wanted})"
        return sql

    def key_of(self, row: Sequence[Value]) -> Key:
        """The key of a row that has the columns in the order on disk."""
        return tuple([row[at] for at in self.key_at])

    def declared_rows(self, rows: list[Key]) -> list[Key]:
        """Rows in the order on disk as rows in declared order."""
        if self.declared_order:
            return rows
        return [tuple([row[at] for at in self.declared_at]) for row in rows]

    def check_key(self, key: Any) -> Key:
        """A key as a caller gives it: one value, a tuple, or a mapping. Raises BadValue."""
        if isinstance(key, Mapping):
            values = [key.get(column.name) for column in self.key]
        else:
            values = list(key) if isinstance(key, tuple | list) else [key]
        if len(values) != len(self.key):
            names = ", ".join(column.name for column in self.key)
            raise BadValue(f"table {self.name}: the key is ({names}), not {len(values)} values")
        return tuple(normalize_values(column, [value])[0] for column, value in zip(self.key, values, strict=True))

    def split_row(self, row: Mapping[str, Any]) -> tuple[dict[int, Any], dict[int, Any]]:
        """(key values by place in the key, other values by place). Raises NotFound for a column that is not there."""
        names = tuple(row)
        layout = self._layouts.get(names)
        if layout is None:
            layout = self._layouts[names] = self._layout(names)
        values = tuple(row.values())
        keys, cells = layout
        return {place: values[at] for place, at in keys}, {place: values[at] for place, at in cells}

    def _layout(self, names: tuple[str, ...]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """(place in the key, index in `names`) of each key column that is named, and the same of the others."""
        keys, cells = [], []
        for at, name in enumerate(names):
            folded = name.lower()
            if folded in self.place_by_name:
                cells.append((self.place_by_name[folded], at))
            elif folded in self.key_by_name:
                keys.append((self.key_by_name[folded], at))
            else:
                raise NotFound(f"table {self.name} has no column {name[:80]!r}")
        if len(self._layouts) >= _LAYOUTS_MAX:
            self._layouts.clear()
        return keys, cells

    def as_mapping(self, row: Sequence[Value]) -> dict[str, Value]:
        """A row of `select_one` by the names of its columns, in declared order."""
        columns: tuple[Column, ...] = (*self.key, *self.values)
        found = {column.name: value for column, value in zip(columns, row, strict=True)}
        return {column.name: found[column.name] for column in self.local.table.columns}
