"""Commit notices reach every subscriber, and a slow one costs the writer nothing."""

import trio

from peers.config import ENTRY_BYTES_MAX
from peers.model.entries import RawEntry
from peers.store.commit_feed import Commit, CommitFeed, Origin


def commit(*tables: str, size: int = 10, origin: Origin = Origin.LOCAL) -> Commit:
    return Commit(frozenset(tables), origin, (RawEntry(b"h" * size, b"s", ()),))


async def test_every_subscriber_gets_every_commit_in_order() -> None:
    feed = CommitFeed(8)
    with feed.subscribe() as one, feed.subscribe() as two:
        for name in "abc":
            feed.publish(commit(name))
        assert [await one.receive() for _ in "abc"] == [commit(name) for name in "abc"]
        assert [await two.receive() for _ in "abc"] == [commit(name) for name in "abc"]
    assert feed.statistics().subscribers == 0


async def test_a_reader_waits_and_wakes(autojump_clock: trio.testing.MockClock) -> None:
    feed = CommitFeed(8)
    got: list[Commit] = []

    async def read(task_status: trio.TaskStatus[None]) -> None:
        with feed.subscribe() as subscription:
            task_status.started()
            async for notice in subscription:
                got.append(notice)

    async with trio.open_nursery() as nursery:
        await nursery.start(read)
        feed.publish(commit("a"))
        await trio.sleep(1)
        feed.publish(commit("b"))
        await trio.sleep(1)
        assert len(got) == 2
        feed.publish(commit("c"))
        feed.close()
    assert [sorted(notice.tables) for notice in got] == [["a"], ["b"], ["c"]]


async def test_notices_of_a_slow_subscriber_are_merged_not_lost() -> None:
    feed = CommitFeed(2)
    with feed.subscribe() as slow:
        feed.publish(commit("a"))
        feed.publish(commit("b"))
        feed.publish(commit("c", origin=Origin.REMOTE))
        feed.publish(commit("d"))
        assert feed.statistics().waiting == 2 and feed.statistics().merged == 2
        assert await slow.receive() == commit("a")
        merged = await slow.receive()
        assert merged.tables == {"b", "c", "d"} and merged.origin is Origin.BOTH
        assert len(merged.entries) == 3 and not merged.gap
    assert feed.statistics().merged == 2


async def test_merged_entries_are_bounded_and_the_gap_is_told() -> None:
    feed = CommitFeed(1)
    with feed.subscribe() as slow:
        for _ in range(3):
            feed.publish(commit("a", size=ENTRY_BYTES_MAX // 2))
        merged = await slow.receive()
        assert merged.gap and sum(entry.size for entry in merged.entries) <= ENTRY_BYTES_MAX
