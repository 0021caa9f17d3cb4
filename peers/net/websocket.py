"""Transports over WebSocket: one binary message is one frame.

Works around what trio-websocket 0.12 does with strangers: its reader task and its accept may raise, which would end
the whole server, so both are fenced here; a send that is cancelled in the middle ruins the stream silently, so such a
socket is closed without ceremony; closing can wait for ever, so it is bounded.

The path is fixed. A request with an ``Origin`` header comes from a web page, which has no business here: 403. Text
messages are refused with close code 1003, too large ones with 1009 before they are buffered. Certificates of ``wss``
are not checked: they prove nothing between devices; the handshake above does.

The nursery of a socket holds only the library's reader; it lives exactly as long as the block that uses the transport.
"""

import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import trio
from trio_websocket import (
    ConnectionClosed,
    HandshakeError,
    WebSocketConnection,
    WebSocketRequest,
    wrap_client_stream,
    wrap_server_stream,
)
from wsproto.utilities import LocalProtocolError

from peers.config import NetConfig
from peers.errors import ConnectionLost, DialFailed, ProtocolError, UsageError, WireFault
from peers.net.address import WS, WSS, Address, parse, parse_ip, why_not_connect, why_not_dial
from peers.net.listener import Admission, Gate
from peers.net.transport import Transport

_log = logging.getLogger("peers.net")

_NORMAL = 1000
_UNSUPPORTED = 1003
_TOO_BIG = 1009


class WebSocketTransport:
    """See `Transport`."""

    def __init__(
        self,
        ws: WebSocketConnection,
        stream: trio.abc.Stream,
        reader: "_ReaderFence",
        remote: str,
        *,
        opened_at: float,
        config: NetConfig,
        admission: Admission | None = None,
    ) -> None:
        self._ws = ws
        self._stream = stream
        self._reader = reader
        self._remote = remote
        self._opened_at = opened_at
        self._config = config
        self._admission = admission
        self._half_sent = False
        self._close_code = _NORMAL
        reader.protect()

    @property
    def remote(self) -> str:
        return self._remote

    @property
    def opened_at(self) -> float:
        return self._opened_at

    async def send(self, frame: bytes) -> None:
        if self._half_sent:
            raise ConnectionLost(f"{self._remote} cannot be used after an interrupted send")
        self._half_sent = True
        try:
            await self._ws.send_message(frame)
        except (ConnectionClosed, LocalProtocolError) as error:
            raise ConnectionLost(f"{self._remote} is closed: {_reason(self._ws)}") from error
        self._half_sent = False

    async def receive(self) -> bytes:
        try:
            message = await self._ws.get_message()
        except ConnectionClosed as error:
            closed = self._ws.closed
            if closed is not None and closed.code == _TOO_BIG:
                raise ProtocolError(WireFault.TOO_LARGE, f"{self._remote} sent a frame over the limit") from error
            raise ConnectionLost(f"{self._remote} closed the connection: {_reason(self._ws)}") from error
        if isinstance(message, str):
            self._close_code = _UNSUPPORTED
            raise ProtocolError(WireFault.BAD_FRAME, f"{self._remote} sent a text frame")
        return message

    def authenticated(self) -> None:
        # The library has no way to change the limit; a socket accepted from a stranger begins with a small one.
        self._ws._max_message_size = self._config.frame_bytes_max
        if self._admission is not None:
            self._admission.release(authenticated=True)

    async def aclose(self) -> None:
        try:
            if not self._half_sent:
                with trio.move_on_after(self._config.goodbye_seconds):
                    await self._ws.aclose(self._close_code)
        except (ConnectionClosed, LocalProtocolError, trio.BrokenResourceError):
            pass  # It is closed already, which is what we want.
        finally:
            if self._admission is not None:
                self._admission.release()
            self._reader.end()
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(self._stream)


