"""Whole devices over simulated links in virtual time: written apart, cut off, restarted, they end equal."""

from pathlib import Path

import trio
from trio.testing import MockClock

from peers.model.membership import Role
from peers.testing.cluster import Cluster, open_cluster

TABLE = "CREATE TABLE note(id TEXT PRIMARY KEY, title TEXT, stars INTEGER NOT NULL DEFAULT 0)"


async def rows(cluster: Cluster, name: str) -> list[tuple[object, ...]]:
    found = await cluster.group(name).query("SELECT id, title, stars FROM note ORDER BY id")
    return list(found.rows)


async def found(cluster: Cluster, owner: str, *members: str) -> None:
    await cluster.found_group(owner, members)
    await cluster.group(owner).create_table(TABLE)


async def test_a_write_reaches_a_member_that_held_nothing(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_cluster(tmp_path, ["a", "b"]) as cluster:
        await found(cluster, "a", "b")
        await cluster.group("a").execute("INSERT INTO note(title) VALUES('first')")
        await cluster.connect("b", "a")
        await cluster.settled()
        assert await rows(cluster, "a") == await rows(cluster, "b")
        assert [row[1] for row in await rows(cluster, "b")] == ["first"]
        assert len(await cluster.state_hashes()) == 1


async def test_a_live_write_arrives_without_waiting_for_the_minute(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_cluster(tmp_path, ["a", "b"]) as cluster:
        await found(cluster, "a", "b")
        await cluster.connect("b", "a")
        await cluster.settled()
        before = trio.current_time()
        await cluster.group("b").execute("INSERT INTO note(title) VALUES('live')")
        await cluster.settled()
        assert trio.current_time() - before < 1.0
        assert [row[1] for row in await rows(cluster, "a")] == ["live"]


async def test_c_hears_of_a_only_through_b(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_cluster(tmp_path, ["a", "b", "c"]) as cluster:
        await found(cluster, "a", "b", "c")
        await cluster.connect("b", "a")
        await cluster.connect("c", "b")
        await cluster.settled()
        await cluster.group("a").execute("INSERT INTO note(title) VALUES('from a')")
        await cluster.group("c").execute("INSERT INTO note(title) VALUES('from c')")
        await cluster.settled()
        assert await rows(cluster, "a") == await rows(cluster, "c")
        assert len(await rows(cluster, "a")) == 2
        assert cluster["a"].device_id not in {peer.device for peer in cluster["c"].known_peers()}
        assert len(await cluster.state_hashes()) == 1


async def test_a_partition_is_written_on_both_sides_and_heals(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_cluster(tmp_path, ["a", "b", "c"]) as cluster:
        await found(cluster, "a", "b", "c")
        for name in "bc":
            await cluster.connect(name, "a")
        await cluster.group("a").execute("INSERT INTO note(title, stars) VALUES('both', 1), ('gone', 2)")
        await cluster.settled()
        cluster.network.cut("a", "b")
        cluster.network.cut("a", "c")
        await cluster.group("a").execute("UPDATE note SET title = 'by a' WHERE title = 'both'")
        await trio.sleep(1)
        await cluster.group("b").execute("UPDATE note SET title = 'by b', stars = 5 WHERE title = 'both'")
        await cluster.group("c").execute("DELETE FROM note WHERE title = 'gone'")
        await trio.sleep(30)
        assert len(await cluster.state_hashes()) == 3
        cluster.network.heal("a", "b")
        cluster.network.heal("a", "c")
        await cluster.settled(seconds=400)
        assert len(await cluster.state_hashes()) == 1
        assert [(row[1], row[2]) for row in await rows(cluster, "a")] == [("by b", 5)]
        assert [cluster.group(name).conflicts() for name in "abc"] == [1, 1, 1]


async def test_devices_that_restart_go_on_where_they_were(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_cluster(tmp_path, ["a", "b"]) as cluster:
        await found(cluster, "a", "b")
        await cluster.connect("b", "a")
        await cluster.settled()
        await cluster.stop("b")
        await cluster.group("a").execute("INSERT INTO note(title) VALUES('while b was away')")
        await cluster.start("b")
        await cluster.settled()
        await cluster.restart("a")
        await cluster.group("b").execute("INSERT INTO note(title) VALUES('while a was back')")
        await cluster.settled()
        assert await rows(cluster, "a") == await rows(cluster, "b")
        assert len(await rows(cluster, "a")) == 2


async def test_a_stranger_gets_nothing(tmp_path: Path, autojump_clock: MockClock) -> None:
    """W13: a device that is no member is offered nothing, and what it asks for is not available."""
    async with open_cluster(tmp_path, ["a", "b"]) as cluster:
        group = await cluster["a"].create_group("secret")
        await cluster["b"].join_group(group.id)
        await cluster.connect("b", "a")
        await trio.sleep(130)
        assert cluster.group("b").pending
        assert cluster["b"].invited() == []
        assert len(cluster["b"].status()["connections"]) == 1


async def test_a_member_added_while_connected_gets_the_group(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_cluster(tmp_path, ["a", "b"]) as cluster:
        await found(cluster, "a")
        await cluster.group("a").execute("INSERT INTO note(title) VALUES('old')")
        await cluster.connect("b", "a")
        await trio.sleep(1)
        await cluster["b"].join_group(cluster.group("a").id)
        await trio.sleep(1)
        assert cluster.group("b").pending
        await cluster.group("a").grant(cluster["b"].user_id, Role.READER)
        await cluster.settled(seconds=5)
        assert len(await rows(cluster, "b")) == 1
