from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peers.model import codec
from peers.model.codec import BadEncoding
from peers.model.ids import LogId
from peers.model.version_vector import SEQ_MAX, Head, VersionVector

A, B = LogId(b"a" * 32, b"1" * 8), LogId(b"b" * 32, b"1" * 8)


def head(seq: int, mark: str = "x") -> Head:
    return Head(seq, mark.encode() * 32)


def vector(**logs: tuple[Head, ...]) -> VersionVector:
    return VersionVector({{"a": A, "b": B}[name]: heads for name, heads in logs.items()})


def test_an_empty_vector_covers_only_the_empty_one() -> None:
    empty, one = VersionVector(), vector(a=(head(1),))
    assert empty.covers(empty) and one.covers(empty)
    assert empty.behind(one) == {A}
    assert empty.seq(A) == 0 and one.seq(A) == 1
    assert empty.count_missing(one) == 1 and one.count_missing(empty) == 0


def test_the_longer_log_covers_the_shorter() -> None:
    short, long = vector(a=(head(3),)), vector(a=(head(5),), b=(head(1),))
    assert long.covers(short)
    assert short.behind(long) == {A, B}
    assert short.count_missing(long) == 3


def test_c2_two_heads_of_one_seq_are_behind_each_other() -> None:
    """C2: same `(device,inc,seq)` twice, different hash → both kept; one branch each is not equal."""
    left, right = vector(a=(head(5, "x"),)), vector(a=(head(5, "y"),))
    assert left.behind(right) == {A} and right.behind(left) == {A}
    both = left.joined(right)
    assert both.heads[A] == (head(5, "x"), head(5, "y"))
    assert both.covers(left) and both.covers(right)
    assert left.behind(both) == {A}


def test_joined_takes_the_higher() -> None:
    assert vector(a=(head(2),)).joined(vector(a=(head(7),), b=(head(1),))) == vector(a=(head(7),), b=(head(1),))


heads = st.lists(
    st.tuples(st.integers(1, SEQ_MAX), st.binary(min_size=32, max_size=32)), min_size=1, max_size=3, unique=True
).map(lambda pairs: tuple(sorted(Head(*pair) for pair in pairs)))
logs = st.tuples(st.binary(min_size=32, max_size=32), st.binary(min_size=8, max_size=8)).map(lambda pair: LogId(*pair))


@given(st.dictionaries(logs, heads, max_size=4).map(VersionVector))
@settings(max_examples=50)
def test_the_wire_form_reads_back(value: VersionVector) -> None:
    assert VersionVector.from_wire(codec.loads(codec.dumps(value.to_wire()))) == value


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        [1],
        [[b"a" * 32, b"1" * 8]],
        [[b"a" * 31, b"1" * 8, [[1, b"x" * 32]]]],
        [[b"a" * 32, b"1" * 7, [[1, b"x" * 32]]]],
        [["a" * 32, b"1" * 8, [[1, b"x" * 32]]]],
        [[b"a" * 32, b"1" * 8, []]],
        [[b"a" * 32, b"1" * 8, None]],
        [[b"a" * 32, b"1" * 8, [[n, b"x" * 32] for n in range(1, 66)]]],
        [[b"a" * 32, b"1" * 8, [1]]],
        [[b"a" * 32, b"1" * 8, [[1]]]],
        [[b"a" * 32, b"1" * 8, [[0, b"x" * 32]]]],
        [[b"a" * 32, b"1" * 8, [[True, b"x" * 32]]]],
        [[b"a" * 32, b"1" * 8, [[SEQ_MAX + 1, b"x" * 32]]]],
        [[b"a" * 32, b"1" * 8, [[1, b"x" * 31]]]],
        [[b"a" * 32, b"1" * 8, [[2, b"x" * 32], [1, b"x" * 32]]]],
        [[b"a" * 32, b"1" * 8, [[1, b"x" * 32], [1, b"x" * 32]]]],
        [[b"b" * 32, b"1" * 8, [[1, b"x" * 32]]], [b"a" * 32, b"1" * 8, [[1, b"x" * 32]]]],
        [[b"a" * 32, b"1" * 8, [[1, b"x" * 32]]]] * 2,
        [[]] * 20_001,
    ],
)
def test_other_shapes_are_bad_encoding(value: Any) -> None:
    with pytest.raises(BadEncoding):
        VersionVector.from_wire(value)


def test_the_digest_is_of_heads_and_control_heads_in_any_order() -> None:
    one = vector(a=(head(1),), b=(head(2),))
    same = VersionVector(dict(reversed(list(one.heads.items()))))
    assert one.digest([b"p" * 32, b"q" * 32]) == same.digest([b"q" * 32, b"p" * 32])
    assert len({one.digest(), one.digest([b"p" * 32]), vector(a=(head(1),)).digest()}) == 3
