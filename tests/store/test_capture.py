"""The SQL door on a plain connection: what it refuses, what it captures, and that what it captures is all."""

from collections.abc import Iterator, Mapping
from typing import Any

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peers.errors import BadValue, SqlRefused
from peers.model.entries import Action
from peers.store.blocks import Block
from peers.store.capture import SqlDoor
from peers.store.coalesce import coalesce
from peers.store.declarations import parse_table
from peers.store.door_table import DoorTable
from peers.store.journal import Journal
from peers.store.own_change import EntryDraft, OwnChange
from peers.store.rows import LocalTable

TABLES = (
    "CREATE TABLE trades(symbol TEXT, qty INTEGER NOT NULL DEFAULT 1, price REAL, extra ANY)",
    "CREATE TABLE tagof(trade TEXT, tag INTEGER, w INTEGER, PRIMARY KEY(tag, trade))",
)


class Bench:
    """A connection with two declared tables, a door to it, and a draft that hands out ids."""

    def __init__(self) -> None:
        self.draft = EntryDraft(1 << 20, b"maker..8")
        self.connection = apsw.Connection(":memory:")
        self.connection.create_scalar_function(
            "peers_id", lambda: self.draft.take_ids(1)[0], 0, flags=apsw.SQLITE_INNOCUOUS
        )
        self.connection.execute("CREATE TABLE _peers_log(a)")
        self.tables: dict[str, DoorTable] = {}
        for number, sql in enumerate(TABLES):
            table = parse_table(sql)
            places = {column.id: place for place, column in enumerate(table.values)}
            local = LocalTable(number, table, places, [0] * len(places))
            for statement in local.create_statements():
                self.connection.execute(statement)
            self.tables[table.name] = DoorTable(self.connection, local)
        self.door = SqlDoor(self.connection, self.by_name)
        self.connection.execute("BEGIN")

    def copy_without_door(self) -> apsw.Connection:
        """The same tables and ids in plain SQLite."""
        draft = EntryDraft(self.draft.hlc, self.draft.maker)
        plain = apsw.Connection(":memory:")
        plain.create_scalar_function("peers_id", lambda: draft.take_ids(1)[0], 0, flags=apsw.SQLITE_INNOCUOUS)
        for table in self.tables.values():
            plain.execute(table.local.create_statements()[0])
        return plain

    def by_name(self) -> Mapping[str, DoorTable]:
        return self.tables

    def write(self, sql: str, parameters: Any = ()) -> list[Block]:
        return self.door.write(sql, parameters)[1]

    def coalesced(self, blocks: list[Block]) -> list[OwnChange]:
        return coalesce(blocks, self.draft)

    def rows(self, table: str) -> list[tuple[Any, ...]]:
        return self.connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.connection.close()


def brief(blocks: list[Block]) -> list[tuple[Any, ...]]:
    return [(block.action.name, block.columns, block.keys, block.values) for block in blocks]


def test_an_insert_is_captured_with_its_default_ids(bench: Bench) -> None:
    result, blocks = bench.door.write("INSERT INTO trades(symbol, qty) VALUES ('A', 5), ('B', 6) RETURNING id")
    ids = [row[0] for row in result.rows]
    assert result.columns == ("id",) and result.rows_changed == 2
    assert ids == EntryDraft(1 << 20, b"maker..8").take_ids(2)
    assert brief(blocks) == [
        ("INSERT", (0, 1, 2, 3), [(ids[0],), (ids[1],)], [["A", "B"], [5, 6], [None, None], [None, None]])
    ]
    [change] = bench.coalesced(blocks)
    assert change.first_ordinal == 0 and change.ordinals is None


def test_an_update_is_captured_with_the_cells_that_changed(bench: Bench) -> None:
    bench.write("INSERT INTO trades(id, symbol, qty, price) VALUES ('1', 'A', 5, 1), ('2', 'B', 6, 2)")
    assert brief(bench.write("UPDATE trades SET qty = qty + 1, price = price")) == [
        ("UPDATE", (1,), [("1",), ("2",)], [[6, 7]])
    ]
    assert bench.write("UPDATE trades SET symbol = symbol") == []
    mixed = bench.write("UPDATE trades SET symbol = 'A', qty = 6")
    assert brief(mixed) == [("UPDATE", (0, 1), [("2",)], [["A"], [6]])]


