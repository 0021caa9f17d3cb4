"""ConnectionManager: admits connections, finds shared groups, routes calls, caps the pool.

One actor owns the table of connections and their slots; calls of peers read it and go straight to the group they are
about. After the handshake each side offers the groups of which *its own* log makes the other user a member; a route
opens for an offered group that this user wants (`Groups`, intent) and ends when either side says no. Unknown, closed
and forbidden routes answer alike: `not_available`.
"""

from dataclasses import dataclass, field
from typing import Any

import trio

from actors.actor import Actor
from peers.config import Config
from peers.errors import PeersError, ProtocolError, RemoteError, WireFault
from peers.model.codec import BadEncoding
from peers.model.ids import DeviceId, GroupId
from peers.net.close_reason import CloseReason
from peers.net.connection import Connection
from peers.net.remote_device import RemoteDevice
from peers.sync.data_context import DataContext
from peers.sync.device_sync import RouteClosed, RouteOpened, network_info
from peers.sync.slots import SlotTable
from peers.wire import messages
from peers.wire.messages import NetworkInfo

SIMULTANEOUS_DIAL_SECONDS = 5.0
"""Two connections of a pair that opened this close together are one accident, settled alike on both sides."""


class NotAvailable(PeersError):
    """Unknown, closed and forbidden give the same answer, to the letter."""

    code = "not_available"

    def __init__(self) -> None:
        super().__init__("not available")


@dataclass
class Peer:
    """One verified connection: its slots and the groups that the other side offers."""

    connection: Connection
    slots: SlotTable
    opened_seconds: float
    offered: frozenset[GroupId] = frozenset()
    told: frozenset[GroupId] | None = None
    opening: set[GroupId] = field(default_factory=set)

    @property
    def device(self) -> DeviceId:
        return self.connection.peer.device

    def status(self) -> dict[str, Any]:
        """As plain values, for people and programs."""
        statistics = self.connection.statistics()
        return {
            "device": self.device.hex(),
            "user": self.connection.peer.user.hex(),
            "name": self.connection.peer.name,
            "remote": self.connection.remote,
            "dialled": self.connection.dialled,
            "seconds": round(trio.current_time() - statistics.opened_at, 3),
            "latency_seconds": statistics.latency_seconds,
            "bytes_in": statistics.bytes_in,
            "bytes_out": statistics.bytes_out,
            "groups": sorted(group.hex() for group in self.slots.outbound_groups()),
        }


@dataclass(frozen=True)
class Admit:
    """Ask: may this verified connection stay? Answers True or False."""

    connection: Connection


@dataclass(frozen=True)
class Ended:
    connection: Connection
    reason: CloseReason


@dataclass(frozen=True)
class Offered:
    connection: Connection
    groups: frozenset[GroupId]


@dataclass(frozen=True)
class PeerOpensRoute:
    """Ask: group_ready of the peer. Answers NetworkInfo or raises NotAvailable."""

    connection: Connection
    slot: int
    group: GroupId


@dataclass(frozen=True)
class RouteAccepted:
    connection: Connection
    slot: int
    group: GroupId
    info: NetworkInfo | None


@dataclass(frozen=True)
class GroupsChanged:
    """Membership or intent changed somewhere: offers and routes are looked at anew."""


Message = Admit | Ended | Offered | PeerOpensRoute | RouteAccepted | GroupsChanged


