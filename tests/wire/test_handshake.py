"""The two handshake machines against each other, against strangers' frames, and in every order of steps."""

import hashlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peers.errors import ProtocolError, UsageError, WireFault
from peers.model import codec
from peers.model.keys import verify
from peers.model.trust import PeerIdentity
from peers.testing.handshakes import ADDRESS, ALICE, BOB, CONFIG, client_machine, secret_of, server_machine, shake_hands
from peers.testing.people import EPOCH_MS
from peers.wire import handshake_messages as messages
from peers.wire.handshake import ClientHandshake, ServerHandshake
from peers.wire.noise import HandshakeState, public_key

GOLDEN = [
    "4c71b18ca4ac185006f993370ef05811",
    "3dacae42568a7e807a9ede8b0e82704f",
    "ea0c4b95d24139828081abe59a51e3a9",
    "31e83b6fd19a127e881ca15a7da24192",
]
GOLDEN_CONN_ID = "82ad3ecdbfc90f4faa2ab89d84eb4d9e"


def error_of(call: Callable[..., object], *args: object) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        call(*args)
    return caught.value


def test_two_machines_verify_each_other() -> None:
    c, s = client_machine(), server_machine()
    assert not c.done and not s.done
    frames = shake_hands(c, s)
    assert c.done and s.done
    at_client, at_server = c.result, s.result
    assert (at_client.peer.user, at_client.peer.device, at_client.peer.name) == (BOB.user, BOB.device, "bob")
    assert at_server.peer == PeerIdentity(
        ALICE.user, ALICE.device, public_key(ALICE.box_secret), "alice", (ADDRESS,), 0, ALICE.certificate
    )
    assert at_client.conn_id == at_server.conn_id and len(at_client.conn_id) == 16
    assert at_client.address_verified and at_server.address_verified
    assert at_client.limits == at_server.limits == messages.Limits(256 * 1024, 16 * 1024 * 1024, 64)
    assert at_server.session.open(at_client.session.seal(b"question")) == b"question"
    assert at_client.session.open(at_server.session.seal(b"answer")) == b"answer"
    assert len(frames[0]) == 33 and all(len(frame) < 2048 for frame in frames)


def test_golden_bytes() -> None:
    """Fixed keys give fixed frames: a change here is a change of the protocol."""
    c, s = client_machine(), server_machine()
    frames = shake_hands(c, s)
    digests = [hashlib.blake2b(frame, digest_size=16).hexdigest() for frame in frames]
    assert digests == GOLDEN
    assert frames[0].hex() == "01" + public_key(secret_of("client")).hex()
    assert s.result.conn_id.hex() == GOLDEN_CONN_ID


def test_layout_of_the_payloads() -> None:
    """Messages 2 and 3, taken apart by hand: the arrays, and the signatures over contexts and handshake hashes."""
    s = server_machine()
    noise = HandshakeState(
        initiator=True,
        prologue=b"peers/1\0noise-xx\0",
        static_secret=ALICE.box_secret,
        ephemeral_secret=secret_of("by hand"),
    )
    payload = noise.read_message(s.receive(b"\x01" + noise.write_message()))
    certificate = [list(link) for link in BOB.certificate]
    *fields, signature = codec.loads(payload)
    assert fields == [BOB.info_raw, BOB.info_signature, certificate, EPOCH_MS]
    assert verify(BOB.device, b"peers/hs-server/1\0", noise.payload_hash, signature)

    def complete(h3: bytes) -> bytes:
        own = [ALICE.info_raw, ALICE.info_signature, ALICE.certificate, EPOCH_MS, ADDRESS]
        return codec.dumps([*own, ALICE.device_key.sign(b"peers/hs-client/1\0", h3), None])

    answer = s.receive(noise.write_message(complete))
    conn_id = hashlib.blake2b(key=noise.h, person=b"peers.connid", digest_size=16).digest()
    assert codec.loads(noise.split()[1].decrypt(b"", answer)) == [1, conn_id, 262_144, 16_777_216, 64]
    assert s.done and s.result.conn_id == conn_id


def test_another_connection_of_the_same_devices_has_another_id_and_other_frames() -> None:
    first, second = (client_machine(), server_machine()), (client_machine(ephemeral="client 2"), server_machine())
    assert not set(shake_hands(*first)) & set(shake_hands(*second))
    assert first[0].result.conn_id != second[0].result.conn_id


def test_conn_id_is_a_keyed_hash_of_the_final_handshake_hash() -> None:
    h = bytes(range(64))
    expected = hashlib.blake2b(key=h, person=b"peers.connid", digest_size=16).digest()
    assert messages.connection_id(h) == expected


def test_address_verified_is_a_flag_not_a_condition() -> None:
    c, s = client_machine(dialled="ws://nat.example:3333"), server_machine()
    shake_hands(c, s)
    assert not s.result.address_verified
    assert not c.result.address_verified


def test_neither_identity_is_in_clear() -> None:
    frames = b"".join(shake_hands(client_machine(), server_machine()))
    for who in (ALICE, BOB):
        for known in (who.user, who.device, public_key(who.box_secret), who.name.encode()):
            assert known not in frames


def test_result_before_the_end_is_an_error() -> None:
    assert error_of(lambda: client_machine().result).fault is WireFault.PROTOCOL


