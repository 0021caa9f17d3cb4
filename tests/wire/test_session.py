"""The session: order is part of the cryptography, failures are final, keys change at the right frame."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peers.config import NetConfig
from peers.errors import ProtocolError, WireFault
from peers.wire.noise import TAG_BYTES, CipherState
from peers.wire.session import Session

CONFIG = NetConfig()


def pair(config: NetConfig = CONFIG, handshake_frames: tuple[bytes, ...] = ()) -> tuple[Session, Session]:
    first, second = bytes([1] * 32), bytes([2] * 32)
    return (
        Session(CipherState(first), CipherState(second), config=config, handshake_frames=handshake_frames),
        Session(CipherState(second), CipherState(first), config=config, handshake_frames=handshake_frames),
    )


def fault_of(session: Session, frame: bytes) -> WireFault:
    with pytest.raises(ProtocolError) as caught:
        session.open(frame)
    return caught.value.fault


def test_both_directions_carry_frames_and_are_independent() -> None:
    alice, bob = pair()
    frames = [alice.seal(bytes([n]) * n) for n in range(50)]
    assert alice.open(bob.seal(b"answer")) == b"answer"
    assert [bob.open(frame) for frame in frames] == [bytes([n]) * n for n in range(50)]


def test_equal_plain_bytes_give_different_frames() -> None:
    alice, bob = pair()
    assert alice.seal(b"same") != alice.seal(b"same")
    assert bob.seal(b"same") not in {alice.seal(b"same")}


def test_w5_replayed() -> None:
    """W5: valid frame replayed: decrypt failure, close; nothing processed twice."""
    alice, bob = pair()
    frame = alice.seal(b"pay 10")
    assert bob.open(frame) == b"pay 10"
    assert fault_of(bob, frame) is WireFault.BAD_FRAME
    assert fault_of(bob, alice.seal(b"later")) is WireFault.PROTOCOL


@pytest.mark.parametrize("order", [(1, 0, 2), (1, 2), (0, 2), (2, 1, 0)])
def test_w5_reordered_or_dropped(order: tuple[int, ...]) -> None:
    """W5: reordered / one dropped: decrypt failure at the first wrong frame, and nothing after it."""
    alice, bob = pair()
    frames = [alice.seal(bytes([n])) for n in range(3)]
    faults: list[WireFault] = []
    for count, index in enumerate(order):
        if index == count and not faults:
            assert bob.open(frames[index]) == bytes([index])
        else:
            faults.append(fault_of(bob, frames[index]))
    assert faults[0] is WireFault.BAD_FRAME
    assert all(fault is WireFault.PROTOCOL for fault in faults[1:])


def test_own_frames_reflected_are_refused() -> None:
    """T9: a relay that plays our own frames back."""
    alice, _ = pair()
    assert fault_of(alice, alice.seal(b"mine")) is WireFault.BAD_FRAME


def test_every_flipped_bit_is_found() -> None:
    frame = pair()[0].seal(b"abc")
    for index in range(len(frame) * 8):
        changed = bytearray(frame)
        changed[index // 8] ^= 1 << index % 8
        assert fault_of(pair()[1], bytes(changed)) is WireFault.BAD_FRAME


@pytest.mark.parametrize("size", [0, 1, 5, TAG_BYTES - 1])
def test_w4_short_ciphertext(size: int) -> None:
    """W4: 5-byte ciphertext (shorter than tag): `bad_frame`, close — not `ValueError` upward."""
    assert fault_of(pair()[1], bytes(size)) is WireFault.BAD_FRAME


def test_frames_at_the_limit() -> None:
    alice, bob = pair()
    plain = bytes(CONFIG.frame_bytes_max - TAG_BYTES)
    frame = alice.seal(plain)
    assert len(frame) == CONFIG.frame_bytes_max
    assert bob.open(frame) == plain
    assert fault_of(bob, frame + b"\0") is WireFault.TOO_LARGE
    with pytest.raises(ProtocolError) as caught:
        alice.seal(plain + b"\0")
    assert caught.value.fault is WireFault.TOO_LARGE


def test_sealing_too_much_uses_no_counter() -> None:
    alice, bob = pair()
    with pytest.raises(ProtocolError):
        alice.seal(bytes(CONFIG.frame_bytes_max))
    assert bob.open(alice.seal(b"goes on")) == b"goes on"


def test_h12_handshake_frames_on_a_verified_session() -> None:
    """H12: `reset` or `completeHandshake` after verified: close `protocol`."""
    complete = b"\xab" * 700
    assert fault_of(pair(handshake_frames=(complete,))[1], complete) is WireFault.PROTOCOL
    assert fault_of(pair()[1], b"\x01" + b"\x77" * 32) is WireFault.PROTOCOL
    assert fault_of(pair()[1], b"\x02" + b"\x77" * 32) is WireFault.BAD_FRAME


def test_rekey_changes_one_direction_at_one_frame() -> None:
    alice, bob = pair()
    assert bob.open(alice.seal(b"rekey")) == b"rekey"
    alice.send_rekey()
    bob.receive_rekey()
    assert bob.open(alice.seal(b"new key")) == b"new key"
    assert alice.open(bob.seal(b"old key still")) == b"old key still"
    alice.send_rekey()
    assert fault_of(bob, alice.seal(b"unannounced")) is WireFault.BAD_FRAME


def test_rekey_is_due_by_bytes() -> None:
    alice, _ = pair(replace(CONFIG, rekey_bytes=100))
    assert not alice.rekey_due(5.0)
    alice.seal(bytes(99))
    assert not alice.rekey_due(5.0)
    alice.seal(bytes(1))
    assert alice.rekey_due(5.0)
    alice.send_rekey()
    assert not alice.rekey_due(5.0)


def test_rekey_is_due_by_time() -> None:
    alice, _ = pair(replace(CONFIG, rekey_seconds=60.0))
    assert not alice.rekey_due(1000.0)
    assert not alice.rekey_due(1059.9)
    assert alice.rekey_due(1060.0)
    alice.send_rekey()
    assert not alice.rekey_due(1061.0)
    assert not alice.rekey_due(1120.9)
    assert alice.rekey_due(1121.0)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=60), st.none()), max_size=6))
def test_arbitrary_bytes_raise_only_protocol_errors(frames: list[bytes | None]) -> None:
    """None stands for an honest frame: it opens if nothing strange came before it."""
    alice, bob = pair()
    broken = False
    for frame in frames:
        honest = alice.seal(b"honest")
        if frame is None and not broken:
            assert bob.open(honest) == b"honest"
        else:
            broken = True
            with pytest.raises(ProtocolError):
                bob.open(honest if frame is None else frame)
