"""One replica and entries that must not get in: each fault is refused or held by name, and everything else flows."""

import math
import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import zstandard

from peers.config import MIB, ROWS_MAX, VALUE_BYTES_MAX, StoreConfig
from peers.errors import EntryFault, EntryRefused
from peers.model import codec
from peers.model.clock import HLC_MAX, pack
from peers.model.entries import (
    SALT_BYTES,
    SIGNATURE_PREFIX,
    Action,
    Dep,
    Flag,
    Leaf,
    LeafRef,
    RawEntry,
    encode_header,
    encode_leaf,
)
from peers.model.ids import ZERO_HASH, blake2b_256
from peers.store.group_store import Author, GroupStore
from peers.store.ingest import IngestReport
from peers.testing.group_world import group_world
from peers.testing.history import HistoryEntry
from peers.testing.scripted import Script

WORLD = group_world()
SALT = bytes(SALT_BYTES)
NO_FLAGS = Flag(0)


class Receiver:
    """A replica that receives, and its clock."""

    def __init__(self, device: int = 4) -> None:
        own = WORLD.devices[device]
        self.now_ms = Script.hlc(100) >> 16
        self.store = GroupStore.create(
            ":memory:",
            WORLD.signed_operations,
            author=Author(own.user, own.key),
            now_ms=lambda: self.now_ms,
            random_bytes=random.Random("receiver").randbytes,
            config=StoreConfig(),
            nonce=bytes(16),
        )

    def take(self, *entries: HistoryEntry | RawEntry) -> IngestReport:
        raw = [entry.raw if isinstance(entry, HistoryEntry) else entry for entry in entries]
        work = self.store.ingest(raw)
        while True:
            try:
                next(work)
            except StopIteration as end:
                report: IngestReport = end.value
                return report

    def settings(self) -> dict[bytes, Any]:
        return dict(self.store.query("SELECT k, v FROM setting"))

    def count(self, table: str) -> int:
        (row,) = self.store.query(f"SELECT count(*) FROM {table}")
        return int(row[0])

    def logged(self) -> dict[str, int]:
        """Rows of every table of the file: growth shows here."""
        names = [name for (name,) in self.store.query("SELECT name FROM sqlite_schema WHERE type='table'")]
        return {name: self.count(f'"{name}"') for name in names}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.store.close()


def put(script: Script, device: str, key: bytes, value: Any, **options: Any) -> HistoryEntry:
    return script.write(device, script.insert("setting", (key,), {"v": value}), **options)


def forged(
    device: str,
    leaves: Sequence[bytes] = (),
    *,
    after: HistoryEntry | None = None,
    rows: int = 1,
    refs: Sequence[LeafRef] | None = None,
    signer: str | None = None,
    flags: Flag = NO_FLAGS,
    **overrides: Any,
) -> RawEntry:
    """An entry as no honest device makes it, with its real signature (or `signer`'s)."""
    world_device = WORLD.devices["abcd".index(device)]
    named = [LeafRef(blake2b_256(data), rows) for data in leaves] if refs is None else refs
    fields: dict[str, Any] = {
        "group": WORLD.group,
        "log": Script("x").log(device),
        "seq": 1 if after is None else after.header.seq + 1,
        "prev": ZERO_HASH if after is None else after.hash,
        "hlc": Script.hlc(50),
        "control_heads": WORLD.control_heads,
        "deps": (),
        "leaves": tuple(named),
        "flags": flags,
        **overrides,
    }
    header = encode_header(**fields)
    key = WORLD.devices["abcd".index(signer)].key if signer is not None else world_device.key
    return RawEntry(header.raw, key.sign(SIGNATURE_PREFIX, header.raw), tuple(leaves))


def setting_leaf(key: Any, value: Any) -> bytes:
    """A leaf of table `setting` with anything in it."""
    table = Script("x").table("setting")
    return encode_leaf(Leaf(table.id, Action.INSERT, (table.values[0].id,), [[key]], [[value]]), SALT)


