"""A second implementation of the bytes, written from docs/PROTOCOL.md alone, agrees with the first.

Everything below is built with its own CBOR writer, hashlib, PyNaCl and an independent Noise; the code of Peers is only
asked what it makes of the result. A byte that the page does not tell rightly shows here.
"""

import hashlib
import struct
import zlib
from typing import Any

import cbor2
import nacl.bindings
import nacl.signing
import zstandard
from noise.connection import Keypair, NoiseConnection

from peers.config import NetConfig
from peers.model.entries import decode_header, decode_leaf
from peers.model.ids import LogId
from peers.model.keys import SigningKey
from peers.model.membership import Role, author_of, declarations, role
from peers.model.merge import merge, read_entry, state_hash
from peers.model.operation_graph import Operations
from peers.model.operations import decode_operation
from peers.model.personal import found_user
from peers.model.schema import schema_of
from peers.model.trust import DeviceInfo, LocalIdentity, encode_device_info
from peers.model.version_vector import Head, VersionVector
from peers.model.words import word_list, words_of
from peers.wire.handshake import ServerHandshake

DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUV"
HLC = 9 << 16
INCARNATION = b"incarnat"


def head(kind: int, number: int) -> bytes:
    if number < 24:
        return bytes([kind << 5 | number])
    for info, form in ((24, ">B"), (25, ">H"), (26, ">I"), (27, ">Q")):
        if number < 1 << 8 * struct.calcsize(form):
            return bytes([kind << 5 | info]) + struct.pack(form, number)
    raise ValueError(number)


def cbor(value: Any) -> bytes:
    """Only what the page names: definite lengths, shortest integers, 64-bit floats."""
    match value:
        case None:
            return b"\xf6"
        case bool():
            return b"\xf5" if value else b"\xf4"
        case int():
            return head(0, value) if value >= 0 else head(1, -1 - value)
        case float():
            return b"\xfb" + struct.pack(">d", value)
        case bytes():
            return head(2, len(value)) + value
        case str():
            return head(3, len(value.encode())) + value.encode()
        case _:
            return head(4, len(value)) + b"".join(map(cbor, value))


def blake(data: bytes, size: int = 32) -> bytes:
    return hashlib.blake2b(data, digest_size=size).digest()


class Key:
    def __init__(self, seed: int) -> None:
        self.seed = bytes([seed]) * 32
        self._key = nacl.signing.SigningKey(self.seed)
        self.public = bytes(self._key.verify_key)

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message).signature


ROOT, DEVICE = Key(1), Key(2)
GENESIS = cbor([1, b"", "user", ROOT.public, [], 0, []])
USER = blake(GENESIS)
GRANT = cbor(
    [1, USER, "grant", ROOT.public, [USER], 77 << 16, [], DEVICE.public, 3, DEVICE.sign(b"peers/device/1\0" + USER)]
)
CERTIFICATE = [[raw, ROOT.sign(b"peers/control/1\0" + raw)] for raw in (GENESIS, GRANT)]
GROUP = cbor([1, b"", "group", DEVICE.public, [], 5, CERTIFICATE, USER, "team", "admins", b"salt" * 4])
TABLE_ID = blake(cbor(["table", 0, "t", True, False, [["id", "TEXT"]]]), 8)
COLUMN_ID = blake(cbor(["column", TABLE_ID, 0, "n", "INTEGER", False, None]), 8)
COLUMNS = [["id", "TEXT", True, None, 1], ["n", "INTEGER", False, None, 0]]
TABLE = cbor([1, blake(GROUP), "table", DEVICE.public, [blake(GROUP)], 6, [], "t", 0, True, False, COLUMNS])
LEAF = zstandard.ZstdCompressor(level=3).compress(
    cbor([b"x" * 16, TABLE_ID, 0, [COLUMN_ID], 0, [[7, 8]], None, None])
)  # fmt: skip
HEADER = cbor(
    [1, blake(GROUP), DEVICE.public, INCARNATION, 1, bytes(32), HLC, [blake(TABLE)], [], [[blake(LEAF), 2]], 0]
)


def operations() -> Operations:
    return Operations(decode_operation(raw, DEVICE.sign(b"peers/control/1\0" + raw)) for raw in (GROUP, TABLE))


def test_a_user_and_his_first_device() -> None:
    genesis, grant = found_user(SigningKey(ROOT.seed), SigningKey(DEVICE.seed), hlc=77 << 16)
    assert [list(genesis.signed), list(grant.signed)] == CERTIFICATE


def test_rights_and_schema() -> None:
    held = operations()
    assert held.genesis.id == blake(GROUP)
    assert author_of(held, DEVICE.public) == USER
    assert role(held, USER) is Role.OWNER
    (declared,) = schema_of(declarations(held)).tables
    assert (declared.id, declared.columns[1].id) == (TABLE_ID, COLUMN_ID)


def digits(number: int, count: int) -> str:
    return "".join(DIGITS[number >> 5 * place & 31] for place in reversed(range(count)))