def test_a_key_change_is_a_delete_and_an_insert(bench: Bench) -> None:
    bench.write("INSERT INTO tagof VALUES ('t', 1, 10)")
    blocks = bench.write("UPDATE tagof SET tag = 2, w = 11")
    assert brief(blocks) == [("DELETE", (), [(1, "t")], []), ("INSERT", (0,), [(2, "t")], [[11]])]
    assert blocks[0].old_rows == [("t", 1, 10)]


def test_replace_is_all_columns_anew(bench: Bench) -> None:
    bench.write("INSERT INTO tagof VALUES ('t', 1, 10)")
    for sql in ("REPLACE INTO tagof VALUES ('t', 1, 12)", "INSERT OR REPLACE INTO tagof VALUES ('t', 1, 12)"):
        [change] = bench.coalesced(bench.write(sql))
        assert (change.action, change.keys, change.values) == (Action.INSERT, [(1, "t")], [[12]])


def test_upsert_and_insert_select(bench: Bench) -> None:
    bench.write("INSERT INTO tagof VALUES ('t', 1, 10)")
    select = "SELECT 't', value, 5 FROM json_each('[1, 2, 1]') WHERE true"
    changes = bench.coalesced(bench.write(f"INSERT INTO tagof {select} ON CONFLICT DO UPDATE SET w = w + 1"))
    assert [(c.action.name, c.keys, c.values) for c in changes] == [
        ("INSERT", [(2, "t")], [[5]]),
        ("UPDATE", [(1, "t")], [[12]]),
    ]


def test_delete_without_where_delivers_every_row_though_the_text_was_compiled_before(bench: Bench) -> None:
    """store.md 4.1 trap (a): a cached DELETE holds the truncate optimisation, and would deliver no event."""
    bench.connection.execute("DELETE FROM tagof")
    bench.write("INSERT INTO tagof VALUES ('t', 1, 10), ('t', 2, 20)")
    [block] = bench.write("DELETE FROM tagof")
    assert block.action is Action.DELETE and block.old_rows == [("t", 1, 10), ("t", 2, 20)]


def test_the_hook_is_off_outside_of_the_door(bench: Bench) -> None:
    bench.connection.execute("INSERT INTO tagof VALUES ('t', 1, 10)")
    assert bench.write("SELECT 1") == []


def test_the_guard_is_off_outside_of_the_door(bench: Bench) -> None:
    bench.connection.execute("INSERT INTO _peers_log VALUES (1)")
    with pytest.raises(SqlRefused):
        bench.write("INSERT INTO _peers_log VALUES (1)")
    with pytest.raises(SqlRefused):
        bench.write("INSERT INTO _peers_log VALUES (1)")
    bench.connection.execute("INSERT INTO _peers_log VALUES (1)")


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("INSERT OR ROLLBACK INTO tagof VALUES ('t', 1, 1)", "OR ROLLBACK is refused"),
        ("update /* x */ or -- y\n fail tagof SET w = 1", "OR FAIL is refused"),
        ("CREATE TABLE x(a)", "create_table"),
        ("CREATE TEMP TABLE x(a)", "create_table"),
        ("ALTER TABLE tagof ADD COLUMN x", "add_column"),
        ("DROP TABLE tagof", "cannot be dropped"),
        ("BEGIN", "transact"),
        ("COMMIT", "transact"),
        ("SAVEPOINT x", "transact"),
        ("RELEASE peers_call", "transact"),
        ("ROLLBACK TO peers_call", "transact"),
        ("PRAGMA user_version = 3", "settings of the file"),
        ("ATTACH ':memory:' AS x", "one file"),
        ("VACUUM", "maintenance"),
        ("ANALYZE", "maintenance"),
        ("REINDEX", "maintenance"),
        ("DELETE FROM tagof; DELETE FROM trades", "several statements"),
        ("", "no statement"),
        ("-- nothing", "no statement"),
        ("HELLO", "expected SELECT, INSERT"),
        ("SELECT * FROM pragma_table_info('tagof')", "PRAGMA is refused"),
        ("UPDATE sqlite_schema SET sql = ''", "sqlite_|may not be modified"),
        ("UPDATE nowhere SET a = 1", "no such table"),
        ("SELEC 1", "expected SELECT"),
        ("SELECT 'a", "cannot read"),
        ("INSERT INTO tagof VALUES (?, ?, ?)", "bindings"),
        ("WITH x AS (SELECT 1) DELETE FROM _peers_log", "internal tables"),
        ("SELECT load_extension('x')", "no such function|not authorized"),
    ],
)
def test_what_is_refused_and_why(bench: Bench, sql: str, reason: str) -> None:
    with pytest.raises(SqlRefused, match=reason) as caught:
        bench.write(sql)
    assert "\n" not in str(caught.value)
    assert bench.connection.in_transaction


