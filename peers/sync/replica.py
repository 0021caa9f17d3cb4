"""Replica: one group's file, its writer and its commit feed, as the exchange sees them.

Reads come straight from the store's committed state; everything that writes goes through the table writer. A group
that this user wants but whose log has not arrived yet has no file: `pending`. The first operations that a member
sends make it.
"""

import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

import trio

from actors.ref import Ref
from peers.config import Config
from peers.errors import PeersError, RetryableError
from peers.model.entries import RawEntry
from peers.model.ids import DeviceId, GroupId, Hash, LogId
from peers.model.membership import Role, author_of
from peers.model.operations import Kind, Operation, SignedBytes, decode_operation
from peers.model.trust import LocalIdentity, PeerIdentity
from peers.model.version_vector import VersionVector
from peers.store.capture import SqlDoor
from peers.store.commit_feed import CommitFeed
from peers.store.group_store import GroupStore
from peers.store.pages import Page
from peers.store.writer import AddOperations, BeginPublishing, Ingest, IssueOperation
from peers.store.writer import Message as WriterMessage
from peers.sync import exchange

_NOTHING = VersionVector()
_STOPPED = "this group's writer failed again and again and was stopped: see the log, then restart the device"
_CLOSED = "the device is closed: open it again"
_PENDING = "this group has not arrived yet: a member who has granted you must be reachable"


@dataclass(frozen=True)
class Received:
    """What came of a page or a notification: entries stored, and the first problem in one line, or empty.

    `unwritable`: the file could not be written to just now (locked, or the disk is full): worth another try later.
    """

    stored: int = 0
    problem: str = ""
    unwritable: bool = False


def _unchanged(_: DeviceId, page: Page) -> Page:
    return page


