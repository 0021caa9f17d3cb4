import pytest

from peers.model.keys import SigningKey, verify

KEY = SigningKey(bytes(range(32)))


def test_rfc_8032_test_1() -> None:
    key = SigningKey(bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"))
    assert key.public.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    signature = (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    )
    assert key.sign(b"", b"").hex() == signature


def test_a_signature_holds_for_its_key_prefix_and_message_only() -> None:
    signature = KEY.sign(b"peers/x\0", b"message")
    assert verify(KEY.public, b"peers/x\0", b"message", signature)
    assert not verify(KEY.public, b"peers/y\0", b"message", signature)
    assert not verify(KEY.public, b"peers/x\0", b"massage", signature)
    assert not verify(SigningKey(bytes(32)).public, b"peers/x\0", b"message", signature)


@pytest.mark.parametrize("place", range(0, 64, 7))
def test_a_flipped_bit_never_verifies(place: int) -> None:
    signature = bytearray(KEY.sign(b"p", b"m"))
    signature[place] ^= 1
    assert not verify(KEY.public, b"p", b"m", bytes(signature))


def test_other_lengths_and_weak_keys_never_verify() -> None:
    signature = KEY.sign(b"p", b"m")
    assert not verify(KEY.public, b"p", b"m", signature[:-1])
    assert not verify(KEY.public[:-1], b"p", b"m", signature)
    assert not verify(bytes(32), b"p", b"m", bytes(64))  # a small-order key
    assert not verify(b"\x01" + bytes(31), b"p", b"m", b"\x01" + bytes(63))


def test_s_plus_l_malleation_never_verifies() -> None:
    signature = KEY.sign(b"p", b"m")
    order = 2**252 + 27742317777372353535851937790883648493
    scalar = int.from_bytes(signature[32:], "little") + order
    assert not verify(KEY.public, b"p", b"m", signature[:32] + scalar.to_bytes(32, "little"))


def test_a_seed_has_32_bytes_and_is_not_shown() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        SigningKey(b"short")
    assert KEY.seed.hex()[:8] not in repr(KEY)
    assert KEY.public.hex()[:8] in repr(KEY)
