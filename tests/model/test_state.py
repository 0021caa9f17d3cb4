"""The state hash: golden bytes, and the properties that callers rely on."""

import random
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peers.model import codec
from peers.model.ids import blake2b_256
from peers.model.state import (
    DELETED,
    Cell,
    Place,
    RowDigest,
    Stamp,
    StateSums,
    array_head,
    bucket_of,
    combine,
    encode_head,
    encode_stamp,
    hashed_head,
    row_digest,
)

TABLE = bytes(range(8))
STAMP = Stamp(0, 1 << 40, b"d" * 32, b"i" * 8, 3, b"h" * 32)
LATER = STAMP._replace(hlc=STAMP.hlc + 300, owner_epoch=1)


def spelled_out(table: bytes, key: list, cells: list[Cell], conflicts: list[Cell]) -> bytes:
    """The row's bytes as the module's docstring says them, with no shortcut."""

    def groups(some: list[Cell]) -> list:
        stamps = sorted({cell.stamp for cell in some}, key=encode_stamp)
        return [[list(stamp), sorted(cell.column for cell in some if cell.stamp == stamp)] for stamp in stamps]

    def values_of(some: list[Cell]) -> list:
        return [cell.value for cell in sorted(some, key=lambda cell: (encode_stamp(cell.stamp), cell.column))]

    head = codec.dumps([table, groups(cells), groups(conflicts)])
    return head + codec.dumps([*key, *values_of(cells), *values_of(conflicts)])


def test_golden_bytes() -> None:
    cells = [Cell(b"c" * 8, STAMP, "value"), Cell(DELETED, LATER, 0), Cell(b"a" * 8, STAMP, "x" * 100)]
    row = row_digest(TABLE, ["key", 7], cells, [Cell(b"c" * 8, LATER, None)])
    sums = StateSums()
    sums.add(TABLE, row)
    stamp = f"86001b{1 << 40:016x}" + "5820" + "64" * 32 + "48" + "69" * 8 + "03" + "5820" + "68" * 32
    assert encode_stamp(STAMP).hex() == stamp
    head = encode_head(TABLE, [Place(STAMP, b"a" * 8), Place(STAMP, b"c" * 8)])
    assert head.hex() == "83480001020304050607" + "8182" + stamp + "8248" + "61" * 8 + "48" + "63" * 8 + "80"
    assert row.bucket == 56
    assert f"{row.number:064x}" == "6d72508ec28cc92af70f3854629e3f8ddae27c50d79cb5cfab8ae6bdb4a046c2"
    assert sums.hash().hex() == "cd0a58b79d950076f0be0794d0a386de6f546edced0dbf97579b50aa77d09fec"
    assert StateSums().hash().hex() == "898071af99074b7870088f538bc504295f218f0685f34988f065afe85c339978"


values = st.one_of(
    st.none(), st.integers(-(1 << 63), (1 << 63) - 1), st.floats(allow_nan=False), st.text(max_size=30), st.binary()
)
stamps = st.builds(
    Stamp,
    st.integers(0, 1 << 40),
    st.integers(0, (1 << 64) - 1),
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=8, max_size=8),
    st.integers(1, (1 << 53) - 1),
    st.binary(min_size=32, max_size=32),
)
cell_lists = st.lists(
    st.builds(Cell, st.one_of(st.just(DELETED), st.binary(min_size=8, max_size=8)), stamps, values),
    max_size=12,
    unique_by=lambda cell: (cell.column, cell.stamp),
)


@given(key=st.lists(values, min_size=1, max_size=3), cells=cell_lists, conflicts=cell_lists)
@settings(max_examples=100, deadline=None)
def test_a_row_has_the_bytes_of_the_docstring(key: list, cells: list[Cell], conflicts: list[Cell]) -> None:
    digest = row_digest(TABLE, key, cells, conflicts)
    row = spelled_out(TABLE, key, cells, conflicts)
    assert digest.number == int.from_bytes(blake2b_256(row), "big")
    assert digest.bucket == bucket_of(key) == zlib.crc32(codec.dumps(key)) & 255
    places, other = (sorted(Place(cell.stamp, cell.column) for cell in some) for some in (cells, conflicts))
    head = encode_head(TABLE, places, other)
    assert row.startswith(head)
    shared = hashed_head(head)
    for _ in range(2):  # the kept beginning stays as it is
        begun = shared.copy()
        begun.update(row[len(head) :])
        assert begun.digest() == digest.number.to_bytes(32, "big")


@pytest.mark.parametrize("length", [0, 1, 23, 24, 255, 256, 65_535, 65_536])
def test_heads_of_arrays_are_those_of_the_codec(length: int) -> None:
    assert array_head(length) + b"\x00" * length == codec.dumps([0] * length)


@given(stamps, stamps)
@settings(max_examples=50, deadline=None)
def test_stamps_sort_as_their_bytes(one: Stamp, other: Stamp) -> None:
    assert (one < other) == (encode_stamp(one) < encode_stamp(other))


def test_values_of_different_types_are_told_apart() -> None:
    some = [None, 0, 1, 1.0, 0.0, "", b"", "1", b"1", "x" * 14, "x" * 15, "x" * 16, b"x" * 16]
    assert len({row_digest(TABLE, ["k"], [Cell(b"a" * 8, STAMP, value)]) for value in some}) == len(some)
    assert len({row_digest(TABLE, [value], [Cell(DELETED, STAMP, 0)]).number for value in some}) == len(some)


def test_sums_do_not_depend_on_order_and_rows_can_be_taken_away() -> None:
    rng = random.Random(5)
    rows = [(bytes([n % 3]) * 8, RowDigest(rng.randrange(256), rng.getrandbits(256))) for n in range(500)]
    forward, backward = StateSums(), StateSums()
    for table, row in rows:
        forward.add(table, row)
    extra = RowDigest(9, rng.getrandbits(256))
    backward.add(TABLE, extra)
    for table, row in reversed(rows):
        backward.add(table, row)
    assert forward.hash() != backward.hash()
    backward.remove(TABLE, extra)
    assert forward.hash() == backward.hash()
    assert combine((table, forward.buckets(table)) for table in forward) == forward.hash()
    forward.forget(bytes(8))
    assert forward.hash() != backward.hash()


@pytest.mark.parametrize("change", ["table", "key", "column", "stamp", "value", "conflict", "moved", "keyed"])
def test_every_part_of_a_row_counts(change: str) -> None:
    cell, other = Cell(b"a" * 8, STAMP, 1), Cell(b"b" * 8, LATER, 2)
    base = row_digest(TABLE, ["k"], [cell, other])
    changed = {
        "table": row_digest(bytes(8), ["k"], [cell, other]),
        "key": row_digest(TABLE, ["l"], [cell, other]),
        "column": row_digest(TABLE, ["k"], [cell, other._replace(column=b"c" * 8)]),
        "stamp": row_digest(TABLE, ["k"], [cell, other._replace(stamp=STAMP)]),
        "value": row_digest(TABLE, ["k"], [cell, other._replace(value=3)]),
        "conflict": row_digest(TABLE, ["k"], [cell, other], [cell._replace(stamp=LATER)]),
        "moved": row_digest(TABLE, ["k"], [cell], [other]),
        "keyed": row_digest(TABLE, ["k", 1], [other]),
    }[change]
    assert changed.number != base.number