def faults(report: IngestReport) -> list[EntryFault]:
    return [fault for fault, _, _ in (*report.refused, *report.held)]


# C1


@pytest.mark.parametrize("lie", ["signature", "group", "device"])
def test_c1_a_bad_signature_is_refused_and_the_prefix_kept(receiver: Receiver, lie: str) -> None:
    """C1: Bad signature / other group's id / other device's id in header: `bad_signature`; batch prefix before it
    kept."""
    script = Script("c1")
    good = put(script, "a", b"before", 1)
    data = setting_leaf(b"lie", 1)
    bad = {
        "signature": forged("a", [data], after=good)._replace(signature=bytes(64)),
        "group": forged("a", [data], after=good, group=bytes(32)),
        "device": forged("a", [data], after=good, signer="c"),
    }[lie]
    follower, other = put(script, "a", b"after", 2), put(script, "c", b"other", 3)
    report = receiver.take(good, bad, follower, other)
    assert faults(report) == [EntryFault.BAD_SIGNATURE]
    assert receiver.settings() == {b"before": 1, b"after": 2, b"other": 3}
    assert receiver.store.status()["refused"] == 1, "also where the same device's other entries were stored"
    assert receiver.take(follower).duplicate == 1


# C2


def test_c2_both_branches_of_a_fork_are_kept_with_the_proof(receiver: Receiver) -> None:
    """C2: Same `(device,inc,seq)` twice, different hash: both kept, fork proof stored, device flagged, group
    converges."""
    script = Script("c2")
    first = put(script, "c", b"common", 1)
    left, right = put(script, "c", b"both", "left"), put(script, "c", b"both", "right", after=first)
    beyond = put(script, "c", b"beyond", 1, after=left)
    other = Receiver(1)
    receiver.take(first, left, beyond, right)
    other.take(first, right)
    other.take(left, beyond)
    for replica in (receiver, other):
        shown = replica.settings()
        assert shown.pop(b"both") in ("left", "right") and shown == {b"common": 1, b"beyond": 1}
        assert replica.store.status()["forks"] == replica.store.conflict_count() == 1
        proof = replica.store.query("SELECT * FROM _peers_forks")
        assert len(proof) == 1 and {left.hash, right.hash} <= set(proof[0])
        assert [head.seq for head in replica.store.vector.heads[first.header.log]] == [2, 3]
    assert receiver.store.vector == other.store.vector
    assert receiver.store.state_hash() == other.store.state_hash()
    assert receiver.settings() == other.settings()
    assert receiver.store.entries_since(other.store.vector, MIB).entries == []
    other.store.close()


def test_c2_a_fork_of_the_first_entry(receiver: Receiver) -> None:
    """C2: the same at seq 1, where both branches begin with nothing before them."""
    script = Script("c2 first")
    left, right = put(script, "c", b"left", 1), put(script, "c", b"right", 1, first=True)
    end = put(script, "c", b"end", 1)
    report = receiver.take(right, end, left)
    assert faults(report) == []
    assert receiver.settings() == {b"left": 1, b"right": 1, b"end": 1}
    assert receiver.store.status()["forks"] == 1


# C3


def test_c3_a_gap_is_held_and_filled(receiver: Receiver) -> None:
    """C3: Gap (seq 7 after 5): hold, ask for 6; no error to the user for 60 s."""
    script = Script("c3")
    entries = [put(script, "a", b"%d" % number, number) for number in range(1, 8)]
    receiver.take(*entries[:5])
    report = receiver.take(entries[6])
    assert faults(report) == [EntryFault.GAP] and report.refused == []
    assert receiver.store.vector.seq(entries[0].header.log) == 5
    assert receiver.store.status()["held"] == 1
    assert receiver.take(*entries[5:]).stored == [entry.header for entry in entries[5:]]
    assert receiver.store.status()["held"] == 0
    assert len(receiver.settings()) == 7


# C4


