"""The commands on a real device, without a network."""

import json
from pathlib import Path

import pytest

from peers.cli.commands import changes_rows
from peers.cli.main import run
from peers.errors import SqlRefused


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    path = tmp_path / "home"
    monkeypatch.setenv("PEERS_HOME", str(path))
    assert run(["init", "--name", "laptop"]) == 0
    assert run(["group", "create", "team"]) == 0
    capsys.readouterr()
    return path


def rows(capsys: pytest.CaptureFixture[str], sql: str) -> list[dict[str, object]]:
    capsys.readouterr()
    assert run(["sql", "team", sql, "--json"]) == 0
    found: list[dict[str, object]] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize(
    ("sql", "changes"),
    [
        ("SELECT 1", False),
        ("  -- a comment\nselect 'UPDATE'", False),
        ("VALUES (1)", False),
        ("EXPLAIN DELETE FROM t", False),
        ("WITH a AS (SELECT 1) SELECT * FROM a", False),
        ("WITH a AS (SELECT 1) UPDATE t SET x = 1", True),
        ("WITH \"insert\" AS (VALUES(1)) SELECT * FROM 'x'", False),
        ("INSERT INTO t SELECT 1", True),
        ("REPLACE INTO t VALUES(1)", True),
        ("DROP TABLE t", True),
        ("nonsense", True),
    ],
)
def test_questions_are_told_from_changes(sql: str, changes: bool) -> None:
    assert changes_rows(sql) is changes


def test_several_statements_are_refused() -> None:
    with pytest.raises(SqlRefused):
        changes_rows("SELECT 1; SELECT 2")


def test_sql_creates_changes_and_shows_rows(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["table", "create", "team", "CREATE TABLE notes(text TEXT, stars INTEGER DEFAULT 0)"]) == 0
    assert run(["sql", "team", "INSERT INTO notes(text) VALUES('one'), (NULL)"]) == 0
    assert "2 rows changed" in capsys.readouterr().out
    assert rows(capsys, "SELECT text, stars FROM notes ORDER BY text") == [
        {"text": None, "stars": 0}, {"text": "one", "stars": 0},
    ]  # fmt: skip
    assert run(["sql", "team", "SELECT text, stars FROM notes ORDER BY text"]) == 0
    shown = capsys.readouterr()
    assert [line.split() for line in shown.out.splitlines()] == [["text", "stars"], ["NULL", "0"], ["one", "0"]]
    assert shown.err == "(2 rows)\n"


def test_l7_internal_tables_cannot_be_written(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """L7: SQL via the query command writing to internal tables: refused, the message names the table."""
    tables = {"DELETE FROM _peers_entry": "_peers_entry", "UPDATE sqlite_schema SET sql = ''": "sqlite_master"}
    for sql, named in tables.items():
        assert run(["sql", "team", sql]) == 2
        error = capsys.readouterr().err
        assert error.startswith("peers: sql_refused: ")
        assert named in error


def test_join_writes_the_intent_and_says_who_must_grant(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    group = "ab" * 32
    assert run(["group", "join", group]) == 0
    out = capsys.readouterr().out
    assert f"waiting for the group {group}" in out
    assert "peers group grant abababab" in out
    assert run(["group", "list"]) == 0
    assert "waiting" in capsys.readouterr().out
    assert run(["group", "join", "abc"]) == 2


def test_grant_and_members(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    user = "cd" * 32
    assert run(["group", "grant", "team", user, "reader"]) == 0
    assert run(["group", "members", "team", "--json"]) == 0
    out = capsys.readouterr().out.splitlines()[-1]
    assert [(m["role"], m["self"]) for m in json.loads(out)] == [("owner", True), ("reader", False)]


def test_import_makes_the_table_names_bad_lines_and_continues(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "trades.csv"
    lines = [f"{n},T{n % 7},{n}.5,{'NA' if n % 2 else ''}" for n in range(2500)]
    lines[10] = "too,few"
    lines[20] = '1,"broken"x,1,'
    file.write_text("n,symbol,price,note\n" + "\n".join(lines) + "\n")
    assert run(["import", "team", "trades", str(file), "--null", "NA"]) == 0
    shown = capsys.readouterr()
    assert "n INTEGER, symbol TEXT, price REAL, note TEXT" in shown.out
    assert "2,498 rows imported" in shown.out
    assert shown.err.splitlines() == [
        "line 12: 2 fields, but the header has 4",
        "line 22: ',' expected after '\"'",
    ]
    assert rows(capsys, "SELECT count(*) n, count(note) notes, sum(n) s, count(DISTINCT id) i FROM trades") == [
        {"n": 2498, "notes": 0, "s": sum(range(2500)) - 30, "i": 2498}
    ]
    assert run(["import", "team", "trades", str(file), "--null", "NA"]) == 0
    assert "already in trades" in capsys.readouterr().out
    assert rows(capsys, "SELECT count(*) n FROM trades") == [{"n": 2498}]
    assert run(["import", "team", "trades", str(file), "--null", "NA", "--again"]) == 0
    assert rows(capsys, "SELECT count(*) n FROM trades") == [{"n": 2 * 2498}]


def test_import_with_a_natural_key_saves_rows_over_each_other(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "prices.csv"
    file.write_text("Symbol,day,close\nA,1,1.5\nA,2,2\n,3,1\nA,1,9\n")
    assert run(["import", "team", "prices", str(file), "--key", "Symbol,day"]) == 0
    assert "line 4: column Symbol: NULL in a NOT NULL column" in capsys.readouterr().err
    expected = [{"Symbol": "A", "day": 1, "close": 9.0}, {"Symbol": "A", "day": 2, "close": 2.0}]
    assert rows(capsys, "SELECT * FROM prices ORDER BY day") == expected
    assert run(["import", "team", "prices", str(file), "--key", "close"]) == 2
    assert "has another key: Symbol,day" in capsys.readouterr().err
    assert run(["import", "team", "other", str(file), "--key", "nope"]) == 2
    assert "has no column 'nope' for the key" in capsys.readouterr().err


def test_import_into_an_existing_table_uses_its_types(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["table", "create", "team", "CREATE TABLE t(a TEXT, b INTEGER, c REAL DEFAULT 7.5)"]) == 0
    file = tmp_path / "t.csv"
    file.write_text("B,a\n1,007\nx,2\n3,4\n")
    assert run(["import", "team", "t", str(file)]) == 0
    assert "line 3: column b: 'x' is not an integer" in capsys.readouterr().err
    assert rows(capsys, "SELECT a, b, c FROM t ORDER BY b") == [
        {"a": "007", "b": 1, "c": 7.5}, {"a": "4", "b": 3, "c": 7.5},
    ]  # fmt: skip
    file.write_text("a,z\n1,2\n")
    assert run(["import", "team", "t", str(file)]) == 2
    assert "table t has no column for 'z'" in capsys.readouterr().err
