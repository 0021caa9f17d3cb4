"""What a user transaction may do: the object that `transact(fn)` passes to its function, and every other door uses.

All is synchronous and runs inside the writer's open SQLite transaction, in a savepoint of its own; what it changes is
added to the group commit's journal. Values are normalised and checked before anything is signed. Each method is all or
nothing: when it raises, the function may catch the error and go on. An object that has outlived its function raises.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from operator import ne
from typing import Any, Final, Protocol

import apsw

from peers.errors import BadValue, NotAllowed, NotFound, PeersError, UsageError
from peers.model.entries import Action
from peers.model.schema import Column, ColumnType, Value, check_values, normalize_values
from peers.store.capture import Parameters, Result, Rows, SqlDoor
from peers.store.door_table import DoorTable, Key
from peers.store.journal import SECTION_BYTES_MAX, Block, Journal, column_size, row_size
from peers.store.rows import quote

CHUNK_ROWS: Final = 1000
"""Rows that a bulk write handles at once: about 2 ms, after which the writer lets the event loop run."""
_NUMBERS = (ColumnType.INTEGER, ColumnType.REAL)


class TransactionHost(Protocol):
    """What a transaction needs of the group's store."""

    @property
    def connection(self) -> apsw.Connection: ...
    @property
    def door(self) -> SqlDoor: ...
    @property
    def tables(self) -> Mapping[str, DoorTable]: ...
    def check_writer(self) -> None:
        """Raises NotAllowed unless the user may write."""

    def may_delete(self, table: DoorTable, keys: Sequence[Key]) -> bool:
        """Whether the user may delete (or restore) these rows: in owned tables their creator, or an admin."""

    def restore_row(self, table: DoorTable, key: Key) -> bool:
        """Brings a row that is kept aside back into the user table. False where there is none."""


