"""The handshake: two small machines, bytes in and bytes out, that end in a verified peer and a session.

::

    client                                            server
    start()        ── 1 reset ─────────────────────►  receive
    receive        ◄─ 2 requestDeviceInfo ──────────  (its answer)
    (its answer)   ── 3 completeHandshake ─────────►  receive
    receive        ◄─ 4 handshakeResponse ──────────  (its answer)      both done

What it is for: Noise XX, each device's signature over the handshake hash, and the checks of `peer_checks` in their
order. The client reveals itself only after it has verified and admitted the server. Formats: `handshake_messages`.

It may assume that `ephemeral_secret` is 32 fresh random bytes. It knows no time limit and no transport: the caller
gives the whole handshake ``config.handshake_seconds`` and closes after any error.
It will not repair anything: the first error is final. A `ProtocolError` may carry an `answer`, one last frame to send
before the close: the server's version byte, or its refusal, encrypted, after message 3.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from peers.config import NetConfig
from peers.errors import ProtocolError, WireFault
from peers.model.ids import DeviceId, UserId
from peers.model.trust import LocalIdentity, PeerIdentity
from peers.wire import handshake_messages as messages
from peers.wire.handshake_messages import Accepted, Hello, Limits, Refused
from peers.wire.noise import HandshakeState
from peers.wire.peer_checks import Admit, accept_all, ask, check_clock, check_expected, clock_skew_text, verify_peer
from peers.wire.session import Session


@dataclass(frozen=True, slots=True)
class Verified:
    """The end of a handshake: who the other side is, and the session with it."""

    peer: PeerIdentity
    session: Session
    conn_id: bytes
    """16 bytes, equal on both sides, different for every connection."""
    address_verified: bool
    """Server: the client dialled one of our addresses. Client: the server advertises the address that we dialled."""
    limits: Limits
    """The server's limits, on both sides."""


@dataclass(frozen=True, slots=True)
class _Ready:
    """Nothing was sent or received."""

    noise: HandshakeState


@dataclass(frozen=True, slots=True)
class _Greeted:
    """Client: message 1 is sent. Server: message 2 is sent. `frames` are the handshake frames so far."""

    noise: HandshakeState
    frames: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class _Revealed:
    """Client: message 3 is sent, the server's word is out."""

    session: Session
    conn_id: bytes
    peer: PeerIdentity


@dataclass(frozen=True, slots=True)
class _Done:
    verified: Verified


@dataclass(frozen=True, slots=True)
class _Failed:
    pass


_State = _Ready | _Greeted | _Revealed | _Done | _Failed


class _Handshake:
    """What both machines share: identity, settings, the state and its reading."""

    _initiator: bool

    def __init__(
        self,
        identity: LocalIdentity,
        *,
        now_ms: Callable[[], int],
        ephemeral_secret: bytes,
        admit: Admit,
        config: NetConfig,
    ) -> None:
        self._identity = identity
        self._now_ms = now_ms
        self._admit = admit
        self._config = config
        noise = HandshakeState(
            initiator=self._initiator,
            prologue=messages.PROLOGUE,
            static_secret=identity.box_secret,
            ephemeral_secret=ephemeral_secret,
        )
        self._state: _State = _Ready(noise)

    @property
    def done(self) -> bool:
        return isinstance(self._state, _Done)

    @property
    def result(self) -> Verified:
        """Raises ProtocolError unless `done`."""
        if isinstance(self._state, _Done):
            return self._state.verified
        raise ProtocolError(WireFault.PROTOCOL, "the handshake is not complete")

    def _take_state(self) -> _State:
        """The state, which is failed from here on unless the step sets the next one."""
        state, self._state = self._state, _Failed()
        return state

    def _write_hello(self, noise: HandshakeState, context: bytes, *, now: int, dialled: str | None) -> bytes:
        def payload(transcript: bytes) -> bytes:
            signature = self._identity.device_key.sign(context, transcript)
            return messages.encode_hello(self._identity, time_ms=now, dialled=dialled, signature=signature)

        frame = noise.write_message(payload)
        self._require_size(frame)
        return frame

    def _verify(self, noise: HandshakeState, hello: Hello, context: bytes) -> PeerIdentity:
        """For a hello that was the payload of the latest Noise message."""
        return verify_peer(
            hello,
            remote_static=noise.remote_static,
            context=context,
            transcript=noise.payload_hash,
            own_device=self._identity.device,
        )

    def _require_size(self, frame: bytes) -> None:
        if len(frame) > self._config.handshake_bytes_max:
            raise ProtocolError(WireFault.TOO_LARGE, f"a handshake frame of {len(frame)} bytes")

    def _session(self, noise: HandshakeState, frames: tuple[bytes, ...]) -> Session:
        send, receive = noise.split()
        return Session(send, receive, config=self._config, handshake_frames=frames)


