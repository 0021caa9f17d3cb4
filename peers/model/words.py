"""The recovery phrase: 32 bytes of entropy as 24 words of the BIP-39 English list, and back.

The list is data (`bip39_english.txt`, exactly the 2,048 published words). Words and checksum follow BIP-39; its key
stretching is not used, because 256 bits of entropy need none: they are the seed of the root key themselves.
"""

import functools
import hashlib
from importlib import resources

from peers.errors import UsageError

ENTROPY_BYTES = 32
WORDS = 24
_WORD_BITS = 11


@functools.cache
def word_list() -> tuple[str, ...]:
    """The 2,048 words, in order."""
    return tuple(resources.files("peers.model").joinpath("bip39_english.txt").read_text("ascii").split())


@functools.cache
def _numbers() -> dict[str, int]:
    return {word: number for number, word in enumerate(word_list())}


def words_of(entropy: bytes) -> tuple[str, ...]:
    """The 24 words of 32 bytes; the last word holds 8 bits of checksum."""
    if len(entropy) != ENTROPY_BYTES:
        raise ValueError("a recovery phrase stands for 32 bytes")
    bits = int.from_bytes(entropy + _checksum(entropy), "big")
    words = word_list()
    return tuple(words[bits >> _WORD_BITS * (WORDS - 1 - place) & 2047] for place in range(WORDS))


def entropy_of(phrase: str) -> bytes:
    """The 32 bytes of a phrase, as a person types it: any white space, any case.

    Raises:
        UsageError: bad_words: the count, the first unknown word by its place, or that the checksum differs.
    """
    typed = phrase.lower().split()
    if len(typed) != WORDS:
        raise UsageError(f"a recovery phrase has {WORDS} words, not {len(typed)}", code="bad_words")
    bits = 0
    for place, word in enumerate(typed, 1):
        number = _numbers().get(word)
        if number is None:
            raise UsageError(f"word {place} of the recovery phrase is not in the list: {word[:20]!r}", code="bad_words")
        bits = bits << _WORD_BITS | number
    data = bits.to_bytes(ENTROPY_BYTES + 1, "big")
    entropy = data[:ENTROPY_BYTES]
    if data[ENTROPY_BYTES:] != _checksum(entropy):
        raise UsageError(
            "the words are known, but one is wrong or out of its place (the checksum differs)", code="bad_words"
        )
    return entropy


def _checksum(entropy: bytes) -> bytes:
    return hashlib.sha256(entropy).digest()[:1]
