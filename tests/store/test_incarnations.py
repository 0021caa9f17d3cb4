"""Copies of a group's file: restored backups, duplicated folders, lost tails. The own log never forks unnoticed."""

import random
import shutil
from pathlib import Path

from peers.config import StoreConfig
from peers.model.entries import RawEntry
from peers.model.version_vector import VersionVector
from peers.store.doors import Doors
from peers.store.group_store import Author, GroupStore
from peers.store.ingest import IngestReport
from peers.store.journal import Journal
from peers.store.transaction import Transaction
from peers.testing.group_world import BASE_MS, WorldDevice, group_world

WORLD = group_world()
NONCE = bytes(8)


class Site:
    """One device's file, opened and written without actors."""

    def __init__(self, path: Path, device: WorldDevice, seed: int, nonce: bytes | None = NONCE) -> None:
        self.now_ms = BASE_MS + 100_000
        arguments = {
            "author": Author(device.user, device.key),
            "now_ms": lambda: self.now_ms,
            "random_bytes": random.Random(seed).randbytes,
            "config": StoreConfig(),
            "nonce": nonce,
        }
        if path.exists():
            self.store = GroupStore.open(path, group_id=WORLD.group, **arguments)  # type: ignore[arg-type]
        else:
            self.store = GroupStore.create(path, WORLD.signed_operations, **arguments)  # type: ignore[arg-type]
        self.doors = Doors(self.store)

    def write(self, sql: str, *parameters: object) -> list[RawEntry]:
        self.now_ms += 10
        journal, entries = Journal(self.doors.reserve), []
        with self.store.database.transaction(durable=True), self.doors.journalling(journal):
            Transaction(self.doors, journal).execute(sql, parameters)  # type: ignore[arg-type]
            for draft, changes, more in journal.entries():
                entries += self.store.append_own(draft, changes, more=more).entries
        return entries

    def take(self, entries: list[RawEntry]) -> IngestReport:
        steps = self.store.ingest(entries)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                report: IngestReport = end.value
                return report

    def all_entries(self) -> list[RawEntry]:
        return self.store.entries_since(VersionVector(), 1 << 30).entries

    def trades(self) -> list[tuple[object, ...]]:
        return self.store.query("SELECT symbol, qty FROM trade ORDER BY symbol")


def settle(one: Site, other: Site) -> None:
    """Exchange until both hold the same, and show it."""
    for _ in range(2):
        one.take(other.all_entries())
        other.take(one.all_entries())
    assert one.store.digest == other.store.digest
    assert one.store.state_hash() == other.store.state_hash()


def backup_and_go_on(tmp_path: Path) -> tuple[Site, Site]:
    """(the site as restored from a backup, a peer that holds what was written after the backup)"""
    path, device = tmp_path / "a.db", WORLD.devices[0]
    first = Site(path, device, 1)
    first.write("INSERT INTO trade(symbol, qty) VALUES('one', 1)")
    first.store.begin_publishing()
    first.store.close()
    shutil.copy(path, tmp_path / "backup.db")
    first = Site(path, device, 2)
    first.store.begin_publishing()
    first.write("INSERT INTO trade(symbol, qty) VALUES('two', 2)")
    peer = Site(tmp_path / "b.db", WORLD.devices[2], 3)
    peer.take(first.all_entries())
    first.store.close()
    restored = Site(tmp_path / "backup.db", device, 4)
    restored.now_ms += 60_000
    return restored, peer


def test_a_restored_backup_fetches_its_lost_tail_and_begins_a_new_log(tmp_path: Path) -> None:
    """C16, S9, S11: own log higher at the peer, proved by my signature -> fetched back, new incarnation."""
    restored, peer = backup_and_go_on(tmp_path)
    before = restored.store.own_log
    report = restored.take(peer.all_entries())
    assert report.own_branch and len(report.stored) == 1
    assert restored.store.own_log != before and restored.store.status()["forks"] == 0
    restored.write("UPDATE trade SET qty = 20 WHERE symbol = 'two'")
    settle(restored, peer)
    assert peer.trades() == [("one", 1), ("two", 20)] and peer.store.conflict_count() == 0


