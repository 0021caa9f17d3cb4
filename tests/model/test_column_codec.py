"""A column is encoded exactly as the general encoder does, whatever it holds."""

import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from peers.model import codec
from peers.model.column_codec import array_head, encode_column
from peers.model.entries import Action, Leaf, decode_leaf, encode_leaf

INTS = st.integers(-(1 << 63), (1 << 63) - 1)
EDGES = [0, 23, 24, 255, 256, 4095, 4096, 65535, 65536, (1 << 32) - 1, 1 << 32, (1 << 63) - 1, -1, -(1 << 63)]
FLOATS = st.floats(allow_nan=False)
TEXTS = st.text(max_size=300) | st.text("abc", max_size=2) | st.text("x", min_size=120, max_size=140)
ANY = st.none() | INTS | FLOATS | TEXTS | st.binary(max_size=40) | st.booleans()
COLUMNS = st.one_of(
    *(
        st.lists(kind, min_size=low, max_size=low + 40)
        for kind in (
            INTS,
            st.sampled_from(EDGES),
            st.integers(0, 5000),
            st.integers(1 << 8, (1 << 16) - 1),
            st.integers(1 << 16, (1 << 32) - 1),
            st.integers(1 << 32, (1 << 64) - 1),
            FLOATS,
            TEXTS,
            st.sampled_from(["", "buy", "sell", "ä"]),
            ANY,
            st.sampled_from([1, True, 1.0, 0, False, 0.0]),
        )
        for low in (0, 32)
    )
)


@given(COLUMNS)
@settings(max_examples=400)
@example(["x" * 127] * 40)
@example(["x" * 128] * 40)
@example([f"{'y' * 23}{number}" for number in range(300)])
@example([1] * 40 + [True])
@example([1.0] * 40 + [1])
@example([1] * 40 + [1.0])
@example([2**40] * 40 + [2**64 - 1])
@example(["a"] * 40 + [None])
@example([5] * 70_000)
def test_same_bytes_as_the_general_encoder(values: list[object]) -> None:
    """Shortest heads, no surprise for True and 1.0 beside 1, no limit on the number of values."""
    assert encode_column(values) == codec.dumps(values)


def test_heads_of_arrays_are_the_shortest() -> None:
    for count in (0, 1, 23, 24, 255, 256, 65535, 65536):
        assert codec.dumps([0] * count).startswith(array_head(count))
        assert len(codec.dumps([0] * count)) == len(array_head(count)) + count


def test_a_leaf_of_many_rows_has_the_bytes_of_the_general_encoder() -> None:
    """Other implementations read one CBOR array: nothing tells how it was made."""
    salt, table, columns = bytes(16), b"t" * 8, (b"a" * 8, b"b" * 8)
    for rows in (1, 31, 32, 1000):
        values: list[list[object]] = [[f"text {number}" for number in range(rows)], [0.5 * at for at in range(rows)]]
        for keys in (7, [[f"key {number}" for number in range(rows)]]):
            for ordinals in (None, list(range(rows))):
                leaf = Leaf(table, Action.INSERT, columns, keys, values, ordinals)
                data = zstandard.ZstdDecompressor().decompress(encode_leaf(leaf, salt))
                assert data == codec.dumps([salt, table, 0, columns, keys, values, ordinals, None])
                assert decode_leaf(encode_leaf(leaf, salt), rows) == leaf