@pytest.mark.parametrize("address", ["", "a" * 256, "ws://x\n", "ws://\ud800"])
def test_an_address_that_cannot_travel_is_refused_at_once(address: str) -> None:
    with pytest.raises(UsageError):
        client_machine(dialled=address)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x01",
        b"\x02",
        b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n",
        b"\x01" * 32,
        b"\x01" * 34,
        b"\x01" * 2000,
        b"\x02" * 1025,
        b"\x00" * 33,
        b"\x16\x03\x01" + bytes(500),
        secret_of("random") * 8,
    ],
    ids=lambda frame: f"{len(frame)}-{frame[:1].hex()}",
)
def test_w1_random_bytes_instead_of_reset(frame: bytes) -> None:
    """W1: random bytes instead of `reset`: close, `bad_frame`, no reply."""
    error = error_of(server_machine().receive, frame)
    assert error.fault is WireFault.BAD_FRAME
    assert error.answer == b""


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=100))
def test_w1_arbitrary_first_frames(frame: bytes) -> None:
    """W1 with Hypothesis: nothing but a `ProtocolError`, and never done, unless it is a reset."""
    for machine in (server_machine(), client_machine()):
        if isinstance(machine, ClientHandshake):
            machine.start()
        try:
            machine.receive(frame)
        except ProtocolError as error:
            answer = error.answer
        else:
            assert isinstance(machine, ServerHandshake) and len(frame) == 33 and frame[0] == 1
            answer = b""
        assert answer in (b"", b"\x01")
        assert not machine.done


def test_w4_short_ciphertext() -> None:
    """W4: 5-byte ciphertext (shorter than tag): `bad_frame`, close — at every step of the handshake."""
    c = client_machine()
    first = c.start()
    assert error_of(c.receive, b"5byte").fault is WireFault.BAD_FRAME
    s = server_machine()
    s.receive(first)
    assert error_of(s.receive, b"5byte").fault is WireFault.BAD_FRAME
    c, s = client_machine(), server_machine()
    c.receive(s.receive(c.start()))
    assert error_of(c.receive, b"5byte").fault is WireFault.BAD_FRAME


def test_w5_frames_after_the_handshake() -> None:
    """W5: valid frame replayed / reordered / dropped: also message 4 counts as the first frame of the session."""
    c, s = client_machine(), server_machine()
    fourth = shake_hands(c, s)[3]
    assert error_of(c.result.session.open, fourth).fault is WireFault.BAD_FRAME
    c, s = client_machine(), server_machine()
    third = c.receive(s.receive(c.start()))
    s.receive(third)
    assert error_of(c.receive, s.result.session.seal(b"second")).fault is WireFault.BAD_FRAME


@pytest.mark.parametrize("version", [2, 3, 15])
def test_w14_another_protocol_version(version: int) -> None:
    """W14: peer of another protocol version: `version_mismatch (ours 1, theirs 2)` in both logs, close."""
    reset = client_machine().start()
    error = error_of(server_machine().receive, bytes([version]) + reset[1:])
    assert error.fault is WireFault.VERSION_MISMATCH
    assert f"version_mismatch (ours 1, theirs {version})" in str(error)
    assert error.answer == b"\x01"
    longer = error_of(server_machine().receive, bytes([version]) + bytes(800))
    assert longer.fault is WireFault.VERSION_MISMATCH
    c = client_machine()
    c.start()
    error = error_of(c.receive, bytes([version]))
    assert error.fault is WireFault.VERSION_MISMATCH
    assert f"version_mismatch (ours 1, theirs {version})" in str(error)
    assert error.answer == b""


def test_oversized_frames() -> None:
    c, s = client_machine(), server_machine()
    first = c.start()
    s.receive(first)
    assert error_of(s.receive, bytes(CONFIG.handshake_bytes_max + 1)).fault is WireFault.TOO_LARGE
    assert error_of(c.receive, bytes(CONFIG.handshake_bytes_max + 1)).fault is WireFault.TOO_LARGE


RECORDED = shake_hands(client_machine(), server_machine())
NAMES = ("reset", "info", "complete", "response")
kinds = st.sampled_from(NAMES)
scripts = st.lists(st.one_of(kinds, st.binary(max_size=120), st.just("start")), max_size=6)
NEXT = {"server": ["reset", "complete"], "client": ["start", "info", "response"]}


@settings(max_examples=150, deadline=None)
@given(scripts, st.sampled_from(["server", "client"]))
def test_state_machine_fuzz(script: list[str | bytes], side: str) -> None:
    """Any sequence of recorded and arbitrary frames: only ProtocolError, done only after exactly the right prefix."""
    c, s = client_machine(), server_machine()
    for count, step in enumerate(script, start=1):
        frame = RECORDED[NAMES.index(step)] if step in NAMES else step
        try:
            if side == "server":
                s.receive(RECORDED[0] if step == "start" else frame)
            elif step == "start":
                c.start()
            else:
                c.receive(frame)
        except ProtocolError:
            pass
        taken = ["reset" if side == "server" and name == "start" else name for name in script[:count]]
        assert (s.done if side == "server" else c.done) == (taken == NEXT[side])
