"""A bounded queue with one reader: the only way into an actor.

A full mailbox makes its senders wait, in order: that is the back pressure of the whole runtime. A cancelled `send`
has not sent; a cancelled `receive` has taken nothing. Not for use across threads.
"""

from collections import deque
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import trio
from trio.lowlevel import Abort, Task, checkpoint, checkpoint_if_cancelled, current_task, reschedule
from trio.lowlevel import wait_task_rescheduled as park

from actors.errors import MailboxClosed, MailboxFull

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class MailboxStatistics:
    """`waiting` items of at most `capacity`; `peak` is the most that ever waited; `received` counts what was taken."""

    capacity: int
    waiting: int
    peak: int
    received: int
    blocked_senders: int


class _Blocked(Generic[T]):
    """One sender that waits for room."""

    __slots__ = ("accepted", "item", "task")

    def __init__(self, item: T, task: Task) -> None:
        self.item = item
        self.task = task
        self.accepted = False


class Mailbox(Generic[T]):
    """A bounded first-in first-out queue of many senders and one receiver."""

    __slots__ = ("_blocked", "_capacity", "_closed", "_peak", "_queue", "_received", "_receiver")

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"a mailbox needs room for at least one item, not {capacity}")
        self._capacity = capacity
        self._queue: deque[T] = deque()
        self._blocked: deque[_Blocked[T]] = deque()  # not empty only while the queue is full
        self._receiver: Task | None = None
        self._closed = False
        self._peak = 0
        self._received = 0

    async def send(self, item: T) -> None:
        """Put the item in, waiting for room.

        Raises:
          MailboxClosed: before or while waiting; the item is not in.
        """
        await checkpoint_if_cancelled()
        if self._closed or len(self._queue) < self._capacity:
            self.send_nowait(item)
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        blocked = _Blocked(item, current_task())
        self._blocked.append(blocked)

        def abort(_: Any) -> Abort:
            self._blocked.remove(blocked)
            return Abort.SUCCEEDED

        await park(abort)
        if not blocked.accepted:
            raise MailboxClosed("the mailbox closed before it had room")

    def send_nowait(self, item: T) -> None:
        """Put the item in.

        Raises:
          MailboxFull: no room now.
          MailboxClosed: never again.
        """
        queue = self._queue
        if self._closed:
            raise MailboxClosed("the mailbox is closed")
        if len(queue) >= self._capacity:
            raise MailboxFull(f"the mailbox holds {self._capacity} messages already")
        queue.append(item)
        if len(queue) > self._peak:
            self._peak = len(queue)
        receiver = self._receiver
        if receiver is not None:
            self._receiver = None
            reschedule(receiver)

    async def receive(self) -> T:
        """Take the oldest item, waiting for one. Always a checkpoint, before anything is taken.

        Raises:
          MailboxClosed: before or while waiting.
          trio.BusyResourceError: another task waits already.
        """
        if self._queue:
            await checkpoint()
        while not self._queue:
            if self._closed:
                raise MailboxClosed("the mailbox is closed")
            if self._receiver is not None:
                raise trio.BusyResourceError("another task receives from this mailbox")
            self._receiver = current_task()
            await park(self._abort_receive)
        return self._take()

    def receive_nowait(self) -> T:
        """Take the oldest item.

        Raises:
          trio.WouldBlock: there is none.
          MailboxClosed: there never will be.
        """
        if self._queue:
            return self._take()
        if self._closed:
            raise MailboxClosed("the mailbox is closed")
        raise trio.WouldBlock

    def close(self) -> list[T]:
        """Take nothing any more, and give back what still waited. Blocked senders and the receiver raise."""
        self._closed = True
        left = list(self._queue)
        self._queue.clear()
        for blocked in self._blocked:
            reschedule(blocked.task)
        self._blocked.clear()
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            reschedule(receiver)
        return left

    def statistics(self) -> MailboxStatistics:
        return MailboxStatistics(self._capacity, len(self._queue), self._peak, self._received, len(self._blocked))

    def _take(self) -> T:
        item = self._queue.popleft()
        self._received += 1
        if self._blocked:
            blocked = self._blocked.popleft()
            blocked.accepted = True
            self._queue.append(blocked.item)
            reschedule(blocked.task)
        return item

    def _abort_receive(self, _: Any) -> Abort:
        self._receiver = None
        return Abort.SUCCEEDED
