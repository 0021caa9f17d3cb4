"""A network in memory and virtual time: the same `Network` protocol, without sockets and without a clock of its own.

Every device has an endpoint with a name; ``sim://name`` is its address. Links between two endpoints have a latency,
can be cut (connections break, dialling fails), stalled in one direction (what is sent waits, as in a TCP window that
is full) and healed. Delays come from `trio.sleep`, so a `MockClock` that jumps runs hours in milliseconds; each delay
has a small seeded part, so that no two deadlines fall together.

Frames arrive in order and unchanged. At most `FRAMES_IN_FLIGHT` are on the way in one direction; then sending waits.
"""

import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from peers.errors import ConnectionLost, DialFailed, UsageError
from peers.net.address import SIM, parse
from peers.net.transport import Transport

FRAMES_IN_FLIGHT = 64
BACKLOG = 32
"""Links that wait to be accepted."""

OnTransport = Callable[[Transport], Awaitable[None]]


@dataclass
class _Link:
    """From one endpoint to another, one direction."""

    latency_seconds: float
    cut: bool = False
    stalled: bool = False
    frames: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class LinkStatistics:
    """What was sent over one direction of a link so far."""

    frames: int
    bytes: int


class _Pipe:
    """One direction of one transport: frames with their times of arrival."""

    def __init__(self, link: _Link, random_source: random.Random) -> None:
        self._link = link
        self._random = random_source
        self._frames: deque[tuple[float, bytes]] = deque()
        self._arrived_at = 0.0
        self._ended = False
        self._changed = trio.lowlevel.ParkingLot()
        self._unread = False
        self.broken = False

    async def send(self, frame: bytes) -> None:
        await trio.lowlevel.checkpoint()
        while len(self._frames) >= FRAMES_IN_FLIGHT and not self.broken:
            await self._changed.park()
        if self.broken:
            raise ConnectionLost("the simulated link is broken")
        if self._unread:
            return
        delay = self._link.latency_seconds * (1.0 + 0.01 * self._random.random())
        self._arrived_at = max(self._arrived_at, trio.current_time() + delay)
        self._link.frames += 1
        self._link.bytes += len(frame)
        self._frames.append((self._arrived_at, frame))
        self._changed.unpark_all()

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        while True:
            if self.broken or (self._ended and not self._frames):
                raise ConnectionLost("the simulated link is closed")
            if not self._frames or self._link.stalled:
                await self._changed.park()
                continue
            wait_seconds = self._frames[0][0] - trio.current_time()
            if wait_seconds <= 0:
                frame = self._frames.popleft()[1]
                self._changed.unpark_all()
                return frame
            with trio.move_on_after(wait_seconds):
                await self._changed.park()

    def end(self) -> None:
        """The sender closed: what is on the way still arrives."""
        self._ended = True
        self._changed.unpark_all()

    def abandon(self) -> None:
        """The receiver closed: what is sent is lost, which the sender learns from the other direction."""
        self._unread = True
        self._frames.clear()
        self._changed.unpark_all()

    def break_off(self) -> None:
        self.broken = True
        self._frames.clear()
        self._changed.unpark_all()

    def wake(self) -> None:
        self._changed.unpark_all()


class SimulatedTransport:
    """See `Transport`."""

    def __init__(self, remote: str, incoming: _Pipe, outgoing: _Pipe, on_close: Callable[[], None]) -> None:
        self._remote = remote
        self._incoming = incoming
        self._outgoing = outgoing
        self._on_close = on_close
        self._opened_at = trio.current_time()
        self._closed = False
        self.is_authenticated = False

    @property
    def remote(self) -> str:
        return self._remote

    @property
    def opened_at(self) -> float:
        return self._opened_at

    async def send(self, frame: bytes) -> None:
        self._check_open()
        await self._outgoing.send(frame)

    async def receive(self) -> bytes:
        self._check_open()
        return await self._incoming.receive()

    def authenticated(self) -> None:
        self.is_authenticated = True

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self._outgoing.end()
            self._incoming.abandon()
            self._on_close()
        await trio.lowlevel.checkpoint()

    def _check_open(self) -> None:
        if self._closed:
            raise ConnectionLost("this end of the simulated link is closed")


@dataclass(eq=False)
class _Open:
    """A pair of transports between two endpoints."""

    dialler: str
    listener: str
    there: _Pipe
    back: _Pipe
    ends_closed: int = 0


