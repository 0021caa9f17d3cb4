"""Entries: what one group commit holds, under one signature. Exact bytes; docs/PROTOCOL has them in prose.

::

    header = CBOR [1, group_id, device_id, incarnation, seq, prev, hlc, control_heads, deps, leaves, flags]
    sig    = Ed25519(device, "peers/entry/1\\0" ‖ header)
    leaf   = zstd-1( CBOR [salt16, table_id, action, column ids, keys, column values, ordinals, id incarnation] )
    entry  = [header, sig, [leaf, …]]                                      as it travels and as it is stored

A leaf is column-oriented: `keys` is the first ordinal of consecutive default ids of this very entry, or one array per
key column; `values` is one array per named column. Raw bytes are signed and hashed; nothing is re-encoded to verify.

This file checks shapes and limits. Rights, chains and clocks are the business of ingest; types that of `schema`.
"""

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Any, NamedTuple

import zstandard

from peers.config import (
    ENTRY_BYTES_MAX,
    HEADER_BYTES_MAX,
    LEAF_BYTES_MAX,
    LEAVES_MAX,
    ROWS_MAX,
)
from peers.errors import EntryFault, EntryRefused
from peers.model import codec
from peers.model.clock import HLC_MAX
from peers.model.column_codec import COLUMN_MIN, array_head, encode_column, encode_columns
from peers.model.ids import INCARNATION_BYTES, KEY_BYTES, ORDINAL_MAX, DeviceId, GroupId, Hash, LogId, blake2b_256
from peers.model.version_vector import SEQ_MAX

FORMAT = 1
SIGNATURE_PREFIX = b"peers/entry/1\0"
SIGNATURE_BYTES = 64
SALT_BYTES = 16
OBJECT_ID_BYTES = 8
CONTROL_HEADS_MAX = 64
_ZSTD_LEVEL = 1


class Flag(IntFlag):
    MORE = 1
    """The transaction goes on in the next entry of this log."""
    ACK = 2
    """No leaves: acknowledges what `deps` name."""
    CHECKPOINT = 4
    """Stands for a dead stretch of its log (compaction)."""


_NO_FLAGS = Flag(0)
_COMPRESSOR = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_content_size=True)
_DECOMPRESSOR = zstandard.ZstdDecompressor(max_window_size=2 * LEAF_BYTES_MAX)
"""Both are made once: their tables cost 12 and 20 µs, more than a leaf of a few rows. One thread uses them."""


class Action(IntEnum):
    INSERT = 0
    """Writes every known column anew, and `deleted = 0`."""
    UPDATE = 1
    """Writes the named columns."""
    DELETE = 2
    """Writes `deleted = 1`."""
    RESTORE = 3
    """Writes `deleted = 0`."""


class Dep(NamedTuple):
    """The head of another log that the author had merged."""

    device: DeviceId
    incarnation: bytes
    seq: int
    hash: Hash

    @property
    def log(self) -> LogId:
        return LogId(self.device, self.incarnation)


class LeafRef(NamedTuple):
    digest: Hash
    rows: int


@dataclass(frozen=True, slots=True)
class Header:
    """A decoded header together with its exact bytes and their hash."""

    raw: bytes
    hash: Hash
    group: GroupId
    device: DeviceId
    incarnation: bytes
    seq: int
    prev: Hash
    hlc: int
    control_heads: tuple[Hash, ...]
    deps: tuple[Dep, ...]
    leaves: tuple[LeafRef, ...]
    flags: Flag

    @property
    def log(self) -> LogId:
        return LogId(self.device, self.incarnation)

    @property
    def rows(self) -> int:
        return sum(leaf.rows for leaf in self.leaves)


class RawEntry(NamedTuple):
    """An entry as it travels: verbatim bytes. A leaf is None where it was dropped by compaction."""

    header: bytes
    signature: bytes
    leaves: tuple[bytes | None, ...]

    @property
    def size(self) -> int:
        return len(self.header) + len(self.signature) + sum(len(leaf) for leaf in self.leaves if leaf is not None)

    def to_wire(self) -> list[Any]:
        return [self.header, self.signature, list(self.leaves)]

    @staticmethod
    def from_wire(value: Any) -> "RawEntry":
        """Raises EntryRefused unless `value` is [header, signature, leaves] within the limits."""
        if not isinstance(value, list) or len(value) != 3:
            raise _bad("an entry is [header, signature, leaves]")
        header, signature, leaves = value
        if type(header) is not bytes or type(signature) is not bytes or len(signature) != SIGNATURE_BYTES:
            raise _bad("an entry is [header, signature, leaves]")
        if not isinstance(leaves, list) or any(leaf is not None and type(leaf) is not bytes for leaf in leaves):
            raise _bad("leaves are bytes")
        if len(leaves) > LEAVES_MAX or sum(len(leaf) for leaf in leaves if leaf is not None) > ENTRY_BYTES_MAX:
            raise _large("an entry has at most 64 leaves and 1 MiB")
        return RawEntry(header, signature, tuple(leaves))


