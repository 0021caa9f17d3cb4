"""The side tables after an own write: rows that the user's tables already show as they shall be.

An own entry covers all that the tables show, so its stamp replaces what stood there and every loser goes. In owned
tables the stamp carries the row's epoch: the highest one there, plus 1 where this user owns the row.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import apsw

from peers.model.entries import Action
from peers.model.ids import UserId, parse_row_id
from peers.store.apply import Apply
from peers.store.change_log import ChangeLog, EntryInfo
from peers.store.key_columns import columns_of
from peers.store.own_change import OwnChange
from peers.store.row_state import Key, RowState, set_members
from peers.store.rows import DELETED, EID_MASK, EPOCH_SHIFT, LocalTable

_STEP = 1000


class OwnStamps:
    """Writes stamps for own entries."""

    def __init__(self, connection: apsw.Connection, log: ChangeLog, apply: Apply, user: UserId) -> None:
        self._connection = connection
        self._log = log
        self._apply = apply
        self._user = user

    def write(self, info: EntryInfo, change: OwnChange, start: int, stop: int, *, implied: bool) -> None:
        """Stamp rows `start … stop` of a change. `implied`: fresh ids of this very entry need no stamps."""
        table = change.table
        if change.action is Action.INSERT and change.first_ordinal is not None and implied:
            return
        keys = change.keys[start:stop]
        if self._apply.is_open(table, keys):
            opened = self._apply.open_keys(table)
            self._apply.recompute_later(table, [key for key in keys if key in opened])
        if change.action is Action.DELETE:
            self._put_aside(change, start, stop)
        if table.table.owned:
            self._write_owned(info, change, keys)
            return
        columns = columns_of(keys)
        fast = self._apply.fast
        match change.action:
            case Action.INSERT:
                self._drop_aside(table, keys)
                fast.put_base(table, columns, info.eid, anew=True)
            case Action.UPDATE:
                fast.put_stamps(table, columns, [table.positions[column.id] for column in change.columns], info.eid)
            case _:
                fast.put_stamps(table, columns, [DELETED], info.eid)

    def _put_aside(self, change: OwnChange, start: int, stop: int) -> None:
        table = change.table
        order = [table.table.columns.index(column) for column in table.by_position]
        assert change.old_rows is not None
        rows = [
            (*key, *(old[at] for at in order))
            for key, old in zip(change.keys[start:stop], change.old_rows[start:stop], strict=True)
        ]
        self._connection.executemany(table.put_aside_text, rows)

    def _drop_aside(self, table: LocalTable, keys: Sequence[Key]) -> None:
        if self._connection.execute(f"SELECT 1 FROM {table.aside} LIMIT 1").fetchone() is not None:
            self._connection.executemany(table.drop_side_text(table.aside), keys)

    def _write_owned(self, info: EntryInfo, change: OwnChange, keys: Sequence[Key]) -> None:
        table = change.table
        if change.action is Action.INSERT:
            self._drop_aside(table, keys)
            self._apply.recompute_later(table, keys)
            return
        positions = [table.positions[column.id] for column in change.columns]
        if change.action is not Action.UPDATE:
            positions = [DELETED]
        rows = []
        for key, disk, row in self._apply.rows.load(table, keys):
            top = max(_stamps(row))
            owner = self._owner(key)
            if owner is None or any(stamp & EID_MASK == info.eid for stamp in _stamps(row)):
                self._apply.recompute_later(table, [key])  # or the entry has written the row before
                continue
            epoch = top >> EPOCH_SHIFT
            stamp = (epoch + (1 if epoch and owner == self._user else 0)) << EPOCH_SHIFT | info.eid
            for at in positions:
                value = (1 if change.action is Action.DELETE else 0) if at == DELETED else row.values[at]
                set_members(row, at, {stamp: value}, stamp)
            rows.append((key, disk, row))
        self._apply.rows.write(table, rows)

    def _owner(self, key: Key) -> Any:
        parts = parse_row_id(key[0])
        eid = self._log.entry_of_id(parts.hlc, parts.maker) if parts is not None else None
        return None if eid is None else self._log.info(eid).user


def _stamps(row: RowState) -> list[int]:
    return [*row.stamps, row.deleted_stamp, *chain.from_iterable(row.losers.values())]
