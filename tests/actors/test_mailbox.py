"""The mailbox: bounded, in order, and cancelled calls change nothing."""

import math

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.errors import MailboxClosed, MailboxFull
from actors.mailbox import Mailbox, MailboxStatistics


async def test_first_in_first_out_and_statistics() -> None:
    mailbox: Mailbox[int] = Mailbox(3)
    for item in range(3):
        await mailbox.send(item)
    assert mailbox.statistics() == MailboxStatistics(capacity=3, waiting=3, peak=3, received=0, blocked_senders=0)
    assert [await mailbox.receive() for _ in range(3)] == [0, 1, 2]
    assert mailbox.statistics() == MailboxStatistics(capacity=3, waiting=0, peak=3, received=3, blocked_senders=0)


async def test_full_and_empty() -> None:
    mailbox: Mailbox[int] = Mailbox(1)
    with pytest.raises(trio.WouldBlock):
        mailbox.receive_nowait()
    mailbox.send_nowait(1)
    with pytest.raises(MailboxFull, match="holds 1 messages"):
        mailbox.send_nowait(2)
    assert mailbox.receive_nowait() == 1


def test_needs_room() -> None:
    with pytest.raises(ValueError, match="room"):
        Mailbox(0)


async def test_senders_wait_in_order_and_a_cancelled_one_has_not_sent(nursery: trio.Nursery) -> None:
    mailbox: Mailbox[int] = Mailbox(1)
    await mailbox.send(0)
    scopes = []

    async def send(item: int) -> None:
        with trio.CancelScope() as scope:
            scopes.append(scope)
            await mailbox.send(item)

    for item in (1, 2, 3):
        nursery.start_soon(send, item)
        await wait_all_tasks_blocked()
    assert mailbox.statistics().blocked_senders == 3
    scopes[1].cancel()
    await wait_all_tasks_blocked()
    assert mailbox.statistics().blocked_senders == 2
    assert [await mailbox.receive() for _ in range(3)] == [0, 1, 3]
    assert mailbox.statistics().waiting == 0


async def test_a_cancelled_receive_has_taken_nothing(nursery: trio.Nursery) -> None:
    mailbox: Mailbox[int] = Mailbox(1)
    with trio.CancelScope() as scope:
        nursery.start_soon(mailbox.send, 7)
        scope.cancel()
        await mailbox.receive()
    assert await mailbox.receive() == 7
    await mailbox.send(8)
    with trio.CancelScope() as scope:
        scope.cancel()
        await mailbox.receive()
    assert mailbox.statistics().waiting == 1


async def test_one_receiver(nursery: trio.Nursery) -> None:
    mailbox: Mailbox[int] = Mailbox(1)
    nursery.start_soon(mailbox.receive)
    await wait_all_tasks_blocked()
    with pytest.raises(trio.BusyResourceError):
        await mailbox.receive()
    nursery.cancel_scope.cancel()


async def test_close_gives_back_what_waited_and_wakes_everybody() -> None:
    full: Mailbox[int] = Mailbox(1)
    empty: Mailbox[int] = Mailbox(1)
    raised = []

    async def expect_closed(what: str) -> None:
        with pytest.raises(MailboxClosed):
            await (full.send(2) if what == "send" else empty.receive())
        raised.append(what)

    await full.send(1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_closed, "send")
        nursery.start_soon(expect_closed, "receive")
        await wait_all_tasks_blocked()
        assert full.close() == [1]
        assert empty.close() == []
        assert full.close() == []
    assert sorted(raised) == ["receive", "send"]
    with pytest.raises(MailboxClosed):
        full.send_nowait(3)
    with pytest.raises(MailboxClosed):
        await full.send(3)
    with pytest.raises(MailboxClosed):
        full.receive_nowait()
    with pytest.raises(MailboxClosed):
        await full.receive()


async def test_receive_is_a_checkpoint() -> None:
    mailbox: Mailbox[int] = Mailbox(2)
    await mailbox.send(1)
    with trio.testing.assert_checkpoints():
        await mailbox.receive()
    with trio.testing.assert_checkpoints():
        await mailbox.send(1)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=30))
def test_nothing_is_lost_or_doubled_under_cancellation(capacity: int, plan: list[tuple[int, bool]]) -> None:
    """Senders give up after some time; what `send` returned for arrives once, in order of each sender, nothing else."""
    sent: list[int] = []
    arrived: list[int] = []

    async def main() -> None:
        mailbox: Mailbox[int] = Mailbox(capacity)

        async def sender(number: int, delay: int, patient: bool) -> None:
            await trio.sleep(delay)
            with trio.move_on_after(math.inf if patient else 0.5):
                await mailbox.send(number)
                sent.append(number)

        async def receiver() -> None:
            while True:
                with trio.move_on_after(0.3):
                    arrived.append(await mailbox.receive())
                await trio.sleep(0.2)

        async with trio.open_nursery() as outer:
            outer.start_soon(receiver)
            async with trio.open_nursery() as inner:
                for number, (delay, patient) in enumerate(plan):
                    inner.start_soon(sender, number, delay, patient)
            await trio.sleep(100)
            assert mailbox.statistics().peak <= capacity
            outer.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert sorted(sent) == sorted(arrived)
