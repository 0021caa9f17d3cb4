"""The state hash of a file: of one moment, in steps, beside whatever is written meanwhile."""

import random
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from peers.config import Config, StoreConfig
from peers.errors import PeersError
from peers.group import Group
from peers.model.merge import state_hash
from peers.store.group_store import Author, GroupStore
from peers.testing.cluster import open_cluster
from peers.testing.histories import focused_history, random_history
from peers.testing.history import History

SMALL_STEPS = StoreConfig(step_rows=2)


def store_of(history: History, path: Path | str, config: StoreConfig = SMALL_STEPS) -> GroupStore:
    world = history.world
    return GroupStore.create(
        path, world.signed_operations, author=Author(world.observer.user, world.observer.key),
        now_ms=lambda: history.now_ms, random_bytes=random.Random(1).randbytes, config=config, nonce=bytes(16),
    )  # fmt: skip


def take(store: GroupStore, history: History, start: int = 0, stop: int | None = None) -> None:
    for _ in store.ingest([entry.raw for entry in history.entries[start:stop]], contact_seconds=3600.0):
        pass
    store.set_cutoffs(dict(history.final_cutoffs))


def finished(steps: Generator[None, None, bytes]) -> tuple[int, bytes]:
    count = 0
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return count, bytes(end.value)
        count += 1


@pytest.fixture
def history() -> History:
    return random_history(3)


@pytest.fixture
def store(history: History, tmp_path: Path) -> Iterator[GroupStore]:
    opened = store_of(history, tmp_path / "group.db")
    yield opened
    opened.close()


@pytest.mark.parametrize("seed", range(6))
def test_steps_of_any_size_end_as_the_oracle(seed: int, tmp_path: Path) -> None:
    history = (focused_history if seed % 2 else random_history)(seed)
    hashes, counts = set(), []
    for number, config in enumerate((StoreConfig(step_rows=1), StoreConfig(hash_step_bytes=1), StoreConfig())):
        store = store_of(history, tmp_path / f"{number}.db", config)
        take(store, history)
        count, found = finished(store.hashing.steps())
        counts.append(count)
        hashes.add(found)
        store.close()
    assert hashes == {state_hash(history.expected())}
    assert counts[0] >= counts[1] >= counts[2] > 0


def test_a_write_while_hashing_neither_waits_nor_changes_the_result(store: GroupStore, history: History) -> None:
    half = len(history.entries) // 2
    take(store, history, 0, half)
    before = store.state_hash()
    store.begin_publishing()  # a commit that changes no row: the hash is computed anew, and is the same
    assert store.hashing.known is None
    steps = store.hashing.steps()
    next(steps)
    take(store, history, half)  # would raise DatabaseLocked
    (busy, _, _) = store.database.connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    assert not busy
    count, found = finished(steps)
    assert count > 1
    assert found == before
    assert store.hashing.known is None, "a commit has happened since the snapshot"
    after = store.state_hash()
    assert after == store.hashing.known == state_hash(history.expected())
    assert after != before


def test_what_is_not_committed_does_not_count(store: GroupStore, history: History) -> None:
    half = len(history.entries) // 2
    take(store, history, 0, half)
    before = store.state_hash()
    merging = store.ingest([entry.raw for entry in history.entries[half:]], contact_seconds=3600.0)
    next(merging)
    assert store.hashing.known == before
    assert finished(store.hashing.steps())[1] == before
    merging.close()
    assert store.state_hash() == before


def test_another_program_s_write_is_seen(store: GroupStore, history: History) -> None:
    take(store, history)
    known = store.state_hash()
    other = store.database.reader()
    other.execute("PRAGMA query_only=OFF")
    other.execute("CREATE TABLE theirs(x)")
    assert store.hashing.known is None
    assert store.state_hash() == known


@pytest.mark.parametrize("steps_taken", [0, 1, 3])
def test_closing_in_the_middle_leaves_nothing_open(store: GroupStore, history: History, steps_taken: int) -> None:
    take(store, history)
    readers = list(store.database._readers)
    steps = store.hashing.steps()
    for _ in range(steps_taken):
        next(steps)
    steps.close()
    assert [reader for reader in store.database._readers if reader not in readers] in (
        [],
        [store.database.shared_reader],
    )
    (busy, _, _) = store.database.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert not busy, "somebody still reads"
    assert store.state_hash() == state_hash(history.expected())


# --- Beside everything else -------------------------------------------------------------------------------------------

TABLE = "CREATE TABLE note(title TEXT, stars INTEGER)"
ROWS = 200


async def filled(group: Group) -> None:
    await group.create_table(TABLE)
    await group.transact(lambda transaction: [transaction.save("note", {"title": f"{n}"}) for n in range(ROWS)])


async def test_the_event_loop_runs_and_writes_land_between_steps(tmp_path: Path, autojump_clock: Any) -> None:
    config = replace(Config(), store=StoreConfig(step_rows=10))
    async with open_cluster(tmp_path, ["a"], config=config) as cluster:
        group = await cluster["a"].create_group("team")
        await filled(group)
        before = await group.state_hash()
        await group.execute("INSERT INTO note(title) VALUES('later')")
        changed = await group.state_hash()
        assert changed != before
        turns, rows_seen, hashes = 0, [], []

        async def hash_it() -> None:
            hashes.append(await group.state_hash())

        await group.execute("DELETE FROM note WHERE title='later'")  # no hash is known now
        deleted = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hash_it)
            nursery.start_soon(hash_it)  # waits for the first, and takes its result
            while not hashes:
                await trio.lowlevel.checkpoint()
                turns += 1
                if turns == 5:
                    await group.execute("UPDATE note SET stars=5")
                    rows_seen = list((await group.query("SELECT DISTINCT stars FROM note")).rows)
                    assert not hashes, "the write had to wait for the hash"
        deleted = hashes[0]
        assert turns >= ROWS // 10
        assert rows_seen == [(5,)]
        assert deleted not in (before, changed)
        assert hashes[1] != deleted, "the second began after the write"
        assert await group.state_hash() == hashes[1]


async def test_cancelled_in_the_middle(tmp_path: Path, autojump_clock: Any) -> None:
    config = replace(Config(), store=StoreConfig(step_rows=10))
    async with open_cluster(tmp_path, ["a"], config=config) as cluster:
        group = await cluster["a"].create_group("team")
        await filled(group)
        store = group._context.replica.store
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(group.state_hash)
                for _ in range(5):
                    await trio.lowlevel.checkpoint()
                scope.cancel()
        assert scope.cancelled_caught
        assert store.hashing.known is None
        assert store.database._readers == [store.database.shared_reader]
        assert len(await group.state_hash()) == 32


async def test_a_group_that_has_not_arrived_has_no_hash(tmp_path: Path, autojump_clock: Any) -> None:
    async with open_cluster(tmp_path, ["a"]) as cluster:
        group = await cluster["a"].join_group(bytes(32), name="team")
        with pytest.raises(PeersError, match="not arrived"):
            await group.state_hash()
