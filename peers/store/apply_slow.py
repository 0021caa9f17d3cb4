"""The merge, row by row: the general case of store.md section 2, steps 7 and 8.

Per cell: members that the newcomer covers leave the set; it joins unless a member covers it; the greatest stamp wins.
Exact while the newcomer and all that wrote the row are closed (causality.py); whatever is not, and whatever has owner
epochs to count anew, is recomputed from the log instead.
"""

from collections.abc import Iterator
from typing import Any

import apsw

from peers.model.entries import Action
from peers.model.schema import Value
from peers.store.apply_concurrent import ConcurrentUpdates
from peers.store.apply_fast import FastPath
from peers.store.causality import Causality
from peers.store.change_log import ChangeLog, EntryInfo
from peers.store.row_state import RowState, RowStore, members_of, set_members
from peers.store.rows import DELETED, EID_MASK, EPOCH_SHIFT, LocalTable
from peers.store.written import WrittenLeaf


class SlowPath:
    """Merges leaves into rows that may hold anything."""

    def __init__(
        self, connection: apsw.Connection, log: ChangeLog, causality: Causality, rows: RowStore, fast: FastPath
    ) -> None:
        self._log = log
        self._causality = causality
        self._rows = rows
        self._concurrent = ConcurrentUpdates(connection, log, rows, fast, self._relation)

    def apply(
        self, table: LocalTable, info: EntryInfo, leaf: WrittenLeaf, *, epoch: int = 0, step: int = 1000
    ) -> Iterator[None]:
        """Merge all rows of a leaf; yields between steps. A key that the leaf names twice takes its last values."""
        cells = [
            (table.positions[column], values)
            for column, values in zip(leaf.leaf.columns, leaf.leaf.values, strict=True)
            if column in table.positions
        ]
        last = {key: at for at, key in enumerate(leaf.keys)}
        places = list(last.items())
        stamp = epoch << EPOCH_SHIFT | info.eid
        covered: dict[int, int] = {}
        for start in range(0, len(places), step):
            chunk = places[start : start + step]
            if leaf.action is Action.UPDATE and cells and not table.table.owned:
                some = [(position, [values[at] for _, at in chunk]) for position, values in cells]
                if self._concurrent.update(table, info, [key for key, _ in chunk], some):
                    yield
                    continue
            loaded = self._rows.load(table, [key for key, _ in chunk])
            for (_, at), (_, _, row) in zip(chunk, loaded, strict=True):
                for position, values in cells:
                    self._join(row, position, info, stamp, values[at], covered)
                if leaf.action is not Action.UPDATE:
                    self._join(row, DELETED, info, stamp, int(leaf.action is Action.DELETE), covered)
            self._rows.write(table, loaded)
            yield

    def _join(
        self, row: RowState, at: int, info: EntryInfo, stamp: int, value: Value, relations: dict[int, int]
    ) -> None:
        members = members_of(row, at)
        joins = True
        for other in list(members):
            eid = other & EID_MASK
            relation = relations.get(eid)
            if relation is None:
                relation = relations[eid] = self._relation(info, eid)
            if relation > 0:
                del members[other]
            elif relation < 0:
                joins = False
        if joins:
            members[stamp] = value
        winner = max(members, key=self.order) if len(members) > 1 else next(iter(members))
        set_members(row, at, members, winner)

    def _relation(self, info: EntryInfo, eid: int) -> int:
        """1: `info` covers the entry (or is it: the later row replaces). −1: is covered. 0: neither."""
        if eid == info.eid:
            return 1
        other = self._log.info(eid)
        if self._causality.covers(info, other):
            return 1
        return -1 if self._causality.covers(other, info) else 0

    def order(self, stamp: int) -> tuple[Any, ...]:
        """The total order of stamps: owner epoch, then (hlc, device, incarnation, seq, hash)."""
        return (stamp >> EPOCH_SHIFT, self._log.info(stamp & EID_MASK).order)
