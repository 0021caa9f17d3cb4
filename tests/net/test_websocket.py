"""WebSocket transports: on loopback sockets, and over memory streams in virtual time where time matters."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import trio
import trio_websocket
from trio.testing import MockClock, memory_stream_pair

from peers.config import NetConfig
from peers.errors import ConnectionLost, DialFailed, ProtocolError, UsageError
from peers.net.connection import Connection
from peers.net.transport import Transport
from peers.net.websocket import WebSocketNetwork
from peers.testing.handshakes import ALICE, BOB

CONFIG = NetConfig()
UPGRADE = (
    b"GET /peers HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@asynccontextmanager
async def serving(
    on_transport: Callable[[Transport], Awaitable[None]], config: NetConfig = CONFIG
) -> AsyncIterator[str]:
    async with trio.open_nursery() as nursery:
        network = WebSocketNetwork(config)
        yield await nursery.start(network.listen, "ws://127.0.0.1:0", on_transport)
        nursery.cancel_scope.cancel()


async def echo(transport: Transport) -> None:
    transport.authenticated()
    with contextlib.suppress(ConnectionLost):
        while True:
            await transport.send(await transport.receive())


async def test_frames_both_ways() -> None:
    async with serving(echo) as address, WebSocketNetwork().dial(address) as transport:
        assert not address.endswith(":0") and transport.remote == address
        for frame in (b"", b"\0", bytes(65_536)):
            await transport.send(frame)
            assert await transport.receive() == frame


async def test_many_connections_from_this_machine() -> None:
    """Loopback is exempt from the limits per subnet and per second: a demo runs many devices on one machine."""
    async with serving(echo) as address, contextlib.AsyncExitStack() as stack:
        for _ in range(40):
            transport = await stack.enter_async_context(WebSocketNetwork().dial(address))
            await transport.send(b"x")
            assert await transport.receive() == b"x"


async def test_closing_one_end_ends_the_other() -> None:
    async def close_at_once(transport: Transport) -> None:
        await transport.receive()

    async with serving(close_at_once) as address, WebSocketNetwork().dial(address) as transport:
        await transport.send(b"x")
        with pytest.raises(ConnectionLost):
            await transport.receive()
        with pytest.raises(ConnectionLost):
            await transport.send(b"y")


async def test_a_stop_does_not_wait_for_a_peer_that_answers() -> None:
    """Cancelled from outside, as a stop does: the goodbye is still read, so it does not take all of its time."""
    patient = replace(CONFIG, goodbye_seconds=60.0)
    async with serving(echo, patient) as address:
        with trio.CancelScope() as stop:
            async with WebSocketNetwork(patient).dial(address) as transport:
                await transport.send(b"x")
                assert await transport.receive() == b"x"
                stop.cancel()
                with trio.move_on_after(10, shield=True) as closing:
                    await transport.aclose()
    assert not closing.cancelled_caught


async def test_an_error_of_the_block_leaves_dial_as_it_is() -> None:
    async with serving(echo) as address:
        with pytest.raises(KeyError):
            async with WebSocketNetwork().dial(address):
                raise KeyError("mine")


async def test_dialling_where_nobody_listens() -> None:
    async with serving(echo) as address:
        pass
    with pytest.raises(DialFailed, match="does not answer"):
        async with WebSocketNetwork().dial(address):
            raise AssertionError("nobody is there")


@pytest.mark.parametrize("address", ["ws://169.254.169.254", "ws://[fe80::1]", "ws://0.0.0.0:80", "sim://bob"])
async def test_t11_addresses_that_are_never_dialled(address: str) -> None:
    """T11: no link-local metadata ranges, whoever names them."""
    with pytest.raises(DialFailed, match="is not dialled"):
        async with WebSocketNetwork().dial(address):
            raise AssertionError("dialled")


async def test_dialling_what_is_no_device() -> None:
    async def hang_up(stream: trio.SocketStream) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, hang_up, 0)
        port = listeners[0].socket.getsockname()[1]
        with pytest.raises(DialFailed, match="does not speak our protocol"):
            async with WebSocketNetwork().dial(f"ws://127.0.0.1:{port}"):
                raise AssertionError("a device?")
        nursery.cancel_scope.cancel()


async def test_a_taken_port_is_one_clear_error() -> None:
    async with serving(echo) as address:
        with pytest.raises(UsageError, match=r"cannot listen on ws://127.0.0.1:\d+: ") as caught:
            await WebSocketNetwork().listen(address, echo)
        assert caught.value.code == "cannot_listen"


@pytest.mark.parametrize(
    ("path", "headers", "subprotocols", "status"),
    [
        ("/", [], None, 404),
        ("/peers/", [], None, 404),
        ("/peers?x", [], None, 404),
        (CONFIG.path, [], ["chat"], 404),
        (CONFIG.path, [(b"Origin", b"http://evil.example")], None, 403),
        (CONFIG.path, [(b"origin", b"null")], None, 403),
    ],
)
async def test_w3_wrong_path_and_t40_any_origin(
    path: str, headers: list[tuple[bytes, bytes]], subprotocols: list[str] | None, status: int
) -> None:
    """W3: wrong path/subprotocol: HTTP 404. T40: any `Origin` at all on the peer port: refused."""
    request = UPGRADE.replace(b"/peers", path.encode(), 1)[:-2]
    for name, value in headers:
        request += name + b": " + value + b"\r\n"
    if subprotocols:
        request += b"Sec-WebSocket-Protocol: " + ", ".join(subprotocols).encode() + b"\r\n"
    async with serving(echo) as address:
        async with await trio.open_tcp_stream("127.0.0.1", int(address.rpartition(":")[2])) as stream:
            await stream.send_all(request + b"\r\n")
            answer = await stream.receive_some()
        assert answer.startswith(f"HTTP/1.1 {status} ".encode())


async def close_code_after(address: str, message: str | bytes) -> int:
    port = int(address.rpartition(":")[2])
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream, trio.open_nursery() as nursery:
        ws = await trio_websocket.wrap_client_stream(nursery, stream, "127.0.0.1", CONFIG.path)
        await ws.send_message(message)
        with contextlib.suppress(trio_websocket.ConnectionClosed):
            while True:
                await ws.get_message()
        nursery.cancel_scope.cancel()
    assert ws.closed is not None
    return ws.closed.code


class Recorder:
    """Receives until the end, and keeps how it came."""

    def __init__(self, *, authenticate: bool = True) -> None:
        self.frames: list[int] = []
        self.errors: list[str] = []
        self._authenticate = authenticate

    async def __call__(self, transport: Transport) -> None:
        if self._authenticate:
            transport.authenticated()
        try:
            while True:
                self.frames.append(len(await transport.receive()))
        except (ProtocolError, ConnectionLost) as error:
            self.errors.append(error.code)


async def test_w3_text_frame() -> None:
    """W3: WebSocket text frame: close 1003."""
    recorder = Recorder()
    async with serving(recorder) as address:
        assert await close_code_after(address, "text") == 1003
    assert recorder.errors == ["bad_frame"]


async def test_w2_frames_at_the_limit_and_above() -> None:
    """W2: exactly limit: ok; limit+1: close before buffering (1009)."""
    recorder = Recorder()
    async with serving(recorder) as address:
        async with WebSocketNetwork().dial(address) as transport:
            await transport.send(bytes(CONFIG.frame_bytes_max))
            await transport.send(b"x")
        assert await close_code_after(address, bytes(CONFIG.frame_bytes_max + 1)) == 1009
    assert recorder.frames == [CONFIG.frame_bytes_max, 1]
    assert recorder.errors == ["connection_lost", "too_large"]


async def test_t36_strangers_have_small_frames() -> None:
    """T36: before authentication a frame is at most 8 KiB; more is not buffered."""
    recorder = Recorder(authenticate=False)
    async with serving(recorder) as address:
        assert await close_code_after(address, bytes(CONFIG.handshake_bytes_max + 1)) == 1009
    assert recorder.errors == ["too_large"] and recorder.frames == []


GARBAGE = [
    b"",
    b"\x16\x03\x01\x02\x00" + bytes(200),
    b"GET /peers HTTP/1.1\r\n\r\n",
    b"GET /peers HTTP/1.1\r\nHost: x\r\n" + b"A: " + b"b" * 1_000_000 + b"\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999999\r\n\r\n",
    b"\r\n" * 1000,
]
AFTER_UPGRADE = [
    b"\x82\x05hello",  # not masked
    b"\x82\xff\x40" + bytes(7) + b"mask" + bytes(1000),  # a length of 2 ** 62
    b"\x81\x82mask\xff\xff",  # text that is no UTF-8
    b"\x8f\x80mask",  # an unknown opcode
    b"\x89\x80mask" * 5000,  # a flood of pings
    b"\x88\x80mask\x82\x81mask1",  # a frame after the close
    b"\x80\x80mask",  # a continuation of nothing
    b"\x89\xfe\x01\x00mask" + bytes(256),  # an oversized ping
]


@pytest.mark.parametrize("sent", GARBAGE + [UPGRADE + frames for frames in AFTER_UPGRADE])
async def test_a_listener_survives_anything(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing that a stranger sends, or leaves out, ends the listener or is worth an error in the log."""
    async with serving(echo) as address:
        host, port = "127.0.0.1", int(address.rpartition(":")[2])
        for abort in (False, True):
            stream = await trio.open_tcp_stream(host, port)
            with contextlib.suppress(trio.BrokenResourceError):
                await stream.send_all(sent)
                if not abort:
                    with trio.move_on_after(0.2):
                        await stream.send_eof()
                        while await stream.receive_some():
                            pass
            await stream.aclose()
        async with WebSocketNetwork().dial(address) as transport:
            await transport.send(b"still there?")
            assert await transport.receive() == b"still there?"
    assert not [record for record in caplog.records if record.levelname in {"WARNING", "ERROR"}]


