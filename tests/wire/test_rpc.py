"""The rpc machine: alone, two of them joined, and against arbitrary bytes."""

import contextlib
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from peers.config import NetConfig
from peers.errors import ProtocolError
from peers.model import codec
from peers.wire.rpc import (
    CallReceived,
    CancelReceived,
    CloseReceived,
    ErrorReceived,
    Event,
    NotifyReceived,
    PingReceived,
    PongReceived,
    RekeyReceived,
    ReplyReceived,
    Rpc,
    printable,
)

CONFIG = NetConfig()


def deliver(sender: Rpc, message: bytes, receiver: Rpc) -> Event | None:
    events = [receiver.receive(frame, 0.0) for frame in sender.frames(message)]
    assert all(event is None for event in events[:-1])
    return events[-1]


def fault(rpc: Rpc, frame: bytes) -> str:
    with pytest.raises(ProtocolError) as caught:
        rpc.receive(frame, 0.0)
    return caught.value.code


def frame_of(kind: Any, request_id: Any = 0, slot: Any = 0, body: Any = None) -> bytes:
    return codec.dumps([kind, request_id, slot, body])


def test_golden_frames() -> None:
    """The bytes of docs/PROTOCOL."""
    rpc = Rpc(CONFIG)
    assert rpc.call(3, "m", [1])[1].hex() == "8400010382616d8101"
    assert rpc.notify(3, "m", b"x").hex() == "8404000382616d4178"
    assert rpc.ping()[1].hex() == "84050200f6"
    assert rpc.pong(9).hex() == "84060900f6"
    assert rpc.rekey().hex() == "84080000f6"
    assert rpc.close("a", "b").hex() == "8409000082616161" + "62"
    cancel = rpc.cancel(1)
    assert cancel is not None and cancel.hex() == "84070100f6"
    rpc.receive(frame_of(0, 5, 1, ["m", None]), 0.0)
    assert rpc.reply(5, True).hex() == "84010500f5"
    rpc.receive(frame_of(0, 6, 1, ["m", None]), 0.0)
    assert rpc.error(6, "a", "b").hex() == "840206008261616162"


@pytest.mark.parametrize("size", [0, 10, CONFIG.frame_bytes, 1_000_000])
def test_a_call_and_its_answer(size: int) -> None:
    a, b = Rpc(CONFIG), Rpc(CONFIG)
    request_id, message = a.call(3, "echo", bytes(size))
    assert deliver(a, message, b) == CallReceived(request_id, 3, "echo", bytes(size), len(message))
    assert deliver(b, b.reply(request_id, bytes(size)), a) == ReplyReceived(request_id, bytes(size))
    assert a.open_calls == 0


def test_other_messages() -> None:
    a, b = Rpc(CONFIG), Rpc(CONFIG)
    message = a.notify(2, "hint", [1])
    assert deliver(a, message, b) == NotifyReceived(2, "hint", [1], len(message))
    ping_id, message = a.ping()
    assert deliver(a, message, b) == PingReceived(ping_id)
    assert deliver(b, b.pong(ping_id), a) == PongReceived(ping_id)
    assert deliver(a, a.rekey(), b) == RekeyReceived()
    assert deliver(a, a.close("closed", "bye\x1b[31m"), b) == CloseReceived("closed", "bye\ufffd[31m")
    request_id, message = a.call(1, "m", None)
    deliver(a, message, b)
    assert deliver(b, b.error(request_id, "not_available", "no"), a) == ErrorReceived(request_id, "not_available", "no")


def test_cancellation_both_ways() -> None:
    a, b = Rpc(CONFIG), Rpc(CONFIG)
    request_id, message = a.call(1, "slow", None)
    deliver(a, message, b)
    cancel = a.cancel(request_id)
    assert cancel is not None and deliver(a, cancel, b) == CancelReceived(request_id)
    assert a.cancel(request_id) is None and a.open_calls == 1
    assert deliver(b, b.error(request_id, "cancelled", ""), a) is None
    assert a.open_calls == 0


def test_a_cancel_that_crosses_the_answer() -> None:
    a, b = Rpc(CONFIG), Rpc(CONFIG)
    request_id, message = a.call(1, "quick", None)
    deliver(a, message, b)
    answer = b.reply(request_id, 1)
    cancel = a.cancel(request_id)
    assert cancel is not None and deliver(a, cancel, b) is None
    assert deliver(b, answer, a) is None
    assert fault(a, answer) == "bad_reply"


