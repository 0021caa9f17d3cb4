"""Handshakes with known keys, honest ones and ones that lie: the same bytes every time. For tests only."""

from collections.abc import Callable, Collection
from typing import Any

from peers.config import NetConfig
from peers.model import codec
from peers.model.ids import DeviceId, UserId, blake2b_256
from peers.model.trust import LocalIdentity
from peers.testing.people import EPOCH_MS, person
from peers.wire import handshake_messages as messages
from peers.wire.handshake import ClientHandshake, ServerHandshake
from peers.wire.noise import CipherState, HandshakeState
from peers.wire.peer_checks import Admit, accept_all

ADDRESS = "ws://10.0.0.1:3333"
"""Where every server of these handshakes can be dialled."""
CONFIG = NetConfig()
ALICE = person("alice").identity((ADDRESS,))
BOB = person("bob").identity((ADDRESS,))
MALLORY = person("mallory").identity((ADDRESS,))


def secret_of(text: str) -> bytes:
    """An X25519 secret that follows from a text."""
    return blake2b_256(text.encode())


def client_machine(
    who: LocalIdentity = ALICE,
    *,
    now_ms: int = EPOCH_MS,
    ephemeral: str = "client",
    dialled: str = ADDRESS,
    expected_device: DeviceId | None = None,
    expected_user: UserId | None = None,
    admit: Admit = accept_all,
    config: NetConfig = CONFIG,
) -> ClientHandshake:
    return ClientHandshake(
        who,
        now_ms=lambda: now_ms,
        ephemeral_secret=secret_of(ephemeral),
        dialled=dialled,
        expected_device=expected_device,
        expected_user=expected_user,
        admit=admit,
        config=config,
    )


def server_machine(
    who: LocalIdentity = BOB,
    *,
    now_ms: int = EPOCH_MS,
    ephemeral: str = "server",
    own_addresses: Collection[str] = (ADDRESS,),
    admit: Admit = accept_all,
    config: NetConfig = CONFIG,
) -> ServerHandshake:
    return ServerHandshake(
        who,
        now_ms=lambda: now_ms,
        ephemeral_secret=secret_of(ephemeral),
        own_addresses=lambda: own_addresses,
        admit=admit,
        config=config,
    )


def shake_hands(client: ClientHandshake, server: ServerHandshake) -> list[bytes]:
    """An honest run of two fresh machines. The four frames."""
    first = client.start()
    second = server.receive(first)
    third = client.receive(second)
    assert third is not None
    fourth = server.receive(third)
    client.receive(fourth)
    return [first, second, third, fourth]


class LyingClient:
    """A client without any check of its own, that puts what it likes into message 3."""

    def __init__(self, who: LocalIdentity, victim: ServerHandshake) -> None:
        self._who = who
        self._noise = HandshakeState(
            initiator=True,
            prologue=messages.PROLOGUE,
            static_secret=who.box_secret,
            ephemeral_secret=secret_of("liar"),
        )
        self._noise.read_message(victim.receive(messages.encode_reset(self._noise.write_message())))

    def message_3(self, payload: bytes | Callable[[bytes], bytes]) -> bytes:
        return self._noise.write_message(payload)

    def honest(self, transcript: bytes, *, context: bytes = messages.CLIENT_CONTEXT) -> bytes:
        """The payload that an honest client would send."""
        signature = self._who.device_key.sign(context, transcript)
        return messages.encode_hello(self._who, time_ms=EPOCH_MS, dialled=ADDRESS, signature=signature)

    def with_field(self, index: int, value: Any) -> Callable[[bytes], bytes]:
        """The honest payload with one field replaced."""

        def payload(transcript: bytes) -> bytes:
            fields = codec.loads(self.honest(transcript))
            fields[index] = value
            return codec.dumps(fields)

        return payload

    def read_answer(self, frame: bytes) -> messages.Accepted | messages.Refused:
        """What the server answered to message 3."""
        return messages.decode_response(self._noise.split()[1].decrypt(b"", frame))


class LyingServer:
    """A server that is honest up to message 3 of `victim`, and then answers what it likes."""

    def __init__(self, victim: ClientHandshake, who: LocalIdentity = BOB) -> None:
        noise = HandshakeState(
            initiator=False,
            prologue=messages.PROLOGUE,
            static_secret=who.box_secret,
            ephemeral_secret=secret_of("lying server"),
        )
        noise.read_message(victim.start()[1:])

        def hello(transcript: bytes) -> bytes:
            signature = who.device_key.sign(messages.SERVER_CONTEXT, transcript)
            return messages.encode_hello(who, time_ms=EPOCH_MS, dialled=None, signature=signature)

        third = victim.receive(noise.write_message(hello))
        assert third is not None
        self.received = noise.read_message(third)
        """The client's payload of message 3."""
        self.conn_id = messages.connection_id(noise.h)
        self._send: CipherState = noise.split()[0]

    def message_4(self, plain: bytes) -> bytes:
        return self._send.encrypt(b"", plain)
