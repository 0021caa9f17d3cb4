"""Single rows with all that the merge knows of them: loading, and writing back what changed.

A row is visible (in the user's table), kept aside, or not there at all. For each cell there is the winner's stamp and
value and the other causally maximal writes. Used by the slow path and by recompute; the fast path never comes here.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import apsw

from peers.model.ids import ROW_ID_CHARS, parse_row_id
from peers.model.schema import Value
from peers.store.change_log import ChangeLog
from peers.store.rows import DELETED, EID_MASK, EPOCH_SHIFT, LocalTable

Key = tuple[Any, ...]
DIGITS = frozenset("0123456789ABCDEFGHIJKLMNOPQRSTUV")
"""What default ids are written in."""


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
    implied: int
    """The stamp that the row's id implies, or 0."""
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

    def implied_bases(self, table: LocalTable, keys: Sequence[Key]) -> list[int]:
        """`implied_base` of many keys: the ids of one entry differ in their ordinal only."""
        if not table.table.default_id:
            return [0] * len(keys)
        found: dict[str, int] = {}
        result = []
        for key in keys:
            text = key[0]
            if len(text) != ROW_ID_CHARS or not DIGITS.issuperset(text[13:19]):
                result.append(0)
                continue
            tag = text[:13] + text[19:]
            base = found.get(tag)
            if base is None:
                base = found[tag] = self.implied_base(table, key)
            result.append(base)
        return result

    def load(self, table: LocalTable, keys: Sequence[Key]) -> list[tuple[Key, OnDisk, RowState]]:
        """The rows of `keys`, in their order. A row that is not there is empty."""
        self.stage(table, keys)
        losers: dict[Key, list[tuple[int, int, Value]]] = {}
        if self.has_losers(table):
            size = table.key_size
            for row in self._connection.execute(table.load_losers_text):
                losers.setdefault(row[:size], []).append(row[size:])
        rows = self._connection.execute(table.load_text).fetchall()
        bases = self.implied_bases(table, keys)
        return [
            (key, *self._read(table, base, row, losers.get(key, ())))
            for key, base, row in zip(keys, bases, rows, strict=True)
        ]

    def has_losers(self, table: LocalTable) -> bool:
        """Whether any row of the table has a conflict."""
        return self._connection.execute(f"SELECT 1 FROM {table.losers} LIMIT 1").fetchone() is not None

    def stage(self, table: LocalTable, keys: Sequence[Key]) -> None:
        """Put keys where the statements of the table that read staged rows find them."""
        execute = self._connection.execute
        execute(table.stage_text)
        execute(f"DELETE FROM {table.stage}")
        size = table.rows_per_statement(table.key_size)
        flat = list(chain.from_iterable(keys))
        width = size * table.key_size
        for start in range(0, len(flat), width):
            part = flat[start : start + width]
            execute(table.stage_insert_text(len(part) // table.key_size), part)

    def _read(
        self, table: LocalTable, implied: int, row: Sequence[Any], losers: Iterable[tuple[int, int, Value]]
    ) -> tuple[OnDisk, RowState]:
        width = len(table.by_position)
        visible, aside, side = bool(row[0]), bool(row[1 + width]), bool(row[2 + 2 * width])
        explicit_base = row[3 + 2 * width]
        state = empty_row(table)
        disk = OnDisk(visible, aside, side, implied, explicit_base, False)
        if not visible and not aside:
            return disk, state
        state.values = list(row[1 : 1 + width] if visible else row[2 + width : 2 + 2 * width])
        base = explicit_base if explicit_base is not None else implied
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
            stamps = self._stamps(table, disk, row) if exists else None
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

    def _stamps(self, table: LocalTable, disk: OnDisk, row: RowState) -> list[int | None] | None:
        """The side row [b, d, c0 …]; None where all is as implied."""
        implied = disk.implied
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
