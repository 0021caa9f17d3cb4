"""Chunks: what was split is joined again, and nothing that lies is held."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peers.config import MIB, NetConfig
from peers.errors import ProtocolError
from peers.wire.chunks import CHUNK_BYTES_MIN, Reassembler, ReassemblyBudget, split

CONFIG = NetConfig()


def code_of(reassembler: Reassembler, assembly_id: int, body: Any) -> str:
    with pytest.raises(ProtocolError) as caught:
        reassembler.add(assembly_id, body, 0.0)
    return caught.value.code


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=1, max_size=9000), st.integers(CHUNK_BYTES_MIN + 64, 5000))
def test_joining_what_was_split_gives_the_message(message: bytes, frame_bytes: int) -> None:
    reassembler = Reassembler(CONFIG)
    *parts, last = split(message, frame_bytes)
    assert all(len(body[1]) + 64 <= frame_bytes for body in (*parts, last))
    assert all(reassembler.add(7, body, 0.0) is None for body in parts)
    assert reassembler.held_bytes == sum(len(body[1]) for body in parts)
    assert reassembler.add(7, last, 0.0) == message
    assert reassembler.open_count == reassembler.held_bytes == 0


def test_messages_may_alternate() -> None:
    reassembler = Reassembler(CONFIG)
    messages = [bytes([n]) * 100_000 for n in range(4)]
    joined = []
    for bodies in zip(*[split(message, 20_000) for message in messages], strict=True):
        joined += [reassembler.add(n, body, 0.0) for n, body in enumerate(bodies)]
    assert joined[-4:] == messages


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ([0, bytes(2000), 1_000_000, 1_000_000], "bad_frame"),  # 10^6 chunks: not what the first one's size says
        ([0, b"x", 1_000_000, 1_000_000], "bad_frame"),  # 10^6 chunks of one byte
        ([0, bytes(65_000), 16 * MIB + 1, 259], "too_large"),
        ([0, bytes(65_000), 1 << 64, 1], "too_large"),
        ([1, bytes(2000)], "bad_frame"),  # no first one
        ([1, bytes(2000), 4000, 2], "bad_frame"),
        ([0, bytes(2000), 4000, 3], "bad_frame"),
        ([0, bytes(2000), 0, 0], "bad_frame"),
        ([0, b"", 0, 1], "bad_frame"),
        ([0, bytes(2000), -1, 1], "bad_frame"),
        ([0, bytes(2000), 1000, 1], "bad_frame"),  # more than declared
        ([0, "text", 4, 1], "bad_frame"),
        ([True, bytes(10), 10, 1], "bad_frame"),
        ([0, bytes(2000), 4000.0, 2], "bad_frame"),
        ({}, "bad_frame"),
        ([], "bad_frame"),
        (None, "bad_frame"),
    ],
)
def test_w7_first_chunks_that_lie(body: Any, code: str) -> None:
    """W7: chunk count 10^6; total > 16 MiB: close."""
    reassembler = Reassembler(CONFIG)
    assert code_of(reassembler, 1, body) == code
    assert reassembler.held_bytes == 0


@pytest.mark.parametrize(
    "second",
    [
        [2, bytes(2000)],  # out of order
        [0, bytes(2000)],  # repeated
        [0, bytes(2000), 6000, 3],  # begun again
        [1, bytes(2000), 8000, 4],  # another total
        [1, bytes(1999)],  # too short
        [1, bytes(2001)],  # too long
    ],
)
def test_w7_second_chunks_that_lie(second: Any) -> None:
    """W7: out of order; repeated; two totals: close."""
    reassembler = Reassembler(CONFIG)
    assert reassembler.add(1, [0, bytes(2000), 6000, 3], 0.0) is None
    assert code_of(reassembler, 1, second) == "bad_frame"


def test_w7_never_finished() -> None:
    """W7: never finished: dropped at 30 s; what comes after is refused."""
    budget = ReassemblyBudget(256 * MIB)
    reassembler = Reassembler(CONFIG, budget)
    reassembler.add(1, [0, bytes(2000), 6000, 3], 100.0)
    reassembler.add(1, [1, bytes(2000)], 120.0)
    assert reassembler.expire(149.9) == 0 and budget.held == 4000
    assert reassembler.expire(150.0) == 1 and budget.held == 0
    assert code_of(reassembler, 1, [2, bytes(2000)]) == "bad_frame"


def test_w7_at_most_four_messages_and_32_mib_on_a_connection() -> None:
    """W7: memory ≤ 32 MiB/conn; ≤ 4 open assemblies."""
    reassembler = Reassembler(CONFIG)
    for assembly_id in range(4):
        reassembler.add(assembly_id, [0, bytes(2000), 4000, 2], 0.0)
    assert code_of(reassembler, 4, [0, bytes(2000), 4000, 2]) == "too_large"
    reassembler = Reassembler(CONFIG)
    for assembly_id in range(2):
        reassembler.add(assembly_id, [0, bytes(MIB), 16 * MIB, 16], 0.0)
    assert code_of(reassembler, 2, [0, bytes(2000), 4000, 2]) == "too_large"


def test_the_budget_of_the_process_is_shared_and_given_back() -> None:
    budget = ReassemblyBudget(5000)
    one, other = Reassembler(CONFIG, budget), Reassembler(CONFIG, budget)
    one.add(1, [0, bytes(2000), 6000, 3], 0.0)
    other.add(1, [0, bytes(2000), 6000, 3], 0.0)
    assert code_of(other, 1, [1, bytes(2000)]) == "too_large"
    other.close()
    assert one.add(1, [1, bytes(2000)], 0.0) is None
    one.close()
    assert budget.held == 0


def test_frames_too_small_for_chunks() -> None:
    with pytest.raises(ValueError, match="too small"):
        split(bytes(5000), 1000)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(-1, 4), st.integers(0, 3000), st.none() | st.integers(-1, 9000)))
)
def test_whatever_comes_is_an_error_or_bounded(chunks: list[tuple[int, int, int, int | None]]) -> None:
    reassembler = Reassembler(replace(CONFIG, message_bytes_max=8000, assembly_bytes_max=9000))
    for assembly_id, index, size, total in chunks:
        body = [index, bytes(size)] if total is None else [index, bytes(size), total, -(-total // max(size, 1))]
        try:
            message = reassembler.add(assembly_id, body, 0.0)
        except ProtocolError:
            continue
        assert message is None or len(message) <= 8000
        assert reassembler.held_bytes <= 9000 and reassembler.open_count <= 4
