"""Own writes against Plain: bulk insert and update, the SQL door, one durable write, a hundred writers at once.

All through the table writer, as every program's writes go: captured, coalesced, signed, in the log, FULL.
"""

import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from actors.ref import Ref
from bench.harness import Line, Settings, Took, compare, contest, measured
from bench.limits import Plain
from bench.replicas import OWNER, remove, replica, writer
from bench.rows import COLUMNS, TABLE, Columns, as_rows, ids, part, trades
from peers.store.writer import Execute, Message, Save, SaveColumns

WRITERS = 100


def run(settings: Settings) -> list[Line]:
    return [*_bulk(settings), *_sql_door(settings), *_durable(settings)]


# --- Bulk ------------------------------------------------------------------------------------------------------------


async def _save_batches(ref: Ref[Message], columns: Columns, rows: int, batch: int, keys: list[str]) -> None:
    for start in range(0, rows, batch):
        keys += await ref.ask(SaveColumns(TABLE, part(columns, start, start + batch)))


async def _update_batches(ref: Ref[Message], keys: list[str], values: Columns, batch: int) -> None:
    for start in range(0, len(keys), batch):
        await ref.ask(SaveColumns(TABLE, {"id": keys[start : start + batch], **part(values, start, start + batch)}))


def _bulk(settings: Settings) -> list[Line]:
    rows, batch = settings.rows, settings.batch
    columns = trades(rows)
    changed = {"qty": [value + 1 for value in columns["qty"]], "price": [value + 0.25 for value in columns["price"]]}
    plain_keys = ids(rows, batch)
    plain_rows = as_rows(plain_keys, columns)
    plain_changes = list(zip(changed["qty"], changed["price"], plain_keys, strict=True))
    updates: dict[str, list[Took]] = {"ours": [], "plain": []}

    def ours(repetition: int) -> Took:
        path = settings.folder / f"write-{repetition}.db"

        async def work() -> Took:
            keys: list[str] = []
            with replica(path, OWNER) as store:
                async with writer(store) as ref:
                    with measured() as inserting:
                        await _save_batches(ref, columns, rows, batch, keys)
                    with measured() as updating:
                        await _update_batches(ref, keys, changed, batch)
            updates["ours"].append(updating.took)
            return inserting.took

        took = trio.run(work)
        remove(path)
        return took

    def plain(repetition: int) -> Took:
        path = settings.folder / f"write-plain-{repetition}.db"
        database = Plain(path, full=True)
        with measured() as inserting:
            database.insert(plain_rows, batch)
        with measured() as updating:
            database.update(plain_changes, batch)
        updates["plain"].append(updating.took)
        database.close()
        remove(path)
        return inserting.took

    inserts = contest(settings.repetitions, {"plain": plain, "ours": ours})
    return [
        compare(
            "write", f"bulk insert of {rows:,} rows, tracked and signed, {batch:,} a batch, FULL", rows,
            "Plain executemany, same batches, FULL", inserts["plain"], inserts["ours"], target=0.45,
        ),
        compare(
            "write", f"bulk update of 2 columns of all rows by key, {batch:,} a batch, FULL", rows,
            "Plain UPDATE by key, same batches, FULL", updates["plain"], updates["ours"],
        ),
    ]  # fmt: skip


# --- The SQL door ----------------------------------------------------------------------------------------------------


