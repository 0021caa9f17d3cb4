import hashlib
from importlib import resources

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peers.errors import UsageError
from peers.model.words import entropy_of, word_list, words_of


def test_the_list_is_the_published_one() -> None:
    data = resources.files("peers.model").joinpath("bip39_english.txt").read_bytes()
    assert hashlib.sha256(data).hexdigest() == "2f5eed53a4727b4bf8880d8f3f199efc90e58503646d9ff8eff3a2ed3b24dbda"
    assert len(set(word_list())) == 2048


@pytest.mark.parametrize(
    ("entropy", "phrase"),
    [
        ("00" * 32, "abandon " * 23 + "art"),
        (
            "7f" * 32,
            "legal winner thank year wave sausage worth useful " * 2
            + "legal winner thank year wave sausage worth title",
        ),
        ("ff" * 32, "zoo " * 23 + "vote"),
        (
            "f585c11aec520db57dd353c69554b21a89b20fb0650966fa0a9d6f74fd989d8f",
            "void come effort suffer camp survey warrior heavy shoot primary clutch crush open amazing screen patrol "
            "group space point ten exist slush involve unfold",
        ),
    ],
)
def test_vectors_of_bip_39(entropy: str, phrase: str) -> None:
    assert " ".join(words_of(bytes.fromhex(entropy))) == phrase
    assert entropy_of(phrase).hex() == entropy


@given(st.binary(min_size=32, max_size=32))
@settings(max_examples=50)
def test_words_read_back_however_they_are_typed(entropy: bytes) -> None:
    typed = "\n ".join(words_of(entropy)).upper()
    assert entropy_of(f"  {typed}\t") == entropy


def test_mistakes_are_named() -> None:
    words = list(words_of(bytes(range(32))))
    for typed, reason in (
        (words[:23], "24 words, not 23"),
        ([*words[:4], "peers", *words[5:]], "word 5 .* 'peers'"),
        ([words[1], words[0], *words[2:]], "checksum"),
        ([], "not 0"),
    ):
        with pytest.raises(UsageError, match=reason) as caught:
            entropy_of(" ".join(typed))
        assert caught.value.code == "bad_words"
    with pytest.raises(ValueError, match="32 bytes"):
        words_of(b"short")
