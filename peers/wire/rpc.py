"""Calls in both directions over one session: a machine of plain bytes and events, without I/O.

A frame is ``CBOR [kind, request_id, slot, body]``. Each side numbers its own calls and pings; an answer carries the
number of what it answers and slot 0.

    call    [method, args]     reply  value           error  [code, detail]     cancel  null
    notify  [method, args]     ping   null            pong   null               rekey   null
    chunk   see `chunks`       close  [code, detail]

What is received becomes at most one event. A call is open from `call` until its answer, also after `cancel`: both may
cross on the way, so the answer to a cancelled call is taken in silence, once. Anything never asked is `bad_reply`.

May assume that frames arrive in order and unchanged (the session sees to it). Will not look into arguments, will not
schedule: whoever sends decides how the frames of several messages alternate. Raises only `ProtocolError` for what
comes from outside.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from peers.config import NetConfig
from peers.errors import ProtocolError, WireFault
from peers.model import codec
from peers.wire.chunks import Reassembler, ReassemblyBudget, split

METHOD_CHARS_MAX = 64
CODE_CHARS_MAX = 64
DETAIL_CHARS_MAX = 1000
ID_MAX = (1 << 63) - 1
SLOT_MAX = (1 << 32) - 1


class Kind(IntEnum):
    """First element of a frame."""

    CALL = 0
    REPLY = 1
    ERROR = 2
    CHUNK = 3
    NOTIFY = 4
    PING = 5
    PONG = 6
    CANCEL = 7
    REKEY = 8
    CLOSE = 9


@dataclass(frozen=True, slots=True)
class CallReceived:
    """Answer it with `reply` or `error`. `size` is that of its message in bytes."""

    request_id: int
    slot: int
    method: str
    args: Any
    size: int


@dataclass(frozen=True, slots=True)
class NotifyReceived:
    slot: int
    method: str
    args: Any
    size: int


@dataclass(frozen=True, slots=True)
class ReplyReceived:
    request_id: int
    value: Any


@dataclass(frozen=True, slots=True)
class ErrorReceived:
    request_id: int
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class CancelReceived:
    """The peer no longer wants the answer of its open call; one is due all the same."""

    request_id: int


@dataclass(frozen=True, slots=True)
class PingReceived:
    """Answer it with `pong`."""

    request_id: int


@dataclass(frozen=True, slots=True)
class PongReceived:
    request_id: int


@dataclass(frozen=True, slots=True)
class RekeyReceived:
    """The next frame is under the next key."""


@dataclass(frozen=True, slots=True)
class CloseReceived:
    code: str
    detail: str


Event = (
    CallReceived
    | NotifyReceived
    | ReplyReceived
    | ErrorReceived
    | CancelReceived
    | PingReceived
    | PongReceived
    | RekeyReceived
    | CloseReceived
)


class Rpc:
    """One side of a connection. Methods that return bytes return one whole message: pass it to `frames`."""

    def __init__(self, config: NetConfig, budget: ReassemblyBudget | None = None) -> None:
        self._config = config
        self._reassembler = Reassembler(config, budget)
        self._next_id = 1
        self._next_assembly = 1
        self._asked: dict[int, bool] = {}  # my open calls: whether the answer is still wanted
        self._pinged: set[int] = set()
        self._answering: set[int] = set()  # open calls of the peer

    @property
    def open_calls(self) -> int:
        """Mine that have no answer yet, cancelled ones included."""
        return len(self._asked)

    @property
    def held_bytes(self) -> int:
        return self._reassembler.held_bytes

    def call(self, slot: int, method: str, args: Any) -> tuple[int, bytes]:
        """(request id, message)"""
        request_id = self._new_id()
        message = codec.dumps([Kind.CALL.value, request_id, slot, [method, args]])
        self._check_size(message)
        self._asked[request_id] = True
        return request_id, message

    def cancel(self, request_id: int) -> bytes | None:
        """The message that takes a call back, or None when its answer is here already."""
        if not self._asked.get(request_id):
            return None
        self._asked[request_id] = False
        return codec.dumps([Kind.CANCEL.value, request_id, 0, None])

    def reply(self, request_id: int, value: Any) -> bytes:
        """Answer a call of the peer.

        Raises:
            ProtocolError: `too_large`; the call is still open and wants an `error` then.
        """
        message = codec.dumps([Kind.REPLY.value, request_id, 0, value])
        self._check_size(message)
        self._answering.remove(request_id)
        return message

    def error(self, request_id: int, code: str, detail: str) -> bytes:
        self._answering.remove(request_id)
        return codec.dumps([Kind.ERROR.value, request_id, 0, [code[:CODE_CHARS_MAX], detail[:DETAIL_CHARS_MAX]]])

    def notify(self, slot: int, method: str, args: Any) -> bytes:
        message = codec.dumps([Kind.NOTIFY.value, 0, slot, [method, args]])
        self._check_size(message)
        return message

    def ping(self) -> tuple[int, bytes]:
        """(ping id, message)"""
        ping_id = self._new_id()
        self._pinged.add(ping_id)
        return ping_id, codec.dumps([Kind.PING.value, ping_id, 0, None])

    def pong(self, ping_id: int) -> bytes:
        return codec.dumps([Kind.PONG.value, ping_id, 0, None])

    def rekey(self) -> bytes:
        return codec.dumps([Kind.REKEY.value, 0, 0, None])

    def close(self, code: str, detail: str) -> bytes:
        return codec.dumps([Kind.CLOSE.value, 0, 0, [code[:CODE_CHARS_MAX], detail[:DETAIL_CHARS_MAX]]])

    def frames(self, message: bytes) -> Iterator[bytes]:
        """The plain frames that carry `message`: itself, or chunks of it. Frames of messages may alternate."""
        if len(message) <= self._config.frame_bytes:
            yield message
            return
        assembly_id = self._next_assembly
        self._next_assembly += 1
        for body in split(message, self._config.frame_bytes):
            yield codec.dumps([Kind.CHUNK.value, assembly_id, 0, body])

    def receive(self, frame: bytes, now: float) -> Event | None:
        """What one opened frame means; None when it needs no act (part of a message, a late answer).

        Raises:
            ProtocolError: for everything that an honest peer never sends.
        """
        kind, request_id, slot, body = _parse(frame)
        if kind is not Kind.CHUNK:
            return self._event(kind, request_id, slot, body, len(frame))
        message = self._reassembler.add(request_id, body, now)
        if message is None:
            return None
        kind, request_id, slot, body = _parse(message)
        if kind not in _LARGE:
            raise ProtocolError(WireFault.PROTOCOL, f"a {kind.name.lower()} in chunks")
        return self._event(kind, request_id, slot, body, len(message))

    def expire(self, now: float) -> int:
        """Drop large messages that stopped in the middle."""
        return self._reassembler.expire(now)

    def end(self) -> None:
        """The connection has ended: give back what was held."""
        self._reassembler.close()

    def _event(self, kind: Kind, request_id: int, slot: int, body: Any, size: int) -> Event | None:
        match kind:
            case Kind.CALL:
                method, args = _method(body)
                if request_id in self._answering:
                    raise ProtocolError(WireFault.PROTOCOL, f"call {request_id} is open already")
                self._answering.add(request_id)
                return CallReceived(request_id, slot, method, args, size)
            case Kind.REPLY:
                return ReplyReceived(request_id, body) if self._take_answer(request_id) else None
            case Kind.ERROR:
                code, detail = _code(body)
                return ErrorReceived(request_id, code, detail) if self._take_answer(request_id) else None
            case Kind.NOTIFY:
                method, args = _method(body)
                return NotifyReceived(slot, method, args, size)
            case Kind.CLOSE:
                return CloseReceived(*_code(body))
            case _:
                if body is not None:
                    raise ProtocolError(WireFault.BAD_FRAME, f"a {kind.name.lower()} has no body")
                return self._bare_event(kind, request_id)

    def _bare_event(self, kind: Kind, request_id: int) -> Event | None:
        match kind:
            case Kind.PING:
                return PingReceived(request_id)
            case Kind.PONG:
                if request_id not in self._pinged:
                    raise ProtocolError(WireFault.BAD_REPLY, f"a pong to ping {request_id}, which is not open")
                self._pinged.remove(request_id)
                return PongReceived(request_id)
            case Kind.CANCEL:
                # One that crossed its answer, or overtook its call, finds nothing to cancel.
                return CancelReceived(request_id) if request_id in self._answering else None
            case Kind.REKEY:
                return RekeyReceived()
            case _:
                raise ProtocolError(WireFault.PROTOCOL, f"a chunk that holds a {kind.name.lower()}")

    def _take_answer(self, request_id: int) -> bool:
        """Close one of my calls; whether the caller still waits."""
        wanted = self._asked.pop(request_id, None)
        if wanted is None:
            raise ProtocolError(WireFault.BAD_REPLY, f"an answer to call {request_id}, which is not open")
        return wanted

    def _new_id(self) -> int:
        request_id = self._next_id
        self._next_id += 1
        return request_id

    def _check_size(self, message: bytes) -> None:
        if len(message) > self._config.message_bytes_max:
            most = self._config.message_bytes_max
            raise ProtocolError(WireFault.TOO_LARGE, f"a message of {len(message)} bytes; {most} is most: send pages")


_LARGE = frozenset({Kind.CALL, Kind.REPLY, Kind.NOTIFY})
_KINDS = {kind.value: kind for kind in Kind}


def _parse(frame: bytes) -> tuple[Kind, int, int, Any]:
    try:
        value = codec.loads(frame)
    except codec.BadEncoding as error:
        raise ProtocolError(WireFault.BAD_ENCODING, f"a frame is {error}") from error
    if type(value) is not list or len(value) != 4:
        raise ProtocolError(WireFault.BAD_FRAME, "a frame is not [kind, request id, slot, body]")
    kind_value, request_id, slot, body = value
    if type(kind_value) is not int or (kind := _KINDS.get(kind_value)) is None:
        raise ProtocolError(WireFault.PROTOCOL, "a frame of an unknown kind")
    if type(request_id) is not int or not 0 <= request_id <= ID_MAX:
        raise ProtocolError(WireFault.BAD_FRAME, "a request id is a 63-bit number")
    if type(slot) is not int or not 0 <= slot <= SLOT_MAX:
        raise ProtocolError(WireFault.BAD_FRAME, "a slot is a 32-bit number")
    return kind, request_id, slot, body


def _method(body: Any) -> tuple[str, Any]:
    if type(body) is not list or len(body) != 2 or type(body[0]) is not str or len(body[0]) > METHOD_CHARS_MAX:
        raise ProtocolError(WireFault.BAD_FRAME, "a call is not [method, arguments]")
    return body[0], body[1]


def _code(body: Any) -> tuple[str, str]:
    """[code, detail], made harmless for a terminal or a log."""
    if type(body) is not list or len(body) != 2 or type(body[0]) is not str or type(body[1]) is not str:
        raise ProtocolError(WireFault.BAD_FRAME, "an error is not [code, detail]")
    code, detail = body
    if len(code) > CODE_CHARS_MAX or len(detail) > DETAIL_CHARS_MAX:
        raise ProtocolError(WireFault.TOO_LARGE, "the text of an error is too long")
    return printable(code), printable(detail)


def printable(text: str) -> str:
    """`text` without control characters: the peer chose it, a person's terminal shows it."""
    return (
        text
        if text.isprintable()
        else "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    )
