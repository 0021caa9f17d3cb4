"""The state hash: golden bytes, and the properties that callers rely on."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peers.model import codec
from peers.model.ids import blake2b_256
from peers.model.state import (
    DELETED,
    Cell,
    RowDigest,
    Stamp,
    StateSums,
    bucket_of,
    cell_prefix,
    combine,
    encode_cell,
    encode_stamp,
    encoded_row_digest,
    row_digest,
    value_digest,
)

TABLE = bytes(range(8))
STAMP = Stamp(0, 1 << 40, b"d" * 32, b"i" * 8, 3, b"h" * 32)
LATER = STAMP._replace(hlc=STAMP.hlc + 300, owner_epoch=1)


def spelled_out(table: bytes, key: list, cells: list[Cell], conflicts: list[Cell]) -> bytes:
    """The row's bytes as the module's docstring says them, with no shortcut."""

    def one(cell: Cell) -> list:
        data = codec.dumps(cell.value)
        return [cell.column, list(cell.stamp), data if len(data) <= 15 else value_digest(cell.value)]

    def ordered(some: list[Cell]) -> list:
        return [one(cell) for cell in sorted(some, key=lambda cell: (cell.column, cell.stamp))]

    return codec.dumps([table, key, ordered(cells), ordered(conflicts)])


def test_golden_bytes() -> None:
    cells = [Cell(b"c" * 8, STAMP, "value"), Cell(DELETED, LATER, 0), Cell(b"a" * 8, STAMP, "x" * 100)]
    row = row_digest(TABLE, ["key", 7], cells, [Cell(b"c" * 8, LATER, None)])
    sums = StateSums()
    sums.add(TABLE, row)
    assert value_digest("x" * 100).hex() == "cee98969ff904920963dd1db88e15b67"
    assert cell_prefix(DELETED, STAMP).hex() == "834086001b" + f"{1 << 40:016x}" + "5820" + "64" * 32 + "48" + (
        "69" * 8 + "03" + "5820" + "68" * 32
    )
    assert row.bucket == 12
    assert f"{row.number:064x}" == "bd934c054f1329ba62f597798d6ea26c434ed5d805722f48e8323cdc40501752"
    assert sums.hash().hex() == "ba05d08bc82d9f1aba52b4c87458f93d213391d20e2a7e7c2fd143ec9de7e23c"
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
def test_shortcuts_give_the_bytes_of_the_docstring(key: list, cells: list[Cell], conflicts: list[Cell]) -> None:
    digest = row_digest(TABLE, key, cells, conflicts)
    row = spelled_out(TABLE, key, cells, conflicts)
    assert digest.number == int.from_bytes(blake2b_256(row), "big")
    assert digest.bucket == bucket_of(key) == blake2b_256(codec.dumps(key))[0]
    encoded = [encode_cell(cell_prefix(cell.column, cell.stamp), cell.value) for cell in reversed(cells)]
    assert encoded_row_digest(TABLE, key, encoded, [codec.dumps([c.column, list(c.stamp), value_digest(c.value)])
                                                    for c in conflicts]) == digest  # fmt: skip


@given(stamps, stamps)
@settings(max_examples=50, deadline=None)
def test_stamps_sort_as_their_bytes(one: Stamp, other: Stamp) -> None:
    assert (one < other) == (encode_stamp(one) < encode_stamp(other))


def test_short_values_are_told_from_digests_and_from_each_other() -> None:
    some = [None, 0, 1, 1.0, 0.0, "", b"", "1", b"1", "x" * 14, "x" * 15, "x" * 16, b"x" * 16]
    assert len({value_digest(value) for value in some}) == len(some)
    assert len(value_digest("x" * 14)) == 15
    assert len(value_digest("x" * 15)) == 16


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


@pytest.mark.parametrize("change", ["table", "key", "column", "stamp", "value", "conflict", "moved"])
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
    }[change]
    assert changed.number != base.number
