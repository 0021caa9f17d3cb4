import tracemalloc
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from peers.config import ENTRY_BYTES_MAX, LEAF_BYTES_MAX, MIB
from peers.errors import EntryFault, EntryRefused
from peers.model import codec
from peers.model.entries import (
    Action,
    Dep,
    Flag,
    Header,
    Leaf,
    LeafRef,
    RawEntry,
    decode_header,
    decode_leaf,
    encode_header,
    encode_leaf,
)
from peers.model.ids import ZERO_HASH, LogId, blake2b_256

G, D, N, H = b"g" * 32, b"d" * 32, b"i" * 8, b"h" * 32
SALT = b"s" * 16
T, C1, C2 = b"t" * 8, b"1" * 8, b"2" * 8
REF = LeafRef(b"l" * 32, 3)


def header(**changes: Any) -> Header:
    fields: dict[str, Any] = {
        "group": G, "log": LogId(D, N), "seq": 1, "prev": ZERO_HASH, "hlc": 5,
        "control_heads": (H,), "deps": (), "leaves": (REF,),
    }  # fmt: skip
    return encode_header(**{**fields, **changes})


def raw_header(**changes: Any) -> bytes:
    """The bytes of a header with items set by their place."""
    items: list[Any] = codec.loads(header().raw)
    for place, value in changes.items():
        items[int(place[1:])] = value
    return codec.dumps(items)


def fault(data: bytes) -> EntryFault:
    with pytest.raises(EntryRefused) as caught:
        decode_header(data)
    assert caught.value.code == caught.value.fault.value
    return caught.value.fault


def test_a_header_reads_back_with_its_bytes_and_hash() -> None:
    deps = (Dep(b"f" * 32, N, 9, H), Dep(b"e" * 32, N, 2, H))
    made = header(seq=2, prev=H, deps=deps, control_heads=(b"z" * 32, b"a" * 32), flags=Flag.MORE)
    read = decode_header(made.raw)
    assert read == made
    assert read.hash == blake2b_256(made.raw)
    assert read.deps == tuple(sorted(deps)) and read.control_heads == (b"a" * 32, b"z" * 32)
    assert read.log == LogId(D, N) and read.deps[0].log == LogId(b"e" * 32, N) and read.rows == 3


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        codec.dumps({}),
        codec.dumps([1]),
        raw_header(_0=2),
        raw_header(_0=True),
        raw_header(_1=b"g"),
        raw_header(_2="d" * 32),
        raw_header(_3=b"i" * 9),
        raw_header(_4=0),
        raw_header(_4=1 << 53, _5=H),
        raw_header(_4=1.0),
        raw_header(_5=H),
        raw_header(_4=2),
        raw_header(_6=-1),
        raw_header(_6=None),
        raw_header(_7=[]),
        raw_header(_7=[b"b" * 32, b"a" * 32]),
        raw_header(_7=[H, H]),
        raw_header(_7=[b"short"]),
        raw_header(_7=[bytes([n]) * 32 for n in range(65)]),
        raw_header(_7=None),
        raw_header(_8=None),
        raw_header(_8=[[D, N, 1]]),
        raw_header(_8=[[b"e" * 32, N, 0, H]]),
        raw_header(_8=[[b"f" * 32, N, 1, H], [b"e" * 32, N, 1, H]]),
        raw_header(_8=[[D, N, 1, H]]),
        raw_header(_9=None),
        raw_header(_9=[[b"l" * 32]]),
        raw_header(_9=[[b"l" * 31, 1]]),
        raw_header(_9=[[b"l" * 32, 0]]),
        raw_header(_10=8),
        raw_header(_10=-1),
        raw_header(_10=None),
        header().raw + b"\x00",
    ],
)
def test_a_malformed_header_is_bad_encoding(data: bytes) -> None:
    assert fault(data) is EntryFault.BAD_ENCODING


@given(st.binary(max_size=100) | st.lists(st.integers() | st.binary(max_size=40), max_size=12).map(codec.dumps))
@settings(max_examples=100)
def test_any_bytes_are_a_header_or_refused(data: bytes) -> None:
    assert fault(data) in (EntryFault.BAD_ENCODING, EntryFault.TOO_LARGE)