@pytest.mark.parametrize(
    ("hlc", "held"),
    [
        (pack((Script.hlc(100) >> 16) + 5 * 60_000), False),
        (pack((Script.hlc(100) >> 16) + 6 * 60_000), True),
        (pack(253_402_300_799_000), True),
        (0, False),
        (HLC_MAX, True),
    ],
)
def test_c4_times_ahead_are_held(receiver: Receiver, hlc: int, held: bool) -> None:
    """C4: `hlc` = now + 5 min / + 6 min / year 9999 / 0 / 2^64−1: accept / hold / hold / accept if monotone / hold."""
    before = receiver.store.clock.last
    report = receiver.take(forged("a", [setting_leaf(b"k", 1)], hlc=hlc))
    assert faults(report) == ([EntryFault.CLOCK_AHEAD] if held else [])
    assert receiver.settings() == ({} if held else {b"k": 1})
    assert receiver.store.status()["held"] == held
    assert receiver.store.clock.last == (before if held else max(before, hlc)), "what is held moves no clock"
    if held and hlc < pack(253_402_300_799_000):
        receiver.now_ms += 60_000
        assert len(receiver.take(forged("a", [setting_leaf(b"k", 1)], hlc=hlc)).stored) == 1


# C5


@pytest.mark.parametrize("hlc", [0, Script.hlc(1) - 1, Script.hlc(1)])
def test_c5_a_time_that_does_not_rise_stops_that_log(receiver: Receiver, hlc: int) -> None:
    """C5: `hlc` below previous entry of the same log: `clock_order`, that log stops, others flow."""
    script = Script("c5")
    first = put(script, "a", b"first", 1)
    bad = put(script, "a", b"bad", 1, hlc=hlc)
    after, other = put(script, "a", b"after", 1), put(script, "c", b"other", 1)
    assert faults(receiver.take(first, bad, after, other)) == [EntryFault.CLOCK_ORDER, EntryFault.GAP]
    assert receiver.settings() == {b"first": 1, b"other": 1}
    assert receiver.store.vector.seq(first.header.log) == 1


# C6


@pytest.mark.parametrize("what", ["other", "missing", "fewer", "more"])
def test_c6_a_leaf_that_is_not_the_signed_one(receiver: Receiver, what: str) -> None:
    """C6: Leaf does not match digest; leaf missing above the stable frontier: `bad_digest`; asked from another peer."""
    script = Script("c6")
    good, after = put(script, "a", b"k", "true"), put(script, "a", b"l", "next")
    leaves: tuple[bytes | None, ...] = {
        "other": (setting_leaf(b"k", "forged"),),
        "missing": (None,),
        "fewer": (),
        "more": (*good.raw.leaves, setting_leaf(b"x", 1)),
    }[what]
    report = receiver.take(good.raw._replace(leaves=leaves), after)
    assert faults(report) == [EntryFault.BAD_DIGEST, EntryFault.GAP]
    assert receiver.settings() == {}
    assert receiver.take(good, after).stored == [good.header, after.header]
    assert receiver.settings() == {b"k": "true", b"l": "next"}


# C9

LONG = "x" * (300 * 1024)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"k", math.nan),
        (b"k", math.inf),
        (b"k", -math.inf),
        (b"k", -0.0),
        (b"k", 1 << 63),
        (b"k", -(1 << 63) - 1),
        (b"k", LONG),
        (b"k", LONG.encode()),
        (b"k", True),
        (b"k", [1]),
        (b"k", {"a": 1}),
        (1.5, 1),
        (True, 1),
        (None, 1),
        ("text", 1),
        (7, 1),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_c9_bad_values_are_refused_at_receive(receiver: Receiver, key: Any, value: Any) -> None:
    """C9: NaN, ±inf, −0.0, 2^63, 300 KiB text, PK as float/bool: `bad_value`, and nothing of that entry is stored."""
    report = receiver.take(forged("a", [setting_leaf(b"good", 1), setting_leaf(key, value)]))
    assert len(report.refused) == 1
    assert faults(report)[0] in (EntryFault.BAD_VALUE, EntryFault.BAD_ENCODING)
    assert receiver.settings() == {}
    assert not receiver.store.vector.heads


