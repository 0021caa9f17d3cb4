"""Connections over a simulated network, in virtual time."""

import contextlib
import math
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from peers.errors import ConnectionLost, DiskFull, NotAllowed, ProtocolError, RemoteError, TimedOut, WireFault
from peers.net.close_reason import STOPPED, CloseReason
from peers.net.connection import Connection
from peers.testing.handshakes import ALICE, BOB, MALLORY
from peers.testing.people import EPOCH_MS


async def test_calls_both_ways(autojump_clock: MockClock, pair: Any) -> None:
    async with pair.connected() as (alice, bob):
        assert (alice.peer.device, bob.peer.device) == (BOB.device, ALICE.device)
        assert alice.dialled and not bob.dialled and alice.conn_id == bob.conn_id
        assert await alice.call(3, "echo", [1, b"two"]) == [3, "echo", [1, b"two"]]
        assert await bob.call(4, "echo", None) == [4, "echo", None]
    assert pair.alice.events == ["connecting", "verified", "closed stopped"]
    assert pair.bob.events[:2] == ["connecting", "verified"]


async def test_large_answers_and_notifications(autojump_clock: MockClock, pair: Any) -> None:
    pages = [bytes([n]) * 300_000 for n in range(5)]

    async def answer(connection: Connection, slot: int, method: str, args: Any) -> Any:
        return pages

    pair.bob.answer = answer
    async with pair.connected() as (alice, bob):
        assert await alice.call(1, "list_changes", []) == pages
        await alice.notify(1, "push", pages)
        await alice.call(1, "list_changes", [])
        await trio.sleep(1)
        assert pair.bob.notified == [pages]
        assert bob.statistics().bytes_out > 3_000_000


async def test_small_messages_pass_large_ones(autojump_clock: MockClock, pair: Any) -> None:
    """A ping or a live push waits for one chunk, not for the whole page before it."""
    order: list[int] = []

    async def heard(connection: Connection, slot: int, method: str, args: Any) -> None:
        order.append(slot)

    pair.bob.heard = heard
    async with pair.connected() as (alice, _):
        for slot in (1, 2):
            await alice.notify(slot, "push", bytes(1_000_000))
        for slot in (3, 4):
            await alice.notify(slot, "push", b"")
        await trio.sleep(1)
        assert order == [3, 4, 1, 2]


async def test_errors_of_the_handler(autojump_clock: MockClock, pair: Any) -> None:
    async def answer(connection: Connection, slot: int, method: str, args: Any) -> Any:
        if method == "denied":
            raise NotAllowed("you may not")
        if method == "full":
            raise DiskFull("/home/bob/secret.db is full")
        if method == "big":
            return bytes(17 << 20)
        return None

    pair.bob.answer = answer
    async with pair.connected() as (alice, _):
        with pytest.raises(RemoteError, match="bob: you may not") as caught:
            await alice.call(1, "denied", [])
        assert caught.value.code == "not_allowed"
        with pytest.raises(RemoteError) as caught:
            await alice.call(1, "full", [])
        assert caught.value.code == "disk_full" and "secret" not in str(caught.value)
        with pytest.raises(RemoteError) as caught:
            await alice.call(1, "big", [])
        assert caught.value.code == "too_large"
        assert await alice.call(1, "fine", []) is None


