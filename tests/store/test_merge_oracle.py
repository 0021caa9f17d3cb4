"""The store against the oracle: many arrivals of many histories, compared in everything that replicas must share.

Compared are the visible tables, the rows kept aside, every winner's stamp, every set of maximal writes and the state
hash, for replicas that differ in order, batches, duplicates, cut-offs in between, early application, and in whether
they ever received what is void. `tests/store/fuzz.py` runs the same check over as many seeds as wanted.
"""

import itertools
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from peers.config import StoreConfig
from peers.model.ids import parse_row_id, row_maker
from peers.model.merge import Key, Member, MergeResult, RowRef, state_hash
from peers.model.schema import Value
from peers.model.state import DELETED, Stamp
from peers.store.change_log import from_sql_u64
from peers.store.group_store import Author, GroupStore
from peers.store.rows import EID_MASK, EPOCH_SHIFT, LocalTable
from peers.testing.arrivals import Arrival, Deliver, all_orders, orders, withholding_arrivals
from peers.testing.histories import FOCUSED_SHAPES, Shape, focused_history, random_history
from peers.testing.history import History
from peers.testing.random_writes import WriteShape

RANDOM_HISTORIES = 150
FOCUSED_HISTORIES = 60
ORDERS = 4
LONG_CONTACT_SECONDS = 3600.0

Picture = dict[RowRef, tuple[bool, tuple[Value, ...] | None, dict[bytes, list[Member]]]]
"""Row → visible?, what it shows (visible rows only), and by column the winner and then the other maximal writes."""


class Replica:
    """The only place that knows how the store is called, and how its file is read."""

    def __init__(self, history: History, path: str = ":memory:") -> None:
        world = history.world
        self.history = history
        self.store = GroupStore.create(
            path,
            world.signed_operations,
            author=Author(world.observer.user, world.observer.key),
            now_ms=lambda: history.now_ms,
            random_bytes=random.Random(history.name).randbytes,
            config=StoreConfig(),
            nonce=bytes(16),
        )
        self.connection = self.store.database.connection

    def run(self, arrival: Arrival) -> None:
        for step in arrival.steps:
            if isinstance(step, Deliver):
                contact = LONG_CONTACT_SECONDS if step.early else 0.0
                for _ in self.store.ingest([entry.raw for entry in step.entries], contact_seconds=contact):
                    pass
            else:
                self.store.set_cutoffs(dict(step.cutoffs))

    def close(self) -> None:
        self.store.close()

    def state_hash(self) -> bytes:
        return self.store.state_hash()

    def vector(self) -> Any:
        return self.store.vector

    def picture(self) -> Picture:
        self._stamps = self._read_entries()
        result: Picture = {}
        for table in self.history.world.schema.tables:
            local = self.store.catalog.by_id(table.id)
            assert local is not None
            visible = self._rows(local.sql_name, local.key_names, local)
            aside = self._rows(local.aside, [f"k{i}" for i in range(local.key_size)], local)
            assert not set(visible) & set(aside), "a row is both visible and aside"
            sides = self._side_rows(local)
            losers = self._losers(local)
            assert set(sides) | set(losers) <= set(visible) | set(aside), "side rows of no row"
            for key, values in {**visible, **aside}.items():
                ref = RowRef(table.id, key)
                cells = self._cells(local, key, values, sides.get(key), is_visible=key in visible)
                for column, member in losers.get(key, ()):
                    cells[column].append(member)
                shown = None
                if key in visible:
                    by_column = dict(zip((column.id for column in local.by_position), values, strict=True))
                    shown = tuple(by_column[column.id] for column in table.values)
                result[ref] = (key in visible, shown, cells)
        return result

    def _rows(self, name: str, keys: Sequence[str], local: LocalTable) -> dict[Key, tuple[Value, ...]]:
        aside = name == local.aside
        cells = [f"c{i}" for i in range(len(local.by_position))] if aside else [
            local.column_name(column.id) for column in local.by_position
        ]  # fmt: skip
        rows = self.connection.execute(f"SELECT {', '.join([*keys, *cells])} FROM {name}")
        return {row[: len(keys)]: row[len(keys) :] for row in rows}

    def _side_rows(self, local: LocalTable) -> dict[Key, tuple[int | None, ...]]:
        cells = ["b", "d", *(f"c{i}" for i in range(len(local.by_position)))]
        rows = self.connection.execute(f"SELECT {local.side_key}, {', '.join(cells)} FROM {local.stamps}")
        return {row[: local.key_size]: row[local.key_size :] for row in rows}

    def _losers(self, local: LocalTable) -> dict[Key, list[tuple[bytes, Member]]]:
        found: dict[Key, list[tuple[bytes, Member]]] = {}
        for row in self.connection.execute(f"SELECT {local.side_key}, c, s, v FROM {local.losers}"):
            cell, stamp, value = row[local.key_size :]
            column = DELETED if cell < 0 else local.by_position[cell].id
            found.setdefault(row[: local.key_size], []).append((column, Member(self._stamp(stamp), value)))
        return found

    def _cells(
        self,
        local: LocalTable,
        key: Key,
        values: tuple[Value, ...],
        side: tuple[int | None, ...] | None,
        *,
        is_visible: bool,
    ) -> dict[bytes, list[Member]]:
        base, deleted, *stamps = side or (None, None, *(None for _ in values))
        if base is None:
            base = self._implied(local, key)
        cells: dict[bytes, list[Member]] = {}
        deleted = base if deleted is None else deleted
        if deleted:
            cells[DELETED] = [Member(self._stamp(deleted), 0 if is_visible else 1)]
        for at, (stamp, value) in enumerate(zip(stamps, values, strict=True)):
            if stamp is None:
                stamp = base if base and base & EID_MASK >= local.first_eids[at] else 0
            if stamp:
                cells[local.by_position[at].id] = [Member(self._stamp(stamp), value)]
        return cells

    def _implied(self, local: LocalTable, key: Key) -> int:
        """The stamp of the one stored entry that a default id names as its base; 0 where it names none.

        `ids` is the incarnation under which the entry made its ids (NULL: its own, b"": it implies none). The first
        write of an owned row is its owner's: epoch 1.
        """
        parts = parse_row_id(key[0]) if local.table.default_id and isinstance(key[0], str) else None
        if parts is None:
            return 0
        for eid, stamp in self._stamps.items():
            ids = self._ids[eid]
            user = self.history.world.user_of(stamp.device)
            maker = row_maker(user, stamp.device, ids or stamp.incarnation, stamp.hlc)
            if ids != b"" and stamp.hlc == parts.hlc and maker == parts.maker:
                return (1 << EPOCH_SHIFT if local.table.owned else 0) | eid
        return 0

    def _read_entries(self) -> dict[int, Stamp]:
        rows = self.connection.execute(
            "SELECT e.eid, e.ids, e.hlc, l.device, l.inc, e.seq, e.hash "
            "FROM _peers_entry e JOIN _peers_log l ON l.log = e.log"
        ).fetchall()
        self._ids: dict[int, bytes | None] = {row[0]: row[1] for row in rows}
        return {eid: Stamp(0, from_sql_u64(hlc), *rest) for eid, _, hlc, *rest in rows}

    def _stamp(self, stamp: int) -> Stamp:
        return self._stamps[stamp & EID_MASK]._replace(owner_epoch=stamp >> EPOCH_SHIFT)