class _ReaderFence:
    """Stands in for the nursery that trio-websocket starts its reader in: the reader's errors end that socket only."""

    def __init__(self, nursery: trio.Nursery, stream: trio.abc.Stream, opening: trio.CancelScope) -> None:
        self._nursery = nursery
        self._stream = stream
        self._opening = opening
        self._scope = trio.CancelScope()

    def start_soon(self, reader: Callable[..., Awaitable[Any]], *args: Any) -> None:
        self._nursery.start_soon(self._run, reader, args)

    def protect(self) -> None:
        """The opening is done: a stop leaves the reader alone until `end`, so that the peer's goodbye is read."""
        self._scope.shield = True

    def end(self) -> None:
        self._scope.cancel()

    async def _run(self, reader: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> None:
        try:
            with self._scope:
                await reader(*args)
        except Exception as error:  # noqa: BLE001 - a stranger's bytes end here
            _log.debug("a websocket's reader ended: %r", error)
            await trio.aclose_forcefully(self._stream)
        finally:
            self._opening.cancel()  # Without a reader the library would wait for the opening for ever.


class WebSocketNetwork:
    """See `Network`. One per device: its listeners share the limits for strangers."""

    def __init__(self, config: NetConfig | None = None) -> None:
        self._config = config if config is not None else NetConfig()
        self.gate = Gate(self._config)

    @asynccontextmanager
    async def dial(self, address: str) -> AsyncIterator[Transport]:
        target = parse(address, default_port=self._config.port)
        forbidden = why_not_dial(target)
        if forbidden is not None or target.scheme not in (WS, WSS):
            raise DialFailed(f"{target} is not dialled: {forbidden or 'not a websocket address'}")
        deadline = trio.current_time() + self._config.dial_seconds
        stream = await _connect(target, deadline)
        failure: Exception | None = None
        try:
            async with trio.open_nursery() as nursery:
                transport = await self._open_client(nursery, stream, target, deadline)
                if transport is None:
                    failure = DialFailed(f"{target} does not speak our protocol on {self._config.path}")
                else:
                    try:
                        yield transport
                    except Exception as error:  # noqa: BLE001 - raised below, outside of the nursery's group
                        failure = error
                    finally:
                        await transport.aclose()
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)
        if failure is not None:
            raise failure

    async def listen(
        self,
        address: str,
        on_transport: Callable[[Transport], Awaitable[None]],
        *,
        task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        target = parse(address, default_port=self._config.port)
        if target.scheme != WS:
            raise UsageError(f"cannot listen on {target}: only ws:// is served", code="cannot_listen")
        listeners = await _open_listeners(target)
        port = listeners[0].socket.getsockname()[1]

        async def on_stream(stream: trio.SocketStream) -> None:
            try:
                host, port = stream.socket.getpeername()[:2]
            except OSError:
                await trio.aclose_forcefully(stream)  # It was reset before we looked.
                return
            await self.serve_stream(stream, str(host), int(port), on_transport)

        task_status.started(str(Address(WS, target.host, port)))
        await trio.serve_listeners(on_stream, listeners)

    async def serve_stream(
        self, stream: trio.abc.Stream, host: str, port: int, on_transport: Callable[[Transport], Awaitable[None]]
    ) -> None:
        """Serve one accepted byte stream until its end. Raises nothing but Cancelled, whatever the client does."""
        opened_at = trio.current_time()
        admission = self.gate.admit(host, opened_at)
        try:
            if admission is not None:
                remote = str(Address(WS, str(parse_ip(host) or host), port))
                await self._serve(stream, remote, opened_at, admission, on_transport)
        except* Exception as errors:  # noqa: BLE001 - the edge where strangers come in
            _log.exception("the connection from %s failed", host, exc_info=errors)
        finally:
            if admission is not None:
                admission.release()
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)

    async def _serve(
        self,
        stream: trio.abc.Stream,
        remote: str,
        opened_at: float,
        admission: Admission,
        on_transport: Callable[[Transport], Awaitable[None]],
    ) -> None:
        config = self._config
        async with trio.open_nursery() as nursery:
            ws: WebSocketConnection | None = None
            with trio.move_on_at(opened_at + config.handshake_seconds) as opening:
                reader = _ReaderFence(nursery, stream, opening)
                fence = cast(trio.Nursery, reader)
                request = await wrap_server_stream(
                    fence, stream, config.websocket_queue, config.handshake_bytes_max, config.receive_buffer_bytes
                )
                ws = await self._answer(request)
            if ws is not None:
                transport = WebSocketTransport(
                    ws, stream, reader, remote, opened_at=opened_at, config=config, admission=admission
                )
                try:
                    await on_transport(transport)
                finally:
                    await transport.aclose()
            nursery.cancel_scope.cancel()

    async def _answer(self, request: WebSocketRequest) -> WebSocketConnection | None:
        """Accept an opening request that a device could have sent; refuse every other."""
        try:
            if any(name.lower() == b"origin" for name, _ in request.headers):
                await request.reject(403)
            elif request.path != self._config.path or request.proposed_subprotocols:
                await request.reject(404)
            else:
                return await request.accept()
        except (ConnectionClosed, LocalProtocolError):
            pass  # The client left in the middle.
        return None

    async def _open_client(
        self, nursery: trio.Nursery, stream: trio.abc.Stream, target: Address, deadline: float
    ) -> WebSocketTransport | None:
        config = self._config
        with trio.move_on_at(deadline) as opening:
            reader = _ReaderFence(nursery, stream, opening)
            fence = cast(trio.Nursery, reader)
            host = str(target).partition("://")[2]
            ws = await wrap_client_stream(
                fence,
                cast(trio.SocketStream, stream),
                host,
                config.path,
                message_queue_size=config.websocket_queue,
                max_message_size=config.frame_bytes_max,
                receive_buffer_size=config.receive_buffer_bytes,
            )
            now = trio.current_time()
            return WebSocketTransport(ws, stream, reader, str(target), opened_at=now, config=config)
        return None