async def test_h10_a_byte_per_second(autojump_clock: MockClock) -> None:
    """H10: handshake byte per second: closed at 5 s total."""
    network = WebSocketNetwork()
    ours, theirs = memory_stream_pair()

    async def drip() -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            for byte in UPGRADE:
                await theirs.send_all(bytes([byte]))
                await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drip)
        started = trio.current_time()
        await network.serve_stream(ours, "203.0.113.7", 4000, echo)
        assert trio.current_time() - started == 5
        assert network.gate.unauthenticated == 0


async def test_h10_a_slow_handshake_after_a_quick_opening(autojump_clock: MockClock, pair: Any) -> None:
    """H10: the five seconds hold for the opening of the socket and the handshake together."""
    network = WebSocketNetwork()
    ours, theirs = memory_stream_pair()

    async def slow() -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError, Exception):
            await trio.sleep(3)
            await theirs.send_all(UPGRADE)
            while await theirs.receive_some():
                pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(slow)
        started = trio.current_time()
        await network.serve_stream(ours, "203.0.113.7", 4000, pair.bob.run)
        assert 5 <= trio.current_time() - started <= 5 + CONFIG.goodbye_seconds
        assert pair.bob.reasons[0].code == "timed_out"


async def test_t36_over_a_limit_the_socket_is_closed_without_work(autojump_clock: MockClock) -> None:
    """T36: ≤ 4 unauthenticated sockets per /24; over: TCP close without work."""
    network = WebSocketNetwork()
    async with trio.open_nursery() as nursery:
        for n in range(4):
            nursery.start_soon(network.serve_stream, memory_stream_pair()[0], f"203.0.113.{n}", 4000, echo)
        await trio.testing.wait_all_tasks_blocked()
        fifth, theirs = memory_stream_pair()
        await network.serve_stream(fifth, "203.0.113.99", 4000, echo)
        assert await theirs.receive_some() == b""
        assert network.gate.unauthenticated == 4 and network.gate.refused == 1


