"""What devices say to each other inside a session: arguments and answers of every rpc method, as plain CBOR values.

Slot 0 is the connection itself; every other slot is one group's route in one direction (`GROUP_READY` opened it).

====================  =====  ======  ==========================================================================
method                slot   form    arguments → answer
====================  =====  ======  ==========================================================================
offers                0      notify  [group ids, null]: all groups of which my log makes your user a member
group_ready           0      call    [slot, group id] → NetworkInfo: calls of mine on `slot` are about that group
group_closed          0      notify  [slot]: I make no more calls on it
compare_digests       0      call    [[slot, digest], …] of my routes → [slots whose digest differs from yours]
get_network_info      group  call    [] → NetworkInfo
list_changes          group  call    [vector, control heads, limit in bytes] → [operations, entries, more]
notify_of_changes     group  notify  [operations, entries, vector, control heads]
====================  =====  ======  ==========================================================================

Entries and operations travel as the verbatim bytes that their authors signed. This file checks shapes and bounds; it
verifies nothing. Every reader raises `BadEncoding`.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

from peers.config import OPERATION_BYTES_MAX
from peers.errors import EntryRefused
from peers.model.codec import BadEncoding
from peers.model.entries import RawEntry
from peers.model.ids import KEY_BYTES, GroupId, Hash
from peers.model.operations import SignedBytes
from peers.model.version_vector import VersionVector

OFFERS = "offers"
GROUP_READY = "group_ready"
GROUP_CLOSED = "group_closed"
COMPARE_DIGESTS = "compare_digests"
GET_NETWORK_INFO = "get_network_info"
LIST_CHANGES = "list_changes"
NOTIFY_OF_CHANGES = "notify_of_changes"

CONNECTION_SLOT = 0
GROUPS_MAX = 10_000
"""Groups in one list of offers: far above the hundreds of the requirement."""
SLOT_MAX = (1 << 32) - 1
HEADS_MAX = 1024
"""Control heads in a message: each is a concurrent, unmerged operation."""
DEVICES_MAX = 256
"""Devices named in a NetworkInfo: the pool holds 30."""
PAGE_BYTES_MAX = 8 << 20
"""What a caller may ask for in one page; the answerer uses the lower of this and its own setting."""


class Changes(NamedTuple):
    """A page of list_changes."""

    operations: tuple[SignedBytes, ...]
    entries: tuple[RawEntry, ...]
    more: bool

    def to_wire(self) -> list[Any]:
        return [[list(pair) for pair in self.operations], [entry.to_wire() for entry in self.entries], self.more]

    @staticmethod
    def from_wire(value: Any) -> "Changes":
        operations, entries, more = _array(value, 3, "a page of changes")
        if type(more) is not bool:
            raise BadEncoding("a page says whether there is more")
        return Changes(_read_operations(operations), _read_entries(entries), more)


class Notification(NamedTuple):
    """notify_of_changes: new entries themselves, or only where I stand."""

    operations: tuple[SignedBytes, ...]
    entries: tuple[RawEntry, ...]
    vector: VersionVector
    control_heads: tuple[Hash, ...]

    def to_wire(self) -> list[Any]:
        return [
            [list(pair) for pair in self.operations],
            [entry.to_wire() for entry in self.entries],
            self.vector.to_wire(),
            list(self.control_heads),
        ]

    @staticmethod
    def from_wire(value: Any) -> "Notification":
        operations, entries, vector, heads = _array(value, 4, "a notification")
        return Notification(
            _read_operations(operations), _read_entries(entries), VersionVector.from_wire(vector), read_heads(heads)
        )


class ListChanges(NamedTuple):
    """Arguments of list_changes: what the caller holds, and how much it takes at once."""

    since: VersionVector
    control_heads: tuple[Hash, ...]
    limit_bytes: int

    def to_wire(self) -> list[Any]:
        return [self.since.to_wire(), list(self.control_heads), self.limit_bytes]

    @staticmethod
    def from_wire(value: Any) -> "ListChanges":
        since, heads, limit = _array(value, 3, "list_changes")
        if type(limit) is not int or not 1 <= limit <= PAGE_BYTES_MAX:
            raise BadEncoding("a page has 1 byte to 8 MiB")
        return ListChanges(VersionVector.from_wire(since), read_heads(heads), limit)


@dataclass(frozen=True)
class NetworkInfo:
    """Where a device stands in a group: what it holds and whom it is connected to there."""

    vector: VersionVector
    control_heads: tuple[Hash, ...]
    digest: Hash
    connections: tuple[bytes, ...] = ()
    preferred: tuple[bytes, ...] = ()

    def to_wire(self) -> list[Any]:
        heads = list(self.control_heads)
        return [self.vector.to_wire(), heads, self.digest, list(self.connections), list(self.preferred)]

    @staticmethod
    def from_wire(value: Any) -> "NetworkInfo":
        vector, heads, digest, connections, preferred = _array(value, 5, "network info")
        return NetworkInfo(
            VersionVector.from_wire(vector),
            read_heads(heads),
            _hash(digest),
            _hashes(connections, DEVICES_MAX),
            _hashes(preferred, DEVICES_MAX),
        )


def read_offers(value: Any) -> frozenset[GroupId]:
    """Arguments of offers. The second is the place of the requirement's `requestSecure`: about TLS, for people."""
    groups, _ = _array(value, 2, "offers")
    return frozenset(_hashes(groups, GROUPS_MAX))


