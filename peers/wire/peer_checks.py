"""What each side verifies about the other before it believes it, in this order.

    3  the box key in DeviceInfo is the Noise static key      bad_identity
    4  the device signed its DeviceInfo                       bad_identity
    5  the device signed this handshake                       bad_identity
    6  the user certified the device                          bad_identity
    7  it is not ourselves                                    self_connection
    8  it is whom we dialled (client)                         wrong_peer
    9  its clock is near ours                                 clock_skew
    10 our own policy wants it (`admit`)                      the policy's code, else not_trusted

Steps 1 and 2, the Noise message and the strict decoding of its payload, come before; revocations that only a newer
list knows are the business of `admit`, which is given the certificate. Pure: times come in as arguments.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from peers.errors import PeersError, ProtocolError, WireFault
from peers.model.ids import DeviceId, UserId, short
from peers.model.keys import verify
from peers.model.trust import PeerIdentity, decode_device_info, verify_certificate
from peers.wire.handshake_messages import Hello

Admit = Callable[[PeerIdentity], None]
"""Our policy: returns to admit, raises a PeersError to refuse."""


def accept_all(peer: PeerIdentity) -> None:
    """The policy that admits every verified peer."""


def verify_peer(
    hello: Hello, *, remote_static: bytes, context: bytes, transcript: bytes, own_device: DeviceId
) -> PeerIdentity:
    """Steps 3 to 7. `transcript` is the handshake hash that the other device must have signed, after `context`."""
    info = decode_device_info(hello.info, hello.info_signature)
    if info.box_public != remote_static:
        raise _bad_identity("its box key is not the key of this handshake")
    if not verify(info.device, context, transcript, hello.signature):
        raise _bad_identity("its device did not sign this handshake")
    verify_certificate(hello.certificate, info.user, info.device)
    if info.device == own_device:
        raise ProtocolError(WireFault.SELF_CONNECTION, "self_connection: this device dialled its own address")
    return PeerIdentity(
        user=info.user,
        device=info.device,
        box_public=info.box_public,
        name=info.name,
        addresses=info.addresses,
        rev=info.rev,
        certificate=hello.certificate,
    )


def check_expected(peer: PeerIdentity, *, device: DeviceId | None, user: UserId | None) -> None:
    """Step 8. None expects nothing."""
    if device is not None and peer.device != device:
        text = f"wrong_peer: expected device {short(device)}, device {short(peer.device)} answered"
        raise ProtocolError(WireFault.WRONG_PEER, text)
    if user is not None and peer.user != user:
        text = f"wrong_peer: expected a device of user {short(user)}, one of user {short(peer.user)} answered"
        raise ProtocolError(WireFault.WRONG_PEER, text)


def check_clock(*, mine_ms: int, theirs_ms: int, skew_max_ms: int) -> None:
    """Step 9: no proof of anything, only the question whether the two can order their writes."""
    if abs(mine_ms - theirs_ms) > skew_max_ms:
        raise ProtocolError(WireFault.CLOCK_SKEW, clock_skew_text(yours_ms=mine_ms, theirs_ms=theirs_ms))


def clock_skew_text(*, yours_ms: int, theirs_ms: int) -> str:
    return f"clock_skew: yours {_time_text(yours_ms)}, theirs {_time_text(theirs_ms)}; set the clock that is wrong"


def ask(admit: Admit, peer: PeerIdentity) -> None:
    """Step 10, with every refusal as a ProtocolError."""
    try:
        admit(peer)
    except ProtocolError:
        raise
    except PeersError as error:
        raise ProtocolError(WireFault.NOT_TRUSTED, str(error)) from error


def _time_text(milliseconds: int) -> str:
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
    except OverflowError:
        return f"{milliseconds} ms after 1970"
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")


def _bad_identity(what: str) -> ProtocolError:
    return ProtocolError(WireFault.BAD_IDENTITY, f"the other side is not who it says: {what}")
