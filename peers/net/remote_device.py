"""The other side of one route: a group on a remote device, as methods (the requirement's IPeerDevice)."""

from peers.errors import ProtocolError, WireFault
from peers.model.codec import BadEncoding
from peers.model.ids import DeviceId, UserId
from peers.net.connection import Connection
from peers.wire import messages
from peers.wire.messages import Changes, ListChanges, NetworkInfo, Notification


class RemoteDevice:
    """A stub: each method is one call on the route's slot.

    Raises ConnectionLost, TimedOut, RemoteError (`not_available` where the peer no longer admits us) and ProtocolError
    for an answer of another shape, which the caller lets end the connection.
    """

    __slots__ = ("connection", "slot")

    def __init__(self, connection: Connection, slot: int) -> None:
        self.connection = connection
        self.slot = slot

    @property
    def device_id(self) -> DeviceId:
        return self.connection.peer.device

    @property
    def user_id(self) -> UserId:
        return self.connection.peer.user

    async def get_network_info(self) -> NetworkInfo:
        answer = await self.connection.call(self.slot, messages.GET_NETWORK_INFO, [])
        try:
            return NetworkInfo.from_wire(answer)
        except BadEncoding as error:
            raise ProtocolError(WireFault.BAD_ENCODING, str(error)) from error

    async def list_changes(self, request: ListChanges) -> Changes:
        answer = await self.connection.call(self.slot, messages.LIST_CHANGES, request.to_wire())
        try:
            return Changes.from_wire(answer)
        except BadEncoding as error:
            raise ProtocolError(WireFault.BAD_ENCODING, str(error)) from error

    async def notify_of_changes(self, notification: Notification) -> None:
        await self.connection.notify(self.slot, messages.NOTIFY_OF_CHANGES, notification.to_wire())
