"""Single rows with all that the merge knows of them: loading, and writing back what changed.

A row is visible (in the user's table), kept aside, or not there at all. For each cell there is the winner's stamp and
value and the other causally maximal writes. Used by the slow path and by recompute; the fast path never comes here.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import apsw

from peers.model.ids import parse_row_id
from peers.model.schema import Value
from peers.store.change_log import ChangeLog
from peers.store.rows import DELETED, EID_MASK, EPOCH_SHIFT, LocalTable

Key = tuple[Any, ...]


@dataclass(slots=True)
class RowState:
    """What is known of one row. `stamps[i]` is 0 where no retained write has set the cell."""

    stamps: list[int]
    values: list[Value]
    deleted_stamp: int = 0
    deleted: int = 0
    losers: dict[int, dict[int, Value]] = field(default_factory=dict)
    """position (`DELETED` for the hidden cell) → stamp → value"""

    @property
    def visible(self) -> bool:
        return self.deleted_stamp != 0 and self.deleted == 0

    @property
    def exists(self) -> bool:
        return self.deleted_stamp != 0 or any(self.stamps)


@dataclass(slots=True)
class OnDisk:
    """What lies on disk of a row before it is written back."""

    visible: bool
    aside: bool
    side: bool
    base: int | None
    losers: bool


def empty_row(table: LocalTable) -> RowState:
    return RowState([0] * len(table.by_position), list(table.defaults))


class RowStore:
    """Rows of any table of one file, by key."""

    def __init__(self, connection: apsw.Connection, log: ChangeLog) -> None:
        self._connection = connection
        self._log = log

    def implied_base(self, table: LocalTable, key: Key) -> int:
        """The stamp that a default id implies, or 0."""
        if not table.table.default_id:
            return 0
        parts = parse_row_id(key[0])
        eid = self._log.entry_of_id(parts.hlc, parts.maker) if parts is not None else None
        if eid is None:
            return 0
        return (1 << EPOCH_SHIFT | eid) if table.table.owned else eid

    def load(self, table: LocalTable, keys: Sequence[Key]) -> Iterator[tuple[Key, OnDisk, RowState]]:
        """The rows of `keys`, in their order. A row that is not there is empty."""
        losers: dict[Key, list[tuple[int, int, Value]]] = {}
        if self._connection.execute(f"SELECT 1 FROM {table.losers} LIMIT 1").fetchone() is not None:
            size = table.key_size
            for row in self._connection.executemany(table.load_losers_text, keys):
                losers.setdefault(row[:size], []).append(row[size:])
        rows = self._connection.executemany(table.load_text, keys).fetchall()
        for key, row in zip(keys, rows, strict=True):
            yield key, *self._read(table, key, row, losers.get(key, ()))

    def _read(
        self, table: LocalTable, key: Key, row: Sequence[Any], losers: Iterable[tuple[int, int, Value]]
    ) -> tuple[OnDisk, RowState]:
        width = len(table.by_position)
        visible, aside, side = bool(row[0]), bool(row[1 + width]), bool(row[2 + 2 * width])
        explicit_base = row[3 + 2 * width]
        state = empty_row(table)
        disk = OnDisk(visible, aside, side, explicit_base, False)
        if not visible and not aside:
            return disk, state
        state.values = list(row[1 : 1 + width] if visible else row[2 + width : 2 + 2 * width])
        base = explicit_base if explicit_base is not None else self.implied_base(table, key)
        deleted_stamp = row[4 + 2 * width]
        state.deleted_stamp = base if deleted_stamp is None else deleted_stamp
        state.deleted = 0 if visible else 1
        eid = base & EID_MASK
        for at, stamp in enumerate(row[5 + 2 * width :]):
            state.stamps[at] = stamp if stamp is not None else (base if eid >= table.first_eids[at] else 0)
        for at, stamp, value in losers:
            state.losers.setdefault(at, {})[stamp] = value
            disk.losers = True
        return disk, state

    def write(self, table: LocalTable, rows: Sequence[tuple[Key, OnDisk, RowState]]) -> None:
        """Write whole rows back, grouped by statement."""
        drop_user, drop_aside, drop_side, drop_losers = [], [], [], []
        put_user: list[tuple[Any, ...]] = []
        put_aside: list[tuple[Any, ...]] = []
        put_side: list[tuple[Any, ...]] = []
        put_losers: list[tuple[Any, ...]] = []
        for key, disk, row in rows:
            visible, exists = row.visible, row.exists
            if disk.visible and not visible:
                drop_user.append(key)
            if disk.aside and (visible or not exists):
                drop_aside.append(key)
            if visible:
                put_user.append((*key, *row.values))
            elif exists:
                put_aside.append((*key, *row.values))
            stamps = self._stamps(table, key, disk, row) if exists else None
            if stamps is not None:
                put_side.append((*key, *stamps))
            elif disk.side:
                drop_side.append(key)
            if disk.losers:
                drop_losers.append(key)
            put_losers.extend(
                (*key, at, stamp, value) for at, members in row.losers.items() for stamp, value in members.items()
            )
        for text, keys in (
            (table.drop_user_text, drop_user),
            (table.drop_side_text(table.aside), drop_aside),
            (table.drop_side_text(table.stamps), drop_side),
            (table.drop_side_text(table.losers), drop_losers),
            (table.put_user_text, put_user),
            (table.put_aside_text, put_aside),
            (table.put_stamps_text, put_side),
            (table.put_loser_text, put_losers),
        ):
            if keys:
                self._connection.executemany(text, keys)

    def _stamps(self, table: LocalTable, key: Key, disk: OnDisk, row: RowState) -> list[int | None] | None:
        """The side row [b, d, c0 …]; None where all is as implied."""
        implied = self.implied_base(table, key)
        base = implied or disk.base or row.deleted_stamp or max(row.stamps)
        eid = base & EID_MASK
        result: list[int | None] = [None if base == implied else base]
        result.append(None if row.deleted_stamp == base else row.deleted_stamp)
        for at, stamp in enumerate(row.stamps):
            as_base = base if eid >= table.first_eids[at] else 0
            result.append(None if stamp == as_base else stamp)
        return None if all(stamp is None for stamp in result) else result


def members_of(row: RowState, at: int) -> dict[int, Value]:
    """All causally maximal writes of a cell: stamp → value."""
    members = dict(row.losers.get(at, ()))
    stamp, value = (row.deleted_stamp, row.deleted) if at == DELETED else (row.stamps[at], row.values[at])
    if stamp:
        members[stamp] = value
    return members


def set_members(row: RowState, at: int, members: dict[int, Value], winner: int) -> None:
    """Make these the maximal writes of a cell, `winner` the one that is shown."""
    if at == DELETED:
        row.deleted_stamp, row.deleted = winner, 1 if members[winner] else 0
    else:
        row.stamps[at], row.values[at] = winner, members[winner]
    if len(members) > 1:
        row.losers[at] = {stamp: value for stamp, value in members.items() if stamp != winner}
    else:
        row.losers.pop(at, None)