def picture_of(history: History, result: MergeResult) -> Picture:
    """The oracle's state in the same form."""
    picture: Picture = {}
    for ref, row in result.rows.items():
        table = history.world.schema.by_id(ref.table)
        assert table is not None
        cells = {column: list(cell.members) for column, cell in row.cells.items()}
        picture[ref] = (row.visible, row.shown(table) if row.visible else None, cells)
    return picture


def exact(picture: Picture) -> dict[RowRef, Any]:
    """A picture that tells 1 from 1.0, with the losers of a cell in one order."""
    return {
        ref: (
            visible,
            repr(shown),
            {
                column: (repr(members[0]), sorted(map(repr, members[1:])))
                for column, members in sorted(cells.items())
            },
        )
        for ref, (visible, shown, cells) in picture.items()
    }  # fmt: skip


def check(history: History, arrivals: Sequence[Arrival]) -> None:
    """Raises AssertionError, with what is needed to repeat it, unless every arrival ends as the oracle says."""
    vectors = []
    for arrival in arrivals:
        result = history.expected(arrival.delivered)
        expected = exact(picture_of(history, result))
        replica = Replica(history)
        try:
            replica.run(arrival)
            found = exact(replica.picture())
            wrong = {ref: (found.get(ref), expected.get(ref)) for ref in {*found, *expected}
                     if found.get(ref) != expected.get(ref)}  # fmt: skip
            text = "\n".join(
                f"{ref}\n  found    {pair[0]}\n  expected {pair[1]}" for ref, pair in sorted(wrong.items())
            )
            assert not wrong, f"{history.name}, {arrival.name}:\n{text}"
            assert replica.state_hash() == state_hash(result), f"{history.name}, {arrival.name}: state hash"
            vectors.append(replica.vector())
        finally:
            replica.close()
    assert all(vector == vectors[0] for vector in vectors), f"{history.name}: vectors differ"


@pytest.mark.parametrize("seed", range(RANDOM_HISTORIES))
def test_random_history(seed: int) -> None:
    history = random_history(seed)
    check(history, orders(history, ORDERS, random.Random(seed)))


@pytest.mark.parametrize("seed", range(FOCUSED_HISTORIES))
def test_focused_history(seed: int) -> None:
    history = focused_history(seed)
    check(history, orders(history, ORDERS, random.Random(seed)))


@pytest.mark.parametrize("seed", range(10))
def test_every_order_of_few_entries(seed: int) -> None:
    shape = FOCUSED_SHAPES[seed % len(FOCUSED_SHAPES)]
    history = focused_history(seed, replace(shape, entries_min=4, entries_max=4))
    check(history, list(itertools.islice(all_orders(history, limit=24), 24)))


@pytest.mark.parametrize("seed", range(20))
def test_deps_that_never_arrive(seed: int) -> None:
    """An entry that waits only for a dep is applied after long contact; the state is that of what is there."""
    writes = WriteShape(tables=("trade", "tagof", "setting"), rows_max=2, leaves_max=2, keys_max=2)
    history = random_history(seed, Shape(writes=writes, early=1, entries_max=12))
    check(history, withholding_arrivals(history, ORDERS, random.Random(seed)))
