"""What the tests of connections share: two people, a recording handler, and a pair of connections in memory."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import pytest
import trio

from peers.config import NetConfig
from peers.model.trust import LocalIdentity
from peers.net.close_reason import CloseReason
from peers.net.connection import Connection
from peers.net.lifetime import run_connection
from peers.net.transport import Transport
from peers.testing.handshakes import ALICE, BOB
from peers.testing.network import SimulatedNetwork
from peers.testing.people import EPOCH_MS

Answer = Callable[[Connection, int, str, Any], Awaitable[Any]]


@dataclass
class Side:
    """One device: a handler that records, and answers calls by `answer` (an echo unless a test says otherwise)."""

    identity: LocalIdentity
    config: NetConfig = field(default_factory=NetConfig)
    answer: Answer | None = None
    heard: Answer | None = None
    introduced: Callable[[Connection], Awaitable[None]] | None = None
    now_ms: int = EPOCH_MS
    events: list[str] = field(default_factory=list)
    notified: list[Any] = field(default_factory=list)
    reasons: list[CloseReason] = field(default_factory=list)
    connection: Connection | None = None
    verified: trio.Event = field(default_factory=trio.Event)
    closed: trio.Event = field(default_factory=trio.Event)
    most_served: int = 0

    def on_connecting(self, remote: str, dialled: bool) -> None:
        self.events.append("connecting")

    async def on_verified(self, connection: Connection) -> None:
        if self.introduced is not None:
            await self.introduced(connection)
        self.events.append("verified")
        self.connection = connection
        self.verified.set()

    async def on_call(self, connection: Connection, slot: int, method: str, args: Any) -> Any:
        self.most_served = max(self.most_served, connection.statistics().serving)
        if self.answer is not None:
            return await self.answer(connection, slot, method, args)
        return [slot, method, args]

    async def on_notify(self, connection: Connection, slot: int, method: str, args: Any) -> None:
        self.notified.append(args)
        if self.heard is not None:
            await self.heard(connection, slot, method, args)

    async def on_closed(self, connection: Connection | None, reason: CloseReason) -> None:
        self.events.append(f"closed {reason.code}")
        self.reasons.append(reason)
        self.closed.set()

    async def run(self, transport: Transport, dialled: str | None = None, **options: Any) -> CloseReason:
        return await run_connection(
            transport,
            identity=self.identity,
            handler=self,
            random_bytes=Random(self.identity.name).randbytes,
            now_ms=lambda: self.now_ms,
            config=self.config,
            dialled=dialled,
            **options,
        )

    @property
    def open(self) -> Connection:
        assert self.connection is not None
        return self.connection


@dataclass
class Pair:
    """Alice dials Bob."""

    network: SimulatedNetwork
    alice: Side
    bob: Side

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[tuple[Connection, Connection]]:
        """Both verified; all is stopped at the end of the block."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.network.endpoint("bob").listen, "sim://bob", self.bob.run)
            nursery.start_soon(self.dial)
            await self.alice.verified.wait()
            await self.bob.verified.wait()
            yield self.alice.open, self.bob.open
            nursery.cancel_scope.cancel()

    async def dial(self) -> None:
        async with self.network.endpoint("alice").dial("sim://bob") as transport:
            await self.alice.run(transport, "sim://bob")

    def configure(self, **settings: Any) -> None:
        self.alice.config = replace(self.alice.config, **settings)
        self.bob.config = replace(self.bob.config, **settings)


@pytest.fixture
def pair() -> Pair:
    return Pair(SimulatedNetwork(Random(1)), Side(ALICE), Side(BOB))
