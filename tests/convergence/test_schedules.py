"""Random schedules: 3 to 5 devices write, edit, delete, restart and lose each other; healed, they are equal.

A schedule is plain data, so a failing one shrinks, and what Hypothesis prints is a named test when it is copied below.
"""

import tempfile
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from peers.testing.cluster import Cluster, open_cluster

NAMES = "abcde"
TABLES = (
    "CREATE TABLE note(id TEXT PRIMARY KEY, title TEXT, stars INTEGER NOT NULL DEFAULT 0)",
    "CREATE TABLE tag(note TEXT, word TEXT, weight REAL, PRIMARY KEY(note, word))",
)

devices = st.integers(0, 4)
steps = st.one_of(
    st.tuples(st.just("insert"), devices, st.integers(0, 3)),
    st.tuples(st.just("upsert"), devices, st.integers(0, 3)),
    st.tuples(st.just("title"), devices, st.integers(0, 9)),
    st.tuples(st.just("stars"), devices, st.integers(0, 9)),
    st.tuples(st.just("delete"), devices, st.integers(0, 9)),
    st.tuples(st.just("restore"), devices, st.integers(0, 9)),
    st.tuples(st.just("cut"), devices, devices),
    st.tuples(st.just("heal"), devices, devices),
    st.tuples(st.just("restart"), devices, st.just(0)),
    st.tuples(st.just("wait"), st.integers(0, 30), st.just(0)),
)
Step = tuple[str, int, int]


class Runner:
    """Carries out one schedule on a cluster whose links are a chain, or a star around the first device."""

    def __init__(self, cluster: Cluster, names: str) -> None:
        self.cluster = cluster
        self.names = names
        self.count = 0

    async def prepare(self, *, star: bool) -> None:
        await self.cluster.found_group(self.names[0], self.names[1:])
        for table in TABLES:
            await self.cluster.group(self.names[0]).create_table(table)
        for before, name in zip(self.names, self.names[1:], strict=False):
            await self.cluster.connect(name, self.names[0] if star else before)
        await self.cluster.settled()

    async def step(self, kind: str, one: int, other: int) -> None:
        name = self.names[one % len(self.names)]
        second = self.names[other % len(self.names)]
        group = self.cluster.group(name)
        self.count += 1
        match kind:
            case "insert":
                await group.execute("INSERT INTO note(title, stars) VALUES(?, ?)", (f"{name}{self.count}", other))
            case "upsert":
                await group.execute("INSERT OR REPLACE INTO tag VALUES('n', ?, ?)", (f"w{other}", float(self.count)))
            case "title" | "stars" | "delete":
                await self._touch(kind, name, other)
            case "restore":
                await self._restore(name, other)
            case "cut" if name != second:
                self.cluster.network.cut(name, second)
            case "heal" if name != second:
                self.cluster.network.heal(name, second)
            case "restart":
                await self.cluster.restart(name)
            case "wait":
                await trio.sleep(one)

    async def _touch(self, kind: str, name: str, which: int) -> None:
        group = self.cluster.group(name)
        found = (await group.query("SELECT id FROM note ORDER BY id")).rows
        if not found:
            return
        key = found[which % len(found)][0]
        if kind == "title":
            await group.execute("UPDATE note SET title = ? WHERE id = ?", (f"{name}{self.count}", key))
        elif kind == "stars":
            await group.execute("UPDATE note SET stars = stars + ? WHERE id = ?", (self.count, key))
        else:
            await group.execute("DELETE FROM note WHERE id = ?", (key,))

    async def _restore(self, name: str, which: int) -> None:
        await self.cluster.group(name).table("tag").delete(("n", f"w{which % 4}"))
        await self.cluster.group(name).table("tag").restore(("n", f"w{which % 3}"))

    async def check(self) -> None:
        """Heal everything; all devices end equal, in every way that can be seen."""
        for first in self.names:
            for second in self.names:
                if first < second:
                    self.cluster.network.heal(first, second)
        await self.cluster.settled(seconds=700)
        assert len(await self.cluster.state_hashes()) == 1
        for sql in ("SELECT * FROM note ORDER BY id", "SELECT * FROM tag ORDER BY note, word"):
            tables = [tuple((await self.cluster.group(name).query(sql)).rows) for name in self.names]
            assert all(table == tables[0] for table in tables)
        assert len({self.cluster.group(name).conflicts() for name in self.names}) == 1


def run_schedule(count: int, star: bool, schedule: list[Step], seed: int = 0) -> None:
    async def main(folder: Path) -> None:
        async with open_cluster(folder, NAMES[:count], seed=seed) as cluster:
            runner = Runner(cluster, NAMES[:count])
            await runner.prepare(star=star)
            for step in schedule:
                await runner.step(*step)
            await runner.check()

    with tempfile.TemporaryDirectory() as folder:
        trio.run(main, Path(folder), clock=trio.testing.MockClock(autojump_threshold=0))


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(count=st.integers(3, 5), star=st.booleans(), schedule=st.lists(steps, min_size=5, max_size=30))
@example(count=3, star=False, schedule=[("insert", 0, 1), ("cut", 0, 1), ("stars", 0, 0), ("stars", 1, 0)])
@example(count=3, star=True, schedule=[("upsert", 1, 0), ("upsert", 2, 0), ("restore", 1, 0), ("restart", 0, 0)])
def test_any_schedule_ends_equal(count: int, star: bool, schedule: list[Step]) -> None:
    run_schedule(count, star, schedule)


@pytest.mark.parametrize("name", NAMES[:3])
def test_a_test_of_convergence_can_fail(name: str) -> None:
    """One row changed behind the store's back on one device: the comparison says so."""

    async def main(folder: Path) -> None:
        async with open_cluster(folder, NAMES[:3]) as cluster:
            runner = Runner(cluster, NAMES[:3])
            await runner.prepare(star=True)
            await runner.step("insert", 0, 1)
            await cluster.settled()
            connection = cluster.group(name)._context.replica.store.database.connection
            connection.execute("UPDATE note SET title = 'planted'")
            with pytest.raises(AssertionError):
                await runner.check()

    with tempfile.TemporaryDirectory() as folder:
        trio.run(main, Path(folder), clock=trio.testing.MockClock(autojump_threshold=0))