async def _connect(target: Address, deadline: float) -> trio.abc.Stream:
    """A TCP or TLS stream to `target`; nothing but TLS has been sent on it."""
    stream: trio.SocketStream | None = None
    try:
        with trio.move_on_at(deadline):
            stream = await trio.open_tcp_stream(target.host, target.port)
            ip = parse_ip(stream.socket.getpeername()[0])
            forbidden = None if ip is None else why_not_connect(ip)
            if forbidden is not None:
                raise DialFailed(f"{target} is not dialled: it resolves to {ip}: {forbidden}")
            if target.scheme == WS:
                return stream
            secure = trio.SSLStream(stream, _tls(), server_hostname=target.host, https_compatible=True)
            await secure.do_handshake()
            return secure
        message = "no answer in time"
    except (OSError, ValueError, HandshakeError, trio.BrokenResourceError) as error:
        message = getattr(error, "strerror", None) or str(error) or type(error).__name__
        await _discard(stream)
    except BaseException:
        await _discard(stream)
        raise
    else:
        await _discard(stream)
    raise DialFailed(f"{target} does not answer: {message}")


async def _discard(stream: trio.SocketStream | None) -> None:
    if stream is not None:
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(stream)


async def _open_listeners(target: Address) -> list[trio.SocketListener]:
    try:
        listeners = await trio.open_tcp_listeners(target.port, host=target.host)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"cannot listen on {target}: {reason}", code="cannot_listen") from error
    if target.port:
        return listeners
    # Each family of a name would get another free port, and there is one answer to "which port".
    for listener in listeners[1:]:
        await listener.aclose()
    return listeners[:1]


def _tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _reason(ws: WebSocketConnection) -> str:
    closed = ws.closed
    return "end of stream" if closed is None else f"{closed.code} {closed.name.lower()}"
