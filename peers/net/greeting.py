"""The handshake over a transport: four frames within `handshake_seconds` of the transport's opening.

Sends what the machines of `peers.wire.handshake` give, also the last word of a refusal. Will not close the transport.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import trio

from peers.config import NetConfig
from peers.errors import ProtocolError, WireFault
from peers.model.ids import DeviceId, UserId
from peers.model.trust import LocalIdentity
from peers.net.transport import Transport
from peers.wire.handshake import ClientHandshake, ServerHandshake, Verified
from peers.wire.peer_checks import Admit, accept_all

_SECRET_BYTES = 32


def no_addresses() -> Collection[str]:
    """The own addresses of a device that does not know any."""
    return ()


@dataclass(frozen=True, kw_only=True)
class Greeting:
    """How this device introduces itself, and whom it wants to meet."""

    identity: LocalIdentity
    random_bytes: Callable[[int], bytes]
    now_ms: Callable[[], int]
    config: NetConfig
    dialled: str | None = None
    """The address that we dialled; None where we were dialled."""
    expected_device: DeviceId | None = None
    expected_user: UserId | None = None
    own_addresses: Callable[[], Collection[str]] = no_addresses
    admit: Admit = accept_all

    async def run(self, transport: Transport) -> Verified:
        """
        Raises:
            ProtocolError: the other side, or its absence, ended the handshake.
            ConnectionLost: the link broke.
        """
        with trio.move_on_at(transport.opened_at + self.config.handshake_seconds):
            try:
                if self.dialled is None:
                    return await self._serve(transport)
                return await self._ask(transport, self.dialled)
            except ProtocolError as error:
                if error.answer:
                    await transport.send(error.answer)
                raise
        seconds = self.config.handshake_seconds
        raise ProtocolError(WireFault.TIMED_OUT, f"{transport.remote} did not complete the handshake in {seconds:g} s")

    async def _ask(self, transport: Transport, dialled: str) -> Verified:
        machine = ClientHandshake(
            self.identity,
            now_ms=self.now_ms,
            ephemeral_secret=self.random_bytes(_SECRET_BYTES),
            dialled=dialled,
            expected_device=self.expected_device,
            expected_user=self.expected_user,
            admit=self.admit,
            config=self.config,
        )
        await transport.send(machine.start())
        while not machine.done:
            answer = machine.receive(await transport.receive())
            if answer is not None:
                await transport.send(answer)
        transport.authenticated()
        return machine.result

    async def _serve(self, transport: Transport) -> Verified:
        machine = ServerHandshake(
            self.identity,
            now_ms=self.now_ms,
            ephemeral_secret=self.random_bytes(_SECRET_BYTES),
            own_addresses=self.own_addresses,
            admit=self.admit,
            config=self.config,
        )
        await transport.send(machine.receive(await transport.receive()))
        answer = machine.receive(await transport.receive())
        transport.authenticated()  # Before the client can know: its first frame may be a large one.
        await transport.send(answer)
        return machine.result
