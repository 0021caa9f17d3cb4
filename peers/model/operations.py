"""Control operations: the signed bytes of membership and schema. Exact bytes; docs/PROTOCOL has them in prose.

::

    op  = CBOR [1, group_id, kind, author key, parents, hlc, enclosed, *fields]       id = BLAKE2b-256(op)
    sig = Ed25519(author key, "peers/control/1\\0" ‖ op)
    enclosed = [[op, sig], …] of personal groups, [] where none

    user          []                                     a user's genesis: author is the root key, nothing random, hlc 0
    group         [user_id, name, schema policy, salt16] a group's genesis
    grant         [principal, role, consent | null]      consent: Ed25519(device, "peers/device/1\\0" ‖ user_id)
    device_added  [user_id]                              carries the personal operations that it encloses
    table         fields of `schema.table_to_fields`
    column        fields of `schema.column_to_fields`

In a genesis `group_id` is empty, and its id is the group's. Raw bytes are signed and hashed; nothing is re-encoded to
verify. This file checks shapes, limits and signatures: what is wrong with the bytes alone. What an operation is worth
beside others is the business of `membership`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any

from peers.config import NAME_CHARS_MAX, OPERATION_BYTES_MAX
from peers.errors import EntryFault, OperationRefused, SchemaRefused
from peers.model import codec, schema
from peers.model.clock import HLC_MAX
from peers.model.ids import KEY_BYTES, DeviceId, GroupId, Hash, UserId, blake2b_256
from peers.model.keys import SIGNATURE_BYTES, SigningKey, verify

FORMAT = 1
SIGNATURE_PREFIX = b"peers/control/1\0"
CONSENT_PREFIX = b"peers/device/1\0"
PARENTS_MAX = 64
SALT_BYTES = 16

SignedBytes = tuple[bytes, bytes]
"""An operation as it is stored and travels: (raw, signature)."""


class Kind(StrEnum):
    """What an operation does. `set`, `remove`, `leave`, `transfer`, `invite`, … come beside these."""

    USER = "user"
    GROUP = "group"
    GRANT = "grant"
    DEVICE_ADDED = "device_added"
    TABLE = "table"
    COLUMN = "column"


GENESIS_KINDS = (Kind.USER, Kind.GROUP)


class Role(IntEnum):
    """What a principal may do. A `grant` gives the first three; the owner is who made the group."""

    READER = 1
    WRITER = 2
    ADMIN = 3
    OWNER = 4


class SchemaPolicy(StrEnum):
    """Who declares tables and columns in a group."""

    ADMINS = "admins"
    WRITERS = "writers"


@dataclass(frozen=True, slots=True)
class Operation:
    """A decoded operation with its exact bytes. `group` is its own id in a genesis."""

    raw: bytes
    signature: bytes
    id: Hash
    group: GroupId
    kind: Kind
    author: bytes
    parents: tuple[Hash, ...]
    hlc: int
    enclosed: tuple["Operation", ...]
    fields: tuple[Any, ...]

    @property
    def signed(self) -> SignedBytes:
        return self.raw, self.signature


def consent(device: SigningKey, user: UserId) -> bytes:
    """A device's agreement to be the user's. A certification without it is none: nobody adopts another's device."""
    return device.sign(CONSENT_PREFIX, user)


def is_consent(device: DeviceId, user: UserId, signature: bytes) -> bool:
    return verify(device, CONSENT_PREFIX, user, signature)


def sign_operation(
    key: SigningKey,
    *,
    group: GroupId,
    kind: Kind,
    parents: Iterable[Hash],
    hlc: int,
    enclosed: Sequence[Operation] = (),
    fields: Sequence[Any] = (),
) -> Operation:
    """A new operation of our own. `group` is b"" for a genesis; parents are sorted here.

    Raises:
        OperationRefused: where others would refuse it.
    """
    signed = [operation.signed for operation in enclosed]
    raw = codec.dumps([FORMAT, group, kind.value, key.public, sorted(parents), hlc, signed, *fields])
    return decode_operation(raw, key.sign(SIGNATURE_PREFIX, raw))


def decode_operation(raw: bytes, signature: bytes) -> Operation:
    """The operation in `raw`, with its own signature and those of what it encloses verified.

    Raises:
        OperationRefused: bad_encoding, too_large, bad_signature or bad_value; never anything else.
    """
    return _decode(raw, signature, may_enclose=True)


def decode_stored(raw: bytes, signature: bytes) -> Operation:
    """An operation out of this device's own file: only what `decode_operation` has let through is stored there.

    Its signatures are not verified again: they are most of the time that opening a group takes, and whoever can change
    the file can change its tables as well. Raises OperationRefused as `decode_operation`.
    """
    return _decode(raw, signature, may_enclose=True, verified=True)


