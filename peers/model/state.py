"""The state hash: the bytes by which two replicas say that they show, keep and know the same.

Every row with at least one retained write counts, visible or kept aside, tombstones and conflict sets included::

    stamp        = CBOR [owner epoch, hlc, device, incarnation, seq, header hash]
    group        = CBOR [stamp, [column id, …]]     all cells of one stamp; column ids sorted
    head         = CBOR [table id, [group, …] of the winning cells, [group, …] of the others]     groups sorted by stamp
    body         = CBOR [key values …, values of the winning cells …, values of the others …]     in the head's order
    row digest   = BLAKE2b-256(head ‖ body), read as a big-endian number
    bucket       = CRC-32(CBOR [key values]) modulo 256
    bucket sum   = the row digests of one table and bucket, added modulo 2^256
    state hash   = BLAKE2b-256( CBOR [1, [[table id, the 256 sums as 32 bytes each], …] sorted by table id] )

The winning cells of a row; the others are the remaining causally maximal writes of its cells (a column may stand in
several of their groups). A cell that no retained write has set does not appear; a row without cells and a table without
rows are left out. The hidden `deleted` cell has the column id b"". Stamps sort by their encoded bytes, which is their
order. How many values of the body are the key's is what the head's columns leave over.

Usually all winning cells of a row share one stamp, and thousands of rows share one head: callers keep its hashed
beginning (`hashed_head`), so that a row costs one encoding of values as SQLite gives them and the end of one hash.

Sums can be updated row by row, in any order. They locate differences between replicas that hold the same entries; a
member who is free to choose thousands of rows can find other rows of equal sums (Wagner's generalized birthday), so
this is no commitment. Pure.
"""

import hashlib
import zlib
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from peers.model import codec
from peers.model.ids import Hash, LogId, blake2b_256
from peers.model.schema import Value

DELETED: Final = b""
"""The column id of the hidden cell that says whether a row is deleted (1) or not (0)."""
BUCKETS: Final = 256
_FORMAT: Final = 1
_MODULUS: Final = 1 << 256


class Stamp(NamedTuple):
    """Who wrote a cell, and where that write stands in the total order: the greatest stamp wins."""

    owner_epoch: int
    hlc: int
    device: bytes
    incarnation: bytes
    seq: int
    hash: Hash

    @property
    def log(self) -> LogId:
        return LogId(self.device, self.incarnation)


class Cell(NamedTuple):
    """One write of one cell as the state hash sees it."""

    column: bytes
    stamp: Stamp
    value: Value


def encode_stamp(stamp: Stamp) -> bytes:
    return codec.dumps(list(stamp))


class Place(NamedTuple):
    """Where a value of a body belongs. Sorts as the values of a body do."""

    stamp: Stamp
    column: bytes


def place_of(cell: Cell) -> Place:
    return Place(cell.stamp, cell.column)


def encode_head(table_id: bytes, winners: Iterable[Place], others: Iterable[Place] = ()) -> bytes:
    """A row's head. Both kinds of places must be sorted."""
    return b"".join((b"\x83", codec.dumps(table_id), *_groups(winners), *_groups(others)))


def _groups(places: Iterable[Place]) -> list[bytes]:
    """The encoding of [group, …], in parts: written by hand, since heads of small entries are as many as rows."""
    groups: dict[Stamp, list[bytes]] = {}
    for stamp, column in places:
        groups.setdefault(stamp, []).append(column)
    parts = [array_head(len(groups))]
    for stamp, columns in groups.items():
        parts += (b"\x82", encode_stamp(stamp), _encode_columns(tuple(columns)))
    return parts


def array_head(length: int) -> bytes:
    """The head of a CBOR array of so many items."""
    if length < 24:
        return bytes([0x80 | length])
    if length < 1 << 8:
        return b"\x98" + length.to_bytes(1, "big")
    if length < 1 << 16:
        return b"\x99" + length.to_bytes(2, "big")
    return b"\x9a" + length.to_bytes(4, "big")


@lru_cache(1024)
def _encode_columns(columns: tuple[bytes, ...]) -> bytes:
    return codec.dumps(list(columns))


def hashed_head(head: bytes) -> "hashlib.blake2b":
    """The beginning of a row digest: of a copy, updated with the body, the digest is the row's."""
    return hashlib.blake2b(head, digest_size=32)


class RowDigest(NamedTuple):
    """What one row adds to its table: which sum, and how much."""

    bucket: int
    number: int


def row_digest(
    table_id: bytes, key: Sequence[Value], cells: Iterable[Cell], conflicts: Iterable[Cell] = ()
) -> RowDigest:
    """The digest of a row: its winning cells and the other causally maximal writes, each in any order."""
    winners, others = sorted(cells, key=place_of), sorted(conflicts, key=place_of)
    head = encode_head(table_id, map(place_of, winners), map(place_of, others))
    body = codec.dumps([*key, *(cell.value for cell in (*winners, *others))])
    return RowDigest(bucket_of(key), int.from_bytes(blake2b_256(head + body), "big"))


def bucket_of(key: Sequence[Value]) -> int:
    """Which of a table's sums a key belongs to."""
    return zlib.crc32(codec.dumps(list(key))) % BUCKETS


class StateSums:
    """The bucket sums of a replica. Rows may be added and taken away in any order."""

    __slots__ = ("_sums",)

    def __init__(self) -> None:
        self._sums: dict[bytes, list[int]] = {}

    def add(self, table_id: bytes, row: RowDigest) -> None:
        self.numbers(table_id)[row.bucket] += row.number

    def remove(self, table_id: bytes, row: RowDigest) -> None:
        self.numbers(table_id)[row.bucket] -= row.number

    def forget(self, table_id: bytes) -> None:
        """Start the sums of one table anew."""
        self._sums.pop(table_id, None)

    def buckets(self, table_id: bytes) -> bytes:
        """The 256 sums of a table, 32 bytes each: what two replicas compare to locate a divergence."""
        return b"".join((number % _MODULUS).to_bytes(32, "big") for number in self._sums.get(table_id, [0] * BUCKETS))

    def hash(self) -> Hash:
        """The state hash."""
        return combine((table_id, self.buckets(table_id)) for table_id in self._sums)

    def numbers(self, table_id: bytes) -> list[int]:
        """A table's sums themselves, by bucket, before the modulus: for who adds many rows."""
        sums = self._sums.get(table_id)
        if sums is None:
            sums = self._sums[table_id] = [0] * BUCKETS
        return sums

    def __iter__(self) -> Iterator[bytes]:
        return iter(sorted(self._sums))


def combine(tables: Iterable[tuple[bytes, bytes]]) -> Hash:
    """The state hash of (table id, its 256 sums as 8,192 bytes) pairs, in any order."""
    empty = bytes(32 * BUCKETS)
    return blake2b_256(codec.dumps([_FORMAT, sorted([table_id, sums] for table_id, sums in tables if sums != empty)]))
