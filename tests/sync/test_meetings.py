"""Connections of whole devices: one per device, offers and routes while connected, and the minute that repairs."""

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from peers.model.ids import DeviceId
from peers.model.membership import Role
from peers.model.version_vector import VersionVector
from peers.store.pages import Page
from peers.testing.cluster import Cluster, open_cluster
from peers.testing.hostile import HostilePeer
from peers.testing.hostile_scene import NOTE, open_scene, titles, write
from peers.wire import messages


def the_connection(cluster: Cluster, name: str) -> tuple[str, bool]:
    """The one connection that the device has: (device of the peer, whether dialled here)."""
    (connection,) = cluster[name].status()["connections"]
    return connection["device"], connection["dialled"]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("latency_seconds", [0.001, 0.3])
async def test_h9_two_devices_that_dial_each_other_at_once(
    tmp_path: Path, autojump_clock: MockClock, seed: int, latency_seconds: float
) -> None:
    """H9: Two devices dial each other at once: exactly one connection survives, same on both sides."""
    async with open_cluster(tmp_path, ["a", "b"], seed=seed) as cluster:
        cluster.network.set_latency("a", "b", latency_seconds)
        await cluster.connect("a", "b")
        await cluster.connect("b", "a")
        await trio.sleep(15)
        assert len(cluster.network.open_connections) == 1
        ((dialler, _),) = cluster.network.open_connections
        smaller = "a" if cluster["a"].device_id < cluster["b"].device_id else "b"
        assert dialler == smaller
        for mine, other in ("ab", "ba"):
            assert the_connection(cluster, mine) == (cluster[other].device_id.hex(), mine == smaller)


async def test_h9_both_keep_the_address_and_the_connection_stays(tmp_path: Path, autojump_clock: MockClock) -> None:
    """H9 in the long run: the side whose dial was one too many does not replace the living connection again and
    again."""
    async with open_cluster(tmp_path, ["a", "b"]) as cluster:
        await cluster.connect("a", "b")
        await cluster.connect("b", "a")
        await trio.sleep(30)
        before = [connection["seconds"] for connection in cluster["a"].status()["connections"]]
        await trio.sleep(3600)
        after = [connection["seconds"] for connection in cluster["a"].status()["connections"]]
        assert after[0] >= before[0] + 3600
        cluster.network.cut("a", "b")
        await trio.sleep(5)
        cluster.network.heal("a", "b")
        await trio.sleep(60)
        assert len(cluster.network.open_connections) == 1


async def test_a_newer_connection_of_a_device_replaces_the_older(tmp_path: Path, autojump_clock: MockClock) -> None:
    """H11: 2nd connection of same device: older duplicate replaced, and its routes with it."""
    async with open_scene(tmp_path) as scene:
        await scene.mallory.open_route(scene.group)
        await trio.sleep(20)
        newer = HostilePeer(scene.cluster.network)
        await scene.nursery.start(newer.run, "b")
        newer.claim(scene.group, VersionVector())
        await newer.open_route(scene.group)
        await newer.offer(scene.group)
        await trio.sleep(2)
        assert scene.mallory.reason is not None and scene.mallory.reason.code == "replaced"
        assert newer.reason is None
        await write(scene.cluster, "a", "to the newer")
        await trio.sleep(2)
        assert messages.NOTIFY_OF_CHANGES in {method for _, method, _ in newer.heard}
        assert newer.person.device in scene.links("b")
        await scene.all_is_well()


async def test_a_route_opens_when_a_member_is_granted_while_connected(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Join and grant, in both orders, open routes on a live connection within a second."""
    for first in ("join", "grant"):
        async with open_cluster(tmp_path / first, ["a", "b"]) as cluster:
            await cluster.connect("b", "a")
            await trio.sleep(2)
            group = await cluster["a"].create_group("team", schema="writers")
            await group.create_table(NOTE)
            await write(cluster, "a", "old")
            if first == "join":
                await cluster["b"].join_group(group.id)
                await trio.sleep(1)
                assert cluster["b"].group(group.id).pending
            await group.grant(cluster["b"].user_id, Role.WRITER)
            await trio.sleep(1)
            if first == "grant":
                assert cluster["b"].invited() == [group.id]
                await cluster["b"].join_group(group.id)
                await trio.sleep(1)
            assert await titles(cluster, "b") == ["old"]
            await write(cluster, "b", "new")
            await trio.sleep(1)
            assert await titles(cluster, "a") == ["new", "old"]
            assert cluster["b"].invited() == []


async def test_a_lost_push_is_repaired_within_the_minute(tmp_path: Path, autojump_clock: MockClock) -> None:
    """What no push brought, the comparison of digests finds."""
    async with open_cluster(tmp_path, ["a", "b"]) as cluster:
        await cluster.found_group("a", "b")
        await cluster.group("a").create_table(NOTE)
        await cluster.connect("b", "a")
        await cluster.settled()
        replica = cluster.group("a")._context.replica
        lost = []

        def lose(peer: DeviceId, page: Page) -> Page:
            lost.append(page)
            return Page([], False)

        honest, replica.outgoing = replica.outgoing, lose
        await write(cluster, "a", "lost")
        await trio.sleep(2)
        replica.outgoing = honest
        assert lost and await titles(cluster, "b") == []
        await trio.sleep(61)
        assert await titles(cluster, "b") == ["lost"]


async def test_equal_devices_exchange_a_digest_a_minute_and_nothing_else(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Never a replay: an idle hour costs pings and digests."""
    async with open_cluster(tmp_path, ["a", "b"]) as cluster:
        await cluster.found_group("a", "b")
        await cluster.group("a").create_table(NOTE)
        for number in range(50):
            await write(cluster, "a", f"{number}")
        await cluster.connect("b", "a")
        await cluster.settled()
        await trio.sleep(5)
        before = cluster.network.statistics("a", "b").bytes + cluster.network.statistics("b", "a").bytes
        await trio.sleep(3600)
        sent = cluster.network.statistics("a", "b").bytes + cluster.network.statistics("b", "a").bytes - before
        assert sent < 60 * (4 * 2 * 2 * 40 + 2 * 200)
