"""Doors: what the transactions of one group need of its store, made once and kept while the schema stays the same.

Owns the guard of the writing connection, the doors' view of each table, and the journal that `peers_id()` draws from.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import apsw

from peers.errors import UsageError
from peers.model.ids import LogId, parse_row_id, row_maker
from peers.model.membership import Role
from peers.store.capture import SqlDoor
from peers.store.door_table import DoorTable, Key
from peers.store.group_store import GroupStore
from peers.store.journal import Journal
from peers.store.own_change import EntryDraft
from peers.store.rows import LocalTable

_IMPORT_DDL = "CREATE TABLE IF NOT EXISTS _peers_import(mark PRIMARY KEY, next_line INTEGER NOT NULL) WITHOUT ROWID"


class Doors:
    """The `TransactionHost` of a group's writer."""

    def __init__(self, store: GroupStore) -> None:
        self._store = store
        self.connection: apsw.Connection = store.database.connection
        self._tables: dict[str, DoorTable] = {}
        self._made_from: Mapping[str, LocalTable] | None = None
        self._journal: Journal | None = None
        self._may_write = False
        self.door = SqlDoor(self.connection, lambda: self.tables)
        self.connection.create_scalar_function("peers_id", self._next_id, 0, flags=apsw.SQLITE_INNOCUOUS)
        with store.database.transaction(durable=False):
            self.connection.execute(_IMPORT_DDL)

    @property
    def tables(self) -> Mapping[str, DoorTable]:
        """By folded name. Made anew when the store has read its tables anew."""
        known = self._store.catalog.by_name
        if known is not self._made_from:
            self._tables = {name: DoorTable(self.connection, table) for name, table in known.items()}
            self._made_from = known
        return self._tables

    def reserve(self, previous: EntryDraft | None) -> EntryDraft:
        """The draft of the next entry; after `previous` of the same group commit, its timestamp is the next one."""
        if previous is None:
            return self._store.reserve_entry()
        hlc = self._store.clock.tick(0)
        return EntryDraft(hlc, row_maker(self._store.author.user, *self._store.own_log, hlc))

    @contextmanager
    def journalling(self, journal: Journal) -> Iterator[None]:
        """Default ids come from `journal` inside the block."""
        self._journal = journal
        self._may_write = False  # asked once in a group commit: membership does not change within
        try:
            yield
        finally:
            self._journal = None

    def _next_id(self, *_: object) -> str:
        if self._journal is None:
            raise UsageError("peers_id() gives ids inside the writer's transactions only")
        return self._journal.new_id()[0]

    def check_writer(self) -> None:
        if not self._may_write:
            self._store.check_writer()
            self._may_write = True

    def may_insert(self, keys: Sequence[Key]) -> bool:
        return all(self._is_made_by(str(key[0]), {self._store.own_log}) for key in keys)

    def may_delete(self, table: DoorTable, keys: Sequence[Key]) -> bool:
        role = self._store.role()
        if not table.owned or (role is not None and role >= Role.ADMIN):
            return True
        logs = {self._store.own_log, *self._store.vector.heads}
        return all(self._is_made_by(str(key[0]), logs) for key in keys)

    def _is_made_by(self, key: str, logs: set[LogId]) -> bool:
        """Whether this user made the id in one of the logs: its last field is a hash of both."""
        parsed = parse_row_id(key)
        user = self._store.author.user
        return parsed is not None and any(row_maker(user, *log, parsed.hlc) == parsed.maker for log in logs)

    def restore_row(self, table: DoorTable, key: Key) -> bool:
        local = table.local
        row = self.connection.execute(f"SELECT * FROM {local.aside} WHERE {local.where_side}", key).fetchone()
        if row is None:
            return False
        self.connection.execute(local.put_user_text, row)
        self.connection.execute(local.drop_side_text(local.aside), key)
        return True
