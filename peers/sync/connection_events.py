"""What happens to connections, told to whoever listens: connecting, verified, closed and why.

A listener that does not read loses the oldest events, never the connection's time.
"""

from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

import trio

EVENTS_KEPT = 256
"""Events that wait for a slow listener: eight for each connection of a full pool."""


class ConnectionEventKind(StrEnum):
    CONNECTING = "connecting"
    VERIFIED = "verified"
    CLOSED = "closed"


@dataclass(frozen=True)
class ConnectionEvent:
    """`device` and `user` are empty until the connection is verified; `why` is the code and detail of a close."""

    kind: ConnectionEventKind
    remote: str
    dialled: bool
    device: bytes = b""
    user: bytes = b""
    name: str = ""
    why: str = ""


class EventStream:
    """One listener's view: an async iterator of events."""

    def __init__(self) -> None:
        self._waiting: deque[ConnectionEvent] = deque(maxlen=EVENTS_KEPT)
        self._arrived = trio.Event()

    def put(self, event: ConnectionEvent) -> None:
        self._waiting.append(event)
        self._arrived.set()

    def __aiter__(self) -> AsyncIterator[ConnectionEvent]:
        return self

    async def __anext__(self) -> ConnectionEvent:
        while not self._waiting:
            self._arrived = trio.Event()
            await self._arrived.wait()
        await trio.lowlevel.checkpoint()
        return self._waiting.popleft()


class ConnectionEvents:
    """Where events are told. Telling never waits. Who listens first hears which attempts are under way."""

    def __init__(self) -> None:
        self._streams: set[EventStream] = set()
        self._under_way: dict[tuple[str, bool], ConnectionEvent] = {}

    def tell(self, event: ConnectionEvent) -> None:
        self._under_way.pop((event.remote, event.dialled), None)
        if event.kind is ConnectionEventKind.CONNECTING:
            self._under_way[event.remote, event.dialled] = event
        for stream in self._streams:
            stream.put(event)

    @contextmanager
    def listen(self) -> Iterator[EventStream]:
        stream = EventStream()
        for event in self._under_way.values():
            stream.put(event)
        self._streams.add(stream)
        try:
            yield stream
        finally:
            self._streams.discard(stream)
