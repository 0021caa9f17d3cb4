"""The bytes of the four handshake messages: one encoder and one strict decoder for each.

What it is for: shapes only. Every payload is one CBOR array of fixed length; whoever decodes it may rely on the types
and sizes of its fields, and on nothing else: no signature is verified here.

    1  reset              version byte, Noise message 1 with an empty payload
    2  requestDeviceInfo  Noise message 2, payload [info, info signature, certificate, time, sig_S]
    3  completeHandshake  Noise message 3, payload [info, info signature, certificate, time, dialled, sig_C, invite]
    4  handshakeResponse  first transport frame: [1, conn_id, frame bytes, message bytes, calls]  or  [0, code, detail]

`certificate` is an array of [operation, signature]. `time` is milliseconds UTC. `dialled` is the address as the client
dialled it. `invite` is null: its place is kept for invitations. The three limits of message 4 are the server's: its
largest frame, its largest reassembled message, and the calls that it serves at once.

`requestSecure` is no handshake message: its place is a field of the client's first frame after message 4, null until
a transport has something to say.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, Final

from peers.errors import ProtocolError, UsageError, WireFault
from peers.model import codec
from peers.model.keys import SIGNATURE_BYTES
from peers.model.trust import (
    ADDRESS_CHARS_MAX,
    INFO_BYTES_MAX,
    Certificate,
    LocalIdentity,
    certificate_from_wire,
    certificate_to_wire,
)
from peers.wire.noise import KEY_BYTES

VERSION: Final = 1
PROLOGUE: Final = b"peers/1\0noise-xx\0"
SERVER_CONTEXT: Final = b"peers/hs-server/1\0"
CLIENT_CONTEXT: Final = b"peers/hs-client/1\0"
CONN_ID_BYTES: Final = 16
RESET_BYTES: Final = 1 + KEY_BYTES
"""A version byte and an X25519 key."""

_VERSION_LAST: Final = 15
"""A first byte above this is no later version but noise: it gets no answer."""
_TIME_MAX: Final = (1 << 63) - 1
_CODE_CHARS_MAX: Final = 32
_DETAIL_CHARS_MAX: Final = 300
_LIMIT_MAX: Final = (1 << 32) - 1
_OK: Final = 1
_ERROR: Final = 0


@dataclass(frozen=True, slots=True)
class Hello:
    """The payload of message 2, or of message 3; nothing in it is verified yet."""

    info: bytes
    info_signature: bytes
    certificate: Certificate
    time_ms: int
    dialled: str | None
    """The address that the client dialled; None in the server's."""
    signature: bytes
    """The device's signature over its context and the handshake hash before this payload."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server takes: bytes of a frame, bytes of a reassembled message, calls at once."""

    frame_bytes: int
    message_bytes: int
    calls: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """Message 4 of a server that has verified and admitted the client."""

    conn_id: bytes
    limits: Limits


@dataclass(frozen=True, slots=True)
class Refused:
    """Message 4 of a server that ends the connection; `detail` is cleaned text for a person."""

    code: str
    detail: str


def encode_reset(noise_message: bytes) -> bytes:
    return bytes([VERSION]) + noise_message


def decode_reset(frame: bytes, *, bytes_max: int) -> bytes:
    """The Noise message inside message 1.

    Raises:
        ProtocolError: `version_mismatch`, with our version byte to answer, where the frame can be another version's
            reset; `bad_frame`, without an answer, for anything else.
    """
    if RESET_BYTES <= len(frame) <= bytes_max and _is_other_version(frame[0]):
        raise _version_mismatch(frame[0], answer=bytes([VERSION]))
    if len(frame) != RESET_BYTES or frame[0] != VERSION:
        raise ProtocolError(WireFault.BAD_FRAME, "the first frame is not a handshake")
    return frame[1:]


def refuse_version_answer(frame: bytes) -> None:
    """Raise `version_mismatch` where the server's first frame is the version byte of another version.

    Nothing authenticates it: whoever can inject it could as well cut the connection.
    """
    if len(frame) == 1 and _is_other_version(frame[0]):
        raise _version_mismatch(frame[0], answer=b"")


def encode_hello(identity: LocalIdentity, *, time_ms: int, dialled: str | None, signature: bytes) -> bytes:
    """The payload of message 2 (`dialled` None) or of message 3."""
    fields = [identity.info_raw, identity.info_signature, certificate_to_wire(identity.certificate), time_ms]
    return codec.dumps([*fields, signature] if dialled is None else [*fields, dialled, signature, None])


