"""CREATE TABLE and ADD COLUMN as users write them: what they become, and every refusal with its reason."""

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from peers.errors import SchemaRefused
from peers.model.schema import ColumnType, Table
from peers.store.declarations import parse_add_column, parse_table


def shape(table: Table) -> list[tuple[object, ...]]:
    return [(c.name, c.type.value, c.not_null, c.default, c.key) for c in table.columns]


def test_a_table_without_a_key_gets_the_default_id_first() -> None:
    table = parse_table("CREATE TABLE trades(symbol TEXT, qty INTEGER NOT NULL DEFAULT 1)")
    assert table.default_id and table.name == "trades" and len(table.id) == 8
    assert shape(table) == [
        ("id", "TEXT", True, None, 1),
        ("symbol", "TEXT", False, None, 0),
        ("qty", "INTEGER", True, 1, 0),
    ]


@pytest.mark.parametrize("key", ["id TEXT PRIMARY KEY", "ID TEXT PRIMARY KEY", "id TEXT PRIMARY KEY ASC"])
def test_id_text_primary_key_is_the_default_id(key: str) -> None:
    table = parse_table(f"create table if not exists t({key}, note TEXT) STRICT, WITHOUT ROWID;")
    assert table.default_id and table.columns[0].name == "id" and table.columns[0].not_null


def test_other_keys_are_natural_and_not_null() -> None:
    table = parse_table("CREATE TABLE tagof(trade TEXT, tag INT, w REAL DEFAULT 1, PRIMARY KEY(tag, trade))")
    assert not table.default_id
    assert [column.name for column in table.key] == ["tag", "trade"]
    assert shape(table) == [
        ("trade", "TEXT", True, None, 2),
        ("tag", "INTEGER", True, None, 1),
        ("w", "REAL", False, 1.0, 0),
    ]
    assert not parse_table("CREATE TABLE t(id INTEGER PRIMARY KEY)").default_id


def test_constants_of_every_type_are_defaults() -> None:
    table = parse_table(
        "CREATE TABLE t(a TEXT DEFAULT 'it''s', b INTEGER DEFAULT (-3), c REAL DEFAULT -0.0, d BLOB DEFAULT x'00ff',"
        " e ANY DEFAULT +1.5, f INTEGER DEFAULT TRUE, g TEXT DEFAULT NULL, h INTEGER DEFAULT 0x10)"
    )
    assert [column.default for column in table.values] == ["it's", -3, 0.0, b"\x00\xff", 1.5, 1, None, 16]


def test_quoted_names_and_comments_are_read() -> None:
    table = parse_table('CREATE TABLE "check"([unique] TEXT, `on` INT, generated INT) -- CHECK\n/* UNIQUE */')
    assert table.name == "check" and [column.name for column in table.columns] == ["id", "unique", "on", "generated"]


