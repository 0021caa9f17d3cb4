"""The table writer over a real group file: group commits, errors as answers; what tables, log and feed then say."""

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.ref import Ref
from actors.supervisor import open_supervisor
from peers.config import StoreConfig
from peers.errors import BadValue, DiskFull, NotAllowed, NotFound, PeersError, SqlRefused, UsageError
from peers.model.entries import Flag, decode_header, decode_leaf
from peers.model.operations import Kind, Role, sign_operation
from peers.model.schema import Column, ColumnType, column_to_fields
from peers.store.commit_feed import CommitFeed, Origin
from peers.store.group_store import GroupStore
from peers.store.live_query import LiveQuery
from peers.store.own_log import Author
from peers.store.table import Table
from peers.store.transaction import Transaction
from peers.store.writer import (
    AddOperations,
    Delete,
    Execute,
    Ingest,
    Message,
    Query,
    Restore,
    Save,
    SaveColumns,
    TableWriter,
    Transact,
)  # fmt: skip
from peers.testing.group_world import BASE_MS, GroupWorld, WorldDevice, group_world

Cells = dict[str, Any]


class Clock:
    def __init__(self) -> None:
        self.now = BASE_MS + 60_000

    def __call__(self) -> int:
        self.now += 1
        return self.now


class Replica:
    """One device's file with its writer."""

    def __init__(self, store: GroupStore, writer: Ref[Message], feed: CommitFeed) -> None:
        self.store = store
        self.writer = writer
        self.feed = feed

    async def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        return await self.writer.ask(Execute(sql, parameters))

    async def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = (await self.writer.ask(Query(sql, parameters))).rows
        return rows

    def entries(self) -> list[Any]:
        return list(self.store.entries_since(type(self.store.vector)(), 1 << 30).entries)

    async def receive(self, other: "Replica") -> Any:
        return await self.writer.ask(Ingest(tuple(other.store.entries_since(self.store.vector, 1 << 30).entries)))


class Counter:
    """Bytes that never repeat: all that the store's randomness is for."""

    def __init__(self, seed: int) -> None:
        self.at = seed << 32

    def __call__(self, size: int) -> bytes:
        self.at += 1
        return self.at.to_bytes(8, "big").rjust(size, b"\1")[-size:]


def make_store(path: Path, device: WorldDevice, world: GroupWorld, config: StoreConfig) -> GroupStore:
    return GroupStore.create(
        path / f"{device.index}.db",
        world.signed_operations,
        author=Author(device.user, device.key),
        now_ms=Clock(),
        random_bytes=Counter(device.index + 1),
        config=config,
        nonce=bytes([device.index]) * 8,
    )


@asynccontextmanager
async def replicas(path: Path, *indexes: int, config: StoreConfig | None = None) -> AsyncIterator[list[Replica]]:
    world = group_world()
    made = []
    settings_ = config or StoreConfig()
    async with open_supervisor("test") as root:
        for index in indexes:
            store = make_store(path, world.devices[index], world, settings_)
            feed = CommitFeed(settings_.feed_queue)

            def factory(store: GroupStore = store, feed: CommitFeed = feed) -> TableWriter:
                return TableWriter(store, feed, config=settings_)

            made.append(Replica(store, await root.start(f"writer {index}", factory, mailbox=1024), feed))
        yield made
        for index in indexes:
            await root.stop(f"writer {index}")
    for replica in made:
        replica.store.close()


async def ask_together(replica: Replica, messages: Sequence[Message]) -> list[Any]:
    """The answers, or errors, of messages that wait in the queue together."""
    answers: list[Any] = [None] * len(messages)

    async def ask(index: int) -> None:
        try:
            answers[index] = await replica.writer.ask(messages[index])
        except (PeersError, ZeroDivisionError) as error:
            answers[index] = error

    async with trio.open_nursery() as nursery:
        for index in range(len(messages)):
            nursery.start_soon(ask, index)
    return answers


