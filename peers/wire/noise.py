"""Noise_XX_25519_ChaChaPoly_BLAKE2b, exactly as the Noise specification (revision 34) writes it.

What it is for: three handshake messages that end in two cipher states, one per direction. Keys and payloads come in
as arguments; nothing here knows what a payload means or where a message travels.

It may assume that the 32 bytes of an ephemeral secret are fresh and random, and that a state is fed by one task.
It will not retry: after any failure a state refuses all further messages.

Every failure of the cryptography leaves through `guarded` as one `ProtocolError`. That is needed: PyNaCl raises
`ValueError` for a ciphertext shorter than its tag, `CryptoError` for a wrong tag and a third class for a low-order
point, and a stranger chooses which.

Source: Perrin, "The Noise Protocol Framework", revision 34 (2018), sections 5 and 7.5.
"""

import hashlib
import hmac
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

import nacl.bindings

from peers.errors import ProtocolError, WireFault

PROTOCOL_NAME: Final = b"Noise_XX_25519_ChaChaPoly_BLAKE2b"
KEY_BYTES: Final = 32
TAG_BYTES: Final = 16
HASH_BYTES: Final = 64
MESSAGE_BYTES_MAX: Final = 65_535
"""The specification's bound of every Noise message."""

_PATTERN: Final = (("e",), ("e", "ee", "s", "es"), ("s", "se"))
_COUNTER_MAX: Final = (1 << 64) - 1  # reserved by the specification for REKEY
_DEAD: Final = -1

P = ParamSpec("P")
T = TypeVar("T")