class ConnectionManager(Actor[Message]):
    """See the module. `contexts` is the device's table of wanted groups; `peers` is shared for reading."""

    replies = (NotAvailable, ProtocolError)

    def __init__(
        self,
        *,
        device: DeviceId,
        contexts: dict[GroupId, DataContext],
        peers: dict[DeviceId, Peer],
        config: Config,
    ) -> None:
        self._device = device
        self._contexts = contexts
        self._peers = peers
        self._config = config

    async def handle(self, message: Message) -> Any:
        match message:
            case Admit(connection):
                return self._admit(connection)
            case Ended(connection, _):
                await self._end(connection)
            case Offered(connection, groups):
                peer = self._peer_of(connection)
                if peer is not None:
                    peer.offered = groups
                    await self._refresh(peer)
            case PeerOpensRoute(connection, slot, group):
                return self._accept_route(connection, slot, group)
            case RouteAccepted():
                await self._route_accepted(message)
            case GroupsChanged():
                for peer in list(self._peers.values()):
                    await self._refresh(peer)
        return None

    def _peer_of(self, connection: Connection) -> Peer | None:
        peer = self._peers.get(connection.peer.device)
        return peer if peer is not None and peer.connection is connection else None

    # --- admission ----------------------------------------------------------------------------------------------------

    def _admit(self, connection: Connection) -> bool:
        device, now = connection.peer.device, trio.current_time()
        existing = self._peers.get(device)
        if existing is not None:
            if not self._replaces(connection, existing, now):
                return False
            existing.connection.close("replaced")
        elif len(self._peers) >= self._config.net.connections_max:
            return False
        peer = self._peers[device] = Peer(connection, SlotTable(dialled=connection.dialled), now)
        self._tell_offers(peer)
        return True

    def _replaces(self, connection: Connection, existing: Peer, now: float) -> bool:
        """Of two dialled at once the one dialled by the smaller device id stays; otherwise the newer."""
        if now - existing.opened_seconds > SIMULTANEOUS_DIAL_SECONDS:
            return True
        if existing.connection.dialled == connection.dialled:
            return True
        return connection.dialled == (self._device < connection.peer.device)

    async def _end(self, connection: Connection) -> None:
        peer = self._peer_of(connection)
        if peer is not None:
            del self._peers[peer.device]
        for context in list(self._contexts.values()):
            link = context.links.get(connection.peer.device)
            if link is not None and link.remote.connection is connection:
                await context.tell_sync(RouteClosed(link.remote))

    # --- routes -------------------------------------------------------------------------------------------------------

    async def _refresh(self, peer: Peer) -> None:
        """Tell the peer what I offer it now, close routes that either side withdrew, open those that are missing."""
        self._tell_offers(peer)
        for group, slot in peer.slots.outbound_groups().items():
            if group not in self._contexts or group not in peer.offered:
                peer.slots.close_outbound(group)
                await self._close_link(peer, group)
                peer.connection.spawn(self._notify, peer.connection, messages.GROUP_CLOSED, [slot])
        for group in peer.offered:
            context = self._contexts.get(group)
            if context is None or group in peer.opening or peer.slots.outbound(group) is not None:
                continue
            if context.pending or context.admits(peer.connection.peer):
                peer.opening.add(group)
                peer.connection.spawn(self._open_route, peer, group)

    def _tell_offers(self, peer: Peer) -> None:
        offers = frozenset(group for group, context in self._contexts.items() if context.admits(peer.connection.peer))
        if offers != peer.told:
            peer.told = offers
            peer.connection.spawn(self._send_offers, peer)

    async def _send_offers(self, peer: Peer) -> None:
        """What stands at the time of sending: of two of these tasks, whichever runs last tells the latest."""
        await self._notify(peer.connection, messages.OFFERS, [sorted(peer.told or ()), None])

    async def _close_link(self, peer: Peer, group: GroupId) -> None:
        context = self._contexts.get(group)
        link = context.links.get(peer.device) if context is not None else None
        if context is not None and link is not None and link.remote.connection is peer.connection:
            await context.tell_sync(RouteClosed(link.remote))

    async def _notify(self, connection: Connection, method: str, arguments: list[Any]) -> None:
        await connection.notify(messages.CONNECTION_SLOT, method, arguments)

    async def _open_route(self, peer: Peer, group: GroupId) -> None:
        """In the connection's nursery: ask the peer for a route; the actor is told what came of it."""
        slot, info = peer.slots.take(), None
        try:
            answer = await peer.connection.call(messages.CONNECTION_SLOT, messages.GROUP_READY, [slot, group])
            info = NetworkInfo.from_wire(answer)
        except RemoteError:
            pass  # not available: the peer's log may not have me yet; its next offer tries again
        except BadEncoding as error:
            raise ProtocolError(WireFault.BAD_ENCODING, str(error)) from error
        await self.ref.tell(RouteAccepted(peer.connection, slot, group, info))

    async def _route_accepted(self, message: RouteAccepted) -> None:
        peer, context = self._peer_of(message.connection), self._contexts.get(message.group)
        if peer is None:
            return
        peer.opening.discard(message.group)
        if message.info is not None and context is not None:
            peer.slots.opened(message.slot, message.group)
            await context.tell_sync(RouteOpened(RemoteDevice(peer.connection, message.slot), message.info))

    def _accept_route(self, connection: Connection, slot: int, group: GroupId) -> NetworkInfo:
        peer, context = self._peer_of(connection), self._contexts.get(group)
        if peer is None:
            raise NotAvailable
        peer.slots.use(slot)
        if context is None or not context.admits(connection.peer):
            raise NotAvailable
        peer.slots.accept(slot, group)
        return network_info(context.replica, context.links)
