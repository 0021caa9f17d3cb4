"""What a user transaction may do: the object that `transact(fn)` passes to its function, and every other door uses.

All is synchronous and runs inside the writer's open SQLite transaction, in a savepoint of its own; what it changes is
added to the group commit's journal. Values are normalised and checked before anything is signed. Each method is all or
nothing: when it raises, the function may catch the error and go on. An object that has outlived its function raises.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol

import apsw

from peers.errors import BadValue, NotAllowed, PeersError, UsageError
from peers.model.entries import Action
from peers.model.schema import Value, check_values
from peers.store.blocks import Block
from peers.store.capture import Parameters, Result, Rows, SqlDoor
from peers.store.cells import is_plain
from peers.store.door_table import DoorTable, Key
from peers.store.journal import Journal, Mark
from peers.store.row_writer import RowWriter, shown
from peers.store.table_reads import find_rows, find_table, get_row

__all__ = ["Result", "Rows", "Transaction", "TransactionHost", "savepoint"]

CHUNK_ROWS: Final = 1000
"""Rows that a bulk write handles at once: about 2 ms, after which the writer lets the event loop run."""


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

    def may_insert(self, keys: Sequence[Key]) -> bool:
        """Whether rows with these ids may be inserted into an owned table: ids that this very log has made."""

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
        self._rows = RowWriter(host.connection, journal, self._check_rights)
        self._open = True

    def close(self) -> None:
        self._open = False

    # SQL statements

    def execute(self, sql: str, parameters: Parameters = ()) -> Result:
        """Run one SELECT, INSERT, UPDATE, DELETE or REPLACE. Raises SqlRefused, BadValue, NotAllowed."""
        self._check_open()
        mark = self._journal.mark()
        self._connection.execute("SAVEPOINT peers_call")
        try:
            result, blocks = self._host.door.write(sql, parameters)
            if blocks:
                self._host.check_writer()
            for block in blocks:
                self._check(block)
                self._journal.add(block)
        except BaseException as error:
            self._failed(mark, error)
            undo(self._connection, "peers_call")
            raise
        self._connection.execute("RELEASE peers_call")
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
            return self._rows.insert_fresh(found, cells)
        if len(key_values) != len(found.key):
            raise BadValue(f"table {found.name}: the row has no {_missing(found, key_values)}, a part of its key")
        key = found.check_key(tuple(key_values[place] for place in range(len(found.key))))
        old = self._connection.execute(found.select_one, key).fetchall()
        if old:
            self._rows.change(found, key, old[0][len(key) :], cells)
        else:
            self._rows.insert(found, key, cells)
        return shown(key)

    def save_alike(self, table: str, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
        """`save` of new rows that name the same columns and no key, each a transaction of its own in the journal.

        For the writer: what many callers save at once costs a tenth so. Where it raises, nothing was written.
        """
        found = self._writable(table)
        _, places = found.split_row(dict.fromkeys(rows[0]))
        columns = zip(*[row.values() for row in rows], strict=True)
        cells = dict(zip(places, columns, strict=True))
        with self._savepoint():
            return [key for part in self._rows.insert_fresh_rows(found, cells, len(rows), spread=True) for key in part]

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
                yield from self._rows.insert_fresh_rows(found, part, stop - start)
            else:
                parts = [key_values[place][start:stop] for place in range(len(found.key))]
                yield self._rows.save_keyed(found, parts, part)

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
        """Bring a deleted row back with its newest values; whether there was one. Raises BadValue, NotAllowed."""
        found = self._writable(table)
        checked = found.check_key(key)
        if self._connection.execute(found.select_one, checked).fetchone() is not None:
            return False  # it is visible; what may still lie aside is older than it
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
        line: int | None = self._connection.execute("SELECT next_line FROM _peers_import WHERE mark = ?", (mark,)).get
        return line

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
            except BaseException as error:
                self._failed(mark, error)
                raise

    def _failed(self, mark: Mark, error: BaseException) -> None:
        """SQLite's own errors are of the file by now: they end the whole commit, even if the function catches them."""
        self._journal.cut(mark)
        if isinstance(error, apsw.Error):
            self._journal.broken = error

    def _check(self, block: Block) -> None:
        """What SQL has stored is checked as it is: it will be signed as it is."""
        if len(block.keys) == 1:
            columns = (*block.table.key, *[block.table.values[at] for at in block.columns])
            row = (*block.keys[0], *[cells[0] for cells in block.values])
            for column, value in zip(columns, row, strict=True):
                if not is_plain(column, value):
                    check_values(column, [value])
            self._check_rights(block)
            return
        for column, values in zip(block.table.key, zip(*block.keys, strict=True), strict=True):
            check_values(column, values)
        for place, cells in zip(block.columns, block.values, strict=True):
            check_values(block.table.values[place], cells)
        self._check_rights(block)

    def _check_rights(self, block: Block) -> None:
        """What every replica will check of owned tables: better refused here than there."""
        table = block.table
        if not table.owned or block.action is Action.UPDATE or block.first_ordinal is not None:
            return
        if block.action is Action.INSERT and not self._host.may_insert(block.keys):
            raise NotAllowed(f"table {table.name}: rows of owned tables are inserted without id; restore deleted ones")
        if block.action is not Action.INSERT and not self._host.may_delete(table, block.keys):
            raise NotAllowed(f"table {table.name}: only the owner of a row or an admin deletes and restores it")

    def _add_checked(self, block: Block) -> None:
        self._check_rights(block)
        self._journal.add(block)


@contextmanager
def savepoint(connection: apsw.Connection, name: str) -> Iterator[None]:
    """All that is done inside, or nothing. Where SQLite itself has ended the transaction, nothing is left to undo."""
    connection.execute(f"SAVEPOINT {name}")
    try:
        yield
    except BaseException:
        undo(connection, name)
        raise
    connection.execute(f"RELEASE {name}")


def undo(connection: apsw.Connection, name: str) -> None:
    """Back to the savepoint, if SQLite has not ended the whole transaction by itself."""
    if connection.in_transaction:
        connection.execute(f"ROLLBACK TO {name}")
        connection.execute(f"RELEASE {name}")


def _missing(table: DoorTable, key_values: Mapping[int, Any]) -> str:
    return ", ".join(column.name for place, column in enumerate(table.key) if place not in key_values)
