"""Histories written by hand: real signed entries of named devices, for counter-examples and regressions.

The devices are `a` (the group's owner), `b` (the same user), `c` and `d` (two other users). What a script does is not
checked: it may claim to have seen anything, fork, and write without a right.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any

from peers.model.clock import pack
from peers.model.entries import Action, Dep, Flag, Leaf
from peers.model.ids import LogId, row_id, row_maker
from peers.model.merge import Key
from peers.model.schema import Table, Value
from peers.testing.group_world import BASE_MS, group_world
from peers.testing.history import Cutoffs, History, HistoryEntry, signed_entry

_INCARNATION = b"scripted"


class Script:
    """Write entries one after the other, then take the `history`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.world = group_world()
        self.entries: list[HistoryEntry] = []
        self._cutoffs: list[Cutoffs] = [{}]
        self._tips: dict[LogId, HistoryEntry] = {}
        self._random_bytes = random.Random(f"script {name}").randbytes

    def log(self, device: str, incarnation: bytes = _INCARNATION) -> LogId:
        return LogId(self.world.devices["abcd".index(device)].key.public, incarnation)

    def table(self, name: str) -> Table:
        found = self.world.schema.by_name(name)
        if found is None:
            raise ValueError(f"the world has no table {name}")
        return found

    def key(self, device: str, number: int, incarnation: bytes = _INCARNATION) -> Key:
        """The first default id of the entry that `device` writes as the script's entry `number` (from 1)."""
        log = self.log(device, incarnation)
        user = self.world.user_of(log.device)
        hlc = self.hlc(number)
        return (row_id(hlc, 0, row_maker(user, log.device, incarnation, hlc)),)

    @staticmethod
    def hlc(number: int) -> int:
        return pack(BASE_MS + 10_000 + 10 * number)

    def insert(self, table: str, key: Key, values: Mapping[str, Value] | None = None) -> Leaf:
        """Every column: the given values, else what an unwritten cell shows."""
        given = values or {}
        columns = self.table(table).values
        cells = [[given.get(column.name, column.shown_default)] for column in columns]
        return self._leaf(table, Action.INSERT, key, [column.id for column in columns], cells)

    def update(self, table: str, key: Key, values: Mapping[str, Value]) -> Leaf:
        columns = [column for column in self.table(table).values if column.name in values]
        cells = [[values[column.name]] for column in columns]
        return self._leaf(table, Action.UPDATE, key, [column.id for column in columns], cells)

    def delete(self, table: str, key: Key) -> Leaf:
        return self._leaf(table, Action.DELETE, key, [], [])

    def restore(self, table: str, key: Key) -> Leaf:
        return self._leaf(table, Action.RESTORE, key, [], [])

    def write(
        self,
        device: str,
        *leaves: Leaf,
        saw: Sequence[HistoryEntry] = (),
        hlc: int | None = None,
        after: HistoryEntry | None = None,
        first: bool = False,
        incarnation: bytes = _INCARNATION,
        more: bool = False,
        claims: Sequence[Dep] = (),
    ) -> HistoryEntry:
        """The next entry of the device's log; a fork where `after` (or `first`) names an earlier place of it.

        `saw` become deps as they stand, `claims` are deps of any content; the hlc is `hlc(number)` unless given.
        """
        log = self.log(device, incarnation)
        before = after if after is not None or first else self._tips.get(log)
        named = [Dep(*entry.header.log, entry.header.seq, entry.hash) for entry in saw]
        entry = signed_entry(
            self.world,
            self.world.devices["abcd".index(device)],
            incarnation,
            after=before,
            hlc=self.hlc(len(self.entries) + 1) if hlc is None else hlc,
            deps=[*named, *claims],
            leaves=leaves,
            flags=Flag.MORE if more else Flag(0),
            random_bytes=self._random_bytes,
        )
        self.entries.append(entry)
        self._tips[log] = entry
        return entry

    def cut(self, log: LogId, seq: int | None) -> None:
        """A change of a cut-off, after those before."""
        self._cutoffs.append({**self._cutoffs[-1], log: seq})

    @property
    def history(self) -> History:
        logs = {log for step in self._cutoffs for log in step}
        complete = tuple({log: step.get(log) for log in sorted(logs)} for step in self._cutoffs)
        return History(self.name, self.world, tuple(self.entries), complete)

    def _leaf(self, table: str, action: Action, key: Key, columns: list[bytes], values: list[list[Any]]) -> Leaf:
        return Leaf(self.table(table).id, action, tuple(columns), [[part] for part in key], values)
