"""Device: the composition root. One open home, its groups, its connections.

`open_device` puts the parts together; everything below receives what it needs as arguments. The doors through which
nondeterminism enters are its own arguments: wall clock, random bytes, network; SQLite runs inline in the trio thread.
"""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from actors.events import Event, Started, Stopped
from actors.ref import Ref
from actors.restart import RestartPolicy
from actors.supervisor import Supervisor, open_supervisor
from peers import clocks
from peers.config import ActorConfig, Config
from peers.errors import NotFound, UsageError
from peers.group import Group
from peers.home import Home, create_home, open_home
from peers.model.ids import KEY_BYTES, DeviceId, GroupId, UserId
from peers.model.operations import SALT_BYTES, Kind, SchemaPolicy, SignedBytes, decode_operation, sign_operation
from peers.model.personal import GROUPS_TABLE
from peers.model.schema import table_to_fields
from peers.model.trust import shown_name
from peers.net.transport import Network
from peers.net.websocket import WebSocketNetwork
from peers.store.device_store import DeviceStore, KnownPeer
from peers.store.writer import Execute, IssueOperation
from peers.sync.connection_events import ConnectionEvents, EventStream
from peers.sync.connection_manager import ConnectionManager, GroupsChanged, Peer
from peers.sync.connection_manager import Message as ManagerMessage
from peers.sync.data_context import DataContext
from peers.sync.meeting import Meeting
from peers.sync.router import Router

PERSONAL_NAME = "personal"

_log = logging.getLogger("peers.device")


@asynccontextmanager
async def open_device(
    home: Path | str,
    *,
    network: Network | None = None,
    config: Config | None = None,
    now_ms: Callable[[], int] = clocks.wall_clock_ms,
    random_bytes: Callable[[int], bytes] = clocks.random_bytes,
) -> AsyncIterator["Device"]:
    """Open the device that lives in `home` (made by `peers init` or `create_home`).

    Inside the block its groups are open; `listen` and `connect` let it meet others. Leaving the block stops
    everything in reverse order: nothing keeps running, and what was confirmed is on disk.

    Raises:
        HomeError, AlreadyRunning: the home is missing, damaged, readable to others, or open in another process.
        DatabaseCorrupt: the personal group's file cannot be read.
    """
    settings = config or Config()
    with open_home(home) as opened:
        device_store = DeviceStore(opened.device_db_path, settings.store)
        contexts: dict[GroupId, DataContext] = {}
        try:
            async with open_supervisor("device", policy=_restart_policy(settings.actors), on_event=_log_event) as root:
                device = Device(opened, device_store, contexts, root, settings, now_ms, random_bytes)
                await device._start(network or WebSocketNetwork(settings.net))
                try:
                    yield device
                finally:
                    for context in contexts.values():
                        context.replica.stopping()
        finally:
            for context in contexts.values():
                context.close_store()
            device_store.close()


def create_device(
    home: Path | str,
    *,
    name: str,
    now_ms: Callable[[], int] = clocks.wall_clock_ms,
    random_bytes: Callable[[int], bytes] = clocks.random_bytes,
) -> tuple[str, ...]:
    """Make a new user with a first device called `name`, in a new folder. Returns the 24 words that recover the user.

    The words are kept nowhere: show them once. Raises HomeError where there is a home already.
    """
    made, words = create_home(home, name=name, random_bytes=random_bytes, now_ms=now_ms)
    made.close()
    return words