def _decode(raw: bytes, signature: bytes, *, may_enclose: bool, verified: bool = False) -> Operation:
    if len(raw) > OPERATION_BYTES_MAX:
        raise OperationRefused(EntryFault.TOO_LARGE, "a control operation has at most 64 KiB")
    try:
        value = codec.loads(raw)
    except codec.BadEncoding as error:
        raise _bad(str(error)) from error
    if not isinstance(value, list) or len(value) < 7 or type(value[0]) is not int or value[0] != FORMAT:
        raise _bad("an operation is an array of 7 items and its fields, the first item 1")
    _, group, kind_text, author, parents, hlc, enclosed, *fields = value
    kind = _read_kind(kind_text)
    if not _is_bytes(author, KEY_BYTES) or type(hlc) is not int or not 0 <= hlc <= HLC_MAX:
        raise _bad("an operation's author is a key and its hlc a uint64")
    if not _is_bytes(group, 0 if kind in GENESIS_KINDS else KEY_BYTES):
        raise _bad("an operation's group has 32 bytes, a genesis' none")
    read_parents = _read_parents(parents, genesis=kind in GENESIS_KINDS)
    _CHECKS[kind](fields)
    if kind is Kind.USER and hlc != 0:
        raise _bad("a user's genesis has hlc 0")
    if not verified and not verify(author, SIGNATURE_PREFIX, raw, signature):
        raise OperationRefused(EntryFault.BAD_SIGNATURE, "an operation's signature is not its author's")
    personal = _read_enclosed(enclosed, allowed=may_enclose and kind is not Kind.USER, verified=verified)
    digest = blake2b_256(raw)
    return Operation(
        raw, signature, digest, group or digest, kind, author, read_parents, hlc, personal, tuple(fields)
    )  # fmt: skip


def _read_kind(value: Any) -> Kind:
    try:
        return Kind(value)
    except ValueError as error:
        shown = value[:40] if isinstance(value, str) else value
        raise _bad(f"unknown kind of operation {shown!r}: a newer version of Peers may know it") from error


def _read_parents(value: Any, *, genesis: bool) -> tuple[Hash, ...]:
    if not isinstance(value, list) or len(value) > PARENTS_MAX or bool(value) == genesis:
        raise _bad("an operation has 1 to 64 parents, a genesis none")
    if not all(_is_bytes(parent, KEY_BYTES) for parent in value) or value != sorted(set(value)):
        raise _bad("parents are sorted hashes")
    return tuple(value)


def _read_enclosed(value: Any, *, allowed: bool, verified: bool) -> tuple[Operation, ...]:
    if not isinstance(value, list) or (value and not allowed):
        raise _bad("an operation encloses an array of personal operations, and these and a user's genesis none")
    operations = []
    for item in value:
        if not isinstance(item, list) or len(item) != 2 or type(item[0]) is not bytes or type(item[1]) is not bytes:
            raise _bad("an enclosed operation is [op, signature]")
        operation = _decode(item[0], item[1], may_enclose=False, verified=verified)
        if operation.kind is Kind.GROUP:
            raise _bad("what is enclosed belongs to a personal group")
        operations.append(operation)
    return tuple(operations)


def _check_user(fields: list[Any]) -> None:
    if fields:
        raise _bad("a user's genesis has no fields")


def _check_group(fields: list[Any]) -> None:
    if len(fields) != 4:
        raise _bad("a group's genesis has the fields user, name, schema policy and salt")
    user, name, policy, salt = fields
    if not _is_bytes(user, KEY_BYTES) or not _is_bytes(salt, SALT_BYTES):
        raise _bad("a group's genesis names a user by 32 bytes and has 16 of salt")
    if type(name) is not str or not 1 <= len(name) <= NAME_CHARS_MAX:
        raise _bad(f"a group's name has 1 to {NAME_CHARS_MAX} characters")
    if type(policy) is not str or policy not in list(SchemaPolicy):
        raise _bad("a group's schema is declared by 'admins' or 'writers'")


def _check_grant(fields: list[Any]) -> None:
    if len(fields) != 3:
        raise _bad("a grant has the fields principal, role and consent")
    principal, role, agreed = fields
    if not _is_bytes(principal, KEY_BYTES):
        raise _bad("a grant names its principal by 32 bytes")
    if type(role) is not int or not Role.READER <= role <= Role.ADMIN:
        raise _bad("a grant gives the role reader, writer or admin")
    if agreed is not None and not _is_bytes(agreed, SIGNATURE_BYTES):
        raise _bad("a device's consent is a signature")


def _check_device_added(fields: list[Any]) -> None:
    if len(fields) != 1 or not _is_bytes(fields[0], KEY_BYTES):
        raise _bad("device_added names a user by 32 bytes")


def _check_table(fields: list[Any]) -> None:
    try:
        schema.table_from_fields(fields)
    except SchemaRefused as error:
        raise OperationRefused(EntryFault.BAD_VALUE, str(error)) from error


def _check_column(fields: list[Any]) -> None:
    try:
        schema.column_from_fields(fields)
    except SchemaRefused as error:
        raise OperationRefused(EntryFault.BAD_VALUE, str(error)) from error


_CHECKS: dict[Kind, Callable[[list[Any]], None]] = {
    Kind.USER: _check_user,
    Kind.GROUP: _check_group,
    Kind.GRANT: _check_grant,
    Kind.DEVICE_ADDED: _check_device_added,
    Kind.TABLE: _check_table,
    Kind.COLUMN: _check_column,
}


def _is_bytes(value: Any, size: int) -> bool:
    return type(value) is bytes and len(value) == size


def _bad(message: str) -> OperationRefused:
    return OperationRefused(EntryFault.BAD_ENCODING, message)
