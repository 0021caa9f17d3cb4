import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peers.model import ids

u64 = st.integers(0, (1 << 64) - 1)
ordinals = st.integers(0, ids.ORDINAL_MAX)


@given(u64, ordinals, st.binary(min_size=8, max_size=8))
@settings(max_examples=100)
def test_a_row_id_reads_back(hlc: int, ordinal: int, maker: bytes) -> None:
    text = ids.row_id(hlc, ordinal, maker)
    assert len(text) == ids.ROW_ID_CHARS
    assert ids.parse_row_id(text) == (hlc, ordinal, maker)


@given(u64, u64)
@settings(max_examples=100)
def test_text_order_is_number_order(a: int, b: int) -> None:
    assert (ids.encode_u64(a) < ids.encode_u64(b)) == (a < b)
    a, b = a & ids.ORDINAL_MAX, b & ids.ORDINAL_MAX
    assert (ids.encode_ordinal(a) < ids.encode_ordinal(b)) == (a < b)


def test_golden_row_id() -> None:
    maker = ids.row_maker(b"u" * 32, b"d" * 32, b"i" * 8, 5)
    assert maker == hashlib.blake2b(b"u" * 32 + b"d" * 32 + b"i" * 8 + (5).to_bytes(8, "big"), digest_size=8).digest()
    assert ids.row_id((1 << 64) - 1, 33, bytes(8)) == "FVVVVVVVVVVVV" + "000011" + "0" * 13


def test_many_ids_are_the_single_ones() -> None:
    maker = b"\x01" * 8
    assert ids.row_ids(77, 1022, 5, maker) == [ids.row_id(77, ordinal, maker) for ordinal in range(1022, 1027)]
    with pytest.raises(ValueError, match="ordinals"):
        ids.row_ids(77, ids.ORDINAL_MAX, 2, maker)


@pytest.mark.parametrize(
    "text",
    ["", "short", "0" * 31, "0" * 33, "0" * 31 + "W", "0" * 31 + "a", "G" + "0" * 31, "0" * 19 + "V" + "0" * 12],
)
def test_other_text_is_no_row_id(text: str) -> None:
    assert ids.parse_row_id(text) is None


def test_names_of_files_and_short_forms() -> None:
    assert ids.group_file_name(b"\xab" * 32) == "ab" * 32 + ".db"
    assert ids.short(b"\xab" * 32) == "abababab"
    with pytest.raises(ValueError, match="32 bytes"):
        ids.group_file_name(b"../../../../etc/passwd")


def test_hashes_are_blake2b() -> None:
    assert ids.blake2b_256(b"x") == hashlib.blake2b(b"x", digest_size=32).digest()
    assert ids.blake2b_64(b"x") == hashlib.blake2b(b"x", digest_size=8).digest()
    assert ids.LogId(b"a" * 32, b"b" * 8) < ids.LogId(b"a" * 32, b"c" * 8)
