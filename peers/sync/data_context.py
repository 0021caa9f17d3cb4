"""DataContext: one group on this device, with its actors: the table writer and the DeviceSync (one_for_all).

Opened from its file, made new, or pending until a member sends the group's log. Closing it stops both actors in
reverse order and closes the file.
"""

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypedDict

from actors.errors import ActorStopped
from actors.ref import Ref
from actors.restart import Restart, Strategy
from actors.supervisor import Supervisor
from peers.config import Config, StoreConfig
from peers.model.ids import INCARNATION_BYTES, DeviceId, GroupId
from peers.model.operations import SignedBytes
from peers.model.trust import LocalIdentity, PeerIdentity
from peers.store.device_store import DeviceStore
from peers.store.group_store import Author, GroupStore
from peers.store.writer import Message as WriterMessage
from peers.store.writer import TableWriter
from peers.sync.device_sync import DeviceSync
from peers.sync.device_sync import Message as SyncMessage
from peers.sync.peer_link import PeerLink
from peers.sync.replica import Replica


class _StoreArguments(TypedDict):
    author: Author
    now_ms: Callable[[], int]
    random_bytes: Callable[[int], bytes]
    config: StoreConfig


class DataContext:
    """Use `DataContext.start`. `links` are the connected devices of this group, by device id."""

    def __init__(
        self,
        group_id: GroupId,
        path: Path,
        *,
        personal: bool,
        identity: LocalIdentity,
        device_store: DeviceStore,
        now_ms: Callable[[], int],
        random_bytes: Callable[[int], bytes],
        on_membership: Callable[[], Awaitable[None]],
        config: Config,
    ) -> None:
        self.group_id = group_id
        self.links: dict[DeviceId, PeerLink] = {}
        self.replica = Replica(
            group_id,
            identity=identity,
            personal=personal,
            create=self._create,
            on_membership=on_membership,
            config=config,
        )
        self._path = path
        principal = identity.device_key.public if personal else identity.user
        self._device_store = device_store
        self._random_bytes = random_bytes
        self._config = config
        self._arguments: _StoreArguments = {
            "author": Author(principal, identity.device_key),
            "now_ms": now_ms,
            "random_bytes": random_bytes,
            "config": config.store,
        }
        self._supervisor: Supervisor | None = None
        self._sync: Ref[SyncMessage] | None = None

    @property
    def pending(self) -> bool:
        return self.replica.pending

    async def tell_sync(self, message: SyncMessage) -> None:
        """Post to the group's DeviceSync. In a stop the group may be gone already: then nobody needs to know."""
        if self._sync is not None:
            with contextlib.suppress(ActorStopped):
                await self._sync.tell(message)

    def admits(self, peer: PeerIdentity) -> bool:
        """Whether this group's own log makes the peer a member (of any role)."""
        return self.replica.role_of(peer) is not None

    async def start(self, parent: Supervisor, operations: Sequence[SignedBytes] = ()) -> None:
        """Start the group's actors under `parent`. `operations`: the beginning of a group that is made here."""
        self._supervisor = await parent.start_supervisor(
            f"group {self.group_id[:4].hex()}",
            strategy=Strategy.ONE_FOR_ALL,  # in a group that was joined, the writer is the younger of the two
            restart=Restart.TEMPORARY,  # one group that keeps failing must not use up the device's patience
        )
        if operations:
            self.replica.attach(*await self._create(operations))
        elif self._path.exists():
            store = GroupStore.open(self._path, group_id=self.group_id, nonce=self._nonce(), **self._arguments)
            self.replica.attach(store, await self._start_writer(store))
        if self._sync is None:
            await self._start_sync()

    def close_store(self) -> None:
        """After the actors have stopped."""
        self.replica.close()

    async def _create(self, operations: Sequence[SignedBytes]) -> tuple[GroupStore, Ref[WriterMessage]]:
        store = GroupStore.create(self._path, list(operations), nonce=self._nonce(), **self._arguments)
        return store, await self._start_writer(store)

    async def _start_writer(self, store: GroupStore) -> Ref[WriterMessage]:
        if self._supervisor is None:
            raise RuntimeError("the data context was not started")
        return await self._supervisor.start(
            "writer",
            lambda: TableWriter(store, self.replica.feed, config=self._config.store),
            mailbox=self._config.store.writer_queue,
        )

    async def _start_sync(self) -> None:
        if self._supervisor is None:
            raise RuntimeError("the data context was not started")
        self._sync = await self._supervisor.start(
            "sync",
            lambda: DeviceSync(self.replica, self.links, self._config.sync),
            mailbox=self._config.actors.mailbox,
        )

    def _nonce(self) -> bytes:
        """This file's nonce, as device.db knows it; a new one where it knows none, so that the file differs."""
        nonce = self._device_store.group_nonce(self.group_id)
        if nonce is None:
            nonce = self._random_bytes(INCARNATION_BYTES)
            self._device_store.set_group_nonce(self.group_id, nonce)
        return nonce
