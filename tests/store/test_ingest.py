"""Ingest: one order of checks, one fault name for each; what is refused, held, parked. Rows C of faults.md."""

import random
from dataclasses import dataclass, replace
from typing import Any

import pytest

from peers.config import CLOCK_AHEAD_MAX_MS, StoreConfig
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


def test_c1_bad_signature_other_group_or_other_device() -> None:
    """C1: bad signature / other group's id / other device's id in header -> bad_signature; the prefix is kept."""
    store, log = open_store(), Log()
    good = log.entry(setting())
    bad = log.entry(setting(2), key=WORLD.devices[1].key, keep=False)
    report = take(store, good, bad)
    assert len(report.stored) == 1 and report.refused[0][0] is EntryFault.BAD_SIGNATURE
    assert only(take(store, log.entry(setting(2), group=bytes(32), keep=False)), "refused") is EntryFault.BAD_SIGNATURE
    assert len(take(store, log.entry(setting(2))).stored) == 1


def test_c2_a_fork_keeps_both_branches() -> None:
    """C2: same (device, inc, seq) twice, different hash -> both kept, fork proof stored, device flagged, converges."""
    log = Log()
    first = log.entry(setting(0))
    twin = replace(log)
    left, right = log.entry(setting(1)), twin.entry(setting(2))
    later = twin.entry(setting(3, b"other"))
    hashes = set()
    for order in ([first, left, right, later], [first, right, later, left]):
        store = open_store()
        for entry in order:
            assert len(take(store, entry).stored) == 1
        assert len(store.vector.heads[log.tip.log]) == 2 and store.status()["forks"] == 1
        assert store.conflict_count() == 1
        other = open_store()
        take(other, *store.entries_since(other.vector, 1 << 20).entries)
        assert other.vector == store.vector
        hashes |= {store.state_hash(), other.state_hash()}
    assert len(hashes) == 1


def test_c3_a_gap_is_held_and_fills() -> None:
    """C3: gap (seq 7 after 5) -> hold, ask for 6; nothing is lost when it comes."""
    store, log = open_store(), Log()
    one, two, three = (log.entry(setting(n)) for n in range(3))
    report = take(store, one, three)
    assert len(report.stored) == 1 and report.held[0][0] is EntryFault.GAP
    assert len(take(store, two, three).stored) == 2


@pytest.mark.parametrize(
    ("hlc", "fault"),
    [
        (pack(NOW_MS + CLOCK_AHEAD_MAX_MS), None),
        (pack(NOW_MS + CLOCK_AHEAD_MAX_MS + 60_000), EntryFault.CLOCK_AHEAD),
        ((1 << 64) - 1, EntryFault.CLOCK_AHEAD),
        (0, None),
    ],
)
def test_c4_clocks_ahead_are_held(hlc: int, fault: EntryFault | None) -> None:
    """C4: hlc = now + 5 min / + 6 min / 2^64−1 / 0 -> accept / hold / hold / accept."""
    report = take(open_store(), Log().entry(setting(), hlc=hlc))
    assert ([held[0] for held in report.held] or [None]) == [fault] and not report.refused


def test_c5_clock_order_stops_that_log_only() -> None:
    """C5: hlc below the previous entry of the same log -> clock_order, that log stops, others flow."""
    store, log, other = open_store(), Log(), Log(WORLD.devices[2])
    good = log.entry(setting())
    back = log.entry(setting(2), hlc=log.tip.hlc)
    after = log.entry(setting(3))
    report = take(store, good, back, after, other.entry(setting(4)))
    assert [problem[0] for problem in report.refused] == [EntryFault.CLOCK_ORDER]
    assert [problem[0] for problem in report.held] == [EntryFault.GAP]
    assert len(report.stored) == 2


def test_c6_leaves_must_be_the_signed_ones() -> None:
    """C6: leaf does not match digest; leaf missing -> bad_digest; the same entry from another peer is taken."""
    store, entry = open_store(), Log().entry(setting())
    assert (
        only(take(store, entry._replace(leaves=(encode_leaf(setting(2), bytes(16)),))), "refused")
        is EntryFault.BAD_DIGEST
    )
    assert only(take(store, entry._replace(leaves=(None,))), "refused") is EntryFault.BAD_DIGEST
    assert only(take(store, entry._replace(leaves=())), "refused") is EntryFault.BAD_DIGEST
    assert len(take(store, entry).stored) == 1


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


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.0, 1 << 63, "x" * (300 * 1024)])
def test_c9_bad_values_are_refused(value: Any) -> None:
    """C9: NaN, ±inf, −0.0 unnormalised, 2^63, 300 KiB text -> bad_value."""
    assert only(take(open_store(), Log().entry(setting(value))), "refused") is EntryFault.BAD_VALUE


def test_c9_keys_of_other_types_are_refused_and_nul_is_allowed() -> None:
    """C9: PK of another type -> bad_value; NUL in text allowed."""
    store = open_store()
    assert only(take(store, Log().entry(setting(1, 1.5))), "refused") is EntryFault.BAD_VALUE  # type: ignore[arg-type]
    take(store, Log().entry(setting("a\0b")))
    assert store.query("SELECT v FROM setting") == [("a\0b",)]


def test_c10_too_many_leaves_bytes_rows() -> None:
    """C10: 65 leaves; 2 MiB compressed -> too_large; 0 leaves without ack -> bad_encoding."""
    store, log = open_store(), Log()
    entry = log.entry(setting())
    many = entry._replace(leaves=entry.leaves * 65)
    assert only(take(store, many), "refused") is EntryFault.TOO_LARGE
    large = entry._replace(leaves=(bytes(2 << 20),))
    assert only(take(store, large), "refused") is EntryFault.TOO_LARGE
    none = Log().entry(flags=Flag(0))
    assert only(take(store, none), "refused") is EntryFault.BAD_ENCODING


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


def test_c15_duplicates_change_nothing() -> None:
    """C15: duplicate delivery of everything, twice -> no change, no growth."""
    store, log = open_store(), Log()
    entries = [log.entry(setting(n)) for n in range(3)]
    take(store, *entries)
    before = store.state_hash(), store.query("SELECT count(*) FROM _peers_leaf")
    report = take(store, *entries, *entries)
    assert report.duplicate == 6 and not report.stored
    assert (store.state_hash(), store.query("SELECT count(*) FROM _peers_leaf")) == before


def test_unknown_control_heads_are_held_and_named() -> None:
    store = open_store()
    report = take(store, Log().entry(setting(), control_heads=(b"h" * 32,)))
    assert only(report, "held") is EntryFault.MISSING_CONTROL and report.missing_control == {b"h" * 32}


def test_strangers_and_those_not_yet_writers_are_refused() -> None:
    stranger = replace(WORLD.devices[0], key=SigningKey(bytes(32)))
    assert only(take(open_store(), Log(stranger).entry(setting())), "refused") is EntryFault.UNKNOWN_DEVICE
    early = Log(WORLD.devices[2]).entry(setting(), control_heads=(WORLD.operations[0].id,))
    assert only(take(open_store(), early), "refused") is EntryFault.UNKNOWN_DEVICE


def test_garbage_is_bad_encoding_and_the_rest_flows() -> None:
    report = take(open_store(), RawEntry(b"\xff garbage", bytes(64), ()), Log().entry(setting()))
    assert report.refused[0][0] is EntryFault.BAD_ENCODING and len(report.stored) == 1


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