def test_c9_a_lone_surrogate_is_refused_at_receive(receiver: Receiver) -> None:
    """C9: lone surrogate: `bad_value` where it is a value; as bytes of a leaf it is no strict CBOR."""
    data = zstandard.ZstdDecompressor().decompress(setting_leaf(b"k", "abc"))
    bad = data.replace(b"\x63abc", b"\x63\xed\xa0\x80")
    assert bad != data
    report = receiver.take(forged("a", [zstandard.ZstdCompressor().compress(bad)]))
    assert faults(report) == [EntryFault.BAD_ENCODING]


def test_c9_what_is_allowed_at_the_edges(receiver: Receiver) -> None:
    """C9: NUL in text allowed; the largest value and integers of 64 bits are."""
    values = ["a\0b", "x" * VALUE_BYTES_MAX, (1 << 63) - 1, -(1 << 63), b"", None, 1e308]
    leaves = [setting_leaf(b"%d" % at, value) for at, value in enumerate(values)]
    assert faults(receiver.take(forged("a", leaves))) == []
    assert [receiver.settings()[b"%d" % at] for at in range(len(values))] == values


# C10


def leaf_of_rows(count: int) -> bytes:
    mark = Script("x").table("mark")
    return encode_leaf(Leaf(mark.id, Action.INSERT, (), [list(range(count))], []), SALT)


def test_c10_the_largest_entry_is_taken(receiver: Receiver) -> None:
    """C10, the allowed side: 65,535 rows in one leaf, and 64 leaves."""
    assert faults(receiver.take(forged("a", [leaf_of_rows(ROWS_MAX)], rows=ROWS_MAX))) == []
    assert receiver.count("mark") == ROWS_MAX
    assert faults(receiver.take(forged("c", [setting_leaf(b"%d" % at, at) for at in range(64)]))) == []
    assert receiver.count("setting") == 64


def five_mib() -> bytes:
    return zstandard.ZstdCompressor().compress(bytes(5 * MIB))


