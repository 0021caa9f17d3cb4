"""DeviceSync: the replicator of one group. Keeps the links to connected devices, answers them, takes what they push.

Messages come from the connection manager (a route opened or closed) and from connections (a notification). The
conversations themselves run in each connection's nursery (`peer_link`), so one slow device never holds up another.
"""

from dataclasses import dataclass

from actors.actor import Actor
from peers.config import SyncConfig
from peers.model.ids import DeviceId
from peers.net.remote_device import RemoteDevice
from peers.sync.peer_link import PeerLink
from peers.sync.replica import Replica
from peers.wire.messages import Changes, ListChanges, NetworkInfo, Notification


@dataclass(frozen=True)
class RouteOpened:
    """The peer accepted my route and told where it stands."""

    remote: RemoteDevice
    info: NetworkInfo


@dataclass(frozen=True)
class RouteClosed:
    remote: RemoteDevice


@dataclass(frozen=True)
class Heard:
    """A device says where it stands, asked by the one-minute comparison."""

    device: DeviceId
    info: NetworkInfo


@dataclass(frozen=True)
class Notified:
    """notify_of_changes of a member."""

    device: DeviceId
    notification: Notification


@dataclass(frozen=True)
class MinutePassed:
    """There has been contact for so long: what still waits for an entry that nobody sends is applied without it."""

    contact_seconds: float


Message = RouteOpened | RouteClosed | Heard | Notified | MinutePassed


class DeviceSync(Actor[Message]):
    """One per group. `links` is shared with the data context, which shows it and outlives a restart of the actor."""

    def __init__(self, replica: Replica, links: dict[DeviceId, PeerLink], config: SyncConfig) -> None:
        self._replica = replica
        self._links = links
        self._config = config

    async def handle(self, message: Message) -> None:
        match message:
            case RouteOpened(remote, info):
                link = PeerLink(self._replica, remote, info, self._config)
                self._links[remote.device_id] = link
                link.start()
            case RouteClosed(remote):
                link_now = self._links.get(remote.device_id)
                if link_now is not None and link_now.remote is remote:
                    del self._links[remote.device_id]
            case Heard(device, info):
                if device in self._links:
                    self._links[device].heard(info.vector, info.control_heads, again=True)
            case Notified(device, notification):
                await self._take(device, notification)
            case MinutePassed(contact_seconds):
                await self._replica.apply_parked(contact_seconds)

    async def _take(self, device: DeviceId, notification: Notification) -> None:
        link = self._links.get(device)
        if link is not None:
            link.told(notification.vector, notification.control_heads)
        if notification.operations or notification.entries:
            report = await self._replica.receive(notification.operations, notification.entries)
            link = self._links.get(device)
            if link is not None:
                link.pulled_entries += report.stored
                link.last_error = report.problem or link.last_error
                if report.unwritable:
                    link.rest()
        if device in self._links:
            self._links[device].heard(notification.vector, notification.control_heads)


async def answer_list_changes(
    replica: Replica, caller: DeviceId, link: PeerLink | None, request: ListChanges, config: SyncConfig
) -> Changes:
    """A page of what the caller lacks: operations first, then entries in causal order.

    A caller that claims entries of this device's own log that are not held here gets none: they are fetched first.
    """
    limit_bytes = min(request.limit_bytes, config.page_bytes)
    operations, more = replica.operations_since(request.control_heads, limit_bytes)
    changes = Changes(tuple(operations), (), more)
    if not more and not replica.own_logs_disputed(request.since):
        await replica.begin_publishing()
        page = replica.entries_for(caller, request.since, limit_bytes)
        changes = Changes(tuple(operations), tuple(page.entries), page.more)
    if link is not None:
        link.answered(request, changes)
    return changes


def network_info(replica: Replica, links: dict[DeviceId, PeerLink]) -> NetworkInfo:
    """Where this device stands in the group."""
    return NetworkInfo(replica.vector, replica.control_heads, replica.digest, tuple(sorted(links)))