def test_w8_replies_to_nothing() -> None:
    """W8: reply to an id never asked; second reply to same id: close `bad_reply`."""
    a, b = Rpc(CONFIG), Rpc(CONFIG)
    request_id, message = a.call(1, "m", None)
    deliver(a, message, b)
    answer = b.reply(request_id, 1)
    deliver(b, answer, a)
    assert fault(a, answer) == "bad_reply"
    assert fault(a, frame_of(1, 99, 0, 1)) == "bad_reply"
    assert fault(a, frame_of(2, 99, 0, ["code", "detail"])) == "bad_reply"
    assert fault(a, frame_of(6, 99)) == "bad_reply"


HOSTILE = {
    "depth": b"\x84\x00\x01\x01" + b"\x81" * 60_000 + b"\x00",
    "length": b"\x84\x00\x01\x01\x5b" + b"\xff" * 8,
    "array length": b"\x84\x00\x01\x01\x9b" + b"\xff" * 8,
    "indefinite": b"\x9f\x00\x01\x01\xf6\xff",
    "indefinite bytes": b"\x84\x00\x01\x01\x5f\x41a\xff",
    "duplicate key": b"\x84\x00\x01\x01\xa2\x61a\x01\x61a\x02",
    "trailing": b"\x84\x08\x00\x00\xf6\x00",
    "tag 35": b"\x84\x00\x01\x01\xd8\x23\x66(a+)+$",
    "tag 4": b"\x84\x00\x01\x01\xc4\x82\x1a\x3b\x9a\xca\x00\x01",
    "tag 28": b"\x84\x00\x01\x01\xd8\x1c\x81\xd8\x1d\x00",
    "empty": b"",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_w6_hostile_cbor(name: str) -> None:
    """W6: depth 100,000; length 2^64−1; indefinite; duplicate key; trailing bytes; tag 35/4/28: `bad_encoding`."""
    frame = HOSTILE[name]
    tracemalloc.start()
    try:
        assert fault(Rpc(CONFIG), frame) == "bad_encoding"
        assert tracemalloc.get_traced_memory()[1] < len(frame) + 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (codec.dumps([]), "bad_frame"),
        (codec.dumps({"a": 1}), "bad_frame"),
        (codec.dumps([5, 1, 0]), "bad_frame"),
        (frame_of(10), "protocol"),
        (frame_of(-1), "protocol"),
        (frame_of("ping"), "protocol"),
        (frame_of(True), "protocol"),
        (frame_of(5, -1), "bad_frame"),
        (frame_of(5, 1 << 63), "bad_frame"),
        (frame_of(5, None), "bad_frame"),
        (frame_of(0, 1, 1 << 32, ["m", None]), "bad_frame"),
        (frame_of(0, 1, 1, ["m"]), "bad_frame"),
        (frame_of(0, 1, 1, ["m" * 65, None]), "bad_frame"),
        (frame_of(0, 1, 1, [b"m", None]), "bad_frame"),
        (frame_of(4, 0, 1, None), "bad_frame"),
        (frame_of(5, 1, 0, 1), "bad_frame"),
        (frame_of(8, 0, 0, []), "bad_frame"),
        (frame_of(9, 0, 0, ["code"]), "bad_frame"),
        (frame_of(9, 0, 0, ["code", 1]), "bad_frame"),
        (frame_of(9, 0, 0, ["c" * 65, ""]), "too_large"),
        (frame_of(9, 0, 0, ["c", "d" * 1001]), "too_large"),
        (frame_of(3, 1, 0, None), "bad_frame"),
    ],
)
def test_misshapen_frames(frame: bytes, code: str) -> None:
    assert fault(Rpc(CONFIG), frame) == code


def test_control_messages_do_not_come_in_chunks() -> None:
    for inner in (frame_of(8), frame_of(9, 0, 0, ["a", "b"]), frame_of(3, 1, 0, [0, b"x", 1, 1]), frame_of(5, 1)):
        assert fault(Rpc(CONFIG), frame_of(3, 1, 0, [0, inner, len(inner), 1])) == "protocol"


def test_a_call_id_is_used_once_at_a_time() -> None:
    rpc, call = Rpc(CONFIG), frame_of(0, 1, 1, ["m", None])
    rpc.receive(call, 0.0)
    assert fault(rpc, call) == "protocol"


