"""Whole rows from the log: the rule of `model.merge` over the applied entries of this file.

One pass over the leaves of a table gathers every write to the rows in question. Needed where the incremental merge
cannot be exact: voided and un-voided entries, entries that are not closed, forks, owner epochs, and declarations that
make parked leaves readable.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import apsw

from peers.errors import EntryRefused
from peers.model.entries import Action
from peers.model.ids import UserId, parse_row_id, row_maker
from peers.model.schema import Value
from peers.store.catalog import Catalog
from peers.store.causality import Causality
from peers.store.change_log import LEAF_BITS, ChangeLog, EntryInfo
from peers.store.row_state import Key, RowState, RowStore, empty_row, set_members
from peers.store.rows import DELETED, EPOCH_SHIFT, LocalTable
from peers.store.written import check_leaf, read_leaf


@dataclass(slots=True)
class _Writes:
    """One entry's writes to one row: position → value, the later leaf and row counting."""

    info: EntryInfo
    cells: dict[int, Value] = field(default_factory=dict)
    creates: bool = False


class Recompute:
    """Rebuilds rows of any table."""

    def __init__(
        self, connection: apsw.Connection, catalog: Catalog, log: ChangeLog, causality: Causality, rows: RowStore
    ) -> None:
        self._connection = connection
        self._catalog = catalog
        self._log = log
        self._causality = causality
        self._rows = rows

    def recompute(self, table: LocalTable, keys: Collection[Key], *, step: int = 1000) -> Iterator[None]:
        """Rebuild these rows; yields between steps."""
        writes: dict[Key, dict[int, _Writes]] = {key: {} for key in keys}
        yield from self._gather(table, writes, step)
        ordered = list(writes)
        for start in range(0, len(ordered), step):
            loaded = self._rows.load(table, ordered[start : start + step])
            rows = [(key, disk, self._row(table, list(writes[key].values()))) for key, disk, _ in loaded]
            self._rows.write(table, rows)
            yield

    def leaves_of(self, table: LocalTable) -> list[tuple[int, int]]:
        """(lid, eid) of every applied leaf of the table, in the order of local numbers."""
        shapes = self._catalog.shapes_of(table.number)
        marks = ",".join(map(str, shapes)) or "NULL"
        return [
            (lid, eid)
            for lid, eid in self._connection.execute(
                f"SELECT l.lid, e.eid FROM _peers_leaf l JOIN _peers_entry e ON e.eid=l.lid>>{LEAF_BITS} "
                f"WHERE l.shape IN ({marks}) AND e.state IN (0,3) ORDER BY l.lid"
            )
        ]

    def _gather(self, table: LocalTable, writes: dict[Key, dict[int, _Writes]], step: int) -> Iterator[None]:
        since_yield = 0
        for lid, eid in self.leaves_of(table):
            stored = self._log.leaf(lid)
            info = self._log.info(eid)
            leaf = read_leaf(self._catalog, stored, info.user, self._log.header(eid))
            try:
                check_leaf(table, leaf.leaf)
            except EntryRefused:
                continue  # it was parked before the table was known; no replica applies it
            cells = [
                (table.positions[column], values)
                for column, values in zip(leaf.leaf.columns, leaf.leaf.values, strict=True)
                if column in table.positions
            ]
            incarnation = leaf.leaf.id_incarnation or info.log.incarnation
            for at, key in enumerate(leaf.keys):
                of_row = writes.get(key)
                if of_row is None:
                    continue
                write = of_row.get(eid)
                if write is None:
                    write = of_row[eid] = _Writes(info)
                for position, values in cells:
                    write.cells[position] = values[at]
                if leaf.action is not Action.UPDATE:
                    write.cells[DELETED] = int(leaf.action is Action.DELETE)
                if leaf.action is Action.INSERT and table.table.owned:
                    write.creates = write.creates or _is_made_by(key, info.user, info.log.device, incarnation)
            since_yield += stored.rows
            if since_yield >= step:
                since_yield = 0
                yield

    def _row(self, table: LocalTable, writes: list[_Writes]) -> RowState:
        row = empty_row(table)
        epochs = self._epochs(writes) if table.table.owned else {}
        covers = self._causality.covers
        cells: dict[int, list[_Writes]] = {}
        for write in writes:
            for at in write.cells:
                cells.setdefault(at, []).append(write)
        for at, candidates in cells.items():
            maximal = (
                [w for w in candidates if not any(covers(other.info, w.info) for other in candidates)]
                if len(candidates) > 1
                else candidates
            )
            maximal.sort(key=lambda w: (epochs.get(w.info.eid, 0), w.info.order))
            members = {epochs.get(w.info.eid, 0) << EPOCH_SHIFT | w.info.eid: w.cells[at] for w in maximal}
            winner = next(reversed(members))
            set_members(row, at, members, winner)
        return row

    def _epochs(self, writes: list[_Writes]) -> dict[int, int]:
        owner = min((write.info.user for write in writes if write.creates), default=None)
        epochs: dict[int, int] = {}
        ordered = sorted((write.info for write in writes), key=lambda info: info.order)
        for at, info in enumerate(ordered):
            seen = [epochs[other.eid] for other in ordered[:at] if self._causality.covers(info, other)]
            epochs[info.eid] = max(seen, default=0) + (info.user == owner)
        return epochs


def _is_made_by(key: Key, user: UserId, device: bytes, incarnation: bytes) -> bool:
    parts = parse_row_id(key[0])
    return parts is not None and parts.maker == row_maker(user, device, incarnation, parts.hlc)
