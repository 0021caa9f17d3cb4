"""Signing keys: Ed25519 through libsodium. Every signature has a prefix that names what is signed."""

import nacl.bindings
import nacl.exceptions

SEED_BYTES = 32
SIGNATURE_BYTES = 64


class SigningKey:
    """A private Ed25519 key. `public` is its 32-byte public half."""

    __slots__ = ("_secret", "public", "seed")

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise ValueError("an Ed25519 seed has 32 bytes")
        self.seed = seed
        self.public, self._secret = nacl.bindings.crypto_sign_seed_keypair(seed)

    def sign(self, prefix: bytes, message: bytes) -> bytes:
        """The 64-byte signature over ``prefix ‖ message``."""
        return nacl.bindings.crypto_sign(prefix + message, self._secret)[:SIGNATURE_BYTES]

    def __repr__(self) -> str:
        return f"SigningKey({self.public[:4].hex()}…)"


def verify(public: bytes, prefix: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` is `public`'s over ``prefix ‖ message``. Small-order keys and S+L malleation never verify."""
    if len(signature) != SIGNATURE_BYTES or len(public) != SEED_BYTES:
        return False
    try:
        nacl.bindings.crypto_sign_open(signature + prefix + message, public)
    except (nacl.exceptions.CryptoError, ValueError, TypeError):
        return False
    return True
