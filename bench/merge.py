"""Merging entries of others against Plain: new rows, newer, older and conflicting writes.

Each entry holds one batch of rows and is merged in a transaction of its own, as Plain commits each batch: the ratio is
that of the merge (decode, verify, check rights, log, merge, stamps, commit), not of larger transactions. One line more
merges pages of 1 MiB, as sync does.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import trio

from bench.harness import Line, Settings, Took, compare, contest, measured
from bench.limits import Plain
from bench.replicas import OWNER, READER, SECOND, THIRD, copied, entries_of, ingest, remove, replica, writer
from bench.rows import TABLE, Columns, as_rows, ids, part, trades
from peers.config import SyncConfig
from peers.model.entries import RawEntry
from peers.model.version_vector import VersionVector
from peers.store.writer import SaveColumns
from peers.testing.people import Person

_LONG_CONTACT_SECONDS = 1e6
"""Entries whose deps are missing are applied all the same: how an older write can come after the newer."""

LATE_ENTRIES = 2
"""Entries of the "older" line: it is the rare way, and each of them reads the log."""

Batches = list[list[RawEntry]]


class History:
    """Entries of three writers, made once: inserts; updates that have seen them; and concurrent updates."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        folder, rows = settings.folder, settings.rows
        columns = trades(rows)
        self.inserts = self._write(folder / "owner.db", OWNER, [], columns, None)
        with_rows = [self.inserts]
        keys = self._keys(folder / "owner.db")
        self.first = self._write(folder / "second.db", SECOND, with_rows, self._changed(columns, 1), keys)
        self.rival = self._write(folder / "third.db", THIRD, with_rows, self._changed(columns, 2), keys)
        remove(folder / "third.db")
        seen = [*with_rows, self.first]
        self.newer = self._write(folder / "third-2.db", THIRD, seen, self._changed(columns, 3), keys)

    @staticmethod
    def _changed(columns: Columns, by: int) -> Columns:
        return {"qty": [value + by for value in columns["qty"]], "price": [value + by for value in columns["price"]]}

    @staticmethod
    def _keys(path: Path) -> list[str]:
        with replica(path, OWNER) as store:
            return [row[0] for row in store.database.connection.execute(f"SELECT id FROM {TABLE} ORDER BY id")]

    def _write(
        self, path: Path, author: Person, held: Sequence[list[RawEntry]], columns: Columns, keys: list[str] | None
    ) -> list[RawEntry]:
        """The author's entries of one bulk write, on a replica that holds `held`."""
        batch, rows = self._settings.batch, len(columns["qty"])

        async def write() -> list[RawEntry]:
            with replica(path, author) as store:
                ingest(store, held)
                before: VersionVector = store.vector
                async with writer(store) as ref:
                    for start in range(0, rows, batch):
                        values = part(columns, start, start + batch)
                        if keys is not None:
                            values = {"id": keys[start : start + batch], **values}
                        await ref.ask(SaveColumns(TABLE, values))
                return entries_of(store, before)

        return trio.run(write)


def run(settings: Settings) -> list[Line]:
    rows, batch = settings.rows, settings.batch
    history = History(settings)
    plain_keys = ids(rows, batch)
    columns = trades(rows)
    plain_rows = as_rows(plain_keys, columns)
    changes = list(
        zip([value + 1 for value in columns["qty"]], [value + 1 for value in columns["price"]], plain_keys, strict=True)
    )
    bases = _bases(settings, history)

    def ours(name: str, base: Path | None, batches: Batches) -> Callable[[int], Took]:
        def contestant(repetition: int) -> Took:
            path = settings.folder / f"merge-{name}-{repetition}.db"
            if base is not None:
                copied(base, path)
            with replica(path, READER) as store:
                with measured() as watch:
                    stored = ingest(store, batches)
                assert stored == sum(map(len, batches))
            remove(path)
            return watch.took

        return contestant

    plain_updates: list[Took] = []

    def plain(repetition: int) -> Took:
        path = settings.folder / f"merge-plain-{repetition}.db"
        database = Plain(path, full=False)
        with measured() as inserting:
            database.insert(plain_rows, batch)
        with measured() as updating:
            database.update(changes, batch)
        plain_updates.append(updating.took)
        database.close()
        remove(path)
        return inserting.took

    single = {name: [[entry] for entry in getattr(history, name)] for name in ("inserts", "first", "rival", "newer")}
    times = contest(
        settings.repetitions,
        {
            "plain": plain,
            "new": ours("new", None, single["inserts"]),
            "pages": ours("pages", None, pages(history.inserts)),
            "newer": ours("newer", bases["rows"], single["first"]),
            "again": ours("again", bases["first"], single["newer"]),
            "older": ours("older", bases["newer early"], single["first"][:LATE_ENTRIES]),
            "wins": ours("wins", bases["first"], single["rival"]),
            "loses": ours("loses", bases["rival"], single["first"]),
        },
    )
    inserts, updates = "Plain executemany, same batches, NORMAL", "Plain UPDATE by key, same batches, NORMAL"
    times["older"] = _per_row(times["older"], min(rows, LATE_ENTRIES * batch), rows)

    def compared(what: str, name: str, limit: str, took: list[Took], target: float | None = None) -> Line:
        return compare("merge", what, rows, limit, took, times[name], target=target)

    return [
        compared("remote new rows, an entry a transaction", "new", inserts, times["plain"], 0.6),
        compared("remote new rows, a page of 1 MiB a transaction", "pages", inserts, times["plain"]),
        compared("newer: update that has seen the rows", "newer", updates, plain_updates),
        compared("newer again: side rows exist", "again", updates, plain_updates),
        compared("older: comes after the update that has seen it", "older", updates, plain_updates),
        compared("conflicting, newcomer wins: 2 cells a row recorded", "wins", updates, plain_updates),
        compared("conflicting, newcomer loses: 2 cells a row recorded", "loses", updates, plain_updates),
    ]


def _bases(settings: Settings, history: History) -> dict[str, Path]:
    """Files of a reader who holds the rows and some of the updates, to be copied for each repetition."""
    bases = {}
    for name, held, contact in (
        ("rows", [], 0.0),
        ("first", history.first, 0.0),
        ("rival", history.rival, 0.0),
        ("newer early", history.newer[:LATE_ENTRIES], _LONG_CONTACT_SECONDS),
    ):
        path = bases[name] = settings.folder / f"base-{name.replace(' ', '-')}.db"
        with replica(path, READER) as store:
            ingest(store, [history.inserts])
            ingest(store, [[entry] for entry in held], contact)
    return bases


def _per_row(times: list[Took], merged: int, rows: int) -> list[Took]:
    """What `rows` rows would have taken at the rate of `merged`."""
    return [Took(took.wall * rows / merged, took.cpu * rows / merged) for took in times]


def pages(entries: Sequence[RawEntry]) -> Batches:
    """As `list_changes` cuts them: at most `page_bytes` a page, and at least one entry."""
    limit = SyncConfig().page_bytes
    cut: Batches = []
    size = limit
    for entry in entries:
        if size + entry.size > limit:
            cut.append([])
            size = 0
        cut[-1].append(entry)
        size += entry.size
    return cut