def test_c10_65_leaves_are_too_large() -> None:
    """C10: 65 leaves → `too_large`."""
    refs = [[bytes([n]) * 32, 1] for n in range(65)]
    assert fault(raw_header(_9=refs)) is EntryFault.TOO_LARGE
    assert len(decode_header(raw_header(_9=refs[:64])).leaves) == 64
    with pytest.raises(EntryRefused, match="64 leaves"):
        RawEntry.from_wire([b"", bytes(64), [b""] * 65])


def test_c10_65536_rows_are_too_large() -> None:
    """C10: 65,536 rows → `too_large`, in one leaf or over several."""
    assert fault(raw_header(_9=[[H, 65_536]])) is EntryFault.TOO_LARGE
    assert fault(raw_header(_9=[[H, 65_535], [D, 1]])) is EntryFault.TOO_LARGE
    assert decode_header(raw_header(_9=[[H, 65_534], [D, 1]])).rows == 65_535


def test_c10_two_mib_compressed_are_too_large() -> None:
    """C10: 2 MiB compressed → `too_large`."""
    for leaves in ([bytes(2 * MIB)], [bytes(MIB), b"1"]):
        with pytest.raises(EntryRefused) as caught:
            RawEntry.from_wire([b"", bytes(64), leaves])
        assert caught.value.fault is EntryFault.TOO_LARGE
    assert RawEntry.from_wire([b"", bytes(64), [bytes(ENTRY_BYTES_MAX)]]).size == ENTRY_BYTES_MAX + 64


def test_c10_a_leaf_declaring_five_mib_is_too_large() -> None:
    """C10: leaf declaring 5 MiB → `too_large`."""
    data = zstandard.ZstdCompressor().compress(bytes(5 * MIB))
    with pytest.raises(EntryRefused) as caught:
        decode_leaf(data, 1)
    assert caught.value.fault is EntryFault.TOO_LARGE


def test_c10_no_leaves_without_ack_are_bad_encoding() -> None:
    """C10: 0 leaves without `ack` → `bad_encoding`; and leaves with it."""
    assert fault(header(leaves=()).raw) is EntryFault.BAD_ENCODING
    assert fault(header(flags=Flag.ACK).raw) is EntryFault.BAD_ENCODING
    assert decode_header(header(leaves=(), flags=Flag.ACK).raw).leaves == ()


def test_w10_a_frame_that_declares_ten_gib_is_refused_by_its_declared_size() -> None:
    """W10: compressed body 1 MiB → 10 GiB: refused by its declared size before decompressing, `too_large`."""
    magic, descriptor = b"\x28\xb5\x2f\xfd", b"\xe0"  # an 8-byte content size, one segment
    bomb = magic + descriptor + (10 << 30).to_bytes(8, "little") + bytes(MIB)
    tracemalloc.start()
    try:
        with pytest.raises(EntryRefused) as caught:
            decode_leaf(bomb, 1)
        assert tracemalloc.get_traced_memory()[1] < 4 * MIB
    finally:
        tracemalloc.stop()
    assert caught.value.fault is EntryFault.TOO_LARGE


def frame_without_size() -> bytes:
    return zstandard.ZstdCompressor(write_content_size=False).compress(b"x" * 1000)


def frame_with_wrong_size() -> bytes:
    data = bytearray(zstandard.ZstdCompressor().compress(b"x" * 1000))
    data[5] ^= 1  # the declared size
    return bytes(data)


GOOD = encode_leaf(Leaf(T, Action.INSERT, (C1,), [["k"]], [[1]]), SALT)


@pytest.mark.parametrize(
    "data",
    [b"", b"plain", frame_without_size(), frame_with_wrong_size(), GOOD + GOOD, GOOD[:-1], GOOD + b"\x00"],
)
def test_a_leaf_is_one_whole_frame_of_declared_size(data: bytes) -> None:
    with pytest.raises(EntryRefused) as caught:
        decode_leaf(data, 1)
    assert caught.value.fault is EntryFault.BAD_ENCODING


