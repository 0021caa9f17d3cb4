"""RowWriter: rows that a program gives as values (not as SQL) into the user's tables, and into the journal as blocks.

The hook of the SQL door is off here: what is written is known. Values are normalised and checked before. Single-row
methods are all or nothing by themselves; for the others the caller has a savepoint.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import ne
from typing import Any

import apsw

from peers.errors import BadValue
from peers.model.entries import Action
from peers.model.schema import ColumnType, Value, check_values, normalize_values
from peers.store.blocks import Block, column_size, row_size
from peers.store.cells import checked_cell, nullable
from peers.store.door_table import KEYS_PER_SELECT, DoorTable, Key
from peers.store.journal import SECTION_BYTES_MAX, Journal
from peers.store.key_columns import KeyColumns, flat

_NUMBERS = (ColumnType.INTEGER, ColumnType.REAL)


class RowWriter:
    """Writes into one journal over one connection. `check_rights` raises NotAllowed for a block that may not be."""

    def __init__(self, connection: apsw.Connection, journal: Journal, check_rights: Callable[[Block], None]) -> None:
        self._connection = connection
        self._journal = journal
        self._check_rights = check_rights

    def insert(self, table: DoorTable, key: Key, cells: Mapping[int, Any]) -> None:
        """A row of this key, which no row has."""
        values = self.whole_row(table, cells)
        block = Block(table, Action.INSERT, table.all_places, [key], [[value] for value in values])
        self._apply(block, table.insert_one, [(*key, *values)])

    def _apply(self, block: Block, sql: str, rows: Iterable[tuple[Value, ...]], size: int | None = None) -> None:
        """Notes the block, which may refuse it, then writes it: all or nothing without a savepoint."""
        self._check_rights(block)
        self._journal.add(block, size)
        try:
            if len(block.keys) == 1:
                self._connection.execute(sql, next(iter(rows)))
            else:
                self._connection.executemany(sql, rows)
        except BaseException as error:
            self._journal.broken = error
            raise

    def whole_row(self, table: DoorTable, cells: Mapping[int, Any]) -> list[Value]:
        return [
            checked_cell(column, cells[place]) if place in cells else checked_cell(column, default)
            for place, (column, default) in enumerate(zip(table.values, table.defaults, strict=True))
        ]

    def insert_fresh(self, table: DoorTable, cells: Mapping[int, Any]) -> Any:
        values = self.whole_row(table, cells)
        size = row_size(values)
        self._journal.room(table, 1, size)
        key, ordinal = self._journal.new_id()
        lists = [[value] for value in values]
        block = Block(table, Action.INSERT, table.all_places, [(key,)], lists, first_ordinal=ordinal)
        self._apply(block, table.insert_one, [(key, *values)], size)
        return key

    def insert_fresh_rows(
        self, table: DoorTable, cells: Mapping[int, Any], count: int, *, spread: bool = False
    ) -> Iterator[list[Any]]:
        lists = [
            normalize_values(column, cells[place] if place in cells else [table.defaults[place]] * count)
            for place, column in enumerate(table.values)
        ]
        size = 3 * count + sum(
            9 * count if column.type in _NUMBERS else column_size(values)
            for column, values in zip(table.values, lists, strict=True)
        )
        if size > SECTION_BYTES_MAX and count > 1:
            if spread:
                raise BadValue(f"table {table.name}: too large to be saved together")
            for start, stop in ((0, count // 2), (count // 2, count)):
                part = {place: values[start:stop] for place, values in cells.items()}
                yield from self.insert_fresh_rows(table, part, stop - start)
            return
        self._journal.room(table, count, size)
        draft = self._journal.draft
        first = draft.next_ordinal
        ids = draft.take_ids(count)
        self._insert(table, [ids, *lists], count)
        keys = KeyColumns([ids])
        block = Block(table, Action.INSERT, table.all_places, keys, lists, spread=spread, first_ordinal=first)
        self._journal.add(block, size)
        yield ids

    def _insert(self, table: DoorTable, columns: Sequence[Sequence[Value]], count: int) -> None:
        """INSERT of `rows_per_insert` rows in one statement, the rest one by one."""
        values, width = flat(columns, count), len(columns)
        step = width * table.rows_per_insert
        whole = count // table.rows_per_insert * step
        if whole:
            parts = [values[at : at + step] for at in range(0, whole, step)]
            self._connection.executemany(table.insert_many, parts)
        if whole < len(values):
            rest = [values[at : at + width] for at in range(whole, len(values), width)]
            self._connection.executemany(table.insert_one, rest)

    def save_keyed(self, table: DoorTable, key_lists: Sequence[Any], cells: Mapping[int, Any]) -> list[Any]:
        """Rows by their keys, whether they exist or not. Returns the keys as callers see them."""
        checked = [normalize_values(column, values) for column, values in zip(table.key, key_lists, strict=True)]
        keys = KeyColumns(checked)
        single = checked[0] if len(checked) == 1 else None
        lists = {place: normalize_values(nullable(table.values[place]), values) for place, values in cells.items()}
        if len(set(keys if single is None else single)) < len(keys):
            for index, key in enumerate(keys):  # a key twice in one call: the later counts, so one after the other
                one = {place: [values[index]] for place, values in lists.items()}
                self._save_rows(table, KeyColumns([[value] for value in key]), one)
        else:
            self._save_rows(table, keys, lists)
        return list(keys) if single is None else single

    def _save_rows(self, table: DoorTable, keys: KeyColumns, cells: Mapping[int, list[Value]]) -> None:
        """Distinct keys with normalised values: new rows in bulk, then what differs in the rows that exist."""
        found_keys, found = self._found_rows(table, keys, tuple(cells))
        if len(found_keys) == len(keys):
            self._change_rows(table, keys, _in_order(found_keys, found, keys), cells)
            return
        known_keys = set(found_keys)
        known = [index for index, key in enumerate(keys) if key in known_keys]
        if known:
            self._save_part(table, keys, cells, [i for i, key in enumerate(keys) if key not in known_keys])
            self._save_part(table, keys, cells, known)
            return
        lists = [
            normalize_values(column, cells[place] if place in cells else [table.defaults[place]] * len(keys))
            for place, column in enumerate(table.values)
        ]
        block = Block(table, Action.INSERT, table.all_places, keys, lists)
        self._check_rights(block)
        self._insert(table, [*keys.columns, *lists], len(keys))
        self._journal.add(block)

    def _found_rows(
        self, table: DoorTable, keys: KeyColumns, places: tuple[int, ...]
    ) -> tuple[KeyColumns, list[list[Value]]]:
        """The rows that exist, in any order: their keys, and their columns at `places`."""
        sql, width = table.select_sql(places), len(table.key)
        columns: list[list[Value]] = [[] for _ in range(width + len(places))]
        for start in range(0, len(keys), KEYS_PER_SELECT):
            part = keys[start : start + KEYS_PER_SELECT]
            wanted = flat(part.columns, len(part))
            wanted += wanted[-width:] * (KEYS_PER_SELECT - len(part))  # one statement, whatever the number
            rows = self._connection.execute(sql, wanted).fetchall()
            for column, values in zip(columns, zip(*rows, strict=True), strict=False):  # no columns of no rows
                column += values
        return KeyColumns(columns[:width]), columns[width:]

    def _save_part(
        self, table: DoorTable, keys: KeyColumns, cells: Mapping[int, list[Value]], chosen: Sequence[int]
    ) -> None:
        part = {place: _at(values, chosen) for place, values in cells.items()}
        self._save_rows(table, KeyColumns([_at(column, chosen) for column in keys.columns]), part)

    def change(self, table: DoorTable, key: Key, old: Sequence[Value], cells: Mapping[int, Any]) -> None:
        """Writes what differs in one row; `old` has all its value columns."""
        given = {place: normalize_values(table.values[place], [value]) for place, value in cells.items()}
        self._change_rows(table, KeyColumns([[value] for value in key]), [[old[place]] for place in given], given)

    def _change_rows(
        self,
        table: DoorTable,
        keys: KeyColumns,
        old: Sequence[Sequence[Value]],
        cells: Mapping[int, list[Value]],
    ) -> None:
        """Writes the cells that differ, grouped by the columns in which rows differ. `old` are columns like `cells`."""
        order = sorted(cells)
        before_by_place = dict(zip(cells, old, strict=True))
        differing = []
        for place in order:
            column, before = table.values[place], before_by_place[place]
            if column.not_null and None in cells[place]:
                check_values(column, cells[place])  # raises: all else was checked when it was normalised
            if column.type is ColumnType.ANY:
                typed = zip(before, cells[place], strict=True)
                differing.append([type(a) is not type(b) or a != b for a, b in typed])
            else:
                differing.append(list(map(ne, before, cells[place])))
        groups: dict[tuple[bool, ...], Sequence[int]] = {}
        if all(all(flags) or not any(flags) for flags in differing):  # usual in bulk: the rows differ alike
            groups[tuple(flags[0] for flags in differing)] = range(len(keys))
        else:
            by_pattern: dict[tuple[bool, ...], list[int]] = {}
            for index, pattern in enumerate(zip(*differing, strict=True)):
                by_pattern.setdefault(pattern, []).append(index)
            groups.update(by_pattern)
        for pattern, chosen in groups.items():
            changed = tuple(place for place, differs in zip(order, pattern, strict=True) if differs)
            if not changed:
                continue
            whole = len(chosen) == len(keys)
            own_keys = keys if whole else KeyColumns([_at(column, chosen) for column in keys.columns])
            values = [cells[place] if whole else _at(cells[place], chosen) for place in changed]
            by_row = zip(*values, *own_keys.columns, strict=True)
            self._apply(Block(table, Action.UPDATE, changed, own_keys, values), table.update_sql(changed), by_row)


def _at(values: Sequence[Value], chosen: Sequence[int]) -> list[Value]:
    return [values[index] for index in chosen]


def _in_order(found_keys: KeyColumns, columns: list[list[Value]], keys: KeyColumns) -> list[list[Value]]:
    """The columns of rows in the order of `keys`, which are the same keys in another order, or in the same.

    SQLite reads rows in the order of their keys, and that of new ids is the order in which they were made.
    """
    if found_keys.columns == keys.columns:
        return columns
    places = {key: index for index, key in enumerate(found_keys)}
    order = [places[key] for key in keys]
    return [_at(column, order) for column in columns]


def shown(key: Key) -> Any:
    """The key as callers see it: the one value of a single key, else the tuple."""
    return key[0] if len(key) == 1 else key
