"""Ingest: what rights and schema refuse, what waits and for how long. Malformed entries are in test_ingest_faults."""

import random
from dataclasses import dataclass, replace
from typing import Any

from peers.config import StoreConfig
from peers.errors import EntryFault
from peers.model.clock import pack
from peers.model.entries import (
    SIGNATURE_PREFIX,
    Action,
    Dep,
    Flag,
    Header,
    Leaf,
    LeafRef,
    RawEntry,
    encode_header,
    encode_leaf,
)
from peers.model.ids import ZERO_HASH, LogId, blake2b_256, row_id, row_maker
from peers.model.keys import SigningKey
from peers.store.group_store import Author, GroupStore
from peers.store.ingest import IngestReport
from peers.testing.group_world import BASE_MS, WorldDevice, group_world

NOW_MS = BASE_MS + 3_600_000
WORLD = group_world()
SETTING = next(table for table in WORLD.schema.tables if table.name == "setting")
IDEA = next(table for table in WORLD.schema.tables if table.name == "idea")
MARK = next(table for table in WORLD.schema.tables if table.name == "mark")


def open_store(
    operations: int | None = None, device: WorldDevice = WORLD.observer, path: str = ":memory:"
) -> GroupStore:
    return GroupStore.create(
        path,
        WORLD.signed_operations[:operations],
        author=Author(device.user, device.key),
        now_ms=lambda: NOW_MS,
        random_bytes=random.Random(7).randbytes,
        config=StoreConfig(),
        nonce=bytes(8),
    )


def take(store: GroupStore, *entries: RawEntry, contact_seconds: float = 0.0) -> IngestReport:
    steps = store.ingest(entries, contact_seconds=contact_seconds)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            report: IngestReport = end.value
            return report


@dataclass
class Log:
    """Writes entries of one device by hand."""

    device: WorldDevice = WORLD.devices[0]
    incarnation: bytes = b"incarnat"
    tip: Header | None = None

    def entry(self, *leaves: Leaf, keep: bool = True, **changes: Any) -> RawEntry:
        seq = self.tip.seq + 1 if self.tip else 1
        data = [encode_leaf(leaf, bytes(16)) for leaf in leaves]
        rows = [len(leaf.keys[0]) if isinstance(leaf.keys, list) else len(leaf.values[0]) for leaf in leaves]
        fields: dict[str, Any] = {
            "group": WORLD.group,
            "log": LogId(self.device.key.public, self.incarnation),
            "seq": seq,
            "prev": self.tip.hash if self.tip else ZERO_HASH,
            "hlc": (self.tip.hlc if self.tip else pack(NOW_MS - 1000)) + 1,
            "control_heads": WORLD.control_heads,
            "deps": (),
            "leaves": tuple(LeafRef(blake2b_256(d), n) for d, n in zip(data, rows, strict=True)),
            "flags": Flag(0) if leaves else Flag.ACK,
        }
        key: SigningKey = changes.pop("key", self.device.key)
        header = encode_header(**{**fields, **changes})
        if keep:
            self.tip = header
        return RawEntry(header.raw, key.sign(SIGNATURE_PREFIX, header.raw), tuple(data))


def setting(value: Any = 1, key: bytes = b"k", action: Action = Action.INSERT) -> Leaf:
    return Leaf(SETTING.id, action, (SETTING.values[0].id,), [[key]], [[value]])


def only(report: IngestReport, what: str) -> EntryFault:
    problems = getattr(report, what)
    assert len(problems) == 1 and not report.stored
    return EntryFault(problems[0][0])


def test_c7_what_an_entrys_own_past_does_not_declare_is_refused_everywhere() -> None:
    """C7: unknown table or column: judged by the entry's own past, so a replica that knows the table from elsewhere
    says the same as one that does not (else their rows would differ for ever)."""
    heads = (WORLD.operations[-1 - len(WORLD.schema.tables)].id,)
    entry = Log().entry(setting(5), control_heads=heads)
    knows, knows_not = open_store(), open_store(len(WORLD.operations) - len(WORLD.schema.tables))
    for store in (knows, knows_not):
        assert only(take(store, entry), "refused") is EntryFault.BAD_VALUE
        store.add_operations(WORLD.signed_operations)
        assert store.query("SELECT k, v FROM setting") == []
    assert knows.state_hash() == knows_not.state_hash() and knows.vector == knows_not.vector


def test_c7_a_table_that_has_not_arrived_holds_the_entry_until_it_has() -> None:
    """C7: newer schema: the entry names operations that are missing; held, asked for, applied when they have come."""
    store = open_store(len(WORLD.operations) - len(WORLD.schema.tables))
    entry = Log().entry(setting(5))
    report = take(store, entry)
    assert only(report, "held") is EntryFault.MISSING_CONTROL and report.missing_control
    store.add_operations(WORLD.signed_operations)
    assert len(take(store, entry).stored) == 1
    assert store.query("SELECT k, v FROM setting") == [(b"k", 5)]


