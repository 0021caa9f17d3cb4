"""A device that lost its last entries, or runs from a copy of its home: the own-head check makes it harmless."""

import shutil
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from peers.testing.cluster import Cluster, SimulatedDevice, open_cluster
from peers.testing.hostile_scene import NOTE, titles, write


async def prepare(cluster: Cluster, *members: str) -> None:
    await cluster.found_group("a", members)
    await cluster.group("a").create_table(NOTE)
    for name in members:
        await cluster.connect(name, "a")
    await cluster.settled()


async def save(cluster: Cluster, name: str, copy: Path) -> None:
    """A backup of a device's home, taken while it is stopped, as it should be."""
    await cluster.stop(name)
    shutil.copytree(cluster.devices[name].home, copy, symlinks=True)
    await cluster.start(name)


async def restore(cluster: Cluster, name: str, copy: Path) -> None:
    """Run the old copy. The device's randomness goes on: only files are older."""
    await cluster.stop(name)
    shutil.rmtree(cluster.devices[name].home)
    shutil.copytree(copy, cluster.devices[name].home, symlinks=True)
    await cluster.start(name)


def own_log(cluster: Cluster, name: str) -> object:
    return cluster.group(name)._context.replica.store.own_log


def forks(cluster: Cluster) -> list[int]:
    return [cluster.group(name).status()["forks"] for name in cluster.devices]


@pytest.mark.parametrize("writes", [0, 1, 5])
async def test_s9_a_restored_backup(tmp_path: Path, autojump_clock: MockClock, writes: int) -> None:
    """S9, T21, T22: Backup restored: later entries come back from the peer, what was written since goes on under a
    new incarnation, nothing is lost, no seq is used twice."""
    async with open_cluster(tmp_path, ["a", "b"]) as cluster:
        await prepare(cluster, "b")
        await write(cluster, "a", "before")
        await cluster.settled()
        await save(cluster, "a", tmp_path / "backup")
        for number in range(3):
            await write(cluster, "a", f"after {number}")
        await cluster.settled()
        cluster.network.cut("a", "b")
        await restore(cluster, "a", tmp_path / "backup")
        old = own_log(cluster, "a")
        assert await titles(cluster, "a") == ["before"]
        for number in range(writes):
            await write(cluster, "a", f"restored {number}")
        cluster.network.heal("a", "b")
        await trio.sleep(20)
        await cluster.settled()
        await write(cluster, "a", "end")
        await write(cluster, "b", "end of b")
        await cluster.settled()
        expected = ["before", "end", "end of b", *(f"after {n}" for n in range(3))]
        expected += [f"restored {n}" for n in range(writes)]
        assert await titles(cluster, "a") == await titles(cluster, "b") == sorted(expected)
        assert own_log(cluster, "a") != old
        assert forks(cluster) == [0, 0]
        assert len(await cluster.state_hashes()) == 1


async def test_s9_who_never_saw_the_rest_gets_the_other_branch_first(tmp_path: Path, autojump_clock: MockClock) -> None:
    """S9 where it cannot be prevented: the restored device meets first one who lacks its later entries. Both branches
    are kept, every device has the proof, and all end equal with every write."""
    async with open_cluster(tmp_path, ["a", "b", "c"]) as cluster:
        await prepare(cluster, "b", "c")
        await cluster.connect("b", "c")
        await write(cluster, "a", "before")
        await cluster.settled()
        await save(cluster, "a", tmp_path / "backup")
        await trio.sleep(10)
        for first, second in (("a", "c"), ("b", "c")):
            cluster.network.cut(first, second)
        await write(cluster, "a", "to b only")
        await trio.sleep(60)
        await cluster.settled("a", "b")
        cluster.network.cut("a", "b")
        await restore(cluster, "a", tmp_path / "backup")
        await write(cluster, "a", "to c only")
        cluster.network.heal("a", "c")
        await trio.sleep(400)
        await cluster.settled("a", "c")
        assert await titles(cluster, "c") == ["before", "to c only"]
        cluster.network.heal("a", "b")
        await trio.sleep(400)
        await write(cluster, "a", "end")
        await cluster.settled(seconds=400)
        for name in "abc":
            assert await titles(cluster, name) == ["before", "end", "to b only", "to c only"]
        assert forks(cluster) == [1, 1, 1]
        assert len(await cluster.state_hashes()) == 1