class ClientHandshake(_Handshake):
    """The side that dialled."""

    _initiator = True

    def __init__(
        self,
        identity: LocalIdentity,
        *,
        now_ms: Callable[[], int],
        ephemeral_secret: bytes,
        dialled: str,
        expected_device: DeviceId | None = None,
        expected_user: UserId | None = None,
        admit: Admit = accept_all,
        config: NetConfig,
    ) -> None:
        super().__init__(identity, now_ms=now_ms, ephemeral_secret=ephemeral_secret, admit=admit, config=config)
        self._dialled = messages.require_dialled(dialled)
        self._expected_device = expected_device
        self._expected_user = expected_user

    def start(self) -> bytes:
        """Message 1."""
        match self._take_state():
            case _Ready(noise):
                frame = messages.encode_reset(noise.write_message())
                self._state = _Greeted(noise, (frame,))
                return frame
            case _:
                raise _out_of_turn()

    def receive(self, frame: bytes) -> bytes | None:
        """Message 2 gives message 3; message 4 gives None, and the handshake is done.

        Raises:
            ProtocolError: with the code of the first check that failed, or of the server's refusal.
        """
        match self._take_state():
            case _Greeted(noise, frames):
                return self._on_request_device_info(noise, frames, frame)
            case _Revealed() as state:
                self._state = _Done(self._on_response(state, frame))
                return None
            case _:
                raise _out_of_turn()

    def _on_request_device_info(self, noise: HandshakeState, frames: tuple[bytes, ...], frame: bytes) -> bytes:
        self._require_size(frame)
        messages.refuse_version_answer(frame)
        hello = messages.decode_server_hello(noise.read_message(frame))
        peer = self._verify(noise, hello, messages.SERVER_CONTEXT)
        check_expected(peer, device=self._expected_device, user=self._expected_user)
        now = self._now_ms()
        check_clock(mine_ms=now, theirs_ms=hello.time_ms, skew_max_ms=self._config.clock_skew_max_ms)
        ask(self._admit, peer)
        answer = self._write_hello(noise, messages.CLIENT_CONTEXT, now=now, dialled=self._dialled)
        session = self._session(noise, (*frames, frame, answer))
        self._state = _Revealed(session, messages.connection_id(noise.h), peer)
        return answer

    def _on_response(self, state: _Revealed, frame: bytes) -> Verified:
        self._require_size(frame)
        match messages.decode_response(state.session.open(frame)):
            case Refused(code, detail):
                raise ProtocolError(_refusal_fault(code), f"the other side refused: {detail} ({code})")
            case Accepted(conn_id, limits):
                if conn_id != state.conn_id:
                    raise ProtocolError(WireFault.PROTOCOL, "the other side computed another connection id")
                advertised = self._dialled in state.peer.addresses
                return Verified(state.peer, state.session, conn_id, advertised, limits)


class ServerHandshake(_Handshake):
    """The side that was dialled. `own_addresses` is asked at message 3."""

    _initiator = False

    def __init__(
        self,
        identity: LocalIdentity,
        *,
        now_ms: Callable[[], int],
        ephemeral_secret: bytes,
        own_addresses: Callable[[], Collection[str]],
        admit: Admit = accept_all,
        config: NetConfig,
    ) -> None:
        super().__init__(identity, now_ms=now_ms, ephemeral_secret=ephemeral_secret, admit=admit, config=config)
        self._own_addresses = own_addresses

    def receive(self, frame: bytes) -> bytes:
        """Message 1 gives message 2; message 3 gives message 4, and the handshake is done.

        Raises:
            ProtocolError: with the code of the first check that failed; its `answer`, if any, is to be sent.
        """
        match self._take_state():
            case _Ready(noise):
                noise.read_message(messages.decode_reset(frame, bytes_max=self._config.reset_bytes_max))
                answer = self._write_hello(noise, messages.SERVER_CONTEXT, now=self._now_ms(), dialled=None)
                self._state = _Greeted(noise, (frame, answer))
                return answer
            case _Greeted(noise, frames):
                return self._on_complete_handshake(noise, frames, frame)
            case _:
                raise _out_of_turn()

    def _on_complete_handshake(self, noise: HandshakeState, frames: tuple[bytes, ...], frame: bytes) -> bytes:
        self._require_size(frame)
        payload = noise.read_message(frame)
        session = self._session(noise, (*frames, frame))
        now = theirs = self._now_ms()
        try:
            hello = messages.decode_client_hello(payload)
            theirs = hello.time_ms
            peer = self._verify(noise, hello, messages.CLIENT_CONTEXT)
            check_clock(mine_ms=now, theirs_ms=theirs, skew_max_ms=self._config.clock_skew_max_ms)
            ask(self._admit, peer)
        except ProtocolError as error:
            # The client is told the times in its own view: its "yours" is our "theirs".
            is_skew = error.fault is WireFault.CLOCK_SKEW
            detail = clock_skew_text(yours_ms=theirs, theirs_ms=now) if is_skew else str(error)
            refusal = session.seal(messages.encode_refused(error.code, detail))
            raise ProtocolError(error.fault, str(error), answer=refusal) from error
        conn_id = messages.connection_id(noise.h)
        limits = Limits(self._config.frame_bytes_max, self._config.message_bytes_max, self._config.calls_max)
        answer = session.seal(messages.encode_accepted(conn_id, limits))
        self._state = _Done(Verified(peer, session, conn_id, hello.dialled in self._own_addresses(), limits))
        return answer


def _refusal_fault(code: str) -> WireFault:
    """The server's own code; a policy may have codes that this version does not know."""
    try:
        return WireFault(code)
    except ValueError:
        return WireFault.NOT_TRUSTED


def _out_of_turn() -> ProtocolError:
    return ProtocolError(WireFault.PROTOCOL, "a handshake message out of turn: reset stands first, and only once")