class Replica:
    """One group on this device. `create` makes the file from a first page of operations and returns (store, writer)."""

    def __init__(
        self,
        group_id: GroupId,
        *,
        identity: LocalIdentity,
        personal: bool,
        create: Callable[[Sequence[SignedBytes]], Awaitable[tuple[GroupStore, Ref[WriterMessage]]]],
        on_membership: Callable[[], Awaitable[None]],
        config: Config,
    ) -> None:
        self.group_id = group_id
        self.device_id: DeviceId = identity.device_key.public
        self.feed = CommitFeed(config.store.feed_queue)
        self.pull_lock = trio.Lock()
        self.hash_lock = trio.Lock()
        """One computation of the state hash at a time."""
        self.personal = personal
        self._identity = identity
        self._create = create
        self._on_membership = on_membership
        self._config = config
        self.outgoing: Callable[[DeviceId, Page], Page] = _unchanged
        """What leaves for a peer; a byzantine device of the tests puts something else here."""
        self._store: GroupStore | None = None
        self._writer: Ref[WriterMessage] | None = None
        self._reader: SqlDoor | None = None
        self._stopping = False
        self._closed = False

    def attach(self, store: GroupStore, writer: Ref[WriterMessage]) -> None:
        self._store, self._writer = store, writer
        self._reader = SqlDoor(store.database.shared_reader, dict)

    @property
    def pending(self) -> bool:
        """Wanted, but no member has sent the group's log yet."""
        return self._store is None

    def stopping(self) -> None:
        """The device begins to stop: whoever wants to write is told that from now on."""
        self._stopping = True

    def close(self) -> None:
        """Close the file. After the actors have stopped."""
        if self._store is not None:
            self._store.close()
        self._stopping = self._closed = True

    @property
    def store(self) -> GroupStore:
        if self._closed:
            raise PeersError(_CLOSED, code="closed")
        if self._store is None:
            raise PeersError(_PENDING, code="pending")
        return self._store

    @property
    def writer(self) -> Ref[WriterMessage]:
        if self._stopping:
            raise PeersError(_CLOSED, code="closed")
        if self._writer is None:
            raise PeersError(_PENDING, code="pending")
        if self._writer.stopped:
            raise PeersError(_STOPPED, code="group_stopped")
        return self._writer

    @property
    def reader(self) -> SqlDoor:
        """Users' queries, on a connection of its own: sees what is committed."""
        if self._closed:
            raise PeersError(_CLOSED, code="closed")
        if self._reader is None:
            raise PeersError(_PENDING, code="pending")
        return self._reader

    # --- what is held -------------------------------------------------------------------------------------------------

    @property
    def vector(self) -> VersionVector:
        return _NOTHING if self._store is None else self._store.vector

    @property
    def control_heads(self) -> tuple[Hash, ...]:
        return () if self._store is None else self._store.operations.heads

    @property
    def digest(self) -> Hash:
        return self.vector.digest(self.control_heads) if self._store is None else self._store.digest

    def own_logs_disputed(self, claimed: VersionVector) -> frozenset[LogId]:
        """Logs of this device of which `claimed` names an entry that is not held here."""
        return exchange.own_logs_disputed(claimed, self.device_id, self._holds)

    def _holds(self, log: LogId, seq: int, digest: Hash) -> bool:
        return self._store is not None and self._store.holds(log, seq, digest)

    def held_heads(self, heads: Iterable[Hash]) -> set[Hash]:
        """Those of `heads` whose operations are held."""
        if self._store is None:
            return set()
        operations = self._store.operations
        return {head for head in heads if head in operations}

    def operations_since(self, heads: Iterable[Hash], limit_bytes: int) -> tuple[list[SignedBytes], bool]:
        """Operations outside P(heads), causes first, up to a limit (at least one); and whether there are more."""
        if self._store is None:
            return [], False
        size = 0
        page: list[SignedBytes] = []
        for raw, signature in self._store.operations_since(heads):
            size += len(raw) + len(signature)
            if page and size > limit_bytes:
                return page, True
            page.append((raw, signature))
        return page, False

    def entries_for(self, peer: DeviceId, vector: VersionVector, limit_bytes: int) -> Page:
        """A page of what a peer lacks that holds `vector`."""
        page = Page([], False) if self._store is None else self._store.entries_since(vector, limit_bytes)
        return self.outgoing(peer, page)

    # --- rights -------------------------------------------------------------------------------------------------------

    def role_of(self, peer: PeerIdentity) -> Role | None:
        """By this replica's own log; in the personal group the principals are devices."""
        if self._store is None:
            return None
        return self._store.role(peer.device if self.personal else peer.user)

    @property
    def my_role(self) -> Role | None:
        return None if self._store is None else self._store.role()

    # --- what writes --------------------------------------------------------------------------------------------------

    async def begin_publishing(self) -> None:
        """Durably note that my log may leave this device from now on. Before the first entry is sent."""
        if self._store is not None and self._writer is not None and not self._store.publishing:
            await self._writer.ask(BeginPublishing())

    async def receive(self, operations: Sequence[SignedBytes], entries: Sequence[RawEntry]) -> Received:
        """Store what a peer sent: operations first, then entries in slices of one SQLite transaction each."""
        problem, stored = "", 0
        try:
            if operations:
                problem = await self._receive_operations(operations)
            if self._store is None:
                return Received(0, problem)
            for start in range(0, len(entries), self._config.store.ingest_entries):
                end = start + self._config.store.ingest_entries
                report = await self.writer.ask(Ingest(tuple(entries[start:end])))
                stored += len(report.stored)
                for fault, text, _ in (*report.refused, *report.held):
                    problem = problem or f"{fault.value}: {text}"
        except RetryableError as error:
            return Received(stored, f"{error.code}: {error}", unwritable=True)
        return Received(stored, problem)

    async def _receive_operations(self, operations: Sequence[SignedBytes]) -> str:
        if self._store is None:
            if not self._begins_here(operations[0]):
                return ""
            self.attach(*await self._create(operations))
            await self.certify_device()
            await self._on_membership()
            return ""
        report = await self.writer.ask(AddOperations(tuple(operations)))
        if report.added:
            await self.certify_device()
            await self._on_membership()
        return "; ".join(f"{fault.value}: {text}" for fault, text in report.refused[:1])

    def _begins_here(self, first: SignedBytes) -> bool:
        """Whether a page of operations begins with this very group's genesis: the id is its hash."""
        try:
            return decode_operation(*first).id == self.group_id
        except PeersError:
            return False

    async def apply_parked(self, contact_seconds: float) -> None:
        """Let entries that wait only for others' entries be applied, after `parked_after_seconds` of contact."""
        if self._store is not None and self._store.status()["parked"]:
            with contextlib.suppress(RetryableError):  # the next minute tries again
                await self.writer.ask(Ingest((), contact_seconds=contact_seconds))

    async def membership_changed(self) -> None:
        """After an operation of our own: offers may change."""
        await self._on_membership()

    async def certify_device(self) -> None:
        """Let the group know that this device is mine, once I am a member: entries need it in their past."""
        if self.personal or self.my_role is None:
            return
        operations = self.store.operations
        if author_of(operations, self.device_id, operations.heads) is not None:
            return
        enclosed: tuple[Operation, ...] = tuple(decode_operation(raw, sig) for raw, sig in self._identity.certificate)
        await self.writer.ask(IssueOperation(Kind.DEVICE_ADDED, (self._identity.user,), enclosed))
