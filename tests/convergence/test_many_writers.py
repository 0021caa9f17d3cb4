"""Five devices that all write at once, linked in a mesh or a chain: all end equal, and little is sent twice."""

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from peers.testing.cluster import Cluster, open_cluster

NAMES = "abcde"
WRITES = 200
NOTE = "CREATE TABLE note(id TEXT PRIMARY KEY, title TEXT, stars INTEGER NOT NULL DEFAULT 0)"
MOST_DUPLICATES = {"mesh": 3.0, "chain": 0.05}
"""Pushes per entry and receiver that bring nothing new, at most. In a mesh of five all four peers of a device push an
entry to it before they hear that it is there: flooding, until preferred connections are elected."""


async def link(cluster: Cluster, shape: str) -> None:
    for at, name in enumerate(NAMES):
        for other in NAMES[:at] if shape == "mesh" else NAMES[at - 1 : at]:
            await cluster.connect(name, other)


async def writes_of(cluster: Cluster, name: str) -> None:
    group = cluster.group(name)
    ((shared,),) = (await group.query("SELECT min(id) FROM note")).rows
    for number in range(WRITES // len(NAMES)):
        if number % 4 == 3:
            await group.execute(
                "UPDATE note SET stars = stars + 1, title = ? WHERE id = ?", (f"{name}{number}", shared)
            )
        else:
            await group.execute("INSERT INTO note(title, stars) VALUES(?, ?)", (f"{name} {number}", number))
        await trio.sleep(0.02)


def pushed_entries(cluster: Cluster) -> int:
    """Entries that any device pushed to any other."""
    return sum(link.pushed_entries for name in NAMES for link in cluster.group(name)._context.links.values())


def held_entries(cluster: Cluster) -> int:
    vector = cluster.group("a").vector
    return sum(vector.seq(log) for log in vector.heads)


@pytest.mark.parametrize("shape", ["mesh", "chain"])
async def test_two_hundred_writes_of_five_devices(tmp_path: Path, autojump_clock: MockClock, shape: str) -> None:
    async with open_cluster(tmp_path, NAMES) as cluster:
        await cluster.found_group("a", NAMES[1:])
        await cluster.group("a").create_table(NOTE)
        await cluster.group("a").execute("INSERT INTO note(title) VALUES('shared')")
        await link(cluster, shape)
        await cluster.settled()
        await trio.sleep(10)
        pushed, entries = pushed_entries(cluster), held_entries(cluster)
        async with trio.open_nursery() as nursery:
            for name in NAMES:
                nursery.start_soon(writes_of, cluster, name)
        began = trio.current_time()
        await cluster.settled()
        assert trio.current_time() - began < 5
        await trio.sleep(5)
        assert len(await cluster.state_hashes()) == 1
        tables = {tuple((await cluster.group(name).query("SELECT * FROM note ORDER BY id")).rows) for name in NAMES}
        assert len(tables) == 1 and len(next(iter(tables))) == 1 + WRITES * 3 // 4
        assert len({cluster.group(name).conflicts() for name in NAMES}) == 1
        pushed, entries = pushed_entries(cluster) - pushed, held_entries(cluster) - entries
        assert entries == WRITES
        needed = entries * (len(NAMES) - 1)
        assert pushed - needed <= MOST_DUPLICATES[shape] * needed
