"""The whole life of one connection over one transport: handshake, serving, close, and who is told of them."""

import logging
from collections.abc import Callable, Collection

import trio

from peers.config import NetConfig
from peers.errors import PeersError
from peers.model.ids import DeviceId, UserId
from peers.model.trust import LocalIdentity
from peers.net.close_reason import STOPPED, STOPPING, CloseReason, reason_of
from peers.net.connection import Connection, ConnectionHandler
from peers.net.greeting import Greeting, no_addresses
from peers.net.inbound import INTERNAL_DETAIL, INTERNAL_ERROR
from peers.net.transport import Transport
from peers.wire.chunks import ReassemblyBudget
from peers.wire.peer_checks import Admit, accept_all

_log = logging.getLogger("peers.net")


async def run_connection(
    transport: Transport,
    *,
    identity: LocalIdentity,
    handler: ConnectionHandler,
    random_bytes: Callable[[int], bytes],
    now_ms: Callable[[], int],
    config: NetConfig,
    dialled: str | None,
    expected_device: DeviceId | None = None,
    expected_user: UserId | None = None,
    own_addresses: Callable[[], Collection[str]] = no_addresses,
    admit: Admit = accept_all,
    budget: ReassemblyBudget | None = None,
) -> CloseReason:
    """The whole life of one connection over `transport`, which is closed at the end. Raises only Cancelled.

    Args:
        dialled: the address that we dialled, None where we were dialled.
        budget: of the process, for messages in reassembly; None is one of its own.
    """
    greeting = Greeting(
        identity=identity,
        random_bytes=random_bytes,
        now_ms=now_ms,
        config=config,
        dialled=dialled,
        expected_device=expected_device,
        expected_user=expected_user,
        own_addresses=own_addresses,
        admit=admit,
    )
    reason = STOPPING
    connection: Connection | None = None
    try:
        handler.on_connecting(transport.remote, dialled is not None)
        verified = await greeting.run(transport)
        connection = Connection(
            transport, verified, handler=handler, config=config, dialled=dialled is not None, budget=budget
        )
        await connection.run()
    except* PeersError as errors:
        reason = reason_of(errors)
    except* Exception as errors:  # noqa: BLE001 - one bad peer, or one bug met by it, ends one connection
        _log.exception("the connection with %s failed", transport.remote, exc_info=errors)
        reason = CloseReason(INTERNAL_ERROR, INTERNAL_DETAIL)
    finally:
        with trio.CancelScope(shield=True):
            await transport.aclose()
        if connection is not None and connection.reason is not None:
            reason = connection.reason
        _log.info("connection with %s ended: %s", connection or transport.remote, reason)
        await _tell_closed(handler, connection, reason, config.goodbye_seconds)
    return reason


async def _tell_closed(
    handler: ConnectionHandler, connection: Connection | None, reason: CloseReason, seconds: float
) -> None:
    with trio.move_on_after(seconds, shield=True):
        try:
            await handler.on_closed(connection, reason)
        except Exception as error:  # noqa: BLE001 - in a stop, whom it tells may be gone already
            _log.log(logging.DEBUG if reason.code == STOPPED else logging.ERROR, "on_closed failed: %r", error)