def decode_server_hello(payload: bytes) -> Hello:
    """The payload of message 2. Raises ProtocolError (bad_encoding, bad_identity)."""
    info, info_signature, certificate, time_ms, signature = _array(payload, 5)
    return _hello(info, info_signature, certificate, time_ms, None, signature)


def decode_client_hello(payload: bytes) -> Hello:
    """The payload of message 3. Raises ProtocolError (bad_encoding, bad_identity)."""
    info, info_signature, certificate, time_ms, dialled, signature, invite = _array(payload, 7)
    _require(invite is None, "no invitation is known to this version")
    _require(is_dialled(dialled), "an address is up to 255 printable characters")
    return _hello(info, info_signature, certificate, time_ms, dialled, signature)


def encode_accepted(conn_id: bytes, limits: Limits) -> bytes:
    return codec.dumps([_OK, conn_id, limits.frame_bytes, limits.message_bytes, limits.calls])


def encode_refused(code: str, detail: str) -> bytes:
    return codec.dumps([_ERROR, code[:_CODE_CHARS_MAX], _clean(detail)])


def decode_response(plain: bytes) -> Accepted | Refused:
    """Message 4 after decryption. Raises ProtocolError (bad_encoding)."""
    value = _loads(plain)
    match value:
        case [int(ok), bytes(conn_id), int(), int(), int()] if type(ok) is int and ok == _OK:
            limits = value[2:]
            _require(len(conn_id) == CONN_ID_BYTES, "a connection id has 16 bytes")
            _require(all(type(n) is int and 0 < n <= _LIMIT_MAX for n in limits), "a limit is a positive uint32")
            return Accepted(conn_id, Limits(*limits))
        case [int(ok), str(code), str(detail)] if type(ok) is int and ok == _ERROR:
            _require(len(code) <= _CODE_CHARS_MAX and len(detail) <= _DETAIL_CHARS_MAX, "a refusal is short")
            return Refused(_clean(code), _clean(detail))
        case _:
            raise ProtocolError(WireFault.BAD_ENCODING, "a handshake response of unknown shape")


def is_dialled(value: Any) -> bool:
    """Whether a value can stand as `dialled`."""
    return type(value) is str and 1 <= len(value) <= ADDRESS_CHARS_MAX and value.isprintable()


def require_dialled(address: str) -> str:
    """Our own address argument. Raises UsageError."""
    if not is_dialled(address):
        raise UsageError(f"cannot dial {address!r}: an address is up to {ADDRESS_CHARS_MAX} printable characters")
    return address


def connection_id(h: bytes) -> bytes:
    """Both sides compute it from the final handshake hash; nobody chooses it."""
    return hashlib.blake2b(key=h, person=b"peers.connid", digest_size=CONN_ID_BYTES).digest()


def _hello(
    info: Any, info_signature: Any, certificate: Any, time_ms: Any, dialled: str | None, signature: Any
) -> Hello:
    _require(type(info) is bytes and len(info) <= INFO_BYTES_MAX, "a DeviceInfo is up to 4 KiB of bytes")
    for sig in (info_signature, signature):
        _require(type(sig) is bytes and len(sig) == SIGNATURE_BYTES, "a signature has 64 bytes")
    _require(type(time_ms) is int and 0 <= time_ms <= _TIME_MAX, "a time is milliseconds since 1970")
    return Hello(info, info_signature, certificate_from_wire(certificate), time_ms, dialled, signature)


def _array(payload: bytes, size: int) -> list[Any]:
    value = _loads(payload)
    _require(type(value) is list and len(value) == size, f"a handshake payload is an array of {size}")
    fields: list[Any] = value
    return fields


def _loads(data: bytes) -> Any:
    try:
        return codec.loads(data)
    except codec.BadEncoding as error:
        raise ProtocolError(WireFault.BAD_ENCODING, f"a handshake payload is {error}") from error


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise ProtocolError(WireFault.BAD_ENCODING, what)


def _is_other_version(byte: int) -> bool:
    return byte != VERSION and 0 < byte <= _VERSION_LAST


def _version_mismatch(theirs: int, *, answer: bytes) -> ProtocolError:
    text = f"version_mismatch (ours {VERSION}, theirs {theirs}): the older side needs an update"
    return ProtocolError(WireFault.VERSION_MISMATCH, text, answer=answer)


def _clean(text: str) -> str:
    """One line that a terminal shows as it is."""
    return "".join(char if char.isprintable() else "�" for char in text[:_DETAIL_CHARS_MAX])
