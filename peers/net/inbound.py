"""The serving half of a connection: the peer's calls, each in a task, and its notifications, one after the other.

Says when the reader must pause: `calls_max` calls, `send_queue` notifications or `inbound_bytes_max` in hand. Nothing
is served before `admit`: the handler must know the connection first.
"""

import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

from peers.config import NetConfig
from peers.errors import DatabaseCorrupt, HomeError, PeersError, ProtocolError, RetryableError
from peers.model.codec import BadEncoding
from peers.net.outbound import Outbound
from peers.wire.rpc import CallReceived, NotifyReceived, Rpc

_log = logging.getLogger("peers.net")

CANCELLED: Final = "cancelled"
INTERNAL_ERROR: Final = "internal_error"
INTERNAL_DETAIL: Final = "the device met an error of its own"

OnCall = Callable[[int, str, Any], Awaitable[Any]]
OnNotify = Callable[[int, str, Any], Awaitable[None]]


class Inbound:
    """Made and run by `Connection`. `name` is for the log."""

    def __init__(
        self, name: str, rpc: Rpc, outbound: Outbound, config: NetConfig, *, on_call: OnCall, on_notify: OnNotify
    ) -> None:
        self._name = name
        self._rpc = rpc
        self._outbound = outbound
        self._config = config
        self._on_call = on_call
        self._on_notify = on_notify
        self._admitted = trio.Event()
        self._scopes: dict[int, trio.CancelScope] = {}
        self._notifies: deque[NotifyReceived] = deque()
        self._bytes = 0
        self._work = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()
        self.paused = False
        self.calls = 0

    @property
    def serving(self) -> int:
        return len(self._scopes)

    def admit(self) -> None:
        """The handler knows the connection: serve."""
        self._admitted.set()

    async def wait_for_room(self) -> None:
        """Return when the next frame may be read; at once where there is room."""
        config = self._config
        while (
            len(self._scopes) >= config.calls_max
            or len(self._notifies) >= config.send_queue
            or self._bytes >= config.inbound_bytes_max
        ):
            self.paused = True
            await self._room.park()
        self.paused = False

    def begin_call(self, event: CallReceived) -> trio.CancelScope:
        """Count a call; serve it with `serve_call` and the scope."""
        self.calls += 1
        self._bytes += event.size
        scope = self._scopes[event.request_id] = trio.CancelScope()
        return scope

    def cancel(self, request_id: int) -> None:
        """The peer takes its open call back."""
        self._scopes[request_id].cancel()

    async def serve_call(self, event: CallReceived, scope: trio.CancelScope) -> None:
        """
        Raises:
            ProtocolError, BadEncoding: of the handler: the connection must end.
        """
        try:
            with scope:
                self._outbound.post(await self._answer(event))
            if scope.cancelled_caught:
                self._outbound.post(self._rpc.error(event.request_id, CANCELLED, "the call was taken back"))
        finally:
            del self._scopes[event.request_id]
            self._release(event.size)

    def add_notify(self, event: NotifyReceived) -> None:
        self._bytes += event.size
        self._notifies.append(event)
        self._work.unpark()

    async def run_notifies(self) -> None:
        """Serve notifications until cancelled. Raises what `serve_call` raises."""
        await self._admitted.wait()
        while True:
            while not self._notifies:
                await self._work.park()
            event = self._notifies.popleft()
            try:
                await self._on_notify(event.slot, event.method, event.args)
            except ProtocolError:
                raise
            except PeersError as error:
                _log.debug("%s: %s is ignored: %s", self._name, event.method, error)
            self._release(event.size)

    async def _answer(self, event: CallReceived) -> bytes:
        request_id = event.request_id
        try:
            await self._admitted.wait()
            value = await self._on_call(event.slot, event.method, event.args)
            await self._outbound.wait_for_room()
        except (ProtocolError, BadEncoding):
            raise
        except PeersError as error:
            await self._outbound.wait_for_room()
            return self._rpc.error(request_id, error.code, _public_detail(error))
        except Exception:  # noqa: BLE001 - a bug that one call met is not the end of the others
            _log.exception("%s: %s failed", self._name, event.method)
            return self._rpc.error(request_id, INTERNAL_ERROR, INTERNAL_DETAIL)
        try:
            return self._rpc.reply(request_id, value)
        except ProtocolError as error:
            return self._rpc.error(request_id, error.code, str(error))

    def _release(self, size: int) -> None:
        self._bytes -= size
        self._room.unpark()


def _public_detail(error: PeersError) -> str:
    """What the peer may read: not the paths and states that local errors name."""
    if isinstance(error, RetryableError | DatabaseCorrupt | HomeError):
        return "the other device cannot answer now"
    return str(error)