async def test_a_bug_in_a_handler_is_an_error_of_that_call(
    autojump_clock: MockClock, pair: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(connection: Connection, slot: int, method: str, args: Any) -> Any:
        raise ZeroDivisionError

    pair.bob.answer = answer
    async with pair.connected() as (alice, _):
        for _ in range(2):
            with pytest.raises(RemoteError) as caught:
                await alice.call(1, "method", [])
            assert caught.value.code == "internal_error"
    assert "ZeroDivisionError" in caplog.text


async def test_cancelling_a_call_cancels_its_handler(autojump_clock: MockClock, pair: Any) -> None:
    begun, cancelled = trio.Event(), trio.Event()

    async def answer(connection: Connection, slot: int, method: str, args: Any) -> Any:
        begun.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    pair.bob.answer = answer
    async with pair.connected() as (alice, bob):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(alice.call, 1, "slow", [])
            await begun.wait()
            nursery.cancel_scope.cancel()
        await cancelled.wait()
        await trio.sleep(1)
        assert alice.statistics().open_calls == 0 and bob.statistics().serving == 0
        pair.bob.answer = None
        assert await alice.call(1, "echo", []) == [1, "echo", []]


async def test_a_call_times_out_and_its_late_answer_is_harmless(autojump_clock: MockClock, pair: Any) -> None:
    async def answer(connection: Connection, slot: int, method: str, args: Any) -> Any:
        with trio.CancelScope(shield=True):
            await trio.sleep(5)
        return "late"

    pair.bob.answer = answer
    async with pair.connected() as (alice, _):
        with pytest.raises(TimedOut, match="bob did not answer slow in 2 s"):
            await alice.call(1, "slow", [], timeout=2)
        await trio.sleep(10)
        assert await alice.call(1, "slow", [], timeout=math.inf) == "late"
        assert 0 < alice.statistics().error_rate < 0.1


async def test_w8_a_reply_never_asked_closes(autojump_clock: MockClock, pair: Any) -> None:
    """W8: reply to an id never asked; second reply to same id: close `bad_reply`."""
    async with pair.connected() as (alice, bob):
        assert await alice.call(1, "echo", []) == [1, "echo", []]
        bob._rpc._answering.add(2)
        bob._outbound.post(bob._rpc.reply(2, "again"))
        await pair.alice.closed.wait()
        await pair.bob.closed.wait()
    assert pair.alice.reasons[0].code == "bad_reply"
    assert (pair.bob.reasons[0].code, pair.bob.reasons[0].by_peer) == ("bad_reply", True)


async def test_w9_ten_thousand_calls_at_once(autojump_clock: MockClock, pair: Any) -> None:
    """W9: 10,000 parallel calls on one connection: ≤ 64 run, the rest is back-pressured."""
    done = []

    async def answer(connection: Connection, slot: int, method: str, args: Any) -> Any:
        await trio.sleep(0.01)
        return args

    async def call(alice: Connection, n: int) -> None:
        done.append(await alice.call(1, "m", n, timeout=math.inf))

    pair.bob.answer = answer
    async with pair.connected() as (alice, bob):
        async with trio.open_nursery() as nursery:
            for n in range(10_000):
                nursery.start_soon(call, alice, n)
        assert sorted(done) == list(range(10_000))
        assert pair.bob.most_served == 64 and bob.statistics().calls_in == 10_000


async def test_w9_a_peer_without_manners_is_back_pressured(autojump_clock: MockClock, pair: Any) -> None:
    """W9: a peer that ignores our limit of calls: no more than 64 run, nothing is read meanwhile, none is lost."""
    go_on = trio.Event()

    async def answer(connection: Connection, slot: int, method: str, args: Any) -> Any:
        await go_on.wait()

    pair.bob.answer = answer
    async with pair.connected() as (alice, bob):
        alice._calls_limit = 100_000
        async with trio.open_nursery() as nursery:
            for _ in range(500):
                nursery.start_soon(alice.call, 1, "m", [])
            await trio.sleep(1)
            assert bob.statistics().calls_in == bob.statistics().serving == 64
            go_on.set()
        assert bob.statistics().calls_in == 500


async def test_two_sides_with_nested_calls_do_not_block_each_other(autojump_clock: MockClock, pair: Any) -> None:
    async def nested(connection: Connection, slot: int, method: str, args: Any) -> Any:
        return await connection.call(slot, "inner", args) if method == "outer" else args

    pair.alice.answer = pair.bob.answer = nested
    async with pair.connected() as (alice, bob):
        results: list[Any] = []

        async def call(connection: Connection, n: int) -> None:
            results.append(await connection.call(1, "outer", n))

        async with trio.open_nursery() as nursery:
            for n in range(30):
                nursery.start_soon(call, alice, n)
                nursery.start_soon(call, bob, n)
        assert len(results) == 60


async def test_notifications_are_served_in_order_and_back_pressured(autojump_clock: MockClock, pair: Any) -> None:
    pair.configure(inbound_bytes_max=100_000, send_queue_bytes=100_000)
    go_on = trio.Event()

    async def heard(connection: Connection, slot: int, method: str, args: Any) -> None:
        await go_on.wait()

    async def push(alice: Connection) -> None:
        for n in range(1000):
            await alice.notify(1, "push", [n, bytes(1000)])
            sent.append(n)

    sent: list[int] = []
    pair.bob.heard = heard
    async with pair.connected() as (alice, _), trio.open_nursery() as nursery:
        nursery.start_soon(push, alice)
        await trio.sleep(5)
        assert 150 < len(sent) < 250  # in hand, on the way and waiting to be sent: about 64 each
        go_on.set()
        await trio.sleep(60)
        assert [n for n, _ in pair.bob.notified] == list(range(1000))


async def test_nothing_is_served_before_on_verified_has_returned(autojump_clock: MockClock, pair: Any) -> None:
    async def introduced(connection: Connection) -> None:
        assert await connection.call(1, "during", []) == [1, "during", []]
        await trio.sleep(3)

    pair.bob.introduced = introduced
    started = trio.current_time()
    async with pair.connected() as (alice, _):
        assert await alice.call(1, "echo", []) == [1, "echo", []]
        assert trio.current_time() - started > 3


async def test_w11_the_end_without_close_fails_open_calls(autojump_clock: MockClock, pair: Any) -> None:
    """W11: EOF without `close` in the middle of `listChanges`: `connection_lost`."""

    async def answer(connection: Connection, slot: int, method: str, args: Any) -> Any:
        await trio.sleep_forever()

    pair.bob.answer = answer
    async with pair.connected() as (alice, _):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lose, alice.call, 1, "list_changes", [])
            await trio.sleep(1)
            pair.network.cut("alice", "bob")
        await pair.bob.closed.wait()
        for use in (alice.call, alice.notify):
            with pytest.raises(ConnectionLost):
                await use(1, "more", [])
        alice.spawn(trio.sleep, 0)
        alice.close("too late")
    assert [reason.code for reason in pair.alice.reasons + pair.bob.reasons] == ["connection_lost"] * 2