class SimulatedNetwork:
    """All endpoints and links of one simulation. `random_source` is seeded by the test."""

    def __init__(self, random_source: random.Random, *, latency_seconds: float = 0.01) -> None:
        self._random = random_source
        self._latency_seconds = latency_seconds
        self._links: dict[tuple[str, str], _Link] = {}
        self._listeners: dict[str, trio.MemorySendChannel[SimulatedTransport]] = {}
        self._open: dict[_Open, None] = {}

    def endpoint(self, name: str) -> "SimulatedEndpoint":
        """The network as the device `name` sees it."""
        return SimulatedEndpoint(self, name)

    def set_latency(self, a: str, b: str, seconds: float) -> None:
        self._link(a, b).latency_seconds = self._link(b, a).latency_seconds = seconds

    def cut(self, a: str, b: str) -> None:
        """Break all connections between the two; dialling fails until `heal`."""
        self._link(a, b).cut = self._link(b, a).cut = True
        for pair in self._between(a, b):
            pair.there.break_off()
            pair.back.break_off()

    def stall(self, sender: str, receiver: str) -> None:
        """One way: nothing that `sender` sends arrives until `heal`; connections stay open. Dialling fails."""
        self._link(sender, receiver).stalled = True

    def heal(self, a: str, b: str) -> None:
        """Undo `cut` and `stall` in both directions. Broken connections stay broken."""
        for link in (self._link(a, b), self._link(b, a)):
            link.cut = link.stalled = False
        for pair in self._between(a, b):
            pair.there.wake()
            pair.back.wake()

    def statistics(self, sender: str, receiver: str) -> LinkStatistics:
        link = self._link(sender, receiver)
        return LinkStatistics(link.frames, link.bytes)

    @property
    def open_connections(self) -> list[tuple[str, str]]:
        """(dialler, listener) of every connection of which neither end is closed or broken."""
        return [(pair.dialler, pair.listener) for pair in self._open if not pair.ends_closed and not pair.there.broken]

    def _link(self, sender: str, receiver: str) -> _Link:
        return self._links.setdefault((sender, receiver), _Link(self._latency_seconds))

    def _between(self, a: str, b: str) -> list[_Open]:
        return [pair for pair in self._open if {pair.dialler, pair.listener} == {a, b}]

    async def _dial(self, dialler: str, listener: str) -> SimulatedTransport:
        there, back = self._link(dialler, listener), self._link(listener, dialler)
        await trio.sleep((there.latency_seconds + back.latency_seconds) * (1.0 + 0.01 * self._random.random()))
        backlog = self._listeners.get(listener)
        if backlog is None or there.cut or back.cut or there.stalled or back.stalled:
            raise DialFailed(f"{SIM}://{listener} does not answer")
        pair = _Open(dialler, listener, _Pipe(there, self._random), _Pipe(back, self._random))
        self._open[pair] = None

        def closed() -> None:
            pair.ends_closed += 1
            if pair.ends_closed == 2:
                del self._open[pair]

        accepted = SimulatedTransport(f"{SIM}://{dialler}", pair.there, pair.back, closed)
        try:
            backlog.send_nowait(accepted)
        except (trio.WouldBlock, trio.BrokenResourceError) as error:
            del self._open[pair]
            raise DialFailed(f"{SIM}://{listener} is too busy") from error
        return SimulatedTransport(f"{SIM}://{listener}", pair.back, pair.there, closed)

    async def _listen(self, name: str, on_transport: OnTransport, task_status: trio.TaskStatus[str]) -> None:
        if name in self._listeners:
            raise UsageError(f"cannot listen on {SIM}://{name}: it is taken", code="cannot_listen")
        sending, receiving = trio.open_memory_channel[SimulatedTransport](BACKLOG)
        self._listeners[name] = sending
        try:
            async with sending, receiving, trio.open_nursery() as nursery:
                task_status.started(f"{SIM}://{name}")
                async for transport in receiving:
                    nursery.start_soon(_accept, transport, on_transport)
        finally:
            del self._listeners[name]


class SimulatedEndpoint:
    """See `Network`. Made by `SimulatedNetwork.endpoint`."""

    def __init__(self, network: SimulatedNetwork, name: str) -> None:
        self._network = network
        self.name = name
        self.address = f"{SIM}://{name}"

    @asynccontextmanager
    async def dial(self, address: str) -> AsyncIterator[Transport]:
        target = parse(address)
        if target.scheme != SIM:
            raise DialFailed(f"{target} is not in the simulation")
        transport = await self._network._dial(self.name, target.host)
        try:
            yield transport
        finally:
            with trio.CancelScope(shield=True):
                await transport.aclose()

    async def listen(
        self,
        address: str,
        on_transport: OnTransport,
        *,
        task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """`address` is ``sim://`` and a name; a device usually listens under its endpoint's own."""
        target = parse(address)
        if target.scheme != SIM or target.host != self.name:
            raise UsageError(f"cannot listen on {target} at {self.address}", code="cannot_listen")
        await self._network._listen(self.name, on_transport, task_status)


async def _accept(transport: SimulatedTransport, on_transport: OnTransport) -> None:
    try:
        await on_transport(transport)
    finally:
        with trio.CancelScope(shield=True):
            await transport.aclose()