def test_l7_sql_that_writes_to_internal_tables_is_refused_by_name(bench: Bench) -> None:
    """L7: SQL via the query command writing to internal tables: refused by authorizer, message names the table."""
    insert = "INSERT INTO _peers_s1 VALUES ('t', 1, 1, 1, 1)"
    for sql in ("DELETE FROM _peers_log", insert, "UPDATE _peers_log SET a = 1"):
        with pytest.raises(SqlRefused, match=r"_peers_.*internal tables"):
            bench.write(sql)
        with pytest.raises(SqlRefused):
            bench.door.read(sql)


def test_words_in_strings_names_and_comments_refuse_nothing(bench: Bench) -> None:
    bench.write("INSERT INTO trades(id, symbol) VALUES ('1', 'OR ROLLBACK; DROP') -- OR FAIL; BEGIN")
    assert bench.door.read('SELECT symbol AS "or rollback" FROM trades /* ; */ ;').rows == [("OR ROLLBACK; DROP",)]


def test_a_query_reads_only_and_names_its_columns_even_without_rows(bench: Bench) -> None:
    assert bench.door.read("SELECT tag AS t, w + 1 FROM tagof").columns == ("t", "w + 1")
    with pytest.raises(SqlRefused, match="expected a SELECT"):
        bench.door.read("DELETE FROM tagof")
    with pytest.raises(SqlRefused, match="a query reads only"):
        bench.door.read("WITH x AS (SELECT 1) DELETE FROM tagof")
    assert bench.door.tables_of("SELECT count(*) FROM tagof JOIN trades") == {"tagof", "trades"}
    assert bench.door.read("SELECT 1 AS a, 2 AS b").mappings() == [{"a": 1, "b": 2}]


@pytest.mark.parametrize(
    ("sql", "parameters"),
    [
        ("INSERT INTO tagof VALUES ('t', 'x', 1)", ()),
        ("INSERT INTO tagof VALUES (NULL, 1, 1)", ()),
        ("INSERT INTO tagof VALUES ('t', 1, 1), ('t', 1, 2)", ()),
        ("INSERT INTO tagof VALUES (CAST(x'ff' AS TEXT), 1, 1)", ()),
        ("INSERT INTO tagof VALUES ('t', 1, ?)", (float("nan"),)),
        ("INSERT INTO tagof VALUES ('t', 1, ?)", (1 << 63,)),
        ("INSERT INTO tagof VALUES (?, 1, 1)", ("\ud800",)),
        ("INSERT INTO trades(qty) VALUES (NULL)", ()),
    ],
)
def test_values_that_sqlite_would_not_store_are_bad_values(bench: Bench, sql: str, parameters: Any) -> None:
    with pytest.raises(BadValue):
        bench.write(sql, parameters)


# --- Captured changes tell the whole story ---------------------------------------------------------------------------