class Device:
    """A user's device: groups, connections, status. Made by `open_device`."""

    def __init__(
        self,
        home: Home,
        device_store: DeviceStore,
        contexts: dict[GroupId, DataContext],
        root: Supervisor,
        config: Config,
        now_ms: Callable[[], int],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._home = home
        self._device_store = device_store
        self._root = root
        self._config = config
        self._now_ms = now_ms
        self._random_bytes = random_bytes
        self._events = ConnectionEvents()
        self._contexts = contexts
        self._names: dict[GroupId, str] = {}
        self._peers: dict[DeviceId, Peer] = {}

    async def _start(self, network: Network) -> None:
        """Groups first, then who routes to them, then the ways in and out; all stop in reverse order."""
        await self._open_personal_group()
        for group_id, name in self._wanted_groups():
            await self._open_context(group_id, name)
        self._manager: Ref[ManagerMessage] = await self._root.start(
            "connection manager",
            lambda: ConnectionManager(
                device=self.device_id, contexts=self._contexts, peers=self._peers, config=self._config
            ),
            mailbox=self._config.actors.mailbox,
        )
        router = Router(
            manager=self._manager,
            contexts=self._contexts,
            peers=self._peers,
            events=self._events,
            saw_peer=self._saw_peer,
            lost_steady=lambda: self._meeting.retry(),
            config=self._config,
        )
        self._meeting = Meeting(
            network,
            router,
            self._events,
            identity=lambda addresses: self._home.identity(addresses, rev=self._now_ms()),
            root=self._root,
            now_ms=self._now_ms,
            random_bytes=self._random_bytes,
            config=self._config.net,
        )
        for address in self._device_store.addresses():
            await self._meeting.want(address)

    # --- identity -----------------------------------------------------------------------------------------------------

    @property
    def user_id(self) -> UserId:
        """32 bytes: the hash of the genesis of this user's personal group."""
        return self._home.user

    @property
    def device_id(self) -> DeviceId:
        """32 bytes: this device's public signing key."""
        return self._home.device

    @property
    def name(self) -> str:
        return self._home.name

    # --- groups -------------------------------------------------------------------------------------------------------

    def groups(self) -> list[Group]:
        """The groups that this user wants, by name; not the personal one."""
        wanted = [
            Group(context, self._names[group]) for group, context in self._contexts.items() if group != self.user_id
        ]
        return sorted(wanted, key=lambda group: (group.name, group.id))

    def group(self, name: str | bytes) -> Group:
        """A group by its id, by the beginning of its id in hex (4 digits or more), or by its name.

        Raises NotFound for none, and UsageError where several fit.
        """
        if isinstance(name, bytes):
            fitting = [group for group in self.groups() if group.id == name]
        else:
            groups = self.groups()
            # The full id first: anybody may name a group like the id of another.
            fitting = [group for group in groups if group.id.hex() == name.lower()]
            fitting = fitting or [group for group in groups if group.name == name]
            fitting = fitting or [
                group for group in groups if len(name) >= 4 and group.id.hex().startswith(name.lower())
            ]
        shown = name.hex() if isinstance(name, bytes) else name
        if not fitting:
            raise NotFound(f"no group {shown_name(shown)!r} here: `peers group list` shows what there is")
        if len(fitting) > 1:
            raise UsageError(f"{len(fitting)} groups fit {shown_name(shown)!r}: name one by the beginning of its id")
        return fitting[0]

    async def create_group(self, name: str, *, schema: str = "admins") -> Group:
        """Make a group whose owner is this user. `schema`: who may change tables, "admins" or "writers"."""
        shown = shown_name(name.strip())
        if not shown:
            raise UsageError("a group needs a name of 1 to 64 characters")
        fields = (self.user_id, shown, SchemaPolicy(schema).value, self._random_bytes(SALT_BYTES))
        genesis = sign_operation(
            self._home.device_key,
            group=b"",
            kind=Kind.GROUP,
            parents=(),
            hlc=self._now_ms() << 16,
            enclosed=[decode_operation(*signed) for signed in self._home.certificate],
            fields=fields,
        )
        await self._open_context(genesis.id, shown, (genesis.signed,))
        await self._want(genesis.id, shown)
        return self.group(genesis.id)

    async def join_group(self, group: bytes | str, *, name: str = "") -> Group:
        """Write down that this user wants a group. Its data comes when a member who granted this user is met.

        `group` is the id, as bytes or hex. Wanting twice changes nothing.
        """
        group_id = _group_id(group)
        if group_id not in self._contexts:
            await self._open_context(group_id, name or group_id.hex()[:8])
            await self._want(group_id, name or None)
        return self.group(group_id)

    async def _want(self, group_id: GroupId, name: str | None) -> None:
        sql = "INSERT INTO Groups(group_id, name, joined_ms) VALUES(?, ?, ?) ON CONFLICT DO UPDATE SET wanted = 1"
        personal = self._contexts[self.user_id].replica
        await personal.writer.ask(Execute(sql, (group_id.hex(), name, self._now_ms())))
        await self._manager.tell(GroupsChanged())

    def _wanted_groups(self) -> list[tuple[GroupId, str]]:
        rows = self._contexts[self.user_id].replica.store.query(
            "SELECT group_id, coalesce(name, substr(group_id, 1, 8)) FROM Groups WHERE wanted ORDER BY group_id"
        )
        return [(bytes.fromhex(row[0]), row[1]) for row in rows if len(row[0]) == 2 * KEY_BYTES]

    async def _open_personal_group(self) -> None:
        """The first opening makes its file from the certificate, and declares the table of intents."""
        path = self._home.group_path(self.user_id)
        await self._open_context(self.user_id, PERSONAL_NAME, () if path.exists() else self._home.personal_operations)
        replica = self._contexts[self.user_id].replica
        if replica.store.schema.by_id(GROUPS_TABLE.id) is None:
            await replica.writer.ask(IssueOperation(Kind.TABLE, tuple(table_to_fields(GROUPS_TABLE)), ()))

    async def _open_context(self, group_id: GroupId, name: str, operations: tuple[SignedBytes, ...] = ()) -> None:
        context = DataContext(
            group_id,
            self._home.group_path(group_id),
            personal=group_id == self.user_id,
            identity=self._home.identity(),
            device_store=self._device_store,
            now_ms=self._now_ms,
            random_bytes=self._random_bytes,
            on_membership=self._membership_changed,
            config=self._config,
        )
        self._names[group_id] = name
        await context.start(self._root, operations)
        self._contexts[group_id] = context

    async def _membership_changed(self) -> None:
        await self._manager.tell(GroupsChanged())

    # --- meeting others -----------------------------------------------------------------------------------------------

    async def listen(self, address: str = "0.0.0.0:3333") -> str:
        """Accept connections; the actual address, with the real port where 0 was asked for."""
        return await self._meeting.listen(address)

    async def connect(self, address: str, *, remember: bool = True) -> str:
        """Keep dialling an address, also after a restart if `remember`. The address in full; does not wait."""
        full = await self._meeting.want(address)
        if remember:
            self._device_store.remember_address(full, self._now_ms())
        return full

    async def forget(self, address: str) -> bool:
        """Dial an address no more, and end the connection that it gave. Whether it was known."""
        full = self._meeting.forget(address)
        return self._device_store.forget_address(full)

    async def offline(self) -> None:
        """End all connections, dial nobody, accept nobody, until `online`."""
        await self._meeting.offline()

    async def online(self) -> None:
        await self._meeting.online()

    def events(self) -> AbstractContextManager[EventStream]:
        """``with device.events() as events: async for event in events``: connecting, verified, closed and why.

        Begins with the attempts that are under way.
        """
        return self._events.listen()

    def known_peers(self) -> list[KnownPeer]:
        """Every device that was ever connected to this one."""
        return self._device_store.peers()

    def _saw_peer(self, device: DeviceId, user: UserId, name: str, address: str) -> None:
        self._device_store.saw_peer(device, user, name, address, self._now_ms())

    def offered(self) -> set[GroupId]:
        """Groups that connected members say this user belongs to."""
        return {group for peer in self._peers.values() for group in peer.offered}

    def invited(self) -> list[GroupId]:
        """Those of them that this user has not asked for: `join_group`."""
        return sorted(self.offered() - set(self._contexts))

    def status(self) -> dict[str, Any]:
        """Everything that `peers status` shows, as plain values (ids in hex)."""
        return {
            "device": self.device_id.hex(),
            "user": self.user_id.hex(),
            "name": self.name,
            "home": str(self._home.path),
            **self._meeting.status(),
            "addresses": self._device_store.addresses(),
            "connections": [peer.status() for peer in self._peers.values()],
            "known_peers": [
                {"device": peer.device.hex(), "user": peer.user.hex(), "name": peer.name, "address": peer.address,
                 "connections": peer.connections}
                for peer in self.known_peers()
            ],
            "invited": [group.hex() for group in self.invited()],
            "groups": [group.status() for group in self.groups()],
        }  # fmt: skip


def _restart_policy(config: ActorConfig) -> RestartPolicy:
    return RestartPolicy(
        max_restarts=config.restarts_max,
        window_seconds=config.restart_window_seconds,
        backoff_first_seconds=config.restart_backoff_first_seconds,
        backoff_max_seconds=config.restart_backoff_max_seconds,
    )


def _log_event(event: Event) -> None:
    """Restarts and failures of actors, for the log; normal starts and stops only in detail."""
    level = logging.DEBUG if isinstance(event, Started | Stopped) else logging.ERROR
    _log.log(level, "%s", event)


def _group_id(group: bytes | str) -> GroupId:
    try:
        group_id = group if isinstance(group, bytes) else bytes.fromhex(group)
    except ValueError:
        group_id = b""
    if len(group_id) != KEY_BYTES:
        raise UsageError("a group id has 64 hexadecimal digits, as `peers group list` prints them")
    return group_id