async def test_what_waits_together_is_one_entry_and_each_has_its_answer(tmp_path: Path) -> None:
    async with replicas(tmp_path, 0) as [a]:
        with a.feed.subscribe() as commits:
            answers = await ask_together(a, [Save("trade", {"symbol": f"S{i}", "qty": i}) for i in range(100)])
            seen = [commit for commit in commits.take_all() if commit.entries]
        assert sorted(await a.rows("SELECT qty FROM trade")) == [(i,) for i in range(100)]
        assert [await a.rows("SELECT qty FROM trade WHERE id = ?", (key,)) for key in answers[:3]]
        assert len(set(answers)) == 100
        entries = [entry for commit in seen for entry in commit.entries]
        assert len(entries) <= 2 and entries == a.entries()
        assert {commit.origin for commit in seen} == {Origin.LOCAL} and {t for c in seen for t in c.tables} == {"trade"}
        leaf = decode_leaf(entries[-1].leaves[0] or b"", decode_header(entries[-1].header).leaves[0].rows)
        assert (
            isinstance(leaf.keys, int) and leaf.ordinals is not None and len(set(leaf.ordinals)) == len(leaf.ordinals)
        )


async def test_a_failing_transaction_rolls_back_alone(tmp_path: Path) -> None:
    def fails(transaction: Transaction) -> None:
        transaction.save("trade", {"symbol": "lost"})
        raise ZeroDivisionError("mine")

    async with replicas(tmp_path, 0) as [a]:
        answers = await ask_together(
            a,
            [
                Save("trade", {"symbol": "a"}),
                Transact(fails),
                Execute("INSERT INTO trade(symbol, qty) VALUES ('x', 'text')"),
                Save("trade", {"qty": "text"}),
                Save("nowhere", {"qty": 1}),
                Save("trade", {"nothing": 1}),
                Execute("DROP TABLE trade"),
                Save("trade", {"symbol": "b"}),
            ],
        )
        assert [type(answer) for answer in answers] == [
            str, ZeroDivisionError, BadValue, BadValue, NotFound, NotFound, SqlRefused, str,
        ]  # fmt: skip
        assert sorted(await a.rows("SELECT symbol FROM trade")) == [("a",), ("b",)]


async def test_one_bad_save_among_alike_ones_fails_alone(tmp_path: Path) -> None:
    rows = [{"symbol": f"S{i}", "qty": "bad" if i == 7 else i} for i in range(20)]
    async with replicas(tmp_path, 0) as [a]:
        answers = await ask_together(a, [Save("trade", row) for row in rows])
        assert [index for index, answer in enumerate(answers) if isinstance(answer, Exception)] == [7]
        assert len(await a.rows("SELECT * FROM trade")) == 19


async def test_a_transaction_sees_its_own_writes_and_lands_whole(tmp_path: Path) -> None:
    def work(transaction: Transaction) -> tuple[Any, ...]:
        key = transaction.save("trade", {"symbol": "A", "qty": 2})
        transaction.save("tagof", {"trade": key, "tag": 1, "body": b""})
        with pytest.raises(BadValue):
            transaction.execute("UPDATE trade SET note = ?", (1e999,))
        transaction.execute("UPDATE trade SET qty = qty + 1")
        found = transaction.find("tagof", trade=key)
        assert transaction.delete("tagof", (key, 1)) and not transaction.delete("tagof", (key, 1))
        assert transaction.restore("tagof", (key, 1))
        return key, transaction.get("trade", key), found, transaction.query("SELECT count(*) FROM tagof").rows

    async with replicas(tmp_path, 0, 1) as [a, b]:
        key, row, found, count = await a.writer.ask(Transact(work))
        assert row == {"id": key, "symbol": "A", "qty": 3, "note": None}
        assert found == [{"w": None, "tag": 1, "trade": key, "body": b""}] and count == [(1,)]
        await b.receive(a)
        assert b.store.state_hash() == a.store.state_hash()
        assert await b.rows("SELECT * FROM trade") == await a.rows("SELECT * FROM trade")


async def test_restore_leaves_a_row_alone_that_was_inserted_anew(tmp_path: Path) -> None:
    """Found by `test_random_calls_make_equal_replicas`: the row kept aside came back over the new one."""
    async with replicas(tmp_path, 0, 1) as [a, b]:
        await a.writer.ask(Save("trade", {"id": "1", "note": 0}))
        await a.writer.ask(Delete("trade", "1"))

        def work(transaction: Transaction) -> bool:
            transaction.save("trade", {"id": "1", "note": 1})
            return transaction.restore("trade", "1")

        assert await a.writer.ask(Transact(work)) is False
        await b.receive(a)
        assert await a.rows("SELECT note FROM trade") == await b.rows("SELECT note FROM trade") == [(1,)]


async def test_transact_takes_plain_functions_and_a_transaction_ends_with_them(tmp_path: Path) -> None:
    async def waits(transaction: Transaction) -> None: ...

    async with replicas(tmp_path, 0) as [a]:
        with pytest.raises(UsageError, match="plain function"):
            await a.writer.ask(Transact(waits))
        kept = await a.writer.ask(Transact(lambda transaction: transaction))
        with pytest.raises(UsageError, match="is over"):
            kept.execute("DELETE FROM trade")