async def lose(call: Any, *args: Any) -> None:
    with pytest.raises(ConnectionLost):
        await call(*args)


async def test_w12_a_peer_that_stops_reading_is_dropped(autojump_clock: MockClock, pair: Any) -> None:
    """W12: peer stops reading (full TCP window): the send times out after 30 s and closes; others are unaffected."""
    async with pair.connected() as (alice, _):
        pair.network.stall("alice", "bob")
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lose, flood, alice)
            await pair.alice.closed.wait()
        assert 30 <= trio.current_time() - started < 33
        assert pair.alice.reasons[0].code == "timed_out"


async def flood(alice: Connection) -> None:
    while True:
        await alice.notify(1, "push", bytes(10_000))


async def test_a_silent_peer_is_dropped_after_three_pings(autojump_clock: MockClock, pair: Any) -> None:
    async with pair.connected() as (alice, _):
        await trio.sleep(100)
        latency = alice.statistics().latency_seconds
        assert latency is not None and 0.02 <= latency < 0.021
        assert alice.statistics().error_rate == 0
        started = trio.current_time()
        pair.network.stall("bob", "alice")
        await pair.alice.closed.wait()
        assert 30 <= trio.current_time() - started <= 60
        assert pair.alice.reasons[0] == CloseReason("connection_lost", "bob did not answer 3 pings")


async def test_close_tells_the_peer_why(autojump_clock: MockClock, pair: Any) -> None:
    async with pair.connected() as (alice, _):
        alice.close("replaced", "by a newer one")
        await pair.alice.closed.wait()
        await pair.bob.closed.wait()
    assert pair.alice.reasons == [CloseReason("replaced", "by a newer one")]
    assert pair.bob.reasons == [CloseReason("replaced", "by a newer one", by_peer=True)]
    assert str(pair.bob.reasons[0]) == "the peer closed it: replaced (by a newer one)"


async def test_close_lets_a_send_finish(autojump_clock: MockClock, pair: Any) -> None:
    """The peer learns the reason also when a frame is under way."""
    async with pair.connected() as (alice, _):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lose, flood, alice)
            await trio.sleep(0.05)
            alice.close("enough")
        await pair.bob.closed.wait()
    assert pair.bob.reasons[0].code == "enough"