def random_leaf(size: int) -> bytes:
    table = Script("x").table("setting")
    blobs = [random.Random(at).randbytes(VALUE_BYTES_MAX - 100) for at in range(size // VALUE_BYTES_MAX)]
    keys = [[b"%d" % at for at in range(len(blobs))]]
    return encode_leaf(Leaf(table.id, Action.INSERT, (table.values[0].id,), keys, [blobs]), SALT)


TOO_LARGE = {
    "65 leaves": lambda: forged("a", [setting_leaf(b"%d" % at, at) for at in range(65)]),
    "65536 rows": lambda: forged("a", [leaf_of_rows(ROWS_MAX + 1)], rows=ROWS_MAX + 1),
    "65536 rows in two leaves": lambda: forged("a", [leaf_of_rows(1 << 15)] * 2, rows=1 << 15),
    "2 MiB compressed": lambda: forged("a", [random_leaf(2 * MIB)], rows=8),
    "1 MiB in two leaves": lambda: forged("a", [random_leaf(MIB)] * 2, rows=4),
    "5 MiB declared": lambda: forged("a", [five_mib()]),
}


@pytest.mark.parametrize("case", TOO_LARGE)
def test_c10_limits_hold_at_receive(receiver: Receiver, case: str) -> None:
    """C10: 65 leaves; 65,536 rows; 2 MiB compressed; leaf declaring 5 MiB: `too_large`; others flow."""
    other = put(Script("c10"), "c", b"other", 1)
    assert faults(receiver.take(TOO_LARGE[case](), other)) == [EntryFault.TOO_LARGE]
    assert receiver.settings() == {b"other": 1}


@pytest.mark.parametrize("claimed", [1, 3])
def test_c10_a_leaf_with_other_rows_than_its_header_says(receiver: Receiver, claimed: int) -> None:
    """C10: what the limits count is checked: the rows of a leaf are those that the header signed."""
    assert faults(receiver.take(forged("a", [leaf_of_rows(2)], rows=claimed))) == [EntryFault.BAD_ENCODING]


def test_c10_no_leaves_without_ack(receiver: Receiver) -> None:
    """C10: 0 leaves without `ack`: `bad_encoding`."""
    assert faults(receiver.take(forged("a"), forged("c", flags=Flag.ACK))) == [EntryFault.BAD_ENCODING]
    assert receiver.store.vector.seq(Script("x").log("c")) == 1


def test_c10_headers_of_any_bytes(receiver: Receiver) -> None:
    """C10: headers that are no header are `bad_encoding`, one by one."""
    good = put(Script("bytes"), "a", b"k", 1)
    bad = [b"", b"\x80", codec.dumps([1] * 11), good.raw.header + b"\0", good.raw.header[:-1]]
    report = receiver.take(*[RawEntry(raw, bytes(64), ()) for raw in bad], good)
    assert faults(report) == [EntryFault.BAD_ENCODING] * len(bad)
    assert receiver.settings() == {b"k": 1}


# C15


def test_c15_everything_twice_from_three_peers_changes_nothing(receiver: Receiver) -> None:
    """C15: Duplicate delivery of everything, twice, from 3 peers: no change, no growth."""
    script = Script("c15")
    first = put(script, "a", b"k", 1)
    entries = [first, put(script, "c", b"k", 2), put(script, "c", b"k", 3, saw=[first]), put(script, "d", b"l", 1)]
    entries += [put(script, "d", b"m", 1, after=entries[3]), put(script, "d", b"n", 1, after=entries[3])]  # a fork
    waits = put(script, "b", b"o", 1, claims=[Dep(entries[0].header.device, b"nowhere!", 3, entries[0].hash)])
    receiver.take(*entries, waits)
    before = receiver.logged(), receiver.store.state_hash(), receiver.store.vector, receiver.store.status()
    for peer in range(3):
        for _ in range(2):
            shuffled = random.Random(peer).sample([*entries, waits], len(entries) + 1)
            report = receiver.take(*shuffled)
            assert (report.stored, report.duplicate, faults(report)) == ([], len(shuffled), [])
    assert (receiver.logged(), receiver.store.state_hash(), receiver.store.vector, receiver.store.status()) == before


# One bad entry, wherever it stands, costs only its own log


def test_a_bad_entry_costs_only_its_own_log(receiver: Receiver) -> None:
    script = Script("mixed")
    good = [put(script, device, device.encode(), 1) for device in "acd"]
    bad = [
        forged("b", [setting_leaf(b"x", math.nan)]),
        forged("b", [b"garbage"]),
        forged("b", [setting_leaf(b"x", 1)], control_heads=(bytes(32),)),
        forged("b", [setting_leaf(b"x", 1)], seq=9, prev=bytes([1]) * 32),
        RawEntry(b"\xff" * 100, bytes(64), ()),
    ]
    report = receiver.take(bad[0], good[0], *bad[1:3], good[1], *bad[3:], good[2])
    assert len(report.stored) == 3
    assert report.missing_control == {bytes(32)}
    assert sorted(fault.value for fault in faults(report)) == [
        "bad_encoding", "bad_encoding", "bad_value", "gap", "missing_control",
    ]  # fmt: skip


def test_what_was_refused_once_may_be_right_the_next_time(receiver: Receiver) -> None:
    """C6: refusal is about these bytes, not about the log: the true entry is taken from whoever has it."""
    script = Script("again")
    good = put(script, "a", b"k", 1)
    for _ in range(3):
        assert faults(receiver.take(good.raw._replace(leaves=(None,)))) == [EntryFault.BAD_DIGEST]
    assert receiver.store.status()["refused"] == 1
    assert len(receiver.take(good).stored) == 1
    assert receiver.store.status()["refused"] == 0


def test_from_wire_refuses_what_is_too_large() -> None:
    """C10: already as it comes out of a message."""
    entry = forged("a", [random_leaf(2 * MIB)], rows=8)
    with pytest.raises(EntryRefused) as caught:
        RawEntry.from_wire(entry.to_wire())
    assert caught.value.fault is EntryFault.TOO_LARGE
