"""The sending half of a connection: room for messages, and the one task that writes the transport.

Whoever sends waits for room first and posts then; the writer takes frames in the order of `outbox`, seals them and
changes the key when it is due. A send that the peer does not take within `send_seconds` ends the connection. A send
is never cut off in the middle while there is hope: after `finish` it gets `goodbye_seconds`.
"""

import contextlib

import trio

from peers.config import NetConfig
from peers.errors import ConnectionLost, ProtocolError, TimedOut
from peers.net.outbox import Outbox
from peers.net.transport import Transport
from peers.wire.rpc import Rpc
from peers.wire.session import Session


class Outbound:
    """Made and run by `Connection`."""

    def __init__(self, transport: Transport, session: Session, rpc: Rpc, config: NetConfig) -> None:
        self._transport = transport
        self._session = session
        self._rpc = rpc
        self._config = config
        self._outbox = Outbox(config)
        self._work = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()
        self._finished = False
        self._half_sent = False
        self._send_scope = trio.CancelScope()
        self.frames = 0
        self.bytes = 0

    @property
    def waiting(self) -> int:
        """Messages that are not wholly sent, control messages left out."""
        return self._outbox.waiting

    @property
    def waiting_control(self) -> int:
        return self._outbox.waiting_control

    async def wait_for_room(self) -> None:
        """Return when a message may be posted; at once, without a checkpoint, where there is room.

        Raises:
            ConnectionLost: the connection is ending.
        """
        config, outbox = self._config, self._outbox
        while not self._finished:
            if outbox.waiting < config.send_queue and outbox.waiting_bytes < config.send_queue_bytes:
                return
            await self._room.park()
        raise ConnectionLost("the connection is ending")

    def post(self, message: bytes) -> None:
        if len(message) <= self._config.frame_bytes:
            self._outbox.put_small(message)
        else:
            self._outbox.put_large(self._rpc.frames(message), len(message))
        self._work.unpark()

    def post_control(self, message: bytes) -> None:
        """For messages that never wait: there are few of them, and they are small."""
        self._outbox.put_control(message)
        self._work.unpark()

    async def run(self) -> None:
        """Write until cancelled.

        Raises:
            ConnectionLost: the link broke.
            TimedOut: the peer reads nothing.
        """
        outbox = self._outbox
        while True:
            waiting = outbox.waiting
            frame = outbox.next_frame()
            if outbox.waiting < waiting:
                self._room.unpark_all()
            if frame is None:
                await self._work.park()
                continue
            if self._session.rekey_due(trio.current_time()):
                await self._send(self._rpc.rekey(), self._config.send_seconds)
                self._session.send_rekey()
            await self._send(frame, self._config.send_seconds)
            await trio.lowlevel.checkpoint_if_cancelled()

    def finish(self) -> None:
        """The connection is ending: nobody waits for room any more, and a send that is under way has to hurry."""
        self._finished = True
        self._room.unpark_all()
        self._send_scope.deadline = min(self._send_scope.deadline, trio.current_time() + self._config.goodbye_seconds)

    async def say_goodbye(self, code: str, detail: str) -> None:
        """After `run` has ended: the close frame, unless a send was cut off. Bounded; not cancelled by a stop."""
        if not self._half_sent:
            with contextlib.suppress(ConnectionLost, ProtocolError, TimedOut):
                await self._send(self._rpc.close(code, detail), self._config.goodbye_seconds)

    async def _send(self, frame: bytes, seconds: float) -> None:
        sealed = self._session.seal(frame)
        deadline = trio.current_time() + seconds
        with trio.CancelScope(deadline=deadline, shield=True) as self._send_scope:
            self._half_sent = True
            await self._transport.send(sealed)
            self._half_sent = False
            self.frames += 1
            self.bytes += len(sealed)
        if self._half_sent:
            raise TimedOut(f"the peer reads nothing since {seconds:g} s")