async def test_table_api(tmp_path: Path) -> None:
    async with replicas(tmp_path, 0) as [a]:
        trades, tags = Table("trade", a.writer), Table("tagof", a.writer)
        key = await trades.save({"symbol": "A", "note": True})
        assert await trades.get(key) == {"id": key, "symbol": "A", "qty": 1, "note": 1}
        before = len(a.entries())
        assert await trades.save({"id": key, "symbol": "A"}) == key
        assert len(a.entries()) == before, "nothing changed, nothing is written"
        await trades.save({"id": key, "qty": 5})
        assert (await trades.get(key) or {})["qty"] == 5
        assert await tags.save({"trade": "t", "tag": 3, "body": b"x"}) == ("t", 3)
        assert await tags.save_many(["trade", "tag", "w", "body"], [["t", 3, 7, b"y"], ["t", 4, 8, b""]]) == [
            ("t", 3), ("t", 4),
        ]  # fmt: skip
        assert [row["w"] for row in await tags.find(trade="t")] == [7, 8]
        assert await tags.find(w=None) == []
        assert await trades.delete(key) and not await trades.delete(key) and await trades.get(key) is None
        assert await trades.restore(key) and not await trades.restore("no such key")
        assert (await trades.get(key) or {})["qty"] == 5
        with pytest.raises(BadValue, match="has no tag"):
            await tags.save({"trade": "t", "body": b""})
        with pytest.raises(BadValue):
            await tags.save_columns({"trade": ["a", "b"], "tag": [1], "body": [b"", b""]})
        with pytest.raises(UsageError, match="watched"):
            trades.watch()


async def test_bulk_saves_update_what_exists_and_insert_the_rest(tmp_path: Path) -> None:
    async with replicas(tmp_path, 0, 1) as [a, b]:
        table = Table("setting", a.writer)
        await table.save_columns({"k": [bytes([i]) for i in range(50)], "v": [1] * 50})
        mixed = [1.0 if i % 2 else i for i in range(100)]
        await table.save_columns({"k": [bytes([i]) for i in range(100)], "v": mixed})
        await table.save_columns({"k": [b"x", b"x"], "v": ["first", "second"]})
        rows = dict(await a.rows("SELECT k, v FROM setting"))
        assert rows == {**{bytes([i]): 1.0 if i % 2 else i for i in range(100)}, b"x": "second"}
        assert type(rows[bytes([1])]) is float
        await b.receive(a)
        assert b.store.state_hash() == a.store.state_hash()


async def test_a_large_transaction_is_consecutive_entries_and_arrives_whole(tmp_path: Path) -> None:
    count = 30_000

    def work(transaction: Transaction) -> None:
        ids = transaction.save_columns("trade", {"symbol": [f"symbol {i:030d}" for i in range(count)]})
        transaction.execute("UPDATE trade SET qty = 2 WHERE id = ?", (ids[5],))
        transaction.execute("INSERT INTO trade(symbol) SELECT symbol FROM trade LIMIT 20000")
        transaction.delete("trade", ids[0])

    async with replicas(tmp_path, 0, 1) as [a, b]:
        await ask_together(a, [Save("trade", {"symbol": "before"}), Transact(work), Save("trade", {"symbol": "after"})])
        headers = [decode_header(entry.header) for entry in a.entries()]
        more = [bool(header.flags & Flag.MORE) for header in headers]
        assert more.count(True) >= 2 and not more[-1]
        assert all(
            second.hlc == first.hlc + 1
            for (first, second), goes_on in zip(pairwise(headers), more, strict=False)
            if goes_on
        )
        page = a.entries()
        await b.writer.ask(Ingest(tuple(page[: more.index(False)])))
        assert await b.rows("SELECT count(*) FROM trade") == [(0,)]
        await b.receive(a)
        sums = "SELECT count(*), sum(qty) FROM trade"
        assert await b.rows(sums) == await a.rows(sums)
        assert b.store.state_hash() == a.store.state_hash()


async def test_too_large_a_row_is_refused_alone(tmp_path: Path) -> None:
    async with replicas(tmp_path, 0) as [a]:
        with pytest.raises(BadValue):
            await a.writer.ask(Save("trade", {"note": "x" * (1 << 19)}))
        wide = {"symbol": "s" * 250_000, "note": "é" * 130_000}
        await a.writer.ask(Save("trade", wide))
        assert await a.rows("SELECT count(*) FROM trade") == [(1,)]