def test_a_header_over_one_mib_is_too_large() -> None:
    deps = tuple(Dep(n.to_bytes(32, "big"), N, 1, H) for n in range(14_000))
    with pytest.raises(EntryRefused, match="1 MiB"):
        header(deps=deps)
    assert fault(bytes(MIB + 1)) is EntryFault.TOO_LARGE


@pytest.mark.parametrize(
    "leaf",
    [
        Leaf(T, Action.INSERT, (C1, C2), 0, [[1, 2], ["a", None]]),
        Leaf(T, Action.INSERT, (), [["k", "l"], [1, 2]], []),
        Leaf(T, Action.UPDATE, (C1,), [["k", "l"]], [[1.5, b"x"]], ordinals=[0, 255], id_incarnation=N),
        Leaf(T, Action.DELETE, (), [["k", "l"]], []),
        Leaf(T, Action.RESTORE, (), 7, []),
    ],
)
def test_a_leaf_reads_back(leaf: Leaf) -> None:
    assert decode_leaf(encode_leaf(leaf, SALT), 2) == leaf


def test_the_salt_hides_what_a_digest_is_of() -> None:
    leaf = Leaf(T, Action.DELETE, (), 0, [])
    assert encode_leaf(leaf, SALT) != encode_leaf(leaf, b"t" * 16)


def test_a_leaf_over_four_mib_is_too_large_to_make() -> None:
    with pytest.raises(EntryRefused) as caught:
        encode_leaf(Leaf(T, Action.INSERT, (C1,), 0, [[bytes(LEAF_BYTES_MAX)]]), SALT)
    assert caught.value.fault is EntryFault.TOO_LARGE


def packed(**changes: Any) -> bytes:
    items: list[Any] = [SALT, T, 1, [C1], [["k"]], [[1]], None, None]
    for place, value in changes.items():
        items[int(place[1:])] = value
    return zstandard.ZstdCompressor().compress(codec.dumps(items))


@pytest.mark.parametrize(
    "data",
    [
        zstandard.ZstdCompressor().compress(b"\xff"),
        zstandard.ZstdCompressor().compress(codec.dumps([1])),
        packed(_0=b"short"),
        packed(_1="table"),
        packed(_2=4),
        packed(_2=True),
        packed(_3=None),
        packed(_3=["name"]),
        packed(_3=[C1, C1], _5=[[1], [1]]),
        packed(_3=[], _5=[]),
        packed(_2=2),
        packed(_4=[]),
        packed(_4=[["k", "l"]]),
        packed(_4=None),
        packed(_4=-1),
        packed(_4=1 << 30),
        packed(_4=[7]),
        packed(_5=[]),
        packed(_5=[[1, 2]]),
        packed(_5=[1]),
        packed(_5=None),
        packed(_6=[]),
        packed(_6=[-1]),
        packed(_6=["0"]),
        packed(_6=0),
        packed(_7=b"short"),
    ],
)
def test_a_malformed_leaf_is_bad_encoding(data: bytes) -> None:
    with pytest.raises(EntryRefused) as caught:
        decode_leaf(data, 1)
    assert caught.value.fault is EntryFault.BAD_ENCODING


def test_the_last_ordinal_is_within_30_bits() -> None:
    assert decode_leaf(packed(_4=(1 << 30) - 1), 1).keys == (1 << 30) - 1


def test_a_raw_entry_reads_back() -> None:
    entry = RawEntry(b"header", bytes(64), (b"leaf", None))
    assert RawEntry.from_wire(codec.loads(codec.dumps(entry.to_wire()))) == entry
    assert entry.size == 6 + 64 + 4


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        [b"h", bytes(64)],
        ["h", bytes(64), []],
        [b"h", bytes(63), []],
        [b"h", "s", []],
        [b"h", bytes(64), None],
        [b"h", bytes(64), ["leaf"]],
    ],
)
def test_a_malformed_entry_is_bad_encoding(value: Any) -> None:
    with pytest.raises(EntryRefused) as caught:
        RawEntry.from_wire(value)
    assert caught.value.fault is EntryFault.BAD_ENCODING