def test_owned_and_generation_are_passed_on() -> None:
    table = parse_table("CREATE TABLE t(a TEXT)", owned=True, generation=2)
    assert table.owned and table.generation == 2
    with pytest.raises(SchemaRefused, match="owned"):
        parse_table("CREATE TABLE t(a INTEGER PRIMARY KEY)", owned=True)


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("CREATE TABLE t(a TEXT UNIQUE)", "UNIQUE is refused: two devices"),
        ("CREATE TABLE t(a TEXT, UNIQUE(a))", "UNIQUE is refused"),
        ("CREATE TABLE t(a TEXT REFERENCES u(id))", "REFERENCES is refused"),
        ("CREATE TABLE t(a TEXT, FOREIGN KEY(a) REFERENCES u(id))", "FOREIGN is refused"),
        ("CREATE TABLE t(a TEXT CHECK(a <> ''))", "CHECK is refused"),
        ("CREATE TABLE t(a TEXT COLLATE NOCASE PRIMARY KEY)", "COLLATE is refused"),
        ("CREATE TABLE t(a TEXT PRIMARY KEY ON CONFLICT REPLACE)", "ON CONFLICT is refused"),
        ("CREATE TABLE t(a INTEGER, b INTEGER AS (a + 1))", "generated column is refused"),
        ("CREATE TABLE t(a INTEGER, b INTEGER GENERATED ALWAYS AS (a + 1))", "generated column is refused"),
        ("CREATE TABLE t(a INTEGER PRIMARY KEY AUTOINCREMENT)", "AUTOINCREMENT is refused"),
        ("CREATE TRIGGER x AFTER INSERT ON t BEGIN SELECT 1; END", "several statements"),
        ("CREATE TRIGGER x", "triggers would run again"),
        ("CREATE TABLE t(a BOOLEAN)", r"BOOLEAN .* use INTEGER \(0 and 1\)"),
        ("CREATE TABLE t(a VARCHAR(20))", "use TEXT"),
        ("CREATE TABLE t(a DATETIME)", "use TEXT .ISO 8601"),
        ("CREATE TABLE t(a NUMERIC)", "use REAL"),
        ("CREATE TABLE t(a)", "column a needs a type"),
        ("CREATE TABLE t(a TEXT DEFAULT CURRENT_TIMESTAMP)", "differs on every device"),
        ("CREATE TABLE t(a TEXT DEFAULT (lower('A')))", "constant, not an expression"),
        ("CREATE TABLE t(a INTEGER DEFAULT (1 + 2))", "constant, not an expression"),
        ('CREATE TABLE t(a TEXT DEFAULT "x")', "single quotes"),
        ("CREATE TABLE t(a TEXT DEFAULT x)", "constant, not an expression"),
        ("CREATE TABLE t(a INTEGER DEFAULT 'x')", "not a value of type INTEGER"),
        ("CREATE TABLE t(a INTEGER DEFAULT 9223372036854775808)", "not a value of type INTEGER"),
        ("CREATE TABLE t(a REAL DEFAULT 9e999)", "not a value of type REAL"),
        ("CREATE TABLE t(a TEXT PRIMARY KEY DEFAULT 'x')", "key column has no default"),
        ("CREATE TABLE t(a REAL PRIMARY KEY)", "a key is TEXT, INTEGER or BLOB"),
        ("CREATE TEMP TABLE t(a TEXT)", "temporary tables"),
        ("CREATE TABLE t AS SELECT 1", "AS SELECT is refused"),
        ("CREATE TABLE t(a TEXT); DROP TABLE u", "several statements"),
        ("CREATE TABLE main.t(a TEXT)", "no schema prefix"),
        ("CREATE VIRTUAL TABLE t USING fts5(a)", "virtual tables"),
        ("CREATE VIEW v(a) AS SELECT 1", "views cannot"),
        ("CREATE UNIQUE INDEX i ON t(a)", "indexes are local"),
        ("CREATE TABLE t(a TEXT) WITHOUT OIDS", "only STRICT and WITHOUT ROWID"),
        ("CREATE TABLE t(a TEXT, A INTEGER)", "duplicate column name"),
        ("CREATE TABLE t(id INTEGER, a TEXT)", "say id TEXT PRIMARY KEY"),
        ("CREATE TABLE _peers_x(a TEXT)", "reserved"),
        ("CREATE TABLE groupmembers(a TEXT)", "reserved"),
        ("CREATE TABLE sqlite_x(a TEXT)", "reserved"),
        ('CREATE TABLE "a b"(a TEXT)', "letters, digits"),
        ("CREATE TABLE t(rowid TEXT)", "reserved"),
        ('CREATE TABLE t("a;b" TEXT)', "letters, digits"),
        ("CREATE TABLE t(a TEXT", "parenthesis is missing"),
        ("CREATE TABLE t(a TEXT DEFAULT 'x)", "cannot read the text"),
        ("CREATE TABLE t(a TEXT,)", "syntax error"),
        ("CREATE TABLE t(a TEXT DEFAULT ?)", "parameters|constant"),
        ("SELECT 1", "expected CREATE TABLE"),
        ("", "there is no statement"),
        ("CREATE TABLE", "needs a name"),
    ],
)
def test_refusals_say_why(sql: str, reason: str) -> None:
    with pytest.raises(SchemaRefused, match=reason) as caught:
        parse_table(sql)
    assert "\n" not in str(caught.value) and "scratch" not in str(caught.value)


def test_add_column_in_both_spellings() -> None:
    added = parse_add_column("ALTER TABLE trades ADD COLUMN note TEXT NOT NULL DEFAULT ''")
    assert added.table == "trades"
    assert (added.column.name, added.column.type, added.column.not_null) == ("note", ColumnType.TEXT, True)
    assert parse_add_column("alter table trades add note TEXT").column.default is None


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("ALTER TABLE t RENAME TO u", "renaming and dropping"),
        ("ALTER TABLE t DROP COLUMN a", "renaming and dropping"),
        ("ALTER TABLE t ADD COLUMN a TEXT PRIMARY KEY", "key column cannot be added"),
        ("ALTER TABLE t ADD COLUMN a TEXT NOT NULL", "needs a DEFAULT"),
        ("ALTER TABLE t ADD COLUMN a TEXT, b TEXT", "one by one"),
        ("ALTER TABLE t ADD COLUMN a TEXT UNIQUE", "UNIQUE is refused"),
        ("ALTER TABLE t ADD COLUMN rowid TEXT", "reserved"),
        ("ALTER TABLE t ADD COLUMN", "syntax error"),
        ("ALTER TABLE main.t ADD COLUMN a TEXT", "no schema prefix"),
        ("UPDATE t SET a = 1", "expected ALTER TABLE"),
    ],
)
def test_refused_columns_say_why(sql: str, reason: str) -> None:
    with pytest.raises(SchemaRefused, match=reason):
        parse_add_column(sql)


@given(st.text(alphabet="CREATE TABLE t(a INT,);'\"`[]-/*x\n0\x00é", max_size=40))
@example("CREATE TABLE t(a INT)/*")
@example("CREATE TABLE t(a INT) --")
def test_any_text_is_a_table_or_a_refusal(text: str) -> None:
    for sql in (text, f"CREATE TABLE t({text})", f"CREATE TABLE t(a TEXT DEFAULT {text})"):
        with contextlib.suppress(SchemaRefused):
            assert parse_table(sql).key