def idea_id(device: WorldDevice, incarnation: bytes, hlc: int) -> str:
    return row_id(hlc, 0, row_maker(device.user, device.key.public, incarnation, hlc))


def test_c11_c14_rows_of_owned_tables() -> None:
    """C11, C14: deleting a row of another, inserting a row whose id names another creator -> not_allowed."""
    owner, guest = Log(WORLD.devices[0]), Log(WORLD.devices[2])
    columns, values = tuple(c.id for c in IDEA.values), [["t"], [1.0]]
    hlc = pack(NOW_MS - 1000) + 1
    key = idea_id(owner.device, owner.incarnation, hlc)
    created = owner.entry(Leaf(IDEA.id, Action.INSERT, columns, 0, values))
    theft = guest.entry(Leaf(IDEA.id, Action.INSERT, columns, [[key]], values), hlc=hlc + 10, keep=False)
    delete = guest.entry(Leaf(IDEA.id, Action.DELETE, (), [[key]], []), hlc=hlc + 10, keep=False)
    store = open_store()
    assert len(take(store, created).stored) == 1 and store.query("SELECT id FROM idea") == [(key,)]
    for entry in (theft, delete):
        assert only(take(store, entry), "refused") is EntryFault.NOT_ALLOWED
    seen = (Dep(*owner.tip.log, 1, owner.tip.hash),)
    edit = guest.entry(Leaf(IDEA.id, Action.UPDATE, columns[:1], [[key]], [["edited"]]), hlc=hlc + 10, deps=seen)
    assert len(take(store, edit).stored) == 1 and store.query("SELECT title FROM idea") == [("edited",)]
    own_delete = owner.entry(Leaf(IDEA.id, Action.DELETE, (), [[key]], []))
    assert len(take(store, own_delete).stored) == 1 and store.query("SELECT title FROM idea") == []


def test_unknown_control_heads_are_held_and_named() -> None:
    store = open_store()
    report = take(store, Log().entry(setting(), control_heads=(b"h" * 32,)))
    assert only(report, "held") is EntryFault.MISSING_CONTROL and report.missing_control == {b"h" * 32}


def test_strangers_and_those_not_yet_writers_are_refused() -> None:
    stranger = replace(WORLD.devices[0], key=SigningKey(bytes(32)))
    assert only(take(open_store(), Log(stranger).entry(setting())), "refused") is EntryFault.UNKNOWN_DEVICE
    early = Log(WORLD.devices[2]).entry(setting(), control_heads=(WORLD.operations[0].id,))
    assert only(take(open_store(), early), "refused") is EntryFault.UNKNOWN_DEVICE


def test_a_missing_dep_parks_until_it_comes_or_contact_has_lasted() -> None:
    first, second = Log(), Log(WORLD.devices[2])
    cause = first.entry(setting(1))
    effect = second.entry(setting(2), hlc=first.tip.hlc + 1, deps=(Dep(*first.tip.log, 1, first.tip.hash),))
    store = open_store()
    report = take(store, effect)
    assert len(report.stored) == 1 and report.parked == 1 and store.query("SELECT v FROM setting") == []
    assert store.vector.seq(second.tip.log) == 1
    take(store, contact_seconds=59.0)
    assert store.status()["parked"] == 1
    assert take(store, contact_seconds=60.0).tables == {"setting"}
    assert store.query("SELECT v FROM setting") == [(2,)] and store.status()["early"] == 1
    take(store, cause)
    assert store.status()["early"] == 0 and store.query("SELECT v FROM setting") == [(2,)]
    assert store.conflict_count() == 0


def test_a_transaction_over_entries_shows_whole_or_not_at_all() -> None:
    log = Log()
    parts = [log.entry(mark_leaf(n), flags=Flag.MORE if n < 2 else Flag(0)) for n in range(3)]
    store = open_store()
    take(store, *parts[:2])
    assert store.query("SELECT * FROM mark") == [] and store.status()["parked"] == 2
    take(store, parts[2])
    assert store.query("SELECT n FROM mark") == [(0,), (1,), (2,)] and store.status()["parked"] == 0


def mark_leaf(number: int) -> Leaf:
    return Leaf(MARK.id, Action.INSERT, (), [[number]], [])


def test_closing_the_generator_rolls_all_of_it_back() -> None:
    store, log = open_store(), Log()
    big = Leaf(MARK.id, Action.INSERT, (), [list(range(5000))], [])
    steps = store.ingest([log.entry(big)])
    next(steps)
    steps.close()
    assert store.query("SELECT * FROM mark") == [] and not store.vector.heads
    take(store, log.entry(big, seq=1, prev=ZERO_HASH))
    assert store.row_counts()["mark"] == 5000
