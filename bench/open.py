"""Opening 100k rows until the first row is read, against opening a plain file.

The file's pages are in the machine's cache, as for a program that is started again. Once straight on the group's file,
and once for a whole device: home, keys, device.db, the personal group, the group, its actors.
"""

from pathlib import Path
from typing import Any

import apsw
import trio

from bench.harness import Line, Settings, Took, compare, contest, measured, wall_of
from bench.homes import GROUP_NAME, make_pair
from bench.limits import Plain
from bench.replicas import OWNER, replica, writer
from bench.rows import TABLE, as_rows, ids, part, trades
from peers.device import open_device
from peers.store.writer import SaveColumns

OPENINGS = 4
"""Openings of each kind in one repetition; they are short."""
_FIRST = f"SELECT * FROM {TABLE} ORDER BY id LIMIT 1"


def run(settings: Settings) -> list[Line]:
    rows, batch = settings.rows, settings.batch
    folder = settings.folder / "open"
    folder.mkdir()
    plain_path, store_path = folder / "plain.db", folder / "store.db"
    plain = Plain(plain_path, full=False)
    plain.insert(as_rows(ids(rows, batch), trades(rows)), batch)
    plain.close()
    trio.run(_fill, store_path, rows, batch)
    pair = make_pair(folder, rows, batch)

    def open_plain(_: int) -> Took:
        with measured() as watch:
            connection = apsw.Connection(str(plain_path))
            connection.execute("PRAGMA journal_mode=WAL")
            found = connection.execute(_FIRST).get
        assert found is not None
        connection.close()
        return watch.took

    def open_store(_: int) -> Took:
        with measured() as watch:
            context = replica(store_path, OWNER)
            store = context.__enter__()
            found = store.database.connection.execute(_FIRST).get
        assert found is not None
        context.__exit__(None, None, None)
        return watch.took

    times = contest(
        settings.repetitions * OPENINGS,
        {"plain": open_plain, "store": open_store, "device": lambda _: trio.run(_open_device, pair.owner)},
    )
    return [
        _line(f"open a group's file of {rows:,} rows, first read", times["plain"], times["store"]),
        _line(f"open the whole device, {rows:,} rows, first read", times["plain"], times["device"]),
    ]


def _line(what: str, limit: list[Took], ours: list[Took]) -> Line:
    compared = compare("open", what, 1, "Plain open, first read", limit, ours)
    fields: dict[str, Any] = {"detail": compared.detail, "target": 10.0, "target_is_ratio": False}
    limit_ms, ours_ms = wall_of(limit) * 1000, wall_of(ours) * 1000
    return Line("open", what, ours_ms, "ms", compared.limit, limit_ms, compared.ratio, compared.cpu_ratio, **fields)


async def _fill(path: Path, rows: int, batch: int) -> None:
    columns = trades(rows)
    with replica(path, OWNER) as store:
        async with writer(store) as ref:
            for start in range(0, rows, batch):
                await ref.ask(SaveColumns(TABLE, part(columns, start, start + batch)))


async def _open_device(home: Path) -> Took:
    """The clock stops at the first row; closing is not counted."""
    watch = measured()
    stopwatch = watch.__enter__()
    async with open_device(home) as device:
        found = await device.group(GROUP_NAME).query(_FIRST)
        watch.__exit__(None, None, None)
    assert len(found.rows) == 1
    return stopwatch.took