@dataclass(frozen=True, slots=True)
class Leaf:
    """Rows of one table, one action and one set of columns; column-oriented.

    `keys` is an int (the first ordinal of consecutive default ids of the entry) or one list per key column.
    `values` has one list per column of `columns`; all lists have the leaf's number of rows.
    """

    table: bytes
    action: Action
    columns: tuple[bytes, ...]
    keys: int | list[list[Any]]
    values: list[list[Any]]
    ordinals: list[int] | None = None
    """Which of the entry's transactions each row belongs to; None where there was only one."""
    id_incarnation: bytes | None = None
    """The incarnation under which the ids of an int `keys` were made, where it is not the entry's own."""


def encode_header(
    *,
    group: GroupId,
    log: LogId,
    seq: int,
    prev: Hash,
    hlc: int,
    control_heads: tuple[Hash, ...],
    deps: tuple[Dep, ...],
    leaves: tuple[LeafRef, ...],
    flags: Flag = _NO_FLAGS,
) -> Header:
    """The header of a new entry of our own. `control_heads` and `deps` are sorted here."""
    control_heads, deps = tuple(sorted(control_heads)), tuple(sorted(deps))
    fields = [FORMAT, group, log.device, log.incarnation, seq, prev, hlc, control_heads, deps, leaves, int(flags)]
    raw = codec.dumps(fields)
    if len(raw) > HEADER_BYTES_MAX:
        raise _large("a header has at most 1 MiB")
    return Header(raw, blake2b_256(raw), group, *log, seq, prev, hlc, control_heads, deps, leaves, flags)


def decode_header(raw: bytes) -> Header:
    """Raises EntryRefused (bad_encoding, too_large) unless `raw` is a header within all format limits."""
    if len(raw) > HEADER_BYTES_MAX:
        raise _large("a header has at most 1 MiB")
    try:
        value = codec.loads(raw)
    except codec.BadEncoding as error:
        raise _bad(str(error)) from error
    if not isinstance(value, list) or len(value) != 11 or value[0] != FORMAT or type(value[0]) is not int:
        raise _bad("a header is an array of 11 items, the first of them 1")
    _, group, device, incarnation, seq, prev, hlc, control_heads, deps, leaves, flags = value
    if not (_is_bytes(group, KEY_BYTES) and _is_bytes(device, KEY_BYTES) and _is_bytes(incarnation, INCARNATION_BYTES)):
        raise _bad("group, device or incarnation is not bytes of its length")
    if not (_is_int(seq, 1, SEQ_MAX) and _is_bytes(prev, KEY_BYTES) and _is_int(hlc, 0, HLC_MAX)):
        raise _bad("seq, prev or hlc is out of its range")
    if not _is_int(flags, 0, 7):
        raise _bad("unknown flags")
    header = Header(
        raw, blake2b_256(raw), group, device, incarnation, seq, prev, hlc,
        _read_control_heads(control_heads), _read_deps(deps), _read_leaves(leaves), Flag(flags),
    )  # fmt: skip
    _check_whole(header)
    return header


def _check_whole(header: Header) -> None:
    if (header.seq == 1) != (header.prev == bytes(KEY_BYTES)):
        raise _bad("prev is zeros for seq 1, and only there")
    if header.rows > ROWS_MAX:
        raise _large("an entry has at most 65,535 rows")
    if bool(header.leaves) == bool(header.flags & Flag.ACK):
        raise _bad("an entry has leaves, or the flag ack")
    if any(dep.log == header.log for dep in header.deps):
        raise _bad("deps name other logs")