def test_our_own_messages_have_a_limit() -> None:
    rpc = Rpc(CONFIG)
    with pytest.raises(ProtocolError):
        rpc.call(1, "m", bytes(16 << 20))
    assert rpc.open_calls == 0
    rpc.receive(frame_of(0, 1, 1, ["m", None]), 0.0)
    with pytest.raises(ProtocolError):
        rpc.reply(1, bytes(16 << 20))
    rpc.error(1, "too_large", "")


def test_held_chunks_are_given_back() -> None:
    a, b = Rpc(CONFIG), Rpc(CONFIG)
    frames = list(a.frames(a.notify(1, "m", bytes(200_000))))
    b.receive(frames[0], 0.0)
    assert b.held_bytes > 60_000 and b.expire(29.0) == 0
    assert b.expire(30.0) == 1 and b.held_bytes == 0
    b.receive(frames[0], 31.0)
    b.end()
    assert b.held_bytes == 0


def test_printable() -> None:
    assert printable("straße ✓") == "straße ✓"
    assert printable("a\nb\x1b[0m\u202e") == "a\ufffdb\ufffd[0m\ufffd"


KINDS = st.integers(-1, 11)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), 1 << 63)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8),
    lambda children: st.lists(children, max_size=4),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60) | st.builds(frame_of, KINDS | VALUES, st.integers(-1, 4) | VALUES, VALUES, VALUES))
def test_arbitrary_frames_raise_only_protocol_errors(frame: bytes) -> None:
    rpc = Rpc(CONFIG)
    rpc.call(1, "m", None)
    with contextlib.suppress(ProtocolError):
        rpc.receive(frame, 0.0)


class JoinedMachines(RuleBasedStateMachine):
    """Two machines with a line that keeps order: whatever both do, no honest side is ever at fault."""

    def __init__(self) -> None:
        super().__init__()
        self.sides = [Rpc(CONFIG), Rpc(CONFIG)]
        self.lines: list[list[bytes]] = [[], []]
        self.open: list[set[int]] = [set(), set()]
        self.serving: list[set[int]] = [set(), set()]
        self.wanted: list[set[int]] = [set(), set()]

    @rule(side=st.integers(0, 1), size=st.sampled_from([0, 100, 70_000]))
    def call(self, side: int, size: int) -> None:
        request_id, message = self.sides[side].call(1, "m", bytes(size))
        self.wanted[side].add(request_id)
        self.lines[side] += self.sides[side].frames(message)

    @rule(side=st.integers(0, 1), data=st.data())
    def cancel(self, side: int, data: st.DataObject) -> None:
        if self.wanted[side]:
            request_id = data.draw(st.sampled_from(sorted(self.wanted[side])))
            self.wanted[side].remove(request_id)
            message = self.sides[side].cancel(request_id)
            assert message is not None
            self.lines[side].append(message)

    @rule(side=st.integers(0, 1), good=st.booleans(), data=st.data())
    def answer(self, side: int, good: bool, data: st.DataObject) -> None:
        if self.serving[side]:
            request_id = data.draw(st.sampled_from(sorted(self.serving[side])))
            self.serving[side].remove(request_id)
            rpc = self.sides[side]
            message = rpc.reply(request_id, request_id) if good else rpc.error(request_id, "no", "")
            self.lines[side] += rpc.frames(message)

    @rule(side=st.integers(0, 1))
    def ping(self, side: int) -> None:
        self.lines[side].append(self.sides[side].ping()[1])

    @rule(side=st.integers(0, 1), count=st.integers(1, 5))
    def deliver(self, side: int, count: int) -> None:
        other = 1 - side
        for _ in range(min(count, len(self.lines[side]))):
            match self.sides[other].receive(self.lines[side].pop(0), 0.0):
                case CallReceived(request_id):
                    self.serving[other].add(request_id)
                case ReplyReceived(request_id, _) | ErrorReceived(request_id, _, _):
                    self.wanted[other].remove(request_id)
                case CancelReceived(request_id):
                    assert request_id in self.serving[other]
                case PingReceived(ping_id):
                    self.lines[other].append(self.sides[other].pong(ping_id))

    @invariant()
    def every_wanted_call_is_open(self) -> None:
        for rpc, wanted in zip(self.sides, self.wanted, strict=True):
            assert rpc.open_calls >= len(wanted)


JoinedMachines.TestCase.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
TestJoinedMachines = JoinedMachines.TestCase