def row_ids() -> list[str]:
    maker = int.from_bytes(blake(USER + DEVICE.public + INCARNATION + struct.pack(">Q", HLC), 8), "big")
    return [digits(HLC, 13) + digits(ordinal, 6) + digits(maker, 13) for ordinal in (0, 1)]


def page_state_hash() -> bytes:
    stamp = [0, HLC, DEVICE.public, INCARNATION, 1, blake(HEADER)]
    sums = [0] * 256
    for key, number in zip(row_ids(), (7, 8), strict=True):
        row = cbor([TABLE_ID, [[stamp, [b"", COLUMN_ID]]], []]) + cbor([key, 0, number])
        bucket = zlib.crc32(cbor([key])) % 256
        sums[bucket] = (sums[bucket] + int.from_bytes(blake(row), "big")) % 2**256
    return blake(cbor([1, [[TABLE_ID, b"".join(number.to_bytes(32, "big") for number in sums)]]]))


def test_an_entry_its_row_ids_and_the_state_hash() -> None:
    schema = schema_of(declarations(operations()))
    header = decode_header(HEADER)
    assert header.hash == blake(HEADER)
    state = merge([read_entry(header, [decode_leaf(LEAF, 2)], schema, USER)], schema)
    assert {ref.key[0]: row.cells[COLUMN_ID].value for ref, row in state.rows.items()} == dict(
        zip(row_ids(), (7, 8), strict=True)
    )
    assert state_hash(state) == page_state_hash()


def test_the_digest_of_a_vector() -> None:
    vector = VersionVector({LogId(DEVICE.public, INCARNATION): (Head(1, blake(HEADER)),)})
    wire = [[DEVICE.public, INCARNATION, [[1, blake(HEADER)]]]]
    assert vector.to_wire() == wire
    assert vector.digest([blake(TABLE)]) == blake(cbor([wire, [blake(TABLE)]]))


def test_the_words() -> None:
    entropy = bytes(range(32))
    number = int.from_bytes(entropy + hashlib.sha256(entropy).digest()[:1], "big")
    assert list(words_of(entropy)) == [word_list()[number >> 11 * place & 2047] for place in reversed(range(24))]


def server() -> ServerHandshake:
    root, device, box = SigningKey(b"\3" * 32), SigningKey(b"\4" * 32), b"\5" * 32
    genesis, grant = found_user(root, device, hlc=1)
    box_public = nacl.bindings.crypto_scalarmult_base(box)
    info = DeviceInfo(user=genesis.id, device=device.public, box_public=box_public, rev=0, name="server")
    raw, signature = encode_device_info(device, info)
    identity = LocalIdentity(genesis.id, device, box, raw, signature, (genesis.signed, grant.signed), "server")
    return ServerHandshake(
        identity,
        now_ms=lambda: 1000,
        ephemeral_secret=b"\6" * 32,
        own_addresses=lambda: ["ws://server:3333"],
        config=NetConfig(),
    )


def test_a_client_made_from_the_page_is_verified() -> None:
    listener, secret = server(), b"\7" * 32
    noise: Any = NoiseConnection.from_name(b"Noise_XX_25519_ChaChaPoly_BLAKE2b")
    noise.set_as_initiator()
    noise.set_prologue(b"peers/1\0noise-xx\0")
    noise.set_keypair_from_private_bytes(Keypair.STATIC, secret)
    noise.start_handshake()
    message_2 = listener.receive(b"\x01" + bytes(noise.write_message()))
    info, info_signature, _, time, signature = cbor2.loads(bytes(noise.read_message(message_2)))
    assert time == 1000
    theirs = nacl.signing.VerifyKey(cbor2.loads(info)[2])
    theirs.verify(b"peers/device-info/1\0" + info, info_signature)
    assert len(signature) == 64

    # What the client signs is h before its payload: after `s`, which the library encrypts only while it writes.
    symmetric = noise.noise_protocol.symmetric_state
    box_public = nacl.bindings.crypto_scalarmult_base(secret)
    nonce = bytes(4) + symmetric.cipher_state.n.to_bytes(8, "little")
    sealed = nacl.bindings.crypto_aead_chacha20poly1305_ietf_encrypt(
        box_public, symmetric.h, nonce, symmetric.cipher_state.k
    )
    transcript = hashlib.blake2b(symmetric.h + sealed).digest()
    mine = cbor([1, USER, DEVICE.public, box_public, 0, "client", [], []])
    payload = [mine, DEVICE.sign(b"peers/device-info/1\0" + mine), CERTIFICATE, 1000, "ws://server:3333"]
    payload += [DEVICE.sign(b"peers/hs-client/1\0" + transcript), None]
    message_3 = bytes(noise.write_message(cbor(payload)))
    assert message_3[:48] == sealed

    answer = cbor2.loads(bytes(noise.decrypt(listener.receive(message_3))))
    final = noise.noise_protocol.handshake_hash
    conn_id = hashlib.blake2b(key=final, person=b"peers.connid", digest_size=16).digest()
    assert answer == [1, conn_id, 262_144, 16_777_216, 64]
    assert listener.result.peer.user == USER
    assert listener.result.peer.device == DEVICE.public
    assert listener.result.address_verified
