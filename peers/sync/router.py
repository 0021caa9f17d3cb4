"""Router: what a connection calls when the peer speaks. Leads each call to the connection manager or to a group.

Rights are checked on every call: the slot names a group, and that group's own log must still make the peer's user a
member. Everything else is `not_available`, at the same cost.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import trio

from actors.errors import ActorStopped
from actors.ref import Ref
from peers.config import Config
from peers.errors import ProtocolError, RemoteError, WireFault
from peers.model.codec import BadEncoding
from peers.model.ids import DeviceId, GroupId, UserId
from peers.net.close_reason import CloseReason
from peers.net.connection import Connection
from peers.net.remote_device import RemoteDevice
from peers.sync.connection_events import ConnectionEvent, ConnectionEventKind, ConnectionEvents
from peers.sync.connection_manager import Admit, Ended, Message, NotAvailable, Offered, Peer, PeerOpensRoute
from peers.sync.data_context import DataContext
from peers.sync.device_sync import Heard, MinutePassed, Notified, answer_list_changes, network_info
from peers.wire import messages
from peers.wire.messages import ListChanges, NetworkInfo, Notification


class Router:
    """Implements `net.connection.ConnectionHandler` for a device."""

    def __init__(
        self,
        *,
        manager: Ref[Message],
        contexts: dict[GroupId, DataContext],
        peers: dict[DeviceId, Peer],
        events: ConnectionEvents,
        saw_peer: Callable[[DeviceId, UserId, str, str], None],
        lost_steady: Callable[[], None],
        config: Config,
    ) -> None:
        """
        Args:
            saw_peer: (device, user, name, dialled address or ""): writes down who was connected.
            lost_steady: a connection of some age has ended: other ways to that device are worth a try at once.
        """
        self._manager = manager
        self._contexts = contexts
        self._peers = peers
        self._events = events
        self._saw_peer = saw_peer
        self._lost_steady = lost_steady
        self._config = config
        self._led_to: dict[str, DeviceId] = {}

    def on_connecting(self, remote: str, dialled: bool) -> None:
        if not dialled:  # of a dial it was told when it began
            self._events.tell(ConnectionEvent(ConnectionEventKind.CONNECTING, remote, dialled))

    def close_all(self, code: str) -> None:
        """End every connection."""
        for peer in list(self._peers.values()):
            peer.connection.close(code)

    def is_connected(self, address: str) -> bool:
        """Whether the device that was last found at an address is connected, whoever dialled."""
        peer = self._peers.get(self._led_to.get(address, b""))
        return peer is not None and peer.connection.reason is None

    async def on_verified(self, connection: Connection) -> None:
        if connection.dialled:
            self._led_to[connection.remote] = connection.peer.device
        if not await self._manager.ask(Admit(connection)):
            connection.close("not_admitted", "there is a connection with this device already, or no room")
            return
        peer = connection.peer
        self._saw_peer(peer.device, peer.user, peer.name, connection.remote if connection.dialled else "")
        kind = ConnectionEventKind.VERIFIED
        self._events.tell(
            ConnectionEvent(kind, connection.remote, connection.dialled, peer.device, peer.user, peer.name)
        )
        connection.spawn(self._compare_digests, connection)

    async def on_closed(self, connection: Connection | None, reason: CloseReason) -> None:
        if connection is None:
            return
        if trio.current_time() - connection.statistics().opened_at >= self._config.net.dial_steady_seconds:
            self._lost_steady()
        with contextlib.suppress(ActorStopped):
            await self._manager.tell(Ended(connection, reason))

    async def on_call(self, connection: Connection, slot: int, method: str, arguments: Any) -> Any:
        try:
            if slot == messages.CONNECTION_SLOT:
                return await self._connection_call(connection, method, arguments)
            return await self._group_call(connection, slot, method, arguments)
        except BadEncoding as error:
            raise ProtocolError(WireFault.BAD_ENCODING, f"{method}: {error}") from error

    async def on_notify(self, connection: Connection, slot: int, method: str, arguments: Any) -> None:
        try:
            if slot == messages.CONNECTION_SLOT:
                await self._connection_notify(connection, method, arguments)
            elif method == messages.NOTIFY_OF_CHANGES:
                context = self._context(connection, slot)
                notification = Notification.from_wire(arguments)
                await context.tell_sync(Notified(connection.peer.device, notification))
        except BadEncoding as error:
            raise ProtocolError(WireFault.BAD_ENCODING, f"{method}: {error}") from error
        except NotAvailable:
            return  # a push that crossed the end of its route

    async def _connection_call(self, connection: Connection, method: str, arguments: Any) -> Any:
        if method == messages.GROUP_READY:
            slot, group = messages.read_group_ready(arguments)
            info: NetworkInfo = await self._manager.ask(PeerOpensRoute(connection, slot, group))
            return info.to_wire()
        if method == messages.COMPARE_DIGESTS:
            return [
                slot
                for slot, digest in messages.read_digests(arguments).items()
                if self._differs(connection, slot, digest)
            ]
        raise NotAvailable

    async def _connection_notify(self, connection: Connection, method: str, arguments: Any) -> None:
        if method == messages.OFFERS:
            await self._manager.tell(Offered(connection, messages.read_offers(arguments)))
        elif method == messages.GROUP_CLOSED:
            peer = self._peers.get(connection.peer.device)
            if peer is not None and peer.connection is connection:
                peer.slots.close_inbound(messages.read_group_closed(arguments))

    async def _group_call(self, connection: Connection, slot: int, method: str, arguments: Any) -> Any:
        context = self._context(connection, slot)
        link = context.links.get(connection.peer.device)
        if method == messages.LIST_CHANGES:
            request = ListChanges.from_wire(arguments)
            changes = await answer_list_changes(
                context.replica, connection.peer.device, link, request, self._config.sync
            )
            return changes.to_wire()
        if method == messages.GET_NETWORK_INFO:
            return network_info(context.replica, context.links).to_wire()
        raise NotAvailable

    def _context(self, connection: Connection, slot: int) -> DataContext:
        peer = self._peers.get(connection.peer.device)
        group = peer.slots.inbound(slot) if peer is not None and peer.connection is connection else None
        context = self._contexts.get(group) if group is not None else None
        if context is None or not context.admits(connection.peer):
            raise NotAvailable
        return context

    # --- the one-minute comparison --------------------------------------------------------------------------------

    def _differs(self, connection: Connection, slot: int, digest: bytes) -> bool:
        try:
            return self._context(connection, slot).replica.digest != digest
        except NotAvailable:
            return False

    async def _compare_digests(self, connection: Connection) -> None:
        """In the connection's nursery: one small call a minute finds what pushes and pulls have missed."""
        while True:
            await trio.sleep(self._config.sync.digest_seconds)
            peer = self._peers.get(connection.peer.device)
            if peer is None or peer.connection is not connection:
                return
            routes = {slot: group for group, slot in peer.slots.outbound_groups().items() if group in self._contexts}
            digests = [[slot, self._contexts[group].replica.digest] for slot, group in routes.items()]
            if not digests:
                continue
            try:
                answer = await connection.call(messages.CONNECTION_SLOT, messages.COMPARE_DIGESTS, [digests])
                for slot in messages.read_slots(answer):
                    if slot in routes:
                        await self._refresh(connection, slot, routes[slot])
            except BadEncoding as error:
                raise ProtocolError(WireFault.BAD_ENCODING, str(error)) from error
            except RemoteError:
                continue
            for group in routes.values():
                context = self._contexts.get(group)
                if context is not None:
                    await context.tell_sync(MinutePassed(trio.current_time() - peer.opened_seconds))

    async def _refresh(self, connection: Connection, slot: int, group: GroupId) -> None:
        info = await RemoteDevice(connection, slot).get_network_info()
        context = self._contexts.get(group)
        if context is not None:
            await context.tell_sync(Heard(connection.peer.device, info))
