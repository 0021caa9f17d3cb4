"""The state hash of one group's file, from its tables (`model.state` has the bytes). On demand or when idle.

A whole pass over all rows, about 0.5 s per 100,000: in steps. Buckets per table locate a divergence.
"""

from collections.abc import Iterator
from typing import Any

import apsw

from peers.model.ids import ROW_ID_CHARS
from peers.model.state import DELETED as DELETED_ID
from peers.model.state import Stamp, StateSums, cell_prefix, encode_cell, encoded_row_digest
from peers.store.catalog import Catalog
from peers.store.change_log import ChangeLog
from peers.store.row_state import DIGITS, RowStore
from peers.store.rows import DELETED, EID_MASK, EPOCH_SHIFT, LocalTable, quote


class StateHasher:
    """Computes the sums of a whole file."""

    def __init__(self, connection: apsw.Connection, catalog: Catalog, log: ChangeLog, rows: RowStore) -> None:
        self._connection = connection
        self._catalog = catalog
        self._log = log
        self._rows = rows
        self._prefixes: dict[tuple[bytes, int], bytes] = {}
        self._bases: dict[str, int] = {}

    def sums(self, *, step: int = 1000) -> Iterator[StateSums]:
        """Yields the same sums between steps; complete at the end."""
        self._prefixes.clear()
        sums = StateSums()
        for table in self._catalog.by_number.values():
            self._bases.clear()  # owned tables imply another stamp
            for at, (key, cells, conflicts) in enumerate(self._cells(table)):
                sums.add(table.table.id, encoded_row_digest(table.table.id, key, cells, conflicts))
                if at % step == step - 1:
                    yield sums
        yield sums

    def _cells(self, table: LocalTable) -> Iterator[tuple[tuple[Any, ...], list[bytes], list[bytes]]]:
        losers: dict[tuple[Any, ...], list[bytes]] = {}
        size = table.key_size
        for row in self._connection.execute(f"SELECT {table.side_key}, c, s, v FROM {table.losers}"):
            at, stamp, value = row[size:]
            column = DELETED_ID if at == DELETED else table.by_position[at].id
            losers.setdefault(row[:size], []).append(encode_cell(self._prefix(column, stamp), value))
        user = ", ".join(f"u.{quote(column.name)}" for column in table.by_position)
        aside = ", ".join(f"u.c{i}" for i in range(len(table.by_position)))
        names = [(table.sql_name, table.key_names, user, 0), (table.aside, [f"k{i}" for i in range(size)], aside, 1)]
        stamps = ", ".join(["s.b", "s.d", *(f"s.c{i}" for i in range(len(table.by_position)))])
        for name, keys, cells, deleted in names:
            on = " AND ".join(f"s.k{i}=u.{key}" for i, key in enumerate(keys))
            columns = ", ".join([*(f"u.{key}" for key in keys), *([cells] if cells else []), stamps])
            for row in self._connection.execute(f"SELECT {columns} FROM {name} u LEFT JOIN {table.stamps} s ON {on}"):
                yield row[:size], self._row(table, row, deleted), losers.get(row[:size], [])

    def _row(self, table: LocalTable, row: tuple[Any, ...], deleted: int) -> list[bytes]:
        size, width = table.key_size, len(table.by_position)
        explicit, deleted_stamp = row[size + width], row[size + width + 1]
        base = explicit if explicit is not None else self._base(table, row[0])
        eid = base & EID_MASK
        cells = []
        stamp = base if deleted_stamp is None else deleted_stamp
        if stamp:
            cells.append(encode_cell(self._prefix(DELETED_ID, stamp), deleted))
        for at in range(width):
            stamp = row[size + width + 2 + at]
            if stamp is None:
                stamp = base if eid >= table.first_eids[at] else 0
            if stamp:
                cells.append(encode_cell(self._prefix(table.by_position[at].id, stamp), row[size + at]))
        return cells

    def _base(self, table: LocalTable, key: str) -> int:
        if len(key) != ROW_ID_CHARS or not DIGITS.issuperset(key[13:19]):
            return 0
        tag = key[:13] + key[19:]
        found = self._bases.get(tag)
        if found is None:
            found = self._bases[tag] = self._rows.implied_base(table, (key,))
        return found

    def _prefix(self, column: bytes, stamp: int) -> bytes:
        found = self._prefixes.get((column, stamp))
        if found is None:
            order = self._log.info(stamp & EID_MASK).order
            found = self._prefixes[column, stamp] = cell_prefix(column, Stamp(stamp >> EPOCH_SHIFT, *order))
        return found
