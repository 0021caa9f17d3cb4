"""RowWriter: rows that a program gives as values (not as SQL) into the user's tables, and into the journal as blocks.

The hook of the SQL door is off here: what is written is known. Values are normalised and checked before. Single-row
methods are all or nothing by themselves; for the others the caller has a savepoint.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
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

    def _apply(self, block: Block, sql: str, rows: list[tuple[Value, ...]], size: int | None = None) -> None:
        """Notes the block, which may refuse it, then writes it: all or nothing without a savepoint."""
        self._check_rights(block)
        self._journal.add(block, size)
        try:
            if len(rows) == 1:
                self._connection.execute(sql, rows[0])
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
        keys: list[Key] = list(zip(ids, strict=True))
        block = Block(table, Action.INSERT, table.all_places, keys, lists, spread=spread, first_ordinal=first)
        self._journal.add(block, size)
        yield ids

    def _insert(self, table: DoorTable, columns: Sequence[Sequence[Value]], count: int) -> None:
        """INSERT of `rows_per_insert` rows in one statement, the rest one by one."""
        flat = list(chain.from_iterable(zip(*columns, strict=True)))
        width = len(columns)
        step = width * table.rows_per_insert
        whole = count // table.rows_per_insert * step
        if whole:
            parts = [flat[at : at + step] for at in range(0, whole, step)]
            self._connection.executemany(table.insert_many, parts)
        if whole < len(flat):
            rest = [flat[at : at + width] for at in range(whole, len(flat), width)]
            self._connection.executemany(table.insert_one, rest)

    def save_keyed(self, table: DoorTable, key_lists: Sequence[Any], cells: Mapping[int, Any]) -> list[Any]:
        checked = [normalize_values(column, values) for column, values in zip(table.key, key_lists, strict=True)]
        keys: list[Key] = list(zip(*checked, strict=True))
        lists = {place: normalize_values(nullable(table.values[place]), values) for place, values in cells.items()}
        if len(set(keys)) < len(keys):  # a key twice in one call: the later counts, so one after the other
            for index, key in enumerate(keys):
                one = {place: [values[index]] for place, values in lists.items()}
                self._save_rows(table, [key], [[value] for value in key], one)
        else:
            self._save_rows(table, keys, checked, lists)
        return [shown(key) for key in keys]

    def _save_rows(
        self, table: DoorTable, keys: list[Key], key_lists: list[list[Value]], cells: Mapping[int, list[Value]]
    ) -> None:
        """Distinct keys with normalised values: new rows in bulk, then what differs in the rows that exist."""
        old_rows = self._old_rows(table, keys, tuple(cells))
        if len(old_rows) == len(keys):
            self._change_rows(table, keys, [old_rows[key] for key in keys], cells)
            return
        known = [index for index, key in enumerate(keys) if key in old_rows]
        if known:
            self._save_part(table, keys, key_lists, cells, [i for i, key in enumerate(keys) if key not in old_rows])
            self._save_part(table, keys, key_lists, cells, known)
            return
        lists = [
            normalize_values(column, cells[place] if place in cells else [table.defaults[place]] * len(keys))
            for place, column in enumerate(table.values)
        ]
        block = Block(table, Action.INSERT, table.all_places, keys, lists)
        self._check_rights(block)
        self._insert(table, [*key_lists, *lists], len(keys))
        self._journal.add(block)

    def _old_rows(self, table: DoorTable, keys: list[Key], places: tuple[int, ...]) -> dict[Key, tuple[Value, ...]]:
        """The cells at `places` of the rows that exist."""
        sql, width = table.select_sql(places), len(table.key)
        found: list[tuple[Value, ...]] = []
        for start in range(0, len(keys), KEYS_PER_SELECT):
            part = keys[start : start + KEYS_PER_SELECT]
            part = part + [part[-1]] * (KEYS_PER_SELECT - len(part))  # one statement, whatever the number
            found += self._connection.execute(sql, list(chain.from_iterable(part))).fetchall()
        return {row[:width]: row[width:] for row in found}

    def _save_part(
        self,
        table: DoorTable,
        keys: list[Key],
        key_lists: list[list[Value]],
        cells: Mapping[int, list[Value]],
        chosen: list[int],
    ) -> None:
        part = {place: [values[index] for index in chosen] for place, values in cells.items()}
        chosen_lists = [[values[index] for index in chosen] for values in key_lists]
        self._save_rows(table, [keys[index] for index in chosen], chosen_lists, part)

    def change(self, table: DoorTable, key: Key, old: Sequence[Value], cells: Mapping[int, Any]) -> None:
        """Writes what differs in one row; `old` has all its value columns."""
        given = {place: normalize_values(table.values[place], [value]) for place, value in cells.items()}
        self._change_rows(table, [key], [[old[place] for place in given]], given)

    def _change_rows(
        self, table: DoorTable, keys: list[Key], old: Sequence[Sequence[Value]], cells: Mapping[int, list[Value]]
    ) -> None:
        """Writes the cells that differ, grouped by the columns in which rows differ. `old` rows are like `cells`."""
        order = sorted(cells)
        before_by_place = dict(zip(cells, zip(*old, strict=True), strict=True))
        differing = []
        for place in order:
            check_values(table.values[place], cells[place])
            before = before_by_place[place]
            if table.values[place].type is ColumnType.ANY:
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
            own_keys = keys if whole else [keys[index] for index in chosen]
            values = [cells[place] if whole else [cells[place][index] for index in chosen] for place in changed]
            by_row = zip(*values, *zip(*own_keys, strict=True), strict=True)
            self._apply(Block(table, Action.UPDATE, changed, own_keys, values), table.update_sql(changed), list(by_row))


def shown(key: Key) -> Any:
    """The key as callers see it: the one value of a single key, else the tuple."""
    return key[0] if len(key) == 1 else key