def guarded(fault: WireFault, what: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `function`; whatever it raises becomes ``ProtocolError(fault, what)``."""
    try:
        return function(*args, **kwargs)
    except Exception as error:
        raise ProtocolError(fault, what) from error


def public_key(secret: bytes) -> bytes:
    """The X25519 public key of 32 secret bytes."""
    _require_key(secret)
    return guarded(WireFault.BAD_KEY, "the X25519 key cannot be used", nacl.bindings.crypto_scalarmult_base, secret)


def _dh(secret: bytes, public: bytes) -> bytes:
    """X25519. libsodium refuses every point of low order, the all-zero one included."""
    _require_key(secret)
    _require_key(public)
    what = "the other side sent an X25519 key of low order"
    return guarded(WireFault.BAD_KEY, what, nacl.bindings.crypto_scalarmult, secret, public)


def _require_key(key: bytes) -> None:
    """PyNaCl hands X25519 keys to C without looking at their length: a short one would be read beyond its end."""
    if type(key) is not bytes or len(key) != KEY_BYTES:
        raise ProtocolError(WireFault.BAD_KEY, "an X25519 key has 32 bytes")


def _hkdf2(chaining_key: bytes, material: bytes) -> tuple[bytes, bytes]:
    """The specification's HKDF with two outputs, over HMAC-BLAKE2b."""
    root = hmac.digest(chaining_key, material, hashlib.blake2b)
    first = hmac.digest(root, b"\x01", hashlib.blake2b)
    return first, hmac.digest(root, first + b"\x02", hashlib.blake2b)


class CipherState:
    """One direction: a key and an implicit 64-bit counter. A gap or a repeat cannot be decrypted."""

    __slots__ = ("_counter", "_key")

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ProtocolError(WireFault.BAD_KEY, "a ChaCha20-Poly1305 key has 32 bytes")
        self._key = key
        self._counter = 0

    def encrypt(self, ad: bytes, data: bytes) -> bytes:
        """The ciphertext of `data`, `TAG_BYTES` longer. `ad` is authenticated, not sent."""
        nonce = self._nonce()
        what = "a frame cannot be encrypted"
        seal = nacl.bindings.crypto_aead_chacha20poly1305_ietf_encrypt
        sealed = guarded(WireFault.BAD_FRAME, what, seal, data, ad, nonce, self._key)
        self._counter += 1
        return sealed

    def decrypt(self, ad: bytes, data: bytes) -> bytes:
        """Inverse of `encrypt`.

        Raises:
            ProtocolError: `bad_frame` for anything but the next ciphertext of the other side.
        """
        if len(data) < TAG_BYTES:
            raise ProtocolError(WireFault.BAD_FRAME, f"a frame of {len(data)} bytes is shorter than its tag")
        nonce = self._nonce()
        what = "a frame cannot be decrypted: changed, repeated, out of order or of another session"
        unseal = nacl.bindings.crypto_aead_chacha20poly1305_ietf_decrypt
        plain = guarded(WireFault.BAD_FRAME, what, unseal, data, ad, nonce, self._key)
        self._counter += 1
        return plain

    def rekey(self) -> None:
        """REKEY: the key is replaced by a one-way function of itself; the counter goes on."""
        nonce = bytes(4) + _COUNTER_MAX.to_bytes(8, "little")
        seal = nacl.bindings.crypto_aead_chacha20poly1305_ietf_encrypt
        self._key = guarded(WireFault.BAD_KEY, "cannot rekey", seal, bytes(KEY_BYTES), b"", nonce, self._key)[
            :KEY_BYTES
        ]

    def _nonce(self) -> bytes:
        if self._counter >= _COUNTER_MAX:
            raise ProtocolError(WireFault.PROTOCOL, "the frame counter of this session is used up")
        return bytes(4) + self._counter.to_bytes(8, "little")


class SymmetricState:
    """The running hash and chaining key of a handshake, and the cipher of its current key."""

    __slots__ = ("_chaining_key", "_cipher", "h")

    def __init__(self, prologue: bytes) -> None:
        self.h = PROTOCOL_NAME.ljust(HASH_BYTES, b"\0")
        self._chaining_key = self.h
        self._cipher: CipherState | None = None
        self.mix_hash(prologue)

    def mix_hash(self, data: bytes) -> None:
        self.h = hashlib.blake2b(self.h + data).digest()

    def mix_key(self, material: bytes) -> None:
        self._chaining_key, key = _hkdf2(self._chaining_key, material)
        self._cipher = CipherState(key[:KEY_BYTES])

    def encrypt_and_hash(self, plain: bytes) -> bytes:
        sealed = plain if self._cipher is None else self._cipher.encrypt(self.h, plain)
        self.mix_hash(sealed)
        return sealed

    def decrypt_and_hash(self, sealed: bytes) -> bytes:
        plain = sealed if self._cipher is None else self._cipher.decrypt(self.h, sealed)
        self.mix_hash(sealed)
        return plain

    @property
    def overhead(self) -> int:
        """Bytes that encryption adds at this point: none before the first shared secret."""
        return 0 if self._cipher is None else TAG_BYTES

    def split(self) -> tuple[CipherState, CipherState]:
        """The ciphers of the initiator's and of the responder's direction."""
        first, second = _hkdf2(self._chaining_key, b"")
        return CipherState(first[:KEY_BYTES]), CipherState(second[:KEY_BYTES])


class HandshakeState:
    """One side of the XX pattern: three messages by turns, then `split`.

    `h` is the handshake hash now. `payload_hash` is what it was just before the payload of the latest message: the
    value that both sides can sign or verify inside or about that payload. `remote_static` is known after the other
    side's `s`.
    """

    def __init__(self, *, initiator: bool, prologue: bytes, static_secret: bytes, ephemeral_secret: bytes) -> None:
        self._initiator = initiator
        self._static = static_secret
        self._static_public = public_key(static_secret)
        self._ephemeral = ephemeral_secret
        self._ephemeral_public = public_key(ephemeral_secret)
        self._remote_ephemeral = b""
        self.remote_static = b""
        self._symmetric = SymmetricState(prologue)
        self._turn = 0
        self.payload_hash = self._symmetric.h

    @property
    def h(self) -> bytes:
        return self._symmetric.h

    def write_message(self, payload: bytes | Callable[[bytes], bytes] = b"") -> bytes:
        """The next message. A callable `payload` is given the handshake hash that precedes it.

        Raises:
            ProtocolError: `bad_key` where the other side's key has low order; `protocol` where it is not our turn.
        """
        turn = self._begin(writing=True)
        parts: list[bytes] = []
        for token in _PATTERN[turn]:
            match token:
                case "e":
                    self._symmetric.mix_hash(self._ephemeral_public)
                    parts.append(self._ephemeral_public)
                case "s":
                    parts.append(self._symmetric.encrypt_and_hash(self._static_public))
                case _:
                    self._mix_dh(token)
        self.payload_hash = self.h
        parts.append(self._symmetric.encrypt_and_hash(payload(self.h) if callable(payload) else payload))
        self._turn = turn + 1
        return b"".join(parts)

    def read_message(self, message: bytes) -> bytes:
        """The payload of the other side's next message.

        Raises:
            ProtocolError: `bad_frame` where it does not belong to this handshake; `bad_key` where its key has low
                order; `protocol` where it is not the other side's turn.
        """
        turn = self._begin(writing=False)
        if len(message) > MESSAGE_BYTES_MAX:
            raise ProtocolError(WireFault.TOO_LARGE, f"a handshake message of {len(message)} bytes")
        rest = message
        for token in _PATTERN[turn]:
            match token:
                case "e":
                    self._remote_ephemeral, rest = _cut(rest, KEY_BYTES)
                    self._symmetric.mix_hash(self._remote_ephemeral)
                case "s":
                    sealed, rest = _cut(rest, KEY_BYTES + self._symmetric.overhead)
                    self.remote_static = self._symmetric.decrypt_and_hash(sealed)
                case _:
                    self._mix_dh(token)
        self.payload_hash = self.h
        payload = self._symmetric.decrypt_and_hash(rest)
        self._turn = turn + 1
        return payload

    def split(self) -> tuple[CipherState, CipherState]:
        """(send, receive) of this side. Drops the ephemeral secret: from here on nothing can derive the keys again."""
        if self._turn != len(_PATTERN):
            raise ProtocolError(WireFault.PROTOCOL, "the handshake is not complete")
        self._turn = _DEAD
        self._ephemeral = b""
        first, second = self._symmetric.split()
        return (first, second) if self._initiator else (second, first)

    def _begin(self, *, writing: bool) -> int:
        """The number of the message that is due. The state is dead until the message has succeeded."""
        turn = self._turn
        self._turn = _DEAD
        if not 0 <= turn < len(_PATTERN) or (turn % 2 == 0) != (self._initiator == writing):
            raise ProtocolError(WireFault.PROTOCOL, "a handshake message out of turn")
        return turn

    def _mix_dh(self, token: str) -> None:
        """`ee`, `es`, `se`: the first letter is the initiator's key, the second the responder's."""
        mine, theirs = (token[0], token[1]) if self._initiator else (token[1], token[0])
        secret = self._ephemeral if mine == "e" else self._static
        public = self._remote_ephemeral if theirs == "e" else self.remote_static
        self._symmetric.mix_key(_dh(secret, public))


def _cut(data: bytes, size: int) -> tuple[bytes, bytes]:
    if len(data) < size:
        raise ProtocolError(WireFault.BAD_FRAME, "a handshake message is too short")
    return data[:size], data[size:]