def test_what_was_written_after_the_restore_is_signed_anew_and_keeps_its_keys(tmp_path: Path) -> None:
    restored, peer = backup_and_go_on(tmp_path)
    restored.write("INSERT INTO trade(symbol, qty) VALUES('three', 3)")
    restored.write("UPDATE trade SET qty = 10 WHERE symbol = 'one'")
    keys = restored.store.query("SELECT id FROM trade ORDER BY id")
    old_log = restored.store.own_log
    assert restored.take(peer.all_entries()).own_branch
    assert set(keys) < set(restored.store.query("SELECT id FROM trade"))
    assert restored.store.vector.seq(old_log) == 2 and restored.store.vector.seq(restored.store.own_log) == 2
    settle(restored, peer)
    assert peer.trades() == [("one", 10), ("three", 3), ("two", 2)]
    assert peer.store.status()["forks"] == 0
    fresh = Site(tmp_path / "c.db", WORLD.devices[3], 9)
    settle(fresh, peer)


def test_what_was_published_twice_is_a_fork_with_proof(tmp_path: Path) -> None:
    """S9: the same device key live twice -> fork proof; both branches stay, and all converge."""
    restored, peer = backup_and_go_on(tmp_path)
    restored.store.begin_publishing()
    restored.write("INSERT INTO trade(symbol, qty) VALUES('three', 3)")
    old_log = restored.store.own_log
    assert restored.take(peer.all_entries()).own_branch
    assert restored.store.own_log != old_log and len(restored.store.vector.heads[old_log]) == 2
    settle(restored, peer)
    assert peer.trades() == [("one", 1), ("three", 3), ("two", 2)] and peer.store.status()["forks"] == 1
    restored.write("UPDATE trade SET qty = 0 WHERE symbol <> 'one'")
    settle(restored, peer)
    assert peer.trades() == [("one", 1), ("three", 0), ("two", 0)] and peer.store.conflict_count() == 0


def test_a_nonce_that_differs_begins_a_new_log(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    site = Site(path, WORLD.devices[0], 1)
    site.write("INSERT INTO trade(symbol, qty) VALUES('one', 1)")
    log = site.store.own_log
    site.store.close()
    same = Site(path, WORLD.devices[0], 2)
    assert same.store.own_log == log
    same.store.close()
    other = Site(path, WORLD.devices[0], 3, nonce=b"another.")
    assert other.store.own_log != log and other.store.nonce == b"another."
    assert other.store.vector.seq(log) == 0  # it was never published: signed anew
    peer = Site(tmp_path / "b.db", WORLD.devices[2], 4)
    settle(other, peer)
    other.write("UPDATE trade SET qty = 2")
    settle(other, peer)
    assert peer.trades() == [("one", 2)] and peer.store.conflict_count() == 0
    missing = Site(tmp_path / "b.db", WORLD.devices[2], 5, nonce=None)
    assert missing.store.nonce != NONCE


def test_an_own_log_that_is_cut_goes_on_in_another(tmp_path: Path) -> None:
    site = Site(tmp_path / "a.db", WORLD.devices[0], 1)
    site.write("INSERT INTO trade(symbol, qty) VALUES('one', 1)")
    site.write("INSERT INTO trade(symbol, qty) VALUES('two', 2)")
    log = site.store.own_log
    site.store.set_cutoffs({log: 1})
    assert site.trades() == [("one", 1)] and site.store.own_log != log
    site.write("INSERT INTO trade(symbol, qty) VALUES('three', 3)")
    site.store.set_cutoffs({log: None})
    assert site.trades() == [("one", 1), ("three", 3), ("two", 2)]
