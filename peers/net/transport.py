"""What a connection needs of a network: frames in both directions, a way to dial and a way to listen.

A transport carries whole frames of at most `NetConfig.frame_bytes_max` bytes, in order, or breaks. It authenticates
nobody. One task sends and one task receives. `peers.net.websocket` and `peers.testing.network` implement these.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import trio


class Transport(Protocol):
    """One open link. `opened_at` is its `trio.current_time()`: what is not authenticated soon after is closed."""

    @property
    def remote(self) -> str:
        """The other end's address as text: for limits, logs and people, never for identity."""

    @property
    def opened_at(self) -> float: ...

    async def send(self, frame: bytes) -> None:
        """Send one frame. After a cancelled or failed send the transport only serves to be closed.

        Raises:
            ConnectionLost: the link is closed or broken.
        """

    async def receive(self) -> bytes:
        """The next frame. May be cancelled and called again.

        Raises:
            ConnectionLost: at the end, whether or not the other side meant it.
            ProtocolError: the peer sent what is no frame.
        """

    def authenticated(self) -> None:
        """The peer has proved who it is: the listener's limits for strangers end for this transport."""

    async def aclose(self) -> None:
        """Close; also after failure. Bounded in time; when cancelled, it closes without ceremony."""


class Network(Protocol):
    """Where transports come from."""

    def dial(self, address: str) -> AbstractAsyncContextManager[Transport]:
        """``async with network.dial(address) as transport``: open a link; it is closed at the end of the block.

        A context manager, because a library may need a task beside the link for as long as it is open.

        Raises:
            DialFailed: nobody answers there, or the address must not be dialled.
        """

    async def listen(
        self,
        address: str,
        on_transport: Callable[[Transport], Awaitable[None]],
        *,
        task_status: "trio.TaskStatus[str]" = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept links until cancelled; each is closed when its `on_transport` returns.

        ``task_status.started`` gets the actual address, with the real port where 0 was asked for.

        Raises:
            UsageError: `cannot_listen` when the address is taken or not ours.
        """
