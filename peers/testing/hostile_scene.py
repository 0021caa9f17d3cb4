"""A small cluster that shares the table `note`, and one hostile member in it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from peers.config import Config
from peers.model.ids import DeviceId, GroupId
from peers.model.membership import Role
from peers.model.schema import Table
from peers.sync.peer_link import PeerLink
from peers.testing.cluster import Cluster, open_cluster
from peers.testing.hostile import ForgedLog, HostilePeer

NOTE = "CREATE TABLE note(id TEXT PRIMARY KEY, title TEXT, stars INTEGER NOT NULL DEFAULT 0)"


async def titles(cluster: Cluster, name: str) -> list[Any]:
    rows = (await cluster.group(name).query("SELECT title FROM note ORDER BY title")).rows
    return [row[0] for row in rows]


async def write(cluster: Cluster, name: str, title: str) -> None:
    await cluster.group(name).execute("INSERT INTO note(title) VALUES(?)", (title,))


@dataclass
class Scene:
    """Devices a, b, c in a chain; mallory, a writer of their group, is connected to b."""

    cluster: Cluster
    mallory: HostilePeer
    nursery: trio.Nursery

    @property
    def group(self) -> GroupId:
        return self.cluster.group("b").id

    @property
    def note(self) -> Table:
        (table,) = self.cluster.group("b").tables()
        return table

    def store(self, name: str) -> Any:
        return self.cluster.group(name)._context.replica.store

    def links(self, name: str) -> dict[DeviceId, PeerLink]:
        """The routes of a device to the others, by device."""
        return self.cluster.group(name)._context.links

    def log(self, incarnation: bytes = b"hostile!") -> ForgedLog:
        heads = self.store("b").operations.heads
        return ForgedLog(self.mallory.person.device_key, self.group, heads, self.mallory.clock, incarnation=incarnation)

    async def join(self) -> None:
        """Mallory's route opens, and the group learns of the device."""
        await self.mallory.open_route(self.group)
        operation = self.mallory.certified(self.store("b").operations)
        await self.mallory.push(self.group, operations=[operation.signed], heads=[operation.id])
        await trio.sleep(1)
        await self.cluster.settled("a", "b", "c")
        assert operation.id in self.store("c").operations

    async def all_is_well(self) -> None:
        """Writes still pass in both directions, with mallory still there, and everybody ends equal."""
        for name in "abc":
            await write(self.cluster, name, f"after {name}")
        await trio.sleep(0.2)
        await self.cluster.settled("a", "b", "c", seconds=10)
        assert {"after a", "after b", "after c"} <= set(await titles(self.cluster, "c"))
        assert len(await self.cluster.state_hashes("a", "b", "c")) == 1

    async def problems(self, name: str = "b") -> list[str]:
        """Codes of what the device holds back or has refused, a second from now."""
        await trio.sleep(1)
        return [reason.split(":")[0] for reason in self.cluster.group(name).status()["reasons"]]


@asynccontextmanager
async def open_scene(folder: Path, config: Config | None = None) -> AsyncIterator[Scene]:
    async with open_cluster(folder, ["a", "b", "c"], config=config) as cluster:
        await cluster.found_group("a", "bc")
        await cluster.group("a").create_table(NOTE)
        mallory = HostilePeer(cluster.network)
        await cluster.group("a").grant(mallory.person.user, Role.WRITER)
        await cluster.connect("b", "a")
        await cluster.connect("c", "b")
        await cluster.settled("a", "b", "c")
        async with trio.open_nursery() as nursery:
            await nursery.start(mallory.run, "b")
            yield Scene(cluster, mallory, nursery)
            nursery.cancel_scope.cancel()