@asynccontextmanager
async def connected(pair: Any) -> AsyncIterator[tuple[Connection, Connection]]:
    """Alice and Bob over a real socket."""
    async with trio.open_nursery() as nursery, serving(pair.bob.run) as address:

        async def dial() -> None:
            async with WebSocketNetwork().dial(address) as transport:
                await pair.alice.run(transport, address)

        nursery.start_soon(dial)
        await pair.alice.verified.wait()
        await pair.bob.verified.wait()
        yield pair.alice.open, pair.bob.open
        nursery.cancel_scope.cancel()


async def test_connections_over_real_sockets(pair: Any) -> None:
    page = [bytes([n]) * 4096 for n in range(256)]

    async def answer(connection: Connection, slot: int, method: str, args: Any) -> Any:
        return page if method == "list_changes" else args

    pair.bob.answer = answer
    async with connected(pair) as (alice, bob):
        assert (alice.peer.device, bob.peer.device) == (BOB.device, ALICE.device)
        assert bob.remote.startswith("ws://127.0.0.1:")
        for n in range(50):
            assert await alice.call(1, "small", n) == n
        for _ in range(20):
            assert await alice.call(1, "list_changes", []) == page
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(alice.call, 1, "list_changes", [])
                nursery.start_soon(bob.call, 1, "echo", page)
    assert pair.alice.reasons[0].code == "stopped"


async def test_the_reason_of_a_close_arrives(pair: Any) -> None:
    async with connected(pair) as (alice, _):
        alice.close("replaced", "by a newer one")
        await pair.bob.closed.wait()
        assert (pair.bob.reasons[0].code, pair.bob.reasons[0].by_peer) == ("replaced", True)