def _sql_door(settings: Settings) -> list[Line]:
    """One statement over many rows: what a program that only speaks SQL does."""
    rows = max(200, settings.rows // 5)
    columns = trades(rows)
    batches = [as_rows_of(part(columns, start, start + 100)) for start in range(0, rows, 100)]
    plain_rows = as_rows(ids(rows, 100), columns)

    def many(count: int) -> str:
        return f"INSERT INTO {TABLE}({', '.join(COLUMNS)}) VALUES " + ",".join(["(?,?,?,?,?,?)"] * count)

    def ours(repetition: int) -> Took:
        path = settings.folder / f"door-{repetition}.db"

        async def work() -> Took:
            with replica(path, OWNER) as store:
                async with writer(store) as ref:
                    with measured() as watch:
                        for batch in batches:
                            await ref.ask(Execute(many(len(batch) // len(COLUMNS)), tuple(batch)))
            return watch.took

        took = trio.run(work)
        remove(path)
        return took

    def plain(repetition: int) -> Took:
        path = settings.folder / f"door-plain-{repetition}.db"
        database = Plain(path, full=True)
        with measured() as watch:
            database.insert(plain_rows, 100)
        database.close()
        remove(path)
        return watch.took

    times = contest(settings.repetitions, {"plain": plain, "ours": ours})
    return [
        compare(
            "write", "SQL door: INSERT of 100 rows a statement, FULL", rows, "Plain executemany, 100 a batch, FULL",
            times["plain"], times["ours"],
        )
    ]  # fmt: skip


def as_rows_of(columns: Columns) -> list[Any]:
    """All values, row after row."""
    return [value for row in zip(*columns.values(), strict=True) for value in row]


# --- Durable single writes -------------------------------------------------------------------------------------------


def _durable(settings: Settings) -> list[Line]:
    alone = settings.scaled(2000)
    together = alone * 5 // WRITERS * WRITERS or WRITERS
    columns = trades(together)
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    plain_rows = as_rows(ids(alone, 1), part(columns, 0, alone))
    latencies: list[float] = []
    plain_latencies: list[float] = []

    def in_writer(name: str, work: Callable[[Ref[Message]], Awaitable[None]]) -> Callable[[int], Took]:
        def contestant(repetition: int) -> Took:
            path = settings.folder / f"{name}-{repetition}.db"

            async def main() -> Took:
                with replica(path, OWNER) as store:
                    async with writer(store) as ref:
                        with measured() as watch:
                            await work(ref)
                return watch.took

            took = trio.run(main)
            remove(path)
            return took

        return contestant

    async def one_after_the_other(ref: Ref[Message]) -> None:
        for row in rows[:alone]:
            start = time.perf_counter()
            await ref.ask(Save(TABLE, row))
            latencies.append(time.perf_counter() - start)

    async def many_at_once(ref: Ref[Message]) -> None:
        async def caller(mine: list[dict[str, Any]]) -> None:
            for row in mine:
                await ref.ask(Save(TABLE, row))

        async with trio.open_nursery() as nursery:
            for number in range(WRITERS):
                nursery.start_soon(caller, rows[number::WRITERS])

    def plain(repetition: int) -> Took:
        path = settings.folder / f"durable-plain-{repetition}.db"
        database = Plain(path, full=True)
        with measured() as watch:
            plain_latencies.extend(database.insert_each(plain_rows))
        database.close()
        remove(path)
        return watch.took

    times = contest(
        settings.repetitions,
        {
            "plain": plain,
            "alone": in_writer("alone", one_after_the_other),
            "together": in_writer("together", many_at_once),
        },
    )
    a_write = {name: _scaled(took, 1 / alone) for name, took in times.items() if name != "together"}
    shared = _scaled(times["together"], 1 / together)
    one, limit = (statistics.median(seconds) * 1000 for seconds in (latencies, plain_latencies))
    return [
        Line(
            "write", "one awaited durable write, p50, FULL", one, "ms", "Plain autocommit insert, FULL", limit,
            limit / one, detail={"p99_ms": _percentile(latencies, 0.99) * 1000},
        ),
        compare(
            "write", f"{WRITERS} durable writers at once, FULL", 1, "a lone durable writer of ours, FULL",
            a_write["alone"], shared, target=5.0, unit="writes/s", cpu_counts=False,
        ),
        compare(
            "write", f"{WRITERS} durable writers at once, FULL", 1, "Plain autocommit insert, FULL", a_write["plain"],
            shared, unit="writes/s", cpu_counts=False,
        ),
    ]  # fmt: skip


def _scaled(times: list[Took], factor: float) -> list[Took]:
    return [Took(took.wall * factor, took.cpu * factor) for took in times]


def _percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]