def read_group_ready(value: Any) -> tuple[int, GroupId]:
    """Arguments of group_ready: (slot, group id)."""
    slot, group = _array(value, 2, "group_ready")
    return read_slot(slot), _hash(group)


def read_group_closed(value: Any) -> int:
    (slot,) = _array(value, 1, "group_closed")
    return read_slot(slot)


def read_digests(value: Any) -> dict[int, Hash]:
    """Arguments of compare_digests: {slot of the caller: its digest}."""
    (pairs,) = _array(value, 1, "compare_digests")
    if not isinstance(pairs, list) or len(pairs) > GROUPS_MAX:
        raise BadEncoding("digests are an array")
    digests = {}
    for pair in pairs:
        slot, digest = _array(pair, 2, "a digest")
        digests[read_slot(slot)] = _hash(digest)
    return digests


def read_slots(value: Any) -> frozenset[int]:
    """Answer of compare_digests."""
    if not isinstance(value, list) or len(value) > GROUPS_MAX:
        raise BadEncoding("slots are an array")
    return frozenset(read_slot(slot) for slot in value)


def read_slot(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= SLOT_MAX:
        raise BadEncoding("a slot is a positive 32-bit number")
    return value


def read_heads(value: Any) -> tuple[Hash, ...]:
    """Control heads; empty from a device that holds nothing yet."""
    return _hashes(value, HEADS_MAX)


def _read_operations(value: Any) -> tuple[SignedBytes, ...]:
    if not isinstance(value, list):
        raise BadEncoding("operations are an array")
    operations = []
    for item in value:
        raw, signature = _array(item, 2, "an operation")
        if type(raw) is not bytes or type(signature) is not bytes or len(raw) > OPERATION_BYTES_MAX:
            raise BadEncoding("an operation is [bytes, signature]")
        operations.append((raw, signature))
    return tuple(operations)


def _read_entries(value: Any) -> tuple[RawEntry, ...]:
    if not isinstance(value, list):
        raise BadEncoding("entries are an array")
    try:
        return tuple([RawEntry.from_wire(item) for item in value])
    except EntryRefused as error:
        raise BadEncoding(str(error)) from error


def _array(value: Any, size: int, what: str) -> list[Any]:
    if not isinstance(value, list) or len(value) != size:
        raise BadEncoding(f"{what} is an array of {size}")
    return value


def _hashes(value: Any, most: int) -> tuple[bytes, ...]:
    if not isinstance(value, list) or len(value) > most:
        raise BadEncoding(f"an array of at most {most} ids")
    return tuple([_hash(item) for item in value])


def _hash(value: Any) -> bytes:
    if type(value) is not bytes or len(value) != KEY_BYTES:
        raise BadEncoding("an id has 32 bytes")
    return value
