"""Homes of whole devices for the benches: an owner with a filled group, and a second user who wants it."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import trio

from bench.rows import DECLARATION, TABLE, part, trades
from peers import clocks
from peers.device import open_device
from peers.home import create_home
from peers.model.membership import Role

GROUP_NAME = "bench"


@dataclass(frozen=True)
class Pair:
    """Two closed homes. `receiver` knows the group's id, and has nothing of it yet."""

    owner: Path
    receiver: Path


def make_pair(folder: Path, rows: int, batch: int) -> Pair:
    """The owner's group holds `rows` trades, written `batch` at a time."""
    pair = Pair(folder / "owner", folder / "receiver")
    for path in (pair.owner, pair.receiver):
        home, _ = create_home(path, name=path.name, random_bytes=clocks.random_bytes, now_ms=clocks.wall_clock_ms)
        home.close()
    trio.run(_fill, pair, rows, batch)
    return pair


async def _fill(pair: Pair, rows: int, batch: int) -> None:
    columns = trades(rows) if rows else {}
    async with open_device(pair.receiver) as receiver, open_device(pair.owner) as owner:
        group = await owner.create_group(GROUP_NAME)
        await group.create_table(DECLARATION)
        await group.grant(receiver.user_id, Role.WRITER)
        await receiver.join_group(group.id, name=GROUP_NAME)
        for start in range(0, rows, batch):
            await group.table(TABLE).save_columns(part(columns, start, start + batch))


def copy_home(source: Path, target: Path) -> Path:
    """A closed home once more: the same device, so only one of them may run at a time."""
    shutil.copytree(source, target, symlinks=True)
    return target