async def test_readers_of_a_group_and_owned_rows(tmp_path: Path) -> None:
    """C11, C14 at the writing side: of owned tables a writer deletes only rows, and inserts only ids, that he made."""
    world = group_world()
    others = [device.index for device in world.devices if device.user_index == 1]
    async with replicas(tmp_path, 0, others[0]) as [owner, writer]:
        theirs = await owner.writer.ask(Save("idea", {"title": "ours", "score": 1}))
        await writer.receive(owner)
        own = await writer.writer.ask(Save("idea", {"title": "mine", "score": 2}))
        for message in (Delete("idea", theirs), Execute("DELETE FROM idea WHERE id = ?", (theirs,))):
            with pytest.raises(NotAllowed, match="only the owner"):
                await writer.writer.ask(message)
        for message in (
            Save("idea", {"id": "x", "score": 1}),
            SaveColumns("idea", {"id": ["x", "y"], "score": [1, 2]}),
            Execute("REPLACE INTO idea(id, score) VALUES (?, 5)", (theirs,)),
            Execute("UPDATE idea SET id = 'z' WHERE score = 1"),
        ):
            with pytest.raises(NotAllowed):
                await writer.writer.ask(message)
        assert await writer.rows("SELECT id, title FROM idea ORDER BY title") == [(own, "mine"), (theirs, "ours")]
        await writer.execute("UPDATE idea SET score = 3 WHERE id = ?", (theirs,))
        assert await writer.writer.ask(Delete("idea", own))
        assert await writer.writer.ask(Restore("idea", own))
        await owner.receive(writer)
        assert await owner.writer.ask(Delete("idea", own))
        await writer.receive(owner)
        assert owner.store.state_hash() == writer.store.state_hash()
        assert writer.store.role() is Role.WRITER


async def test_live_query_yields_at_once_and_when_its_rows_change(tmp_path: Path) -> None:
    async with replicas(tmp_path, 0, 1) as [a, b]:
        live = aiter(LiveQuery(b.store, b.feed, "SELECT symbol FROM trade ORDER BY 1"))
        assert (await anext(live)).rows == []
        await b.writer.ask(Save("setting", {"k": b"", "v": 1}))
        await b.writer.ask(Save("trade", {"symbol": "A"}))
        await b.writer.ask(Save("trade", {"symbol": "B"}))
        assert (await anext(live)).rows == [("A",), ("B",)]
        await a.writer.ask(Save("trade", {"symbol": "C"}))
        await b.receive(a)
        assert (await anext(live)).rows == [("A",), ("B",), ("C",)]
        await b.execute("UPDATE trade SET qty = 9")
        with trio.move_on_after(0.05) as scope:
            await anext(live)
        assert scope.cancelled_caught
        with pytest.raises(SqlRefused):
            LiveQuery(b.store, b.feed, "DELETE FROM trade")


async def test_import_marks_are_committed_with_the_rows(tmp_path: Path) -> None:
    def step(mark: str, line: int) -> Callable[[Transaction], int | None]:
        def work(transaction: Transaction) -> int | None:
            before = transaction.import_mark(mark)
            transaction.set_import_mark(mark, line)
            return before

        return work

    async with replicas(tmp_path, 0) as [a]:
        assert await a.writer.ask(Transact(step("file", 10))) is None
        assert await a.writer.ask(Transact(step("file", 20))) == 10
        assert await a.writer.ask(Transact(step("other", 1))) is None
        assert a.entries() == []


async def test_a_cancelled_ingest_leaves_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    async with replicas(tmp_path, 0) as [a]:
        await a.writer.ask(SaveColumns("trade", {"symbol": [str(i) for i in range(20_000)]}))
        page = tuple(a.entries())
        expected = a.store.state_hash()
    world = group_world()
    store = make_store(tmp_path, world.devices[1], world, StoreConfig())
    feed = CommitFeed(8)
    actor = TableWriter(store, feed, config=replace(StoreConfig(), step_rows=1000))
    with trio.CancelScope() as scope:
        scope.cancel()
        await actor.handle(Ingest(page))
    assert scope.cancelled_caught and not store.database.connection.in_transaction
    await actor.handle(Ingest(page))
    assert store.state_hash() == expected
    store.close()


