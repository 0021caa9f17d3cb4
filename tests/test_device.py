"""A device as a program holds it: its groups by name and id, and what a program hears after the end."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from peers.device import create_device, open_device
from peers.errors import PeersError
from peers.group import Group
from peers.store.transaction import Transaction


def insert(transaction: Transaction) -> None:
    transaction.execute("INSERT INTO t VALUES(1)")


async def watch(group: Group) -> None:
    async for _ in group.watch("SELECT a FROM t"):
        break


USES: dict[str, Callable[[Group], Awaitable[object]]] = {
    "execute": lambda group: group.execute("INSERT INTO t VALUES(1)"),
    "transact": lambda group: group.transact(insert),
    "query": lambda group: group.query("SELECT a FROM t"),
    "save": lambda group: group.table("t").save({"a": 1}),
    "watch": watch,
    "state_hash": lambda group: group.state_hash(),
    "create_table": lambda group: group.create_table("CREATE TABLE u(a INTEGER)"),
}


@pytest.mark.parametrize("use", USES)
async def test_a_group_of_a_closed_device_says_so(tmp_path: Path, use: str) -> None:
    create_device(tmp_path / "home", name="alice")
    async with open_device(tmp_path / "home") as device:
        group = await device.create_group("team")
        await group.create_table("CREATE TABLE t(a INTEGER PRIMARY KEY)")
    with pytest.raises(PeersError, match="closed") as caught:
        await USES[use](group)
    assert caught.value.code == "closed"


async def test_a_full_id_finds_its_group_whatever_others_are_called(tmp_path: Path) -> None:
    create_device(tmp_path / "home", name="alice")
    async with open_device(tmp_path / "home") as device:
        wanted = await device.create_group("team")
        await device.create_group(wanted.id.hex())
        assert device.group(wanted.id.hex()).id == wanted.id