def _read_control_heads(value: Any) -> tuple[Hash, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= CONTROL_HEADS_MAX:
        raise _bad("1 to 64 control heads")
    if not all(_is_bytes(head, KEY_BYTES) for head in value) or value != sorted(set(value)):
        raise _bad("control heads are sorted hashes")
    return tuple(value)


def _read_deps(value: Any) -> tuple[Dep, ...]:
    if not isinstance(value, list):
        raise _bad("deps are an array")
    deps = []
    for item in value:
        if not isinstance(item, list) or len(item) != 4:
            raise _bad("a dep is [device, incarnation, seq, hash]")
        device, incarnation, seq, digest = item
        if not (
            _is_bytes(device, KEY_BYTES)
            and _is_bytes(incarnation, INCARNATION_BYTES)
            and _is_int(seq, 1, SEQ_MAX)
            and _is_bytes(digest, KEY_BYTES)
        ):
            raise _bad("a dep is [device, incarnation, seq, hash]")
        deps.append(Dep(device, incarnation, seq, digest))
    if deps != sorted(set(deps)):
        raise _bad("deps are sorted")
    return tuple(deps)


def _read_leaves(value: Any) -> tuple[LeafRef, ...]:
    if not isinstance(value, list):
        raise _bad("leaves are an array")
    if len(value) > LEAVES_MAX:
        raise _large("an entry has at most 64 leaves")
    leaves = []
    for item in value:
        if not isinstance(item, list) or len(item) != 2 or not _is_bytes(item[0], KEY_BYTES):
            raise _bad("a leaf is named by [digest, rows]")
        if not _is_int(item[1], 1, SEQ_MAX):
            raise _bad("a leaf has rows")
        if item[1] > ROWS_MAX:
            raise _large("an entry has at most 65,535 rows")
        leaves.append(LeafRef(item[0], item[1]))
    return tuple(leaves)


def encode_leaf(leaf: Leaf, salt: bytes) -> bytes:
    """The bytes of a leaf. `salt` (16 random bytes) keeps the digest of a dropped leaf from confirming guesses.

    Raises EntryRefused(too_large) when it would decompress to more than 4 MiB.
    """
    keys, ordinals, values = leaf.keys, leaf.ordinals, leaf.values
    start = (salt, leaf.table, int(leaf.action), leaf.columns)
    if not values or len(values[0]) < COLUMN_MIN:
        plain = codec.dumps((*start, keys, values, ordinals, leaf.id_incarnation))
    else:
        plain = b"".join(
            (
                array_head(8),
                *map(codec.dumps, start),
                codec.dumps(keys) if isinstance(keys, int) else encode_columns(keys),
                encode_columns(values),
                codec.dumps(None) if ordinals is None else encode_column(ordinals),
                codec.dumps(leaf.id_incarnation),
            )
        )
    if len(plain) > LEAF_BYTES_MAX:
        raise _large("a leaf has at most 4 MiB before compression")
    return _COMPRESSOR.compress(plain)


def decode_leaf(data: bytes, rows: int) -> Leaf:
    """The leaf in `data`, which the header says has `rows` rows. Raises EntryRefused (bad_encoding, too_large)."""
    try:
        value = codec.loads(_decompress(data))
    except codec.BadEncoding as error:
        raise _bad(str(error)) from error
    if not isinstance(value, list) or len(value) != 8:
        raise _bad("a leaf is an array of 8 items")
    salt, table, action, columns, keys, values, ordinals, id_incarnation = value
    if not _is_bytes(salt, SALT_BYTES) or not _is_bytes(table, OBJECT_ID_BYTES) or not _is_int(action, 0, 3):
        raise _bad("a leaf's salt, table or action is malformed")
    if not isinstance(columns, list) or not all(_is_bytes(column, OBJECT_ID_BYTES) for column in columns):
        raise _bad("a leaf names its columns by 8 bytes each")
    if len(set(columns)) != len(columns):
        raise _bad("a leaf names each column once")
    if action in (Action.DELETE, Action.RESTORE) and columns:
        raise _bad("delete and restore name no columns")
    if action == Action.UPDATE and not columns:
        raise _bad("an update names columns")
    if not isinstance(values, list) or len(values) != len(columns) or not _all_of_length(values, rows):
        raise _bad("a leaf has one array of values per column, one value per row")
    if ordinals is not None and not (isinstance(ordinals, list) and len(ordinals) == rows and _are_ordinals(ordinals)):
        raise _bad("transaction ordinals are one per row")
    if id_incarnation is not None and not _is_bytes(id_incarnation, INCARNATION_BYTES):
        raise _bad("an incarnation is 8 bytes")
    _check_keys(keys, rows)
    return Leaf(table, Action(action), tuple(columns), keys, values, ordinals, id_incarnation)


def _check_keys(keys: Any, rows: int) -> None:
    if type(keys) is int:
        if not 0 <= keys <= ORDINAL_MAX - rows + 1:
            raise _bad("ordinals of default ids have 30 bits")
    elif not isinstance(keys, list) or not keys or not _all_of_length(keys, rows):
        raise _bad("a leaf has one array per key column, one key per row")


def _decompress(data: bytes) -> bytes:
    try:
        declared = zstandard.get_frame_parameters(data).content_size
        if declared in (zstandard.CONTENTSIZE_UNKNOWN, zstandard.CONTENTSIZE_ERROR):
            raise _bad("a leaf declares its size")
        if declared > LEAF_BYTES_MAX:
            raise _large("a leaf has at most 4 MiB before compression")
        plain = _DECOMPRESSOR.decompress(data, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise _bad(f"a leaf is one zstd frame: {error}") from error
    if len(plain) != declared:
        raise _bad("a leaf has the size that it declares")
    return plain


def _all_of_length(arrays: list[Any], rows: int) -> bool:
    return all(isinstance(array, list) and len(array) == rows for array in arrays)


def _are_ordinals(values: list[Any]) -> bool:
    return all(type(value) is int and 0 <= value <= ROWS_MAX for value in values)


def _is_bytes(value: Any, size: int) -> bool:
    return type(value) is bytes and len(value) == size


def _is_int(value: Any, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def _bad(message: str) -> EntryRefused:
    return EntryRefused(EntryFault.BAD_ENCODING, message)


def _large(message: str) -> EntryRefused:
    return EntryRefused(EntryFault.TOO_LARGE, message)