async def test_s9_a_folder_copied_to_a_second_machine(tmp_path: Path, autojump_clock: MockClock) -> None:
    """S9: folder copied to a second machine, both used in turn: no write is lost and all end equal."""
    async with open_cluster(tmp_path, ["a", "b"]) as cluster:
        await prepare(cluster, "b")
        await write(cluster, "a", "common")
        await cluster.settled()
        await cluster.stop("a")
        machines = [cluster.devices["a"].home, tmp_path / "second"]
        shutil.copytree(machines[0], machines[1], symlinks=True)
        expected = ["common"]
        for turn in range(6):
            cluster.devices["a"].home = machines[turn % 2]
            await cluster.start("a")
            expected.append(f"turn {turn}")
            await write(cluster, "a", expected[-1])
            await trio.sleep(20)
            await cluster.settled()
            assert await titles(cluster, "a") == await titles(cluster, "b") == sorted(expected)
            await cluster.stop("a")
        assert cluster.group("b").status()["forks"] == 0


async def test_s11_a_lost_wal(tmp_path: Path, autojump_clock: MockClock) -> None:
    """S11: WAL/SHM deleted while stopped: own-head check finds the loss at first contact → new incarnation, missing
    entries fetched back."""
    async with open_cluster(tmp_path, ["a", "b"]) as cluster:
        await prepare(cluster, "b")
        await cluster.restart("a")  # what is there so far is in the file itself
        for number in range(5):
            await write(cluster, "a", f"{number}")
        await cluster.settled()
        home = cluster.devices["a"].home
        copy = tmp_path / "as it lay on disk"
        shutil.copytree(home, copy, symlinks=True)  # a crash: the WAL was never checkpointed
        await cluster.stop("a")
        shutil.rmtree(home)
        shutil.copytree(copy, home, symlinks=True)
        lost = list((home / "groups").glob(f"{cluster.group('b').id.hex()}*-*"))
        assert len(lost) == 2
        for path in lost:
            path.unlink()
        await cluster.start("a")
        await write(cluster, "a", "after")
        await trio.sleep(20)
        await cluster.settled()
        assert await titles(cluster, "a") == await titles(cluster, "b") == ["0", "1", "2", "3", "4", "after"]
        assert forks(cluster) == [0, 0]


async def test_s9_the_same_key_live_twice(tmp_path: Path, autojump_clock: MockClock) -> None:
    """S9: if same device key is live twice: each copy goes on in a log of its own, nothing is lost, all end equal."""
    async with open_cluster(tmp_path, ["a", "b", "c"]) as cluster:
        await cluster.found_group("a", "bc")
        await cluster.group("a").create_table(NOTE)
        await cluster.connect("a", "b")
        await cluster.connect("c", "b")
        await cluster.settled()
        await cluster.stop("a")
        shutil.copytree(cluster.devices["a"].home, tmp_path / "z", symlinks=True)
        cluster.devices["z"] = SimulatedDevice("z", tmp_path / "z", seed=1)
        cluster.devices["z"].clock.jump(7)  # in the very same millisecond both would make the very same row id
        for name in "az":
            await cluster.start(name)
        written = []
        for number in range(4):
            for name in "azbc":
                written.append(f"{name}{number}")
                await write(cluster, name, written[-1])
            await trio.sleep(30)
        await cluster.settled(seconds=900)
        assert await titles(cluster, "z") == sorted(written)
        assert own_log(cluster, "a") != own_log(cluster, "z")
        assert len(await cluster.state_hashes()) == 1