ROWS = st.sampled_from(["a", "b", "c"])
SMALL = st.integers(-3, 3)
RANDOM_SQL = st.one_of(
    st.tuples(st.just("INSERT OR IGNORE INTO trade(id, qty, note) VALUES (?, ?, ?)"), st.tuples(ROWS, SMALL, SMALL)),
    st.tuples(st.just("INSERT INTO trade(qty) VALUES (?), (?)"), st.tuples(SMALL, SMALL)),
    st.tuples(st.just("REPLACE INTO trade(id, qty) VALUES (?, ?)"), st.tuples(ROWS, SMALL)),
    st.tuples(st.just("UPDATE trade SET qty = qty + ? WHERE id <= ?"), st.tuples(SMALL, ROWS)),
    st.tuples(st.just("UPDATE trade SET note = ?, symbol = 's'"), st.tuples(SMALL)),
    st.tuples(st.just("UPDATE OR REPLACE trade SET id = ? WHERE id = ?"), st.tuples(ROWS, ROWS)),
    st.tuples(st.just("DELETE FROM trade WHERE id >= ?"), st.tuples(ROWS)),
    st.tuples(st.just("INSERT OR REPLACE INTO tagof SELECT qty, ?, id, x'00' FROM trade"), st.tuples(SMALL)),
    st.tuples(st.just("UPDATE OR REPLACE tagof SET tag = tag + ?, w = 1"), st.tuples(SMALL)),
    st.tuples(st.just("DELETE FROM tagof WHERE tag = ?"), st.tuples(SMALL)),
    st.tuples(
        st.just(
            "INSERT INTO tagof(trade, tag, body) VALUES (?, ?, x'') ON CONFLICT DO UPDATE SET w = ifnull(w, 0) + 1"
        ),
        st.tuples(ROWS, SMALL),
    ),
)


@settings(max_examples=12, deadline=None)
@given(commits=st.lists(st.lists(RANDOM_SQL, min_size=1, max_size=6), min_size=1, max_size=4))
def test_random_sql_makes_equal_replicas(
    tmp_path_factory: pytest.TempPathFactory, commits: list[list[tuple[str, tuple[Any, ...]]]]
) -> None:
    """A replica that merges the entries, one by one or all at the end, shows what the writer shows."""
    trio.run(_compare, tmp_path_factory.mktemp("fuzz"), commits)


async def _compare(path: Path, commits: list[list[tuple[str, tuple[Any, ...]]]]) -> None:
    async with replicas(path, 0, 1, 2) as [a, b, c]:
        for statements in commits:
            await ask_together(a, [Execute(sql, parameters) for sql, parameters in statements])
            await b.receive(a)
        await c.receive(b)
        for name in ("trade", "tagof"):
            select = f"SELECT * FROM {name} ORDER BY 1, 2, 3"
            assert await a.rows(select) == await b.rows(select) == await c.rows(select)
        assert a.store.state_hash() == b.store.state_hash() == c.store.state_hash()


API_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["save", "save", "many", "delete", "restore", "update", "replace", "fresh", "fail"]),
        st.sampled_from(["1", "2", "3"]),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=20, deadline=None)
@given(commits=st.lists(st.lists(API_STEPS, min_size=1, max_size=3), min_size=1, max_size=3))
def test_random_calls_make_equal_replicas(
    tmp_path_factory: pytest.TempPathFactory, commits: list[list[list[tuple[str, str, int]]]]
) -> None:
    """Deletes, restores, re-inserts and updates of few rows in one entry, in several transactions, some failing."""
    trio.run(_compare_calls, tmp_path_factory.mktemp("calls"), commits)


def play(steps: list[tuple[str, str, int]]) -> Callable[[Transaction], None]:
    def work(transaction: Transaction) -> None:
        for call, key, number in steps:
            for table, row in (("trade", {"id": key, "note": number}), ("idea", {"id": key, "score": number})):
                match call:
                    case "save" | "many" if table == "idea":
                        with contextlib.suppress(NotAllowed):
                            transaction.save(table, row)
                    case "save":
                        transaction.save(table, row)
                    case "many":
                        transaction.save_columns(table, {name: [value] * 2 for name, value in row.items()})
                    case "fresh":
                        made = transaction.save(table, {name: row[name] for name in row if name != "id"})
                        if number == 2:  # the id was made by this log: the row may be written anew
                            transaction.delete(table, made)
                            transaction.save(table, {**row, "id": made})
                        if number:
                            transaction.delete(table, made)
                        if number == 3:
                            transaction.restore(table, made)
                    case "delete":
                        transaction.delete(table, key)
                    case "restore":
                        transaction.restore(table, key)
                    case "update":
                        transaction.execute(f"UPDATE {table} SET {list(row)[1]} = 9 WHERE id <= ?", (key,))
                    case "replace" if table == "trade":
                        transaction.execute("REPLACE INTO trade(id, qty) VALUES (?, ?)", (key, number))
                    case "fail" if number == 3:
                        raise ZeroDivisionError

    return work


