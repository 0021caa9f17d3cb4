"""Devices that write through the doors and exchange what they have, in any order: all end as the oracle says.

Beside `test_merge_oracle`, whose authors are simulated: here every entry is made by the store itself, with its deps,
its stamps and its incarnations.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from peers.config import StoreConfig
from peers.errors import NotAllowed
from peers.model.entries import RawEntry, decode_header, decode_leaf
from peers.model.ids import LogId
from peers.model.merge import OracleEntry, merge, read_entry, state_hash
from peers.model.version_vector import VersionVector
from peers.store.doors import Doors
from peers.store.group_store import Author, GroupStore
from peers.store.journal import Journal
from peers.store.transaction import Transaction
from peers.testing.group_world import BASE_MS, WorldDevice, group_world

KEYS = [("t1", 1), ("t1", 2), ("t2", 1)]


class Clock:
    def __init__(self) -> None:
        self.now_ms = BASE_MS + 100_000


class Site:
    """One device with its own file."""

    def __init__(self, device: WorldDevice, clock: Clock, rng: random.Random, path: str = ":memory:") -> None:
        self.device = device
        self.clock = clock
        self.rng = rng
        self.store = GroupStore.create(
            path,
            group_world().signed_operations,
            author=Author(device.user, device.key),
            now_ms=lambda: clock.now_ms,
            random_bytes=rng.randbytes,
            config=StoreConfig(),
            nonce=bytes(8),
        )
        self.doors = Doors(self.store)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        journal = Journal(self.doors.reserve)
        with self.store.database.transaction(durable=True), self.doors.journalling(journal):
            yield Transaction(self.doors, journal)
            for draft, changes, more in journal.entries():
                self.store.append_own(draft, changes, more=more)

    def ingest(self, entries: list[RawEntry], contact_seconds: float = 0.0) -> object:
        steps = self.store.ingest(entries, contact_seconds=contact_seconds)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return end.value

    def entries(self, vector: VersionVector | None = None) -> list[RawEntry]:
        result: list[RawEntry] = []
        vector = vector or VersionVector()
        while True:
            page = self.store.entries_since(vector, 5000)
            result += page.entries
            if not page.more:
                return result
            claimed = dict(vector.heads)
            for raw in page.entries:
                header = decode_header(raw.header)
                claimed.update(VersionVector({header.log: ((header.seq, header.hash),)}).heads)  # type: ignore[dict-item]
            vector = VersionVector(claimed)

    def write_something(self) -> None:
        rng = self.rng
        with suppress(NotAllowed), self.transaction() as tx:
            for _ in range(rng.choice((1, 1, 1, 2, 4))):
                self._write_one(tx)

    def _write_one(self, tx: Transaction) -> None:
        rng = self.rng
        value = rng.choice([None, "a", "b", 1, 2.5])
        number = rng.randrange(5)
        match rng.randrange(12):
            case 0:
                tx.save("trade", {"symbol": rng.choice("AB"), "qty": number, "note": value})
            case 1:
                tx.save("idea", {"title": rng.choice("AB"), "score": float(number)})
            case 2 | 3:
                key = rng.choice(KEYS)
                tx.save("tagof", {"trade": key[0], "tag": key[1], "w": number, "body": b"x" * number})
            case 4:
                tx.save("setting", {"k": rng.choice([b"a", b"b"]), "v": value})
            case 5 | 6:
                table, column = rng.choice([("trade", "qty"), ("idea", "score"), ("tagof", "w"), ("setting", "v")])
                tx.execute(
                    f"UPDATE {table} SET {column} = ? WHERE abs(random()) % 2",
                    (float(number),) if table == "idea" else (number,),
                )
            case 7:
                tx.execute("UPDATE trade SET note = ?, symbol = 'Z' WHERE qty = ?", (value, number))
            case 8 | 9:
                table = rng.choice(["trade", "idea", "tagof", "setting", "mark"])
                key = self._some_key(tx, table, "")
                if key is not None:
                    tx.delete(table, key)
            case 10:
                table = rng.choice(["trade", "idea", "tagof", "setting", "mark"])
                key = self._some_key(tx, table, "aside")
                if key is not None:
                    tx.restore(table, key)
            case _:
                tx.execute("INSERT OR REPLACE INTO mark VALUES(?)", (number,))

    def _some_key(self, tx: Transaction, name: str, where: str) -> tuple[object, ...] | None:
        local = self.store.table(name)
        source, keys = (local.aside, local.side_key) if where else (local.sql_name, local.user_key)
        rows = self.store.database.connection.execute(f"SELECT {keys} FROM {source} ORDER BY 1").fetchall()
        return self.rng.choice(rows) if rows else None


def oracle_entries(raws: list[RawEntry]) -> list[OracleEntry]:
    world = group_world()
    result = []
    for raw in raws:
        header = decode_header(raw.header)
        leaves = [decode_leaf(data, ref.rows) for data, ref in zip(raw.leaves, header.leaves, strict=True) if data]
        result.append(read_entry(header, leaves, world.schema, world.user_of(header.device)))
    return result


def check_site(site: Site, cutoffs: dict[LogId, int | None]) -> bytes:
    """The site shows what the oracle says of the entries that it holds."""
    expected = merge(oracle_entries(site.entries()), group_world().schema, cutoffs)
    assert site.store.state_hash() == state_hash(expected)
    assert site.store.conflict_count() == len(expected.conflicts())
    shown = site.store.query("SELECT count(DISTINCT table_name || quote(row_key) || column_name) FROM _peers_conflicts")
    assert shown[0][0] == len(expected.conflicts())
    return site.store.state_hash()


def exchange(source: Site, target: Site, rng: random.Random | None) -> None:
    entries = source.entries(target.store.vector)
    if rng is not None and entries:
        if rng.random() < 0.3:
            rng.shuffle(entries)
        entries = entries[: rng.randint(1, len(entries))]
    target.ingest(entries, 1000.0 if rng is not None and rng.random() < 0.2 else 0.0)


def run(seed: int, *, incarnations: bool = False, cut: bool = False) -> None:
    rng = random.Random(f"own {seed}")
    clock = Clock()
    sites = [Site(device, clock, rng) for device in rng.sample(group_world().devices, 3)]
    cutoffs: dict[LogId, int | None] = {}
    for _ in range(rng.randint(10, 40)):
        clock.now_ms += rng.choice((0, 1, 50))
        site = rng.choice(sites)
        roll = rng.random()
        if roll < 0.55:
            site.write_something()
        elif roll < 0.9:
            exchange(rng.choice(sites), site, rng)
        elif incarnations and roll < 0.95:
            if rng.random() < 0.5:
                site.store.begin_publishing()
                site.store._own.publishing = False  # as after a restart
            if all(
                site.store.vector.heads.get(site.store.own_log, ()) == ()
                or other is site
                or other.store.vector.seq(site.store.own_log) <= site.store._meta.published
                for other in sites
            ):
                site.store.renew_incarnation("test")
        elif cut and roll < 0.95:
            log = rng.choice(sorted(site.store.vector.heads) or [LogId(b"", b"")])
            if log.device:
                cutoffs[log] = rng.choice([None, 0, 1, 2, 3])
                for each in sites:
                    each.store.set_cutoffs(cutoffs)
        if not site.store.status()["parked"]:
            check_site(site, cutoffs)
    for _ in range(3):
        for source in sites:
            for target in sites:
                if source is not target:
                    exchange(source, target, None)
    assert len({site.store.vector.digest() for site in sites}) == 1
    assert len({check_site(site, cutoffs) for site in sites}) == 1
    for site in sites:
        site.store.close()


@pytest.mark.parametrize("seed", range(25))
def test_devices_that_write_and_exchange_end_equal(seed: int) -> None:
    run(seed)


@pytest.mark.parametrize("seed", range(15))
def test_renewed_incarnations_end_equal(seed: int) -> None:
    run(seed, incarnations=True)


@pytest.mark.parametrize("seed", range(15))
def test_cut_logs_end_equal(seed: int) -> None:
    run(seed, cut=True)
