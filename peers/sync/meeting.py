"""Meeting: where transports become connections. Listens, keeps wanted addresses dialled, goes off- and online.

Every transport, dialled or accepted, runs one connection whose handler is the router; what happens is told as events.
"""

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from actors.supervisor import Supervisor
from peers.config import NetConfig
from peers.errors import DialFailed
from peers.model.trust import LocalIdentity
from peers.net.address import parse
from peers.net.close_reason import CloseReason
from peers.net.dialer import Dialer
from peers.net.lifetime import run_connection
from peers.net.transport import Network, Transport
from peers.sync.connection_events import ConnectionEvent, ConnectionEventKind, ConnectionEvents
from peers.sync.router import Router
from peers.wire.chunks import ReassemblyBudget

OFFLINE = "offline"


class Meeting:
    """The ways in and out of a device. `identity(addresses)` signs what handshakes show."""

    def __init__(
        self,
        network: Network,
        router: Router,
        events: ConnectionEvents,
        *,
        identity: Callable[[list[str]], LocalIdentity],
        root: Supervisor,
        now_ms: Callable[[], int],
        random_bytes: Callable[[int], bytes],
        config: NetConfig,
    ) -> None:
        self._network = network
        self._router = router
        self._events = events
        self._make_identity = identity
        self._identity = identity([])
        self._root = root
        self._now_ms = now_ms
        self._random_bytes = random_bytes
        self._config = config
        self._budget = ReassemblyBudget(config.process_assembly_bytes_max)
        self._listening: list[str] = []
        self._online = True
        self._wanted: list[str] = []
        self._dialer = Dialer(
            _TellingNetwork(network, events),
            self._run_dialled,
            root.start_task,
            random_source=random.Random(random_bytes(8)),
            config=config,
            is_redundant=router.is_connected,
        )

    async def listen(self, address: str) -> str:
        """Accept connections until the device closes; the actual address."""
        child = await self._root.start_task(f"listen {address}", self._network.listen, address, self._run_accepted)
        actual = str(child.value)
        self._listening.append(actual)
        self._identity = self._make_identity(self._listening)
        return actual

    async def want(self, address: str) -> str:
        """Keep dialling; the address in full. While offline it is only noted."""
        full = str(parse(address, default_port=self._config.port))
        if self._online:
            await self._dialer.want(full)
        if full not in self._wanted:
            self._wanted.append(full)
        return full

    def forget(self, address: str) -> str:
        """Dial no more, and end what came of it; the address in full."""
        full = str(parse(address, default_port=self._config.port))
        if full in self._wanted:
            self._wanted.remove(full)
        self._dialer.forget(full)
        return full

    async def offline(self) -> None:
        """End all connections; dial and accept nobody."""
        self._online = False
        for address in self._wanted:
            self._dialer.forget(address)
        self._router.close_all(OFFLINE)

    async def online(self) -> None:
        self._online = True
        for address in self._wanted:
            await self._dialer.want(address)

    def retry(self) -> None:
        """Do not wait out the back-off: try all wanted addresses that are not connected now."""
        if self._online:
            self._dialer.retry()

    def status(self) -> dict[str, Any]:
        return {
            "online": self._online,
            "listening": list(self._listening),
            "dialling": [
                {
                    "address": wanted.address,
                    "attempts": wanted.attempts,
                    "connected": wanted.connected,
                    "last": "" if wanted.last is None else str(wanted.last),
                }
                for wanted in self._dialer.statistics()
            ],
        }

    async def _run_dialled(self, transport: Transport, address: str) -> CloseReason:
        return await self._run(transport, address)

    async def _run_accepted(self, transport: Transport) -> None:
        if self._online:
            await self._run(transport, None)

    async def _run(self, transport: Transport, dialled: str | None) -> CloseReason:
        remote = transport.remote if dialled is None else dialled
        why = "stopped"
        try:
            reason = await run_connection(
                transport,
                identity=self._identity,
                handler=self._router,
                random_bytes=self._random_bytes,
                now_ms=self._now_ms,
                config=self._config,
                dialled=dialled,
                own_addresses=lambda: self._listening,
                budget=self._budget,
            )
            why = str(reason)
        finally:
            kind = ConnectionEventKind.CLOSED
            self._events.tell(ConnectionEvent(kind, remote, dialled is not None, why=why))
        return reason


class _TellingNetwork:
    """A network whose failed dials are events too."""

    def __init__(self, network: Network, events: ConnectionEvents) -> None:
        self._network = network
        self._events = events
        self.listen = network.listen

    @asynccontextmanager
    async def dial(self, address: str) -> AsyncIterator[Transport]:
        self._events.tell(ConnectionEvent(ConnectionEventKind.CONNECTING, address, dialled=True))
        met = False
        try:
            async with self._network.dial(address) as transport:
                met = True
                yield transport
        except DialFailed as error:
            if not met:
                self._events.tell(
                    ConnectionEvent(ConnectionEventKind.CLOSED, address, dialled=True, why=f"{error.code}: {error}")
                )
            raise