class Transaction:
    """One user transaction. Keys are given and returned as the one value of a single key, else as a tuple."""

    def __init__(self, host: TransactionHost, journal: Journal) -> None:
        self._host = host
        self._journal = journal
        self._connection = host.connection
        self._open = True

    def close(self) -> None:
        self._open = False

    # SQL statements

    def execute(self, sql: str, parameters: Parameters = ()) -> Result:
        """Run one SELECT, INSERT, UPDATE, DELETE or REPLACE. Raises SqlRefused, BadValue, NotAllowed."""
        self._check_open()
        with self._savepoint():
            result, blocks = self._host.door.write(sql, parameters)
            if blocks:
                self._host.check_writer()
            for block in blocks:
                self._check(block)
                self._journal.add(block)
        return result

    def query(self, sql: str, parameters: Parameters = ()) -> Rows:
        """The rows of one SELECT, which sees what this transaction has written. Raises SqlRefused."""
        self._check_open()
        return self._host.door.read(sql, parameters)

    # Rows

    def get(self, table: str, key: Any) -> dict[str, Value] | None:
        """The row of this key by the names of its columns; None where there is none (or it is deleted)."""
        self._check_open()
        return get_row(self._connection, find_table(self._host.tables, table), key)

    def find(self, table: str, /, **equal: Any) -> list[dict[str, Value]]:
        """The rows whose columns equal these values, ordered by key. Without any: all rows."""
        self._check_open()
        return find_rows(self._connection, find_table(self._host.tables, table), equal)

    def save(self, table: str, row: Mapping[str, Any]) -> Any:
        """Insert the row, or change the row of its key: only the columns that differ are written. Returns the key.

        A new row without `id` in a default-id table gets an id; columns that are not named get their defaults.
        Raises BadValue, NotFound (table or column), NotAllowed.
        """
        found = self._writable(table)
        key_values, cells = found.split_row(row)
        if found.default_id and key_values.get(0) is None:
            return self._insert_fresh(found, cells)
        if len(key_values) != len(found.key):
            raise BadValue(f"table {found.name}: the row has no {_missing(found, key_values)}, a part of its key")
        key = found.check_key(tuple(key_values[place] for place in range(len(found.key))))
        old = self._connection.execute(found.select_one, key).fetchall()
        if old:
            self._change(found, key, old[0][len(key) :], cells)
        else:
            values = self._whole_row(found, cells)
            block = Block(found, Action.INSERT, found.all_places, [key], [[value] for value in values])
            self._apply(block, found.insert_one, [(*key, *values)])
        return _shown(key)

    def save_many(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[Any]:
        """`save` for many rows that name the same columns, as one. Returns their keys."""
        if any(len(row) != len(columns) for row in rows):
            raise BadValue(f"table {table}: every row has {len(columns)} values, one for each column named")
        transposed = zip(*rows, strict=True) if rows else [()] * len(columns)
        return self.save_columns(table, dict(zip(columns, transposed, strict=True)), len(rows))

    def save_columns(self, table: str, columns: Mapping[str, Sequence[Any]], count: int | None = None) -> list[Any]:
        """`save_many`, with one sequence of values per column: the fastest door. Returns the keys."""
        keys: list[Any] = []
        with self._savepoint():
            for part in self.saving(table, columns, count):
                keys += part
        return keys

    def saving(self, table: str, columns: Mapping[str, Sequence[Any]], count: int | None = None) -> Iterator[list[Any]]:
        """`save_columns` in steps; yields the keys of each. The caller rolls its own savepoint back on any error."""
        found = self._writable(table)
        lengths = {len(values) for values in columns.values()} | ({count} if count is not None else set())
        if len(lengths) > 1:
            raise BadValue(f"table {found.name}: the columns have different lengths")
        total = lengths.pop() if lengths else 0
        key_values, cells = found.split_row(columns)
        fresh = found.default_id and not key_values
        if not fresh and len(key_values) != len(found.key):
            raise BadValue(f"table {found.name}: the rows have no {_missing(found, key_values)}, a part of their key")
        for start in range(0, total, CHUNK_ROWS):
            stop = min(total, start + CHUNK_ROWS)
            part = {place: values[start:stop] for place, values in cells.items()}
            if fresh:
                yield from self._insert_fresh_rows(found, part, stop - start)
            else:
                parts = [key_values[place][start:stop] for place in range(len(found.key))]
                yield self._save_keyed(found, parts, part)

    def delete(self, table: str, key: Any) -> bool:
        """Delete the row; whether there was one. It is kept aside, and `restore` brings it back. Raises NotAllowed."""
        found = self._writable(table)
        checked = found.check_key(key)
        with self._savepoint():
            old = self._connection.execute(found.delete_one, checked).fetchall()
            if old:
                self._add_checked(Block(found, Action.DELETE, (), [checked], [], old_rows=old))
        return bool(old)

    def restore(self, table: str, key: Any) -> bool:
        """Bring a deleted row back with its newest values; whether there was one. Raises NotAllowed."""
        found = self._writable(table)
        checked = found.check_key(key)
        with self._savepoint():
            deleted = self._journal.deleted_row(found, checked)
            if deleted is not None:
                self._connection.execute(found.insert_declared, deleted)
            elif not self._host.restore_row(found, checked):
                return False
            self._add_checked(Block(found, Action.RESTORE, (), [checked], []))
        return True

    # Imports

    def import_mark(self, mark: str | bytes) -> int | None:
        """The line at which the import that is called `mark` goes on here; None where it has not begun."""
        self._check_open()
        rows = self._connection.execute("SELECT next_line FROM _peers_import WHERE mark = ?", (mark,)).fetchall()
        return int(rows[0][0]) if rows else None

    def set_import_mark(self, mark: str | bytes, next_line: int) -> None:
        """Noted on this device only, in the very commit that holds the rows before `next_line`."""
        self._check_open()
        self._connection.execute("INSERT OR REPLACE INTO _peers_import VALUES (?, ?)", (mark, next_line))

    # Steps

    def _check_open(self) -> None:
        if not self._open:
            raise UsageError("this transaction is over; use it inside the function that is passed to transact")
        if self._journal.broken is not None or not self._connection.in_transaction:
            raise PeersError("this transaction has failed and cannot go on; let the error pass")

    def _writable(self, table: str) -> DoorTable:
        self._check_open()
        found = find_table(self._host.tables, table)
        self._host.check_writer()
        return found

    @contextmanager
    def _savepoint(self) -> Iterator[None]:
        mark = self._journal.mark()
        with savepoint(self._connection, "peers_call"):
            try:
                yield
            except BaseException:
                self._journal.cut(mark)
                raise

    def _apply(self, block: Block, sql: str, rows: list[tuple[Value, ...]], size: int | None = None) -> None:
        """Notes the block, which may refuse it, then writes it: all or nothing without a savepoint."""
        self._journal.add(block, size)
        try:
            if len(rows) == 1:
                self._connection.execute(sql, rows[0])
            else:
                self._connection.executemany(sql, rows)
        except BaseException as error:
            self._journal.broken = error
            raise

    def _check(self, block: Block) -> None:
        """What SQL has stored is checked as it is: it will be signed as it is."""
        for column, values in zip(block.table.key, zip(*block.keys, strict=True), strict=True):
            check_values(column, values)
        for place, cells in zip(block.columns, block.values, strict=True):
            check_values(block.table.values[place], cells)
        self._check_rights(block)

    def _check_rights(self, block: Block) -> None:
        if block.action not in (Action.DELETE, Action.RESTORE) or not block.table.owned:
            return
        if not self._host.may_delete(block.table, block.keys):
            raise NotAllowed(f"table {block.table.name}: only the owner of a row or an admin deletes and restores it")

    def _add_checked(self, block: Block) -> None:
        self._check_rights(block)
        self._journal.add(block)

    def _whole_row(self, table: DoorTable, cells: Mapping[int, Any]) -> list[Value]:
        return [
            checked_cell(column, cells[place]) if place in cells else checked_cell(column, default)
            for place, (column, default) in enumerate(zip(table.values, table.defaults, strict=True))
        ]

    def _insert_fresh(self, table: DoorTable, cells: Mapping[int, Any]) -> Any:
        values = self._whole_row(table, cells)
        size = row_size(values)
        self._journal.room(table, 1, size)
        key, ordinal = self._journal.new_id()
        lists = [[value] for value in values]
        block = Block(table, Action.INSERT, table.all_places, [(key,)], lists, first_ordinal=ordinal)
        self._apply(block, table.insert_one, [(key, *values)], size)
        return key

    def _insert_fresh_rows(self, table: DoorTable, cells: Mapping[int, Any], count: int) -> Iterator[list[Any]]:
        lists = [
            normalize_values(column, cells[place] if place in cells else [table.defaults[place]] * count)
            for place, column in enumerate(table.values)
        ]
        size = 3 * count + sum(
            9 * count if column.type in _NUMBERS else column_size(values)
            for column, values in zip(table.values, lists, strict=True)
        )
        if size > SECTION_BYTES_MAX and count > 1:
            for start, stop in ((0, count // 2), (count // 2, count)):
                part = {place: values[start:stop] for place, values in cells.items()}
                yield from self._insert_fresh_rows(table, part, stop - start)
            return
        self._journal.room(table, count, size)
        draft = self._journal.draft
        first = draft.next_ordinal
        ids = draft.take_ids(count)
        self._insert(table, [ids, *lists], count)
        keys: list[Key] = list(zip(ids, strict=True))
        self._journal.add(Block(table, Action.INSERT, table.all_places, keys, lists, first_ordinal=first), size)
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

    def _save_keyed(self, table: DoorTable, key_lists: Sequence[Any], cells: Mapping[int, Any]) -> list[Any]:
        checked = [normalize_values(column, values) for column, values in zip(table.key, key_lists, strict=True)]
        keys: list[Key] = list(zip(*checked, strict=True))
        lists = {place: normalize_values(_nullable(table.values[place]), values) for place, values in cells.items()}
        if len(set(keys)) < len(keys):  # a key twice in one call: the later counts, so one after the other
            for index, key in enumerate(keys):
                one = {place: [values[index]] for place, values in lists.items()}
                self._save_rows(table, [key], [[value] for value in key], one)
        else:
            self._save_rows(table, keys, checked, lists)
        return [_shown(key) for key in keys]

    def _save_rows(
        self, table: DoorTable, keys: list[Key], key_lists: list[list[Value]], cells: Mapping[int, list[Value]]
    ) -> None:
        """Distinct keys with normalised values: new rows in bulk, then what differs in the rows that exist."""
        width = len(table.key)
        found = self._connection.executemany(table.select_one, keys).fetchall()
        old_rows = {row[:width]: row[width:] for row in found}
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
        self._insert(table, [*key_lists, *lists], len(keys))
        self._journal.add(Block(table, Action.INSERT, table.all_places, keys, lists))

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

    def _change(self, table: DoorTable, key: Key, old: Sequence[Value], cells: Mapping[int, Any]) -> None:
        self._change_rows(
            table,
            [key],
            [old],
            {place: normalize_values(table.values[place], [value]) for place, value in cells.items()},
        )

    def _change_rows(
        self, table: DoorTable, keys: list[Key], old: Sequence[Sequence[Value]], cells: Mapping[int, list[Value]]
    ) -> None:
        """Writes the cells that differ, grouped by the columns in which rows differ."""
        places = sorted(cells)
        differing = []
        for place in places:
            check_values(table.values[place], cells[place])
            before = [row[place] for row in old]
            if table.values[place].type is ColumnType.ANY:
                typed = zip(before, cells[place], strict=True)
                differing.append([type(a) is not type(b) or a != b for a, b in typed])
            else:
                differing.append(list(map(ne, before, cells[place])))
        groups: dict[tuple[bool, ...], list[int]] = {}
        for index, pattern in enumerate(zip(*differing, strict=True)):
            groups.setdefault(pattern, []).append(index)
        for pattern, chosen in groups.items():
            changed = tuple(place for place, differs in zip(places, pattern, strict=True) if differs)
            if not changed:
                continue
            whole = len(chosen) == len(keys)
            own_keys = keys if whole else [keys[index] for index in chosen]
            values = [cells[place] if whole else [cells[place][index] for index in chosen] for place in changed]
            by_row = zip(*values, *zip(*own_keys, strict=True), strict=True)
            self._apply(Block(table, Action.UPDATE, changed, own_keys, values), table.update_sql(changed), list(by_row))


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
    values = [normalize_values(_nullable(column), [value])[0] for column, value in wanted]
    names = ",".join(quote(column.name) for column in (*table.key, *table.values))
    order = ",".join(quote(column.name) for column in table.key)
    found = connection.execute(f"SELECT {names} FROM {table.quoted} WHERE {where} ORDER BY {order}", values)
    return [table.as_mapping(row) for row in found]


@contextmanager
def savepoint(connection: apsw.Connection, name: str) -> Iterator[None]:
    """All that is done inside, or nothing. Where SQLite itself has ended the transaction, nothing is left to undo."""
    connection.execute(f"SAVEPOINT {name}")
    try:
        yield
    except BaseException:
        if connection.in_transaction:
            connection.execute(f"ROLLBACK TO {name}")
            connection.execute(f"RELEASE {name}")
        raise
    connection.execute(f"RELEASE {name}")


def checked_cell(column: Column, value: Any) -> Value:
    """`normalize_values` for one value: what is plainly right passes by a short way."""
    kind = type(value)
    if kind is str and column.type is ColumnType.TEXT and len(value) < 60_000 and value.isascii():
        return str(value)
    if kind is int and column.type is ColumnType.INTEGER and -(1 << 62) < value < 1 << 62:
        return int(value)
    if kind is float and column.type is ColumnType.REAL and value != 0.0 and math.isfinite(value):
        return float(value)
    if value is None and not column.not_null:
        return None
    return normalize_values(column, [value])[0]


def _nullable(column: Column) -> Column:
    return column if not column.not_null else Column(column.name, column.type)


def _missing(table: DoorTable, key_values: Mapping[int, Any]) -> str:
    return ", ".join(column.name for place, column in enumerate(table.key) if place not in key_values)


def _shown(key: Key) -> Any:
    return key[0] if len(key) == 1 else key