async def test_spawned_tasks_end_with_the_connection(autojump_clock: MockClock, pair: Any) -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("work")

    async with pair.connected() as (alice, _):
        alice.spawn(work)
        await trio.testing.wait_all_tasks_blocked()
        alice.close()
        await pair.alice.closed.wait()
        assert ended == ["work"]


async def fail_with(error: Exception) -> None:
    raise error


async def test_a_failing_task_closes_its_connection_only(
    autojump_clock: MockClock, pair: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """T13: nothing that one connection meets leaves it."""
    async with pair.connected() as (alice, bob):
        alice.spawn(fail_with, ProtocolError(WireFault.BAD_ENCODING, "a lie"))
        alice.spawn(fail_with, ExceptionGroup("two", [KeyError(1), ValueError(2)]))
        await pair.alice.closed.wait()
        bob.spawn(fail_with, ZeroDivisionError())
        await pair.bob.closed.wait()
    assert pair.alice.reasons[0].code in {"bad_encoding", "internal_error"}
    assert len(pair.alice.reasons) == 1


async def test_a_protocol_error_of_the_handler_ends_the_connection(autojump_clock: MockClock, pair: Any) -> None:
    async def answer(connection: Connection, slot: int, method: str, args: Any) -> Any:
        raise ProtocolError(WireFault.BAD_ENCODING, "arguments of another shape")

    pair.bob.answer = answer
    async with pair.connected() as (alice, _):
        with pytest.raises(ConnectionLost, match="bad_encoding"):
            await alice.call(1, "m", [])
        await pair.bob.closed.wait()
    assert pair.bob.reasons[0].code == "bad_encoding"


async def test_rekey_in_the_middle_of_traffic(autojump_clock: MockClock, pair: Any) -> None:
    pair.configure(rekey_bytes=200_000, rekey_seconds=60.0)
    async with pair.connected() as (alice, bob):
        for n in range(30):
            assert await alice.call(1, "echo", bytes([n]) * 50_000) == [1, "echo", bytes([n]) * 50_000]
        await trio.sleep(1000)
        assert await bob.call(1, "echo", 1) == [1, "echo", 1]


async def test_a_ping_flood_of_a_peer_that_reads_nothing(autojump_clock: MockClock, pair: Any) -> None:
    async with pair.connected() as (alice, bob):
        pair.network.stall("bob", "alice")

        async def pings() -> None:
            while True:
                alice._outbound.post_control(alice._rpc.ping()[1])
                await trio.sleep(0.001)

        alice.spawn(pings)
        await pair.bob.closed.wait()
        assert bob.reason is not None and bob.reason.code == "protocol"


async def test_h12_a_handshake_message_after_verified(autojump_clock: MockClock, pair: Any) -> None:
    """H12: `reset` or `completeHandshake` after verified: close `protocol`."""
    async with pair.connected() as (alice, _):
        await alice._transport.send(b"\x01" + bytes(32))
        await pair.bob.closed.wait()
    assert pair.bob.reasons[0].code == "protocol"


@pytest.mark.parametrize("skew_ms", [301_000, 3 * 3_600_000, 50 * 365 * 86_400_000])
async def test_h7_clocks_that_differ(autojump_clock: MockClock, pair: Any, skew_ms: int) -> None:
    """H7: clock off by 5 min + 1 s / 3 h / 50 years: `clock_skew: yours …, theirs …`."""
    pair.bob.now_ms = EPOCH_MS + skew_ms
    async with trio.open_nursery() as nursery:
        await nursery.start(pair.network.endpoint("bob").listen, "sim://bob", pair.bob.run)
        await pair.dial()
        nursery.cancel_scope.cancel()
    assert pair.alice.reasons[0].code == "clock_skew"
    assert "clock_skew: yours" in pair.alice.reasons[0].detail and "theirs" in pair.alice.reasons[0].detail
    assert pair.alice.events == ["connecting", "closed clock_skew"]


async def test_h8_dialling_ourselves(autojump_clock: MockClock, pair: Any) -> None:
    """H8: dialled our own address: `self_connection`."""
    pair.bob.identity = ALICE
    async with trio.open_nursery() as nursery:
        await nursery.start(pair.network.endpoint("bob").listen, "sim://bob", pair.bob.run)
        await pair.dial()
        nursery.cancel_scope.cancel()
    assert pair.alice.reasons[0].code == "self_connection"


async def test_the_servers_refusal_reaches_the_client(autojump_clock: MockClock, pair: Any) -> None:
    def admit(peer: Any) -> None:
        raise NotAllowed("strangers are not admitted today")

    async def refuse(transport: Any) -> None:
        await pair.bob.run(transport, admit=admit)

    async with trio.open_nursery() as nursery:
        await nursery.start(pair.network.endpoint("bob").listen, "sim://bob", refuse)
        await pair.dial()
        nursery.cancel_scope.cancel()
    assert pair.alice.reasons[0].code == "not_trusted"
    assert "strangers are not admitted today" in pair.alice.reasons[0].detail


async def test_an_unexpected_peer_is_not_told_who_we_are(autojump_clock: MockClock, pair: Any) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(pair.network.endpoint("bob").listen, "sim://bob", pair.bob.run)
        async with pair.network.endpoint("alice").dial("sim://bob") as transport:
            reason = await pair.alice.run(transport, "sim://bob", expected_device=MALLORY.device)
        await pair.bob.closed.wait()
        nursery.cancel_scope.cancel()
    assert reason.code == "wrong_peer"
    assert pair.bob.reasons[0].code == "connection_lost" and pair.bob.events[1] == "closed connection_lost"


async def raw_exchange(pair: Any, *frames: bytes) -> list[bytes]:
    """What a listening Bob answers to frames of a stranger until he closes."""
    answers: list[bytes] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(pair.network.endpoint("bob").listen, "sim://bob", pair.bob.run)
        async with pair.network.endpoint("mallory").dial("sim://bob") as transport:
            for frame in frames:
                await transport.send(frame)
            with contextlib.suppress(ConnectionLost):
                while True:
                    answers.append(await transport.receive())
        await pair.bob.closed.wait()
        nursery.cancel_scope.cancel()
    return answers


async def test_w1_random_bytes_instead_of_reset(autojump_clock: MockClock, pair: Any) -> None:
    """W1: random bytes instead of `reset`: close, `bad_frame`, no reply."""
    assert await raw_exchange(pair, b"\xc3" + bytes(range(200))) == []
    assert pair.bob.reasons[0].code == "bad_frame"


@pytest.mark.parametrize("frame", [b"", b"\x01"])
async def test_w2_frames_of_no_and_of_one_byte(autojump_clock: MockClock, pair: Any, frame: bytes) -> None:
    """W2: frame of 0 bytes / 1 byte: close."""
    assert await raw_exchange(pair, frame) == []
    assert pair.bob.reasons[0].code == "bad_frame"


async def test_w14_another_protocol_version(autojump_clock: MockClock, pair: Any) -> None:
    """W14: peer of another protocol version: `version_mismatch (ours 1, theirs 2)`, close."""
    assert await raw_exchange(pair, b"\x02" + bytes(32)) == [b"\x01"]
    assert pair.bob.reasons[0].code == "version_mismatch"
    assert "ours 1, theirs 2" in pair.bob.reasons[0].detail


async def test_a_handshake_that_stops_is_closed_after_5_s(autojump_clock: MockClock, pair: Any) -> None:
    started = trio.current_time()
    assert await raw_exchange(pair) == []
    assert 5 <= trio.current_time() - started < 5.1
    assert pair.bob.reasons[0].code == "timed_out"


async def test_cancelling_leaves_nothing(autojump_clock: MockClock, pair: Any) -> None:
    """Cancelled at any moment, a connection ends, is told of once, and leaves no task and no open transport."""
    for tenths_of_ms in range(0, 1000, 37):
        pair.alice.reasons.clear()
        pair.bob.reasons.clear()
        before = trio.lowlevel.current_statistics().tasks_living
        with trio.move_on_after(tenths_of_ms / 10_000):
            async with trio.open_nursery() as nursery:
                await nursery.start(pair.network.endpoint("bob").listen, "sim://bob", pair.bob.run)
                nursery.start_soon(pair.dial)
        assert trio.lowlevel.current_statistics().tasks_living == before
        assert pair.network.open_connections == []
        assert all(reason.code in {STOPPED, "connection_lost"} for reason in pair.alice.reasons + pair.bob.reasons)
        assert len(pair.alice.reasons) <= 1 and len(pair.bob.reasons) <= 1
