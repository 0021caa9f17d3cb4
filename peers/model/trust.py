"""Who a device says it is, and the proof: its signed DeviceInfo and its certificate.

::

    DeviceInfo  = CBOR [1, user_id, device_pub, box_pub, rev, name, addresses, caps]
    signature   = Ed25519(device, "peers/device-info/1\\0" ‖ DeviceInfo)
    certificate = [[op, sig], …]: the genesis of the user's personal group and the chain of grants up to the device

`user_id` is the hash of the genesis, which names the root key: other keys are another user. Nothing here decides what
a device may do in a group; the group's own log does.
"""

import unicodedata
from dataclasses import dataclass
from typing import Any

from peers.config import ADDRESSES_MAX, CERTIFICATE_BYTES_MAX, NAME_CHARS_MAX
from peers.errors import EntryHeld, OperationRefused, ProtocolError, WireFault
from peers.model import codec, membership
from peers.model.ids import KEY_BYTES, DeviceId, UserId
from peers.model.keys import SigningKey, verify
from peers.model.operation_graph import Operations
from peers.model.operations import Kind, SignedBytes, decode_operation

FORMAT = 1
INFO_PREFIX = b"peers/device-info/1\0"
INFO_BYTES_MAX = 4096
ADDRESS_CHARS_MAX = 255
CAPABILITIES_MAX = 16
REV_MAX = (1 << 63) - 1

Certificate = tuple[SignedBytes, ...]
"""((raw, signature), …), causes first: the personal operations that verify one device. At most 4 KiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceInfo:
    """What a device says about itself. `name` is shown text: its control characters are replaced."""

    user: UserId
    device: DeviceId
    box_public: bytes
    rev: int
    """Grows with every change: the highest counts."""
    name: str
    addresses: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LocalIdentity:
    """This device, as its handshakes need it."""

    user: UserId
    device_key: SigningKey
    box_secret: bytes
    info_raw: bytes
    info_signature: bytes
    certificate: Certificate
    name: str

    @property
    def device(self) -> DeviceId:
        return self.device_key.public


@dataclass(frozen=True, slots=True)
class PeerIdentity:
    """A verified other device."""

    user: UserId
    device: DeviceId
    box_public: bytes
    name: str
    addresses: tuple[str, ...]
    rev: int
    certificate: Certificate


def encode_device_info(key: SigningKey, info: DeviceInfo) -> tuple[bytes, bytes]:
    """(bytes, signature) of our own DeviceInfo. Raises ProtocolError where a peer would refuse it."""
    fields = [info.user, info.device, info.box_public, info.rev, info.name, info.addresses, info.capabilities]
    raw = codec.dumps([FORMAT, *fields])
    signature = key.sign(INFO_PREFIX, raw)
    decode_device_info(raw, signature)
    return raw, signature


def decode_device_info(raw: bytes, signature: bytes) -> DeviceInfo:
    """The DeviceInfo in `raw`, signed by the device that it names. Raises ProtocolError (bad_identity)."""
    if len(raw) > INFO_BYTES_MAX:
        raise _bad("a DeviceInfo has at most 4 KiB")
    try:
        value = codec.loads(raw)
    except codec.BadEncoding as error:
        raise _bad(f"a DeviceInfo is {error}") from error
    if not isinstance(value, list) or len(value) != 8 or type(value[0]) is not int or value[0] != FORMAT:
        raise _bad("a DeviceInfo is an array of 8 items, the first of them 1")
    _, user, device, box_public, rev, name, addresses, capabilities = value
    if not all(type(key) is bytes and len(key) == KEY_BYTES for key in (user, device, box_public)):
        raise _bad("a DeviceInfo names user, device and box key by 32 bytes each")
    if type(rev) is not int or not 0 <= rev <= REV_MAX:
        raise _bad("a DeviceInfo's rev is a number")
    if type(name) is not str or not 1 <= len(name) <= NAME_CHARS_MAX:
        raise _bad(f"a device's name has 1 to {NAME_CHARS_MAX} characters")
    if not _are_texts(addresses, ADDRESSES_MAX) or not _are_texts(capabilities, CAPABILITIES_MAX):
        raise _bad("a DeviceInfo's addresses and capabilities are short lists of plain text")
    if not verify(device, INFO_PREFIX, raw, signature):
        raise _bad("a DeviceInfo is signed by the device that it names")
    return DeviceInfo(
        user=user,
        device=device,
        box_public=box_public,
        rev=rev,
        name=shown_name(name),
        addresses=tuple(addresses),
        capabilities=tuple(capabilities),
    )


def certificate_of(personal: Operations, device: DeviceId) -> Certificate:
    """The certificate of a device: the first valid grant of it in its user's personal log, and that grant's past.

    Raises:
        ProtocolError: bad_identity, where the log has no valid grant of the device, or the chain is over 4 KiB.
    """
    grants = membership.valid_grants(personal, device)
    if not grants:
        raise _bad(f"device {device[:4].hex()}… has no grant in its user's log")
    past = personal.past((grants[0].id,))
    return certificate_from_wire([item.signed for item in personal if item.id in past])


def certificate_to_wire(certificate: Certificate) -> list[Any]:
    return [[raw, signature] for raw, signature in certificate]


def certificate_from_wire(value: Any) -> Certificate:
    """Raises ProtocolError (bad_identity) unless `value` is [[op, signature], …] of at most 4 KiB."""
    if not isinstance(value, list) or not all(_is_signed_bytes(item) for item in value):
        raise _bad("a certificate is an array of [op, signature]")
    if sum(len(raw) + len(signature) for raw, signature in value) > CERTIFICATE_BYTES_MAX:
        raise _bad("a certificate has at most 4 KiB")
    return tuple((raw, signature) for raw, signature in value)


def verify_certificate(certificate: Certificate, user: UserId, device: DeviceId) -> Operations:
    """The personal operations of a certificate that proves `device` to be the user's.

    Raises:
        ProtocolError: bad_identity: it does not hash to the user, a signature or a right is wrong, or the device is
            not among those granted.
    """
    certificate = certificate_from_wire(list(certificate))
    personal = Operations(group=user)
    try:
        for raw, signature in certificate:
            operation = decode_operation(raw, signature)
            if not personal.add(operation):
                raise _bad("a certificate names each operation once, causes first")
        granted = personal.genesis.kind is Kind.USER and membership.valid_grants(personal, device)
    except (OperationRefused, EntryHeld) as error:
        raise _bad(f"a certificate that does not verify: {error}") from error
    if not granted:
        raise _bad(f"the certificate does not name device {device[:4].hex()}… as user {user[:4].hex()}…'s")
    return personal


def shown_name(text: str) -> str:
    """A name that a stranger chose, fit for a terminal or a log: control and format characters become �."""
    return "".join("�" if unicodedata.category(char)[0] == "C" else char for char in text[:NAME_CHARS_MAX])


def _are_texts(value: Any, count_max: int) -> bool:
    return isinstance(value, list) and len(value) <= count_max and all(_is_plain_text(item) for item in value)


def _is_plain_text(value: Any) -> bool:
    return type(value) is str and 1 <= len(value) <= ADDRESS_CHARS_MAX and value.isascii() and value.isprintable()


def _is_signed_bytes(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(type(item) is bytes for item in value)


def _bad(message: str) -> ProtocolError:
    return ProtocolError(WireFault.BAD_IDENTITY, message)
