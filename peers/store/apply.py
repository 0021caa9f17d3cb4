"""The merge of entries into the tables: which leaf takes which path (docs/PROTOCOL, merge; store.md section 2).

* closed entries, tables without owners: fast where possible, else row by row;
* whatever the incremental merge cannot answer exactly is noted in `recompute` and rebuilt from the log before the
  commit: rows of entries that are not closed, owned rows that are not new, everything while a log is forked.

Rows written by entries that are not closed stay *open* (`_peers_open`): later writes to them are recomputed, too.
"""

from collections.abc import Iterable, Iterator

import apsw

from peers.config import StoreConfig
from peers.errors import EntryRefused
from peers.model.entries import Action
from peers.store.apply_fast import FastPath
from peers.store.apply_slow import SlowPath
from peers.store.catalog import Catalog, decode_key, encode_key
from peers.store.causality import Causality
from peers.store.change_log import ChangeLog
from peers.store.recompute import Recompute
from peers.store.row_state import Key, RowStore
from peers.store.rows import LocalTable
from peers.store.written import Written, WrittenLeaf, check_leaf

DDL = ("CREATE TABLE _peers_open(tid INT, key BLOB, eid INT, PRIMARY KEY(tid, key, eid)) WITHOUT ROWID",)


class Apply:
    """Applies entries within one transaction; `finish` before its commit."""

    def __init__(
        self,
        connection: apsw.Connection,
        catalog: Catalog,
        log: ChangeLog,
        causality: Causality,
        config: StoreConfig,
    ) -> None:
        self._connection = connection
        self._catalog = catalog
        self._log = log
        self._step = config.step_rows
        self.rows = RowStore(connection, log)
        self.fast = FastPath(connection, catalog, causality, config.step_rows)
        self.slow = SlowPath(connection, log, causality, self.rows, self.fast)
        self._recompute = Recompute(connection, catalog, log, causality, self.rows)
        self._open: dict[int, set[Key]] = {}
        self.pending: dict[int, set[Key]] = {}
        """Rows to recompute before the commit, by table."""
        self.touched: set[int] = set()

    def load(self) -> None:
        self._open, self.pending, self.touched = {}, {}, set()
        for tid, key in self._connection.execute("SELECT DISTINCT tid, key FROM _peers_open"):
            self._open.setdefault(tid, set()).add(decode_key(key))

    def apply(self, written: Written) -> Iterator[None]:
        """Merge one entry; yields between steps."""
        for leaf in written.leaves:
            table = self._catalog.by_number.get(leaf.shape.tid)
            if table is not None:
                self.touched.add(table.number)
                yield from self._apply_leaf(table, written, leaf)
        for tid in {leaf.shape.tid for leaf in written.leaves}:
            self._catalog.note_write(tid, written.info)

    def _apply_leaf(self, table: LocalTable, written: Written, leaf: WrittenLeaf) -> Iterator[None]:
        if not leaf.checked:
            try:
                check_leaf(table, leaf.leaf)
            except EntryRefused:
                return  # it was parked before the table was known; no replica applies it
        if not written.closed:
            self.open_rows(table, leaf.keys, written.info.eid)
        if not written.closed or written.anew or self._log.forked:
            self.recompute_later(table, leaf.keys)
            return
        opened = self._open.get(table.number)
        if opened:
            self.recompute_later(table, [key for key in leaf.keys if key in opened])
        if leaf.action is Action.INSERT and (yield from self.fast.new_rows(table, written, leaf)):
            return
        if table.table.owned:
            self.recompute_later(table, leaf.keys)
            return
        if leaf.action is Action.UPDATE and (yield from self.fast.newer_update(table, written.info, leaf)):
            return
        yield from self.slow.apply(table, written.info, leaf, step=self._step)

    def recompute_later(self, table: LocalTable, keys: Iterable[Key]) -> None:
        self.touched.add(table.number)
        self.pending.setdefault(table.number, set()).update(keys)

    def recompute_entry(self, leaves: Iterable[WrittenLeaf]) -> None:
        """All rows that an entry writes in tables that are known here."""
        for leaf in leaves:
            table = self._catalog.by_number.get(leaf.shape.tid)
            if table is None:
                continue
            try:
                check_leaf(table, leaf.leaf)
            except EntryRefused:
                continue
            self.recompute_later(table, leaf.keys)

    def is_open(self, table: LocalTable, keys: Iterable[Key]) -> bool:
        opened = self._open.get(table.number)
        return opened is not None and not opened.isdisjoint(keys)

    def open_keys(self, table: LocalTable) -> frozenset[Key]:
        return frozenset(self._open.get(table.number, ()))

    def open_rows(self, table: LocalTable, keys: Iterable[Key], eid: int) -> None:
        """From now on these rows are recomputed: an entry that is not closed has written them."""
        opened = self._open.setdefault(table.number, set())
        for key in keys:
            opened.add(key)
            self._connection.execute(
                "INSERT OR IGNORE INTO _peers_open VALUES(?,?,?)", (table.number, encode_key(key), eid)
            )

    def close_rows(self, eid: int) -> None:
        """The entry has become closed."""
        self._connection.execute("DELETE FROM _peers_open WHERE eid=?", (eid,))
        self._open = {}
        for tid, key in self._connection.execute("SELECT DISTINCT tid, key FROM _peers_open"):
            self._open.setdefault(tid, set()).add(decode_key(key))

    def finish(self) -> Iterator[None]:
        """Recompute what is pending; yields between steps."""
        for tid, keys in sorted(self.pending.items()):
            if keys:
                yield from self._recompute.recompute(self._catalog.by_number[tid], keys, step=self._step)
        self.pending = {}