async def _compare_calls(path: Path, commits: list[list[list[tuple[str, str, int]]]]) -> None:
    async with replicas(path, 0, 1, 2) as [a, b, c]:
        for transactions in commits:
            await ask_together(a, [Transact(play(steps)) for steps in transactions])
            await b.receive(a)
            assert a.store.state_hash() == b.store.state_hash()
        await c.receive(a)
        for name in ("trade", "idea"):
            select = f"SELECT * FROM {name} ORDER BY 1"
            assert await a.rows(select) == await b.rows(select) == await c.rows(select)
        assert a.store.state_hash() == c.store.state_hash()


async def test_s1_a_full_disk_is_the_answer_and_passes_by_itself(tmp_path: Path) -> None:
    """S1: disk full at every write of commit: API call fails `disk_full`; earlier data intact; resumes by itself."""
    async with replicas(tmp_path, 0, 1) as [a, b]:
        await a.writer.ask(Save("trade", {"symbol": "before"}))
        connection = a.store.database.connection
        pages = connection.execute("PRAGMA page_count").get
        connection.execute(f"PRAGMA max_page_count={pages}")
        big = [Save("trade", {"symbol": "x" * 5_000, "note": index}) for index in range(20)]
        for messages in (big, [Transact(swallow)], [SaveColumns("trade", {"symbol": ["x" * 50_000] * 10})]):
            answers = await ask_together(a, messages)
            assert all(isinstance(answer, DiskFull) for answer in answers[-1:]), answers
        connection.execute("PRAGMA max_page_count=100000")
        await a.writer.ask(Save("trade", {"symbol": "after"}))
        symbols = {row[0][:6] for row in await a.rows("SELECT symbol FROM trade")}
        assert {"before", "after"} <= symbols
        await b.receive(a)
        assert b.store.state_hash() == a.store.state_hash()
        assert await b.rows("SELECT * FROM trade") == await a.rows("SELECT * FROM trade")


def swallow(transaction: Transaction) -> None:
    """What a careless program does."""
    for index in range(100):
        with contextlib.suppress(Exception):
            transaction.execute("INSERT INTO trade(symbol, note) VALUES (?, ?)", ("y" * 20_000, index))
        with contextlib.suppress(Exception):
            transaction.save("trade", {"symbol": "y" * 20_000})


async def test_a_column_that_was_declared_early_and_learned_late_stands_last_on_disk(tmp_path: Path) -> None:
    """Columns are shown in the order of their declarations; on disk the order is that of arrival."""
    world = group_world()
    async with replicas(tmp_path, 0, 1) as [a, b]:
        table = world.schema.by_name("trade")
        assert table is not None
        founder = world.devices[0]
        heads = [world.operations[-1].id]
        first, second = (
            sign_operation(
                founder.key,
                group=world.group,
                kind=Kind.COLUMN,
                parents=heads,
                hlc=world.operations[-1].hlc + 1 + at,
                fields=column_to_fields(table.id, Column(name, ColumnType.INTEGER, default=at)),
            )
            for at, name in enumerate(("early", "late"))
        )
        await a.writer.ask(AddOperations((first.signed, second.signed)))
        await b.writer.ask(AddOperations((second.signed,)))
        await b.writer.ask(AddOperations((first.signed,)))
        shown = [[column.name for column in r.store.catalog.by_name["trade"].table.columns] for r in (a, b)]
        assert shown[0] == shown[1]
        await b.execute("INSERT INTO trade(id, early, late) VALUES ('1', 11, 12), ('2', 21, 22), ('3', 31, 32)")
        await b.execute("UPDATE trade SET late = early, early = late WHERE id = '2'")
        await b.execute("DELETE FROM trade WHERE id = '3'")
        await b.writer.ask(Delete("trade", "1"))
        assert await b.writer.ask(Restore("trade", "1"))
        assert await b.writer.ask(Restore("trade", "3"))
        await a.receive(b)
        select = "SELECT id, early, late FROM trade ORDER BY 1"
        assert await a.rows(select) == await b.rows(select) == [("1", 11, 12), ("2", 22, 21), ("3", 31, 32)]
        assert a.store.state_hash() == b.store.state_hash()