KEYS = st.sampled_from(["1", "2", "3", "4"])
TAGS = st.integers(1, 3)
CELLS = st.sampled_from([None, 0, 1, -5, 2.5, "x", b"y"])
NUMBERS = st.integers(-2, 2)
STATEMENTS = st.one_of(
    st.tuples(
        st.just("INSERT OR IGNORE INTO trades(id, qty, extra) VALUES (?, ?, ?)"), st.tuples(KEYS, NUMBERS, CELLS)
    ),
    st.tuples(st.just("INSERT INTO trades(qty, extra) VALUES (?, ?), (7, 7)"), st.tuples(NUMBERS, CELLS)),
    st.tuples(st.just("REPLACE INTO trades(id, qty, extra) VALUES (?, ?, ?)"), st.tuples(KEYS, NUMBERS, CELLS)),
    st.tuples(
        st.just("INSERT INTO trades(id, qty) VALUES (?, ?) ON CONFLICT DO UPDATE SET qty = qty + 1, symbol = 'u'"),
        st.tuples(KEYS, NUMBERS),
    ),
    st.tuples(st.just("UPDATE trades SET qty = ?, extra = ? WHERE id >= ?"), st.tuples(NUMBERS, CELLS, KEYS)),
    st.tuples(st.just("UPDATE OR REPLACE trades SET id = ? WHERE id = ?"), st.tuples(KEYS, KEYS)),
    st.tuples(st.just("UPDATE OR IGNORE trades SET id = ?, price = 1 WHERE id > ?"), st.tuples(KEYS, KEYS)),
    st.tuples(st.just("DELETE FROM trades WHERE id <= ?"), st.tuples(KEYS)),
    st.tuples(st.just("DELETE FROM trades"), st.just(())),
    st.tuples(st.just("INSERT OR REPLACE INTO tagof SELECT id, ?, qty FROM trades"), st.tuples(TAGS)),
    st.tuples(st.just("UPDATE OR REPLACE tagof SET tag = tag + 1 WHERE tag >= ?"), st.tuples(TAGS)),
    st.tuples(st.just("UPDATE tagof SET w = coalesce(w, 0) + 1 WHERE tag = ?"), st.tuples(TAGS)),
    st.tuples(st.just("DELETE FROM tagof WHERE tag = ? RETURNING w"), st.tuples(TAGS)),
    st.tuples(
        st.just("WITH x(n) AS (VALUES (1), (2)) INSERT OR IGNORE INTO tagof SELECT ?, n, n FROM x"), st.tuples(KEYS)
    ),
)


def replay(rows: dict[Any, dict[str, Any]], changes: list[OwnChange]) -> None:
    """What any replica does with the changes, on a dict, checking what each action promises."""
    for change in changes:
        names = [column.name for column in change.columns]
        for index, key in enumerate(change.keys):
            cells = dict(zip(names, (values[index] for values in change.values), strict=True))
            where = (change.table.name, key)
            if change.action is Action.INSERT:
                assert names == [column.name for column in change.table.table.values]
                rows[where] = cells
            elif change.action is Action.UPDATE:
                rows[where].update(cells)
            else:
                old = rows.pop(where)
                columns = change.table.table.columns
                assert change.old_rows is not None
                named = dict(zip([column.name for column in columns], change.old_rows[index], strict=True))
                assert {name: named[name] for name in old} == old


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(STATEMENTS, max_size=6), max_size=3))
def test_random_statements_do_what_plain_sqlite_does_and_replayed_make_the_same_tables(
    entries: list[list[tuple[str, tuple[Any, ...]]]],
) -> None:
    bench = Bench()
    plain = bench.copy_without_door()
    rows: dict[Any, dict[str, Any]] = {}
    try:
        for statements in entries:
            journal = Journal(lambda _: bench.draft)
            for number, (sql, parameters) in enumerate(statements):
                journal.transaction = number
                for block in bench.write(sql, parameters):
                    journal.add(block)
                plain.execute(sql, parameters)
            for _, changes, _ in journal.entries():
                replay(rows, changes)
        shown = {}
        for name in bench.tables:
            select = f"SELECT * FROM {name} ORDER BY 1, 2"
            assert repr(bench.connection.execute(select).fetchall()) == repr(plain.execute(select).fetchall())
        for table in bench.tables.values():
            for row in bench.connection.execute(f"SELECT * FROM {table.quoted}"):
                named = dict(zip([column.name for column in table.local.table.columns], row, strict=True))
                shown[table.name, table.key_of(row)] = {column.name: named[column.name] for column in table.values}
        assert repr(sorted(rows.items(), key=repr)) == repr(sorted(shown.items(), key=repr))
    finally:
        plain.close()
        bench.connection.close()
