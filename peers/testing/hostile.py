"""A member's device that is driven by hand: a real handshake, real signatures, and whatever lies a test wants told.

It serves no store. It answers a victim's calls from `claims` and `answer`, sees all that the victim says, and pushes
the entries that it is given. `ForgedLog` makes those: correctly signed, wrong where the test says so.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio

from peers.config import NetConfig
from peers.errors import PeersError
from peers.model.clock import pack
from peers.model.entries import (
    SALT_BYTES,
    SIGNATURE_PREFIX,
    Action,
    Dep,
    Header,
    Leaf,
    LeafRef,
    RawEntry,
    encode_header,
    encode_leaf,
)
from peers.model.ids import INCARNATION_BYTES, ZERO_HASH, GroupId, Hash, LogId, blake2b_256
from peers.model.keys import SigningKey
from peers.model.operation_graph import Operations
from peers.model.operations import Kind, Operation, SignedBytes, sign_operation
from peers.model.schema import Table
from peers.model.version_vector import Head, VersionVector
from peers.net.close_reason import CloseReason
from peers.net.connection import Connection
from peers.net.lifetime import run_connection
from peers.testing.clock import SimulatedClock
from peers.testing.network import SimulatedNetwork
from peers.testing.people import person
from peers.wire import messages
from peers.wire.messages import Changes, ListChanges, NetworkInfo, Notification

NOTHING = Changes((), (), False)
NO_VECTOR = VersionVector()


class HostilePeer:
    """One device of the user of that name (`peers.testing.people`). Implements `ConnectionHandler`."""

    def __init__(self, network: SimulatedNetwork, name: str = "mallory") -> None:
        self.person = person(name)
        self.clock = SimulatedClock()
        self.claims: dict[GroupId, NetworkInfo] = {}
        """Where it says it stands, by group; other groups are not available."""
        self.heard: list[tuple[int, str, Any]] = []
        """Every call and notification of the victim: (slot, method, arguments)."""
        self.reason: CloseReason | None = None
        self.closed = trio.Event()
        self._network = network
        self._name = name
        self._connection: Connection | None = None
        self._slots: dict[GroupId, int] = {}
        self._groups: dict[int, GroupId] = {}
        self._next_slot = 1

    async def answer(self, group: GroupId, request: ListChanges) -> Changes:
        """What list_changes gives; a test puts its own in place of this."""
        return NOTHING

    async def run(self, victim: str, *, task_status: "trio.TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
        """Dial ``sim://victim`` and talk until one side ends it."""
        address = f"sim://{victim}"
        self._started = task_status
        async with self._network.endpoint(self._name).dial(address) as transport:
            self.reason = await run_connection(
                transport,
                identity=self.person.identity(),
                handler=self,
                random_bytes=lambda count: blake2b_256(self._name.encode())[:count],
                now_ms=self.clock,
                config=NetConfig(),
                dialled=address,
            )
        self.closed.set()

    @property
    def connection(self) -> Connection:
        assert self._connection is not None
        return self._connection

    # --- what it says -------------------------------------------------------------------------------------------------

    async def offer(self, *groups: GroupId) -> None:
        await self.connection.notify(messages.CONNECTION_SLOT, messages.OFFERS, [sorted(groups), None])

    async def open_route(self, group: GroupId) -> NetworkInfo:
        """group_ready with a fresh slot, as it should be. Raises RemoteError where the victim refuses."""
        slot, self._next_slot = self._next_slot, self._next_slot + 2
        answer = await self.connection.call(messages.CONNECTION_SLOT, messages.GROUP_READY, [slot, group])
        self._slots[group] = slot
        return NetworkInfo.from_wire(answer)

    def slot(self, group: GroupId) -> int:
        return self._slots[group]

    async def push(
        self,
        group: GroupId,
        entries: Sequence[RawEntry] = (),
        *,
        operations: Sequence[SignedBytes] = (),
        vector: VersionVector = NO_VECTOR,
        heads: Sequence[Hash] = (),
    ) -> None:
        """notify_of_changes on the route."""
        notification = Notification(tuple(operations), tuple(entries), vector, tuple(heads))
        await self.connection.notify(self.slot(group), messages.NOTIFY_OF_CHANGES, notification.to_wire())

    async def pull(self, group: GroupId, since: VersionVector = NO_VECTOR, heads: Sequence[Hash] = ()) -> Changes:
        """list_changes on the route."""
        request = ListChanges(since, tuple(heads), messages.PAGE_BYTES_MAX)
        return Changes.from_wire(await self.connection.call(self.slot(group), messages.LIST_CHANGES, request.to_wire()))

    def claim(self, group: GroupId, vector: VersionVector, heads: Sequence[Hash] = ()) -> None:
        """Say from now on, when asked, that this is held."""
        self.claims[group] = NetworkInfo(vector, tuple(heads), vector.digest(heads))

    def certified(self, operations: Operations) -> Operation:
        """The operation that lets the group know this device; entries need it in their past."""
        return sign_operation(
            self.person.device_key,
            group=operations.genesis.id,
            kind=Kind.DEVICE_ADDED,
            parents=operations.heads,
            hlc=pack(self.clock()),
            enclosed=self.person.certification,
            fields=(self.person.user,),
        )

    # --- ConnectionHandler --------------------------------------------------------------------------------------------

    def on_connecting(self, remote: str, dialled: bool) -> None:
        return

    async def on_verified(self, connection: Connection) -> None:
        self._connection = connection
        self._started.started()

    async def on_call(self, connection: Connection, slot: int, method: str, args: Any) -> Any:
        self.heard.append((slot, method, args))
        if method == messages.GROUP_READY:
            theirs, group = messages.read_group_ready(args)
            self._groups[theirs] = group
            if group in self.claims:
                return self.claims[group].to_wire()
        elif method == messages.COMPARE_DIGESTS:
            return sorted(messages.read_digests(args[:1]))
        elif method == messages.GET_NETWORK_INFO:
            return self.claims[self._groups[slot]].to_wire()
        elif method == messages.LIST_CHANGES:
            return (await self.answer(self._groups[slot], ListChanges.from_wire(args))).to_wire()
        raise PeersError("not here", code="not_available")

    async def on_notify(self, connection: Connection, slot: int, method: str, args: Any) -> None:
        self.heard.append((slot, method, args))

    async def on_closed(self, connection: Connection | None, reason: CloseReason) -> None:
        self.reason = reason


