"""The rows H of the table of faults: each handshake that must fail, and how."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest

from peers.errors import NotAllowed, ProtocolError, WireFault
from peers.model.trust import DeviceInfo, LocalIdentity, PeerIdentity, encode_device_info
from peers.testing.handshakes import (
    ALICE,
    BOB,
    CONFIG,
    MALLORY,
    LyingClient,
    client_machine,
    secret_of,
    server_machine,
    shake_hands,
)
from peers.testing.people import EPOCH_MS, person
from peers.wire.handshake import ClientHandshake, ServerHandshake
from peers.wire.noise import public_key

MINUTE = 60_000


def error_of(call: Callable[..., object], *args: object) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        call(*args)
    return caught.value


def flipped(frame: bytes, bit: int) -> bytes:
    changed = bytearray(frame)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_h1_any_bit_flipped() -> None:
    """H1: any single bit flipped in message 1–3: neither side becomes `verified`; in 4: the client fails."""
    first, second, third, fourth = shake_hands(client_machine(), server_machine())
    for bit in range(len(first) * 8):
        c, s = client_machine(), server_machine()
        c.start()
        try:
            answer = s.receive(flipped(first, bit))
        except ProtocolError:
            continue
        error_of(c.receive, answer)
        assert not c.done and not s.done
    for bit in range(0, len(second) * 8, 7):  # 7 is odd against 8: every byte, with changing bits
        c = client_machine()
        c.start()
        error_of(c.receive, flipped(second, bit))
        assert not c.done
    for bit in range(0, len(third) * 8, 7):
        s = server_machine()
        s.receive(first)
        error = error_of(s.receive, flipped(third, bit))
        assert not s.done and error.answer == b""
    for bit in range(len(fourth) * 8):
        c = client_machine()
        c.start()
        c.receive(second)
        error_of(c.receive, flipped(fourth, bit))
        assert not c.done


def test_h1_truncated_or_extended() -> None:
    first, second, third, fourth = shake_hands(client_machine(), server_machine())
    for change in (lambda frame: frame[:-1], lambda frame: frame + b"\0", lambda frame: frame[1:], lambda _: b""):
        c, s = client_machine(), server_machine()
        error_of(s.receive, change(first))
        c.start()
        error_of(c.receive, change(second))
        s = server_machine()
        s.receive(first)
        error_of(s.receive, change(third))
        c = client_machine()
        c.start()
        c.receive(second)
        error_of(c.receive, change(fourth))
        assert not c.done and not s.done


def test_h2_message_3_replayed_later() -> None:
    """H2: message 3 of another session, or same one replayed later: decrypt failure, close."""
    first, _, third, _ = shake_hands(client_machine(), server_machine())
    for again in (server_machine(ephemeral="fresh"), server_machine(person("carol").identity(), ephemeral="fresh")):
        again.receive(first)
        error = error_of(again.receive, third)
        assert error.fault is WireFault.BAD_FRAME
        assert not again.done


def test_h2_three_sessions_with_their_messages_exchanged() -> None:
    """H2: every way to exchange messages 2, 3 and 4 among three sessions: only honest sessions verify."""
    orders = list(itertools.permutations(range(3)))
    for second, third, fourth in itertools.product(orders, orders, orders):
        cs = [client_machine(ephemeral=f"client {n}") for n in range(3)]
        ss = [server_machine(ephemeral=f"server {n}") for n in range(3)]
        frames: list[bytes | None] = [s.receive(c.start()) for c, s in zip(cs, ss, strict=True)]
        frames = [_try(cs[n].receive, frames[second[n]]) for n in range(3)]
        frames = [_try(ss[n].receive, frames[third[n]]) for n in range(3)]
        for n in range(3):
            _try(cs[n].receive, frames[fourth[n]])
        for n in range(3):
            assert ss[n].done == (second[n] == n and third[n] == n)
            assert cs[n].done == (ss[n].done and fourth[n] == n)


def _try(receive: Callable[[bytes], bytes | None], frame: bytes | None) -> bytes | None:
    """The answer, or None where the frame was refused or is missing."""
    if frame is None:
        return None
    try:
        return receive(frame)
    except ProtocolError:
        return None


def test_h2_every_order_of_the_four_messages() -> None:
    """H2: all 4! orders of a recorded session, to its own machines (fixed keys) and to machines of a new session."""
    recorded = shake_hands(client_machine(), server_machine())
    for order in itertools.permutations(range(4)):
        for fresh in (False, True):
            c = client_machine(ephemeral="fresh" if fresh else "client")
            s = server_machine(ephemeral="fresh" if fresh else "server")
            c.start()
            done = {"client": False, "server": False}
            for index in order:
                _try(c.receive, recorded[index])
                _try(s.receive, recorded[index])
                done["client"] |= c.done
                done["server"] |= s.done
            assert done["client"] == (not fresh and order[:2] == (1, 3))
            assert done["server"] == (not fresh and order[:2] == (0, 2))
            assert not c.done and not s.done


@pytest.mark.parametrize("point", [bytes(32), b"\x01" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f"])
def test_h3_low_order_ephemeral(point: bytes) -> None:
    """H3: low-order / all-zero ephemeral: `bad_key`, close."""
    assert error_of(server_machine().receive, b"\x01" + point).fault is WireFault.BAD_KEY
    c = client_machine()
    second = server_machine().receive(c.start())
    assert error_of(c.receive, point + second[32:]).fault is WireFault.BAD_KEY


def test_h4_device_info_signed_by_another_key() -> None:
    """H4: DeviceInfo signed by another key: `bad_identity`."""
    signature = MALLORY.device_key.sign(b"peers/device-info/1\0", BOB.info_raw)
    liar = replace(BOB, info_signature=signature)
    assert_bad_identity(liar)


def test_h4_box_key_is_not_the_noise_static() -> None:
    """H4: box key ≠ Noise static: `bad_identity`."""
    assert_bad_identity(replace(BOB, box_secret=secret_of("another box key")))


def test_h4_signed_by_a_key_that_is_not_the_device() -> None:
    """A leaked box key alone is not enough: the handshake hash is signed by the device key."""
    assert_bad_identity(replace(BOB, device_key=MALLORY.device_key))


def test_h6_a_users_id_with_an_attackers_keys() -> None:
    """H6: victim's `user_id` with attacker's keys: `bad_identity` (the chain does not lead to the device)."""
    info = DeviceInfo(
        user=BOB.user,
        device=MALLORY.device,
        box_public=public_key(MALLORY.box_secret),
        rev=9,
        name="bob",
    )
    raw, signature = encode_device_info(MALLORY.device_key, info)
    for certificate in (MALLORY.certificate, BOB.certificate, ()):
        assert_bad_identity(replace(MALLORY, info_raw=raw, info_signature=signature, certificate=certificate))


def assert_bad_identity(liar: LocalIdentity) -> None:
    """The liar is refused as a server, before the client reveals itself, and as a client, by an encrypted answer."""
    c = client_machine()
    assert error_of(c.receive, server_machine(liar).receive(c.start())).fault is WireFault.BAD_IDENTITY
    assert not c.done
    c, s = client_machine(liar), server_machine(ALICE)
    third = c.receive(s.receive(c.start()))
    error = error_of(s.receive, third)
    assert error.fault is WireFault.BAD_IDENTITY
    assert not s.done
    told = error_of(c.receive, error.answer)
    assert told.fault is WireFault.BAD_IDENTITY
    assert "the other side refused" in str(told)


FIFTY_YEARS_MS = 50 * 365 * 24 * 60 * MINUTE


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("skew_ms", [5 * MINUTE + 1000, 180 * MINUTE, FIFTY_YEARS_MS])
def test_h7_clock_off(skew_ms: int, sign: int) -> None:
    """H7: clock off by 5 min + 1 s / 3 h / 50 years: `clock_skew: yours …, theirs …`."""
    theirs = EPOCH_MS + sign * skew_ms
    c, s = client_machine(), server_machine(now_ms=theirs)
    error = error_of(c.receive, s.receive(c.start()))
    assert error.fault is WireFault.CLOCK_SKEW
    assert str(error).startswith("clock_skew: yours 2023-11-14 22:13:20 UTC, theirs ")
    patient = replace(CONFIG, clock_skew_max_ms=1 << 62)
    c, s = client_machine(config=patient), server_machine(now_ms=theirs)
    third = c.receive(s.receive(c.start()))
    error = error_of(s.receive, third)
    assert error.fault is WireFault.CLOCK_SKEW
    assert str(error).endswith("theirs 2023-11-14 22:13:20 UTC; set the clock that is wrong")
    told = error_of(c.receive, error.answer)
    assert told.fault is WireFault.CLOCK_SKEW
    assert "clock_skew: yours 2023-11-14 22:13:20 UTC, theirs " in str(told)
    assert not c.done and not s.done


@pytest.mark.parametrize("skew_ms", [-5 * MINUTE, 0, 5 * MINUTE])
def test_h7_clock_within_the_limit(skew_ms: int) -> None:
    c, s = client_machine(), server_machine(now_ms=EPOCH_MS + skew_ms)
    shake_hands(c, s)
    assert c.done and s.done


def test_h7_a_time_beyond_all_calendars() -> None:
    c, s = client_machine(), server_machine(now_ms=(1 << 63) - 1)
    assert "theirs 9223372036854775807 ms after 1970" in str(error_of(c.receive, s.receive(c.start())))


def test_h8_own_address() -> None:
    """H8: dialled our own address: `self_connection`, on either side."""
    c, s = client_machine(BOB), server_machine(BOB)
    assert error_of(c.receive, s.receive(c.start())).fault is WireFault.SELF_CONNECTION
    victim = server_machine(BOB)
    liar = LyingClient(BOB, victim)
    assert error_of(victim.receive, liar.message_3(liar.honest)).fault is WireFault.SELF_CONNECTION


def test_wrong_peer() -> None:
    for expected in ({"expected_device": MALLORY.device}, {"expected_user": MALLORY.user}):
        c, s = client_machine(**expected), server_machine()
        assert error_of(c.receive, s.receive(c.start())).fault is WireFault.WRONG_PEER
    c, s = client_machine(expected_device=BOB.device, expected_user=BOB.user), server_machine()
    shake_hands(c, s)
    assert c.done


def test_the_checks_have_their_order() -> None:
    """Identity before self, self before expectation, expectation before clock, clock before policy."""

    def refuse(peer: PeerIdentity) -> None:
        raise ProtocolError(WireFault.NOT_TRUSTED, "no")

    wrong = {"expected_device": MALLORY.device, "admit": refuse}
    late = EPOCH_MS + 10 * MINUTE

    def fault(c: ClientHandshake, s: ServerHandshake) -> WireFault:
        return error_of(c.receive, s.receive(c.start())).fault

    bad = replace(ALICE, device_key=MALLORY.device_key, box_secret=secret_of("x"))
    assert fault(client_machine(**wrong), server_machine(bad, now_ms=late)) is WireFault.BAD_IDENTITY
    assert fault(client_machine(BOB, **wrong), server_machine(BOB, now_ms=late)) is WireFault.SELF_CONNECTION
    assert fault(client_machine(**wrong), server_machine(now_ms=late)) is WireFault.WRONG_PEER
    assert fault(client_machine(admit=refuse), server_machine(now_ms=late)) is WireFault.CLOCK_SKEW
    assert fault(client_machine(admit=refuse), server_machine()) is WireFault.NOT_TRUSTED


def test_the_client_reveals_itself_only_to_an_admitted_server() -> None:
    seen: list[str] = []

    def refuse(peer: PeerIdentity) -> None:
        seen.append(peer.name)
        raise NotAllowed("not one of ours")

    c, s = client_machine(admit=refuse), server_machine()
    error = error_of(c.receive, s.receive(c.start()))
    assert (error.fault, str(error), error.answer) == (WireFault.NOT_TRUSTED, "not one of ours", b"")
    assert seen == ["bob"]


def test_a_policy_refusal_of_the_server_arrives_encrypted() -> None:
    def refuse(peer: PeerIdentity) -> None:
        raise NotAllowed("strangers' slots are full\x1b[2J\nnext line")

    c, s = client_machine(), server_machine(admit=refuse)
    third = c.receive(s.receive(c.start()))
    error = error_of(s.receive, third)
    assert error.fault is WireFault.NOT_TRUSTED
    assert b"strangers" not in error.answer
    told = error_of(c.receive, error.answer)
    assert told.fault is WireFault.NOT_TRUSTED
    assert "strangers' slots are full" in str(told) and str(told).isprintable()


def test_h12_reset_or_complete_handshake_after_verified() -> None:
    """H12: `reset` or `completeHandshake` after verified: close `protocol`: by the machine and by the session."""
    for frame in (0, 2):
        c, s = client_machine(), server_machine()
        frames = shake_hands(c, s)
        session = s.result.session
        assert error_of(s.receive, frames[frame]).fault is WireFault.PROTOCOL
        assert error_of(session.open, frames[frame]).fault is WireFault.PROTOCOL
        assert not s.done
    c, s = client_machine(), server_machine()
    frames = shake_hands(c, s)
    assert error_of(c.result.session.open, frames[1]).fault is WireFault.PROTOCOL
    assert error_of(c.start).fault is WireFault.PROTOCOL
