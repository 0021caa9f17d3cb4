"""Commit notices: which tables a commit changed, whose it was, and the entries that it made.

The writer publishes after each durable commit; live queries and DeviceSync subscribe. A subscriber that lags never
blocks the writer and never loses a notice: beyond `feed_queue` waiting notices the newest are merged into one (tables
united, entries in order while they stay below `ENTRY_BYTES_MAX`, else dropped and `gap` set: the reader takes them
from the log). Assumes one event loop; no thread may publish.
"""

import weakref
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

import trio

from peers.config import ENTRY_BYTES_MAX
from peers.model.entries import RawEntry


class Origin(Enum):
    LOCAL = "local"
    """This device's own writes."""
    REMOTE = "remote"
    """Entries of others, merged."""
    BOTH = "both"
    """Several commits of either kind, merged into one notice."""


@dataclass(frozen=True)
class Commit:
    """One commit, or several merged into one for a subscriber that lagged."""

    tables: frozenset[str]
    """Names of the user tables whose rows may have changed; `GroupMembers` where membership did."""
    origin: Origin
    entries: tuple[RawEntry, ...] = ()
    """Own new entries, verbatim and in order, for the first push."""
    schema_changed: bool = False
    gap: bool = False
    """Own entries are missing from `entries`, because too much was merged: read them from the log."""


@dataclass(frozen=True)
class FeedStatistics:
    subscribers: int
    waiting: int
    """Notices of the slowest subscriber."""
    merged: int
    """Notices that were merged into others since the start."""


def merge_commits(first: Commit, second: Commit) -> Commit:
    """One notice that says at least what both say."""
    entries = first.entries + second.entries
    gap = first.gap or second.gap
    if sum(entry.size for entry in entries) > ENTRY_BYTES_MAX:
        entries, gap = (), True
    return Commit(
        first.tables | second.tables,
        first.origin if first.origin is second.origin else Origin.BOTH,
        entries,
        first.schema_changed or second.schema_changed,
        gap,
    )


class Subscription:
    """One subscriber's notices. `async for commit in subscription`; ends when the feed is closed."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._waiting: deque[Commit] = deque()
        self._more = trio.Event()
        self._closed = False
        self.merged = 0

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def put(self, commit: Commit) -> None:
        if len(self._waiting) >= self._capacity:
            self._waiting[-1] = merge_commits(self._waiting[-1], commit)
            self.merged += 1
        else:
            self._waiting.append(commit)
        self._more.set()

    def close(self) -> None:
        self._closed = True
        self._more.set()

    def take_all(self) -> list[Commit]:
        """What waits, without waiting."""
        taken = list(self._waiting)
        self._waiting.clear()
        return taken

    async def receive(self) -> Commit:
        """The next notice. Raises EndOfChannel when the feed is closed and nothing waits."""
        await trio.lowlevel.checkpoint()
        while not self._waiting:
            if self._closed:
                raise trio.EndOfChannel
            self._more = trio.Event()
            await self._more.wait()
        return self._waiting.popleft()

    def __aiter__(self) -> AsyncIterator[Commit]:
        return self

    async def __anext__(self) -> Commit:
        try:
            return await self.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None


class CommitFeed:
    """The writer's side. `publish` never waits. A subscription lasts as long as somebody holds it."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._subscriptions: weakref.WeakSet[Subscription] = weakref.WeakSet()
        self._closed = False
        self._merged_before = 0

    def attach(self) -> Subscription:
        """Notices of every commit from now on, until the subscription is let go."""
        subscription = Subscription(self._capacity)
        if self._closed:
            subscription.close()
        self._subscriptions.add(subscription)
        return subscription

    @contextmanager
    def subscribe(self) -> Iterator[Subscription]:
        """Notices of every commit within the block."""
        subscription = self.attach()
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
            self._merged_before += subscription.merged

    def publish(self, commit: Commit) -> None:
        for subscription in self._subscriptions:
            subscription.put(commit)

    def close(self) -> None:
        """Ends every subscription when it has read what waits."""
        self._closed = True
        for subscription in self._subscriptions:
            subscription.close()

    def statistics(self) -> FeedStatistics:
        return FeedStatistics(
            subscribers=len(self._subscriptions),
            waiting=max((subscription.waiting for subscription in self._subscriptions), default=0),
            merged=self._merged_before + sum(subscription.merged for subscription in self._subscriptions),
        )