Answer = Callable[[GroupId, ListChanges], Awaitable[Changes]]


class ForgedLog:
    """Entries of one device's log, one after the other; any field of a header may be another than it should."""

    def __init__(
        self,
        key: SigningKey,
        group: GroupId,
        control_heads: Sequence[Hash],
        clock: SimulatedClock,
        *,
        incarnation: bytes = b"hostile!",
    ) -> None:
        assert len(incarnation) == INCARNATION_BYTES
        self.log = LogId(key.public, incarnation)
        self.headers: list[Header] = []
        self._key = key
        self._group = group
        self._control_heads = tuple(control_heads)
        self._clock = clock

    @property
    def vector(self) -> VersionVector:
        """What somebody holds who has all of it."""
        last = self.headers[-1]
        return VersionVector({self.log: (Head(last.seq, last.hash),)})

    def insert(self, table: Table, rows: Sequence[Sequence[Any]]) -> bytes:
        """A leaf of new rows with default ids: one value per column beside the key."""
        columns = tuple(column.id for column in table.values)
        leaf = Leaf(table.id, Action.INSERT, columns, 0, [list(values) for values in zip(*rows, strict=True)])
        return encode_leaf(leaf, bytes(SALT_BYTES))

    def entry(
        self,
        *leaves: bytes,
        rows: int = 1,
        deps: Sequence[Dep] = (),
        after: Header | None = None,
        signer: SigningKey | None = None,
        **overrides: Any,
    ) -> RawEntry:
        """The next entry, or one after `after`; `overrides` are header fields, `signer` another's key."""
        before = after if after is not None else (self.headers[-1] if self.headers else None)
        earliest = 0 if before is None else before.hlc + 1
        fields: dict[str, Any] = {
            "group": self._group,
            "log": self.log,
            "seq": 1 if before is None else before.seq + 1,
            "prev": ZERO_HASH if before is None else before.hash,
            "hlc": max(earliest, pack(self._clock())),
            "control_heads": self._control_heads,
            "deps": tuple(deps),
            "leaves": tuple(LeafRef(blake2b_256(data), rows) for data in leaves),
            **overrides,
        }
        header = encode_header(**fields)
        self.headers.append(header)
        return RawEntry(header.raw, (signer or self._key).sign(SIGNATURE_PREFIX, header.raw), tuple(leaves))
