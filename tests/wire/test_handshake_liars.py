"""Liars who speak Noise perfectly: each field of each payload is checked, and nothing but ProtocolError comes out."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peers.errors import ProtocolError, WireFault
from peers.model import codec
from peers.testing.handshakes import (
    ALICE,
    BOB,
    MALLORY,
    LyingClient,
    LyingServer,
    client_machine,
    server_machine,
)
from peers.wire import handshake_messages as messages


def error_of(call: Callable[..., object], *args: object) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        call(*args)
    return caught.value


def test_t4_a_hello_passed_on_to_another_server() -> None:
    """T4: a malicious server plays the client's signed hello in its own handshake with another server."""
    stolen = LyingServer(client_machine(), MALLORY).received
    for box_secret in (MALLORY.box_secret, ALICE.box_secret):  # even with the client's box key
        victim = server_machine(BOB)
        liar = LyingClient(replace(ALICE, box_secret=box_secret), victim)
        assert error_of(victim.receive, liar.message_3(stolen)).fault is WireFault.BAD_IDENTITY


def test_t9_a_clients_signature_is_no_servers() -> None:
    """T9: what was signed in one role is worth nothing in the other."""
    victim = server_machine()
    liar = LyingClient(ALICE, victim)
    payload = partial(liar.honest, context=messages.SERVER_CONTEXT)
    assert error_of(victim.receive, liar.message_3(payload)).fault is WireFault.BAD_IDENTITY


def test_the_lying_client_can_be_honest() -> None:
    victim = server_machine()
    liar = LyingClient(ALICE, victim)
    victim.receive(liar.message_3(liar.honest))
    assert victim.done


@pytest.mark.parametrize(
    ("index", "value"),
    [
        (0, b""),
        (0, "text"),
        (0, bytes(5000)),
        (1, bytes(63)),
        (1, None),
        (2, None),
        (2, b""),
        (2, [[b"op"]]),
        (2, [[b"op", b"sig"]]),
        (2, [[1, 2]]),
        (2, [[bytes(3000), bytes(64)]] * 2),
        (3, -1),
        (3, True),
        (3, 1 << 63),
        (3, 1.5),
        (3, None),
        (4, ""),
        (4, None),
        (4, b"ws://x"),
        (4, "a\x1b[2J"),
        (4, "a" * 256),
        (5, bytes(65)),
        (5, bytes(64)),
        (5, "x" * 64),
        (6, b"an invitation"),
        (6, False),
    ],
)
def test_every_field_of_message_3_is_checked(index: int, value: Any) -> None:
    victim = server_machine()
    liar = LyingClient(ALICE, victim)
    error = error_of(victim.receive, liar.message_3(liar.with_field(index, value)))
    assert error.fault in (WireFault.BAD_ENCODING, WireFault.BAD_IDENTITY)
    assert not victim.done
    refusal = liar.read_answer(error.answer)
    assert isinstance(refusal, messages.Refused)
    assert refusal.code == error.code


plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, (1 << 64) - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=70),
    lambda children: st.lists(children, max_size=8) | st.dictionaries(st.text(max_size=3), children, max_size=3),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300) | plain_values.map(codec.dumps))
def test_arbitrary_payloads_raise_only_protocol_errors(payload: bytes) -> None:
    victim = server_machine()
    liar = LyingClient(ALICE, victim)
    error = error_of(victim.receive, liar.message_3(payload))
    assert error.fault in (WireFault.BAD_ENCODING, WireFault.BAD_IDENTITY)
    assert error.answer


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 6), plain_values)
def test_arbitrary_fields_raise_only_protocol_errors(index: int, value: Any) -> None:
    victim = server_machine()
    liar = LyingClient(ALICE, victim)
    try:
        victim.receive(liar.message_3(liar.with_field(index, value)))
    except ProtocolError:
        assert not victim.done
    else:  # the one field in which nearly anything printable may stand, or the null of the invitation
        assert (index == 4 and messages.is_dialled(value)) or (index == 6 and value is None)


def test_message_4_of_every_shape() -> None:
    c = client_machine()
    liar = LyingServer(c)
    conn_id = liar.conn_id
    c.receive(liar.message_4(codec.dumps([1, conn_id, 65_536, 1 << 20, 8])))
    assert c.done and c.result.limits == messages.Limits(65_536, 1 << 20, 8)
    for value in (
        None,
        [],
        [1],
        [1, conn_id],
        [1, conn_id, 1, 1],
        [1, conn_id, 0, 1, 1],
        [1, conn_id, 1, -1, 1],
        [1, conn_id, 1, 1, 1 << 32],
        [1, conn_id, 1, 1, True],
        [1, conn_id, 1, 1, 1.0],
        [True, conn_id, 1, 1, 1],
        [1, conn_id, 1, 1, 1, 1],
        [1, conn_id[:15], 1, 1, 1],
        [2, conn_id, 1, 1, 1],
        {"ok": True},
        [0, "code"],
        [0, "code", b"detail"],
        [0, "c" * 33, "detail"],
        [0, "code", "d" * 301],
        [False, "code", "detail"],
    ):
        c = client_machine()
        liar = LyingServer(c)
        error = error_of(c.receive, liar.message_4(codec.dumps(value)))
        assert error.fault is WireFault.BAD_ENCODING, value
        assert not c.done


def test_message_4_with_another_connection_id() -> None:
    c = client_machine()
    liar = LyingServer(c)
    error = error_of(c.receive, liar.message_4(codec.dumps([1, bytes(16), 1, 1, 1])))
    assert error.fault is WireFault.PROTOCOL
    assert not c.done


def test_a_refusal_with_a_code_of_a_later_version() -> None:
    c = client_machine()
    liar = LyingServer(c)
    error = error_of(c.receive, liar.message_4(messages.encode_refused("too_bright", "x" * 1000)))
    assert error.fault is WireFault.NOT_TRUSTED
    assert "too_bright" in str(error) and len(str(error)) < 400
