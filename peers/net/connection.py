"""A connection: one verified peer, one session over one transport, calls in both directions until one side ends it.

Whatever the peer sends, it ends this connection only. Tasks, all in the connection's nursery: a reader, a writer (the
only one that sends), a pinger, one for notifications (in their order), and one per call that is served. What is done
on behalf of the connection is started with `spawn` and ends with it. The handshake before and the close after it are
`lifetime`.

Back-pressure goes both ways: senders wait for room (`outbound`), the reader pauses while too much is in hand
(`inbound`). We ourselves never have more than the peer's limit of calls open, so that two honest sides do not stop
reading at each other.

Knows no method, group or right: that is the `ConnectionHandler`.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

import trio

from peers.config import NetConfig
from peers.errors import ConnectionLost, PeersError, ProtocolError, RemoteError, TimedOut, WireFault
from peers.model.codec import BadEncoding
from peers.model.trust import PeerIdentity
from peers.net.close_reason import STOPPING, CloseReason, reason_of
from peers.net.health import Health
from peers.net.inbound import INTERNAL_DETAIL, INTERNAL_ERROR, Inbound
from peers.net.outbound import Outbound
from peers.net.transport import Transport
from peers.wire import rpc
from peers.wire.chunks import ReassemblyBudget
from peers.wire.handshake import Verified

_log = logging.getLogger("peers.net")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionStatistics:
    """Counts since `opened_at` (trio time). Latency in seconds, None before the first pong; error rate 0 to 1."""

    opened_at: float
    bytes_in: int
    bytes_out: int
    frames_in: int
    frames_out: int
    calls_in: int
    calls_out: int
    open_calls: int
    serving: int
    waiting_to_send: int
    latency_seconds: float | None
    error_rate: float


class ConnectionHandler(Protocol):
    """What a connection asks of the rest of the device."""

    def on_connecting(self, remote: str, dialled: bool) -> None:
        """A transport is open, nobody is verified."""

    async def on_verified(self, connection: "Connection") -> None:
        """The peer is who it says. No call or notification of the peer is served before this has returned."""

    async def on_call(self, connection: "Connection", slot: int, method: str, args: Any) -> Any:
        """The answer, as plain values. A PeersError is sent as an error; ProtocolError and BadEncoding end it all.
        Cancelled when the peer takes the call back."""

    async def on_notify(self, connection: "Connection", slot: int, method: str, args: Any) -> None:
        """One at a time, in the order of arrival; later ones wait. Must not call the peer (`spawn` may)."""

    async def on_closed(self, connection: "Connection | None", reason: CloseReason) -> None:
        """The transport is closed. None where nobody was verified. Gets `goodbye_seconds`, also in a stop."""


class _Pending:
    """A call of ours that waits for its answer."""

    __slots__ = ("done", "error", "method", "value")

    def __init__(self, method: str) -> None:
        self.method = method
        self.done = trio.Event()
        self.value: Any = None
        self.error: PeersError | None = None


class Connection:
    """See the module. Valid until `on_closed`, after which every use is ConnectionLost."""

    def __init__(
        self,
        transport: Transport,
        verified: Verified,
        *,
        handler: ConnectionHandler,
        config: NetConfig,
        dialled: bool,
        budget: ReassemblyBudget | None = None,
    ) -> None:
        self.peer: PeerIdentity = verified.peer
        self.conn_id = verified.conn_id
        self.address_verified = verified.address_verified
        self.remote = transport.remote
        self.dialled = dialled
        self.reason: CloseReason | None = None
        self._transport = transport
        self._session = verified.session
        self._handler = handler
        self._config = config
        self._calls_limit = max(1, min(config.calls_max, verified.limits.calls))
        self._rpc = rpc.Rpc(config, budget)
        self._outbound = Outbound(transport, verified.session, self._rpc, config)
        self._inbound = Inbound(
            repr(self), self._rpc, self._outbound, config, on_call=self._on_call, on_notify=self._on_notify
        )
        self._health = Health()
        self._nursery: trio.Nursery | None = None
        self._pending: dict[int, _Pending] = {}
        self._callers = trio.lowlevel.ParkingLot()
        self._opened_at = trio.current_time()
        self._bytes_in = self._frames_in = self._calls_out = 0

    def __repr__(self) -> str:
        return f"<Connection {self.peer.name!r} {self.remote}>"

    async def call(self, slot: int, method: str, args: Any, *, timeout: float | None = None) -> Any:
        """Call `method` at the peer; cancelling this cancels it there.

        Args:
            timeout: seconds, waiting for room included; None is `call_seconds`.

        Raises:
            RemoteError: the peer answered with an error; `code` is its code.
            TimedOut: no answer in time.
            ConnectionLost: the connection is closed, or ended before the answer.
        """
        seconds = self._config.call_seconds if timeout is None else timeout
        with trio.move_on_after(seconds):
            self._check_open()
            while self._rpc.open_calls >= self._calls_limit:
                await self._callers.park()
                self._check_open()
            await self._outbound.wait_for_room()
            request_id, message = self._rpc.call(slot, method, args)
            pending = self._pending[request_id] = _Pending(method)
            self._calls_out += 1
            self._outbound.post(message)
            try:
                await pending.done.wait()
            finally:
                self._take_back(request_id)
            if pending.error is not None:
                raise pending.error
            return pending.value
        self._health.failed()
        raise TimedOut(f"{self.peer.name} did not answer {method} in {seconds:g} s")

    async def notify(self, slot: int, method: str, args: Any) -> None:
        """Send without an answer; returns when it is queued.

        Raises:
            ConnectionLost: the connection is closed.
        """
        self._check_open()
        await self._outbound.wait_for_room()
        self._outbound.post(self._rpc.notify(slot, method, args))
        await trio.lowlevel.checkpoint()

    def spawn(self, fn: Callable[..., Awaitable[object]], *args: object) -> None:
        """Run ``fn(*args)`` for as long as the connection lives; its failure closes this connection only.

        On a connection that is closing, nothing is run.
        """
        if self._nursery is not None and self.reason is None:
            self._nursery.start_soon(self._guard, fn, *args)

    def close(self, code: str = "closed", detail: str = "") -> None:
        """End the connection; the peer is told why. The first reason counts."""
        self._finish(CloseReason(code, detail))

    def statistics(self) -> ConnectionStatistics:
        return ConnectionStatistics(
            opened_at=self._opened_at,
            bytes_in=self._bytes_in,
            bytes_out=self._outbound.bytes,
            frames_in=self._frames_in,
            frames_out=self._outbound.frames,
            calls_in=self._inbound.calls,
            calls_out=self._calls_out,
            open_calls=self._rpc.open_calls,
            serving=self._inbound.serving,
            waiting_to_send=self._outbound.waiting,
            latency_seconds=self._health.latency_seconds,
            error_rate=self._health.error_rate,
        )

    async def run(self) -> CloseReason:
        """Serve until one side ends it. Once."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                for task in (self._introduce, self._outbound.run, self._read, self._ping, self._inbound.run_notifies):
                    nursery.start_soon(self._guard, task)
        finally:
            reason = self._finish(STOPPING)
            self._rpc.end()
            if not reason.by_peer and reason.code != ConnectionLost.code:
                await self._outbound.say_goodbye(reason.code, reason.detail)
        return reason

    async def _guard(self, fn: Callable[..., Awaitable[object]], *args: object) -> None:
        """Every task of the nursery runs in this: a failure is the connection's reason to end, and goes no further."""
        returned = False
        try:
            await fn(*args)
            returned = True
        except* (PeersError, BadEncoding) as errors:
            self._finish(reason_of(errors))
        except* Exception as errors:  # noqa: BLE001 - one bad peer, or one bug met by it, ends one connection
            _log.exception("%r ends", self, exc_info=errors)
            self._finish(CloseReason(INTERNAL_ERROR, INTERNAL_DETAIL))
        finally:
            if not returned:
                self._finish(STOPPING)

    def _finish(self, reason: CloseReason) -> CloseReason:
        """Set the reason if there is none, and let everything end that waits. Idempotent."""
        if self.reason is None:
            self.reason = reason
            for pending in self._pending.values():
                pending.error = self._lost()
                pending.done.set()
            self._pending.clear()
            self._callers.unpark_all()
            self._outbound.finish()
            if self._nursery is not None:
                self._nursery.cancel_scope.cancel()
        return self.reason

    def _check_open(self) -> None:
        if self.reason is not None:
            raise self._lost()

    def _lost(self) -> ConnectionLost:
        return ConnectionLost(f"the connection to {self.peer.name} ended: {self.reason}")

    def _take_back(self, request_id: int) -> None:
        """At the end of a call: tell the peer, if the answer has not come."""
        if self._pending.pop(request_id, None) is not None:
            message = self._rpc.cancel(request_id)
            if message is not None:
                self._outbound.post_control(message)

    async def _introduce(self) -> None:
        await self._handler.on_verified(self)
        self._inbound.admit()

    async def _on_call(self, slot: int, method: str, args: Any) -> Any:
        return await self._handler.on_call(self, slot, method, args)

    async def _on_notify(self, slot: int, method: str, args: Any) -> None:
        await self._handler.on_notify(self, slot, method, args)

    async def _ping(self) -> None:
        missed = 0
        while True:
            ping_id, message = self._rpc.ping()
            self._health.pinged(ping_id, trio.current_time())
            self._outbound.post_control(message)
            heard = self._frames_in
            await trio.sleep(self._config.ping_seconds)
            if self._inbound.paused:
                continue  # Our own slowness is not the peer's.
            self._rpc.expire(trio.current_time())
            if self._health.is_open(ping_id) and self._frames_in == heard:
                missed += 1
                self._health.failed()
            else:
                missed = 0
            if missed >= self._config.pings_missed_max:
                raise ConnectionLost(f"{self.peer.name} did not answer {missed} pings")

    async def _read(self) -> None:
        while True:
            frame = await self._transport.receive()
            self._frames_in += 1
            self._bytes_in += len(frame)
            event = self._rpc.receive(self._session.open(frame), trio.current_time())
            if event is not None:
                self._dispatch(event)
            if self._callers and self._rpc.open_calls < self._calls_limit:
                self._callers.unpark()
            await self._inbound.wait_for_room()

    def _dispatch(self, event: rpc.Event) -> None:
        match event:
            case rpc.ReplyReceived(request_id, value):
                self._settle(request_id, value, None)
            case rpc.ErrorReceived(request_id, code, detail):
                self._settle(request_id, None, RemoteError(f"{self.peer.name}: {detail or code}", code=code))
            case rpc.CallReceived():
                self.spawn(self._inbound.serve_call, event, self._inbound.begin_call(event))
            case rpc.NotifyReceived():
                self._inbound.add_notify(event)
            case rpc.CancelReceived(request_id):
                self._inbound.cancel(request_id)
            case rpc.PingReceived(ping_id):
                if self._outbound.waiting_control > self._config.pongs_waiting_max + self._calls_limit:
                    raise ProtocolError(WireFault.PROTOCOL, f"{self.peer.name} sends pings and reads no answers")
                self._outbound.post_control(self._rpc.pong(ping_id))
            case rpc.PongReceived(ping_id):
                self._health.ponged(ping_id, trio.current_time())
            case rpc.RekeyReceived():
                self._session.receive_rekey()
            case rpc.CloseReceived(code, detail):
                self._finish(CloseReason(code, detail, by_peer=True))

    def _settle(self, request_id: int, value: Any, error: RemoteError | None) -> None:
        pending = self._pending.pop(request_id, None)
        if pending is not None:
            pending.value, pending.error = value, error
            pending.done.set()
            self._health.succeeded()
