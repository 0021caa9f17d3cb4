"""Replicas of one group straight on the store, without network: what the write and merge benches work on.

A group of three people with one device each, who may all write, and the trade table; real keys, real operations. The
benches reach into the store here on purpose: they measure its parts one by one.
"""

import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from actors.ref import Ref
from actors.supervisor import open_supervisor
from bench.rows import DECLARATION
from peers import clocks
from peers.config import MIB, StoreConfig
from peers.model.entries import RawEntry
from peers.model.ids import GroupId
from peers.model.membership import Role
from peers.model.operation_graph import Operations
from peers.model.operations import Kind, SignedBytes
from peers.model.schema import table_to_fields
from peers.model.version_vector import VersionVector
from peers.store.commit_feed import CommitFeed
from peers.store.declarations import parse_table
from peers.store.group_store import Author, GroupStore
from peers.store.writer import Message, TableWriter
from peers.testing.people import Person, act, found_group, grant, person

NONCE = b"bench 01"
OWNER, SECOND, THIRD, READER = (person(name) for name in ("owner", "second", "third", "reader"))


def _operations() -> Operations:
    group = Operations([found_group(OWNER)])
    for member in (SECOND, THIRD, READER):
        group.add(grant(OWNER, group, member.user, Role.WRITER))
        group.add(act(member, group, Kind.DEVICE_ADDED, (member.user,)))
    group.add(act(OWNER, group, Kind.TABLE, table_to_fields(parse_table(DECLARATION))))
    return group


OPERATIONS = _operations()
GROUP: GroupId = OPERATIONS.genesis.id
SIGNED: list[SignedBytes] = [operation.signed for operation in OPERATIONS]


@contextmanager
def replica(path: Path, owner: Person, config: StoreConfig | None = None) -> Iterator[GroupStore]:
    """`owner`'s replica in that file; made, empty, where there is none."""
    author, settings = Author(owner.user, owner.device_key), config or StoreConfig()
    if path.exists():
        store = GroupStore.open(
            path, group_id=GROUP, author=author, now_ms=clocks.wall_clock_ms, random_bytes=clocks.random_bytes,
            config=settings, nonce=NONCE,
        )  # fmt: skip
    else:
        store = GroupStore.create(
            path, SIGNED, author=author, now_ms=clocks.wall_clock_ms, random_bytes=clocks.random_bytes,
            config=settings, nonce=NONCE,
        )  # fmt: skip
    try:
        yield store
    finally:
        store.close()


@asynccontextmanager
async def writer(store: GroupStore, config: StoreConfig | None = None) -> AsyncIterator[Ref[Message]]:
    """The store's table writer, running."""
    settings = config or StoreConfig()
    async with open_supervisor("bench") as supervisor:
        yield await supervisor.start(
            "writer", lambda: TableWriter(store, CommitFeed(settings.feed_queue), config=settings), mailbox=1024
        )


def entries_of(store: GroupStore, since: VersionVector | None = None) -> list[RawEntry]:
    """Everything that the store holds beyond `since`."""
    held: list[RawEntry] = []
    vector = since or VersionVector()
    page = store.entries_since(vector, 1024 * MIB)
    held += page.entries
    assert not page.more
    return held


def ingest(store: GroupStore, batches: Sequence[Sequence[RawEntry]], contact_seconds: float = 0.0) -> int:
    """Merge, one SQLite transaction a batch. Returns the entries stored; raises where any was not."""
    stored = 0
    for batch in batches:
        steps = store.ingest(batch, contact_seconds=contact_seconds)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                report = end.value
                break
        assert not report.refused and not report.held, report
        stored += len(report.stored)
    return stored


def copied(source: Path, target: Path) -> Path:
    """A copy of a closed store's file."""
    for suffix in ("", "-wal"):
        if source.with_name(source.name + suffix).exists():
            shutil.copyfile(source.with_name(source.name + suffix), target.with_name(target.name + suffix))
    return target


def remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
