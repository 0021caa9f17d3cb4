"""SQL text of declarations -> `model.schema` objects: ``CREATE TABLE …`` and ``ALTER TABLE … ADD COLUMN …``.

The text is checked token by token for what replication cannot carry, then a scratch database in memory parses it, so
that SQLite itself says what the columns are. Nothing is executed in the group's file: its DDL is generated from the
result (`store.rows`). Every refusal is a SchemaRefused that says why, and what to do instead.

Key rules: no PRIMARY KEY -> a default-id column ``id TEXT`` is put first; ``id TEXT PRIMARY KEY`` -> a default-id
table; any other key -> a natural or composite key, NOT NULL implied.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import apsw

from peers.errors import BadValue, SchemaRefused, SqlRefused
from peers.model.schema import (
    DEFAULT_ID_NAME,
    Column,
    ColumnType,
    Table,
    Value,
    check_name,
    declare_table,
    normalize_values,
)
from peers.store.sql_tokens import Token, TokenKind, one_statement

_WHY_NOT = {
    "UNIQUE": "two devices can each write a row that is valid alone; make it the PRIMARY KEY instead",
    "REFERENCES": "a merge may delete the row that is pointed to; keep the id in a column and join",
    "FOREIGN": "a merge may delete the row that is pointed to; keep the id in a column and join",
    "CHECK": "columns merge one by one, so a merged row could fail it; check before you write",
    "COLLATE": "keys are compared as bytes on every device; use COLLATE in queries",
    "ON": "a merge cannot fail, so there is no conflict clause; use INSERT OR … in statements",
    "AUTOINCREMENT": "two devices would count to the same number; leave the key out and get a default id",
    "AS": "generated columns are not replicated; compute in queries",
    "GENERATED": "generated columns are not replicated; compute in queries",
}
_TYPE_HINTS = {
    "BOOL": "INTEGER (0 and 1)",
    "INT": "INTEGER",
    "FLOA": "REAL",
    "DOUB": "REAL",
    "NUM": "REAL, or TEXT for exact decimals",
    "DECIMAL": "REAL, or TEXT for exact decimals",
    "DATE": "TEXT (ISO 8601) or INTEGER (milliseconds)",
    "TIME": "TEXT (ISO 8601) or INTEGER (milliseconds)",
    "CHAR": "TEXT",
    "CLOB": "TEXT",
    "STRING": "TEXT",
    "JSON": "TEXT",
    "UUID": "TEXT",
}
_NOT_TABLES = {
    "INDEX": "indexes are local to a device and cannot be declared yet",
    "UNIQUE": "indexes are local to a device and cannot be declared yet",
    "VIEW": "views cannot be declared yet; put the SELECT into the program",
    "TRIGGER": "triggers would run again on every device that merges the rows",
    "VIRTUAL": "virtual tables are not replicated",
    "TEMP": "temporary tables are not replicated",
    "TEMPORARY": "temporary tables are not replicated",
}
_SCRATCH = "peers_scratch"


class AddedColumn(NamedTuple):
    """What ``ALTER TABLE table ADD COLUMN …`` says. The column has no id yet: `schema.declare_column` gives it."""

    table: str
    column: Column


def parse_table(sql: str, *, owned: bool = False, generation: int = 0) -> Table:
    """The checked table that one CREATE TABLE statement declares. Raises SchemaRefused with the reason."""
    tokens = _statement(sql, "CREATE TABLE name(column TYPE, …)")
    rest = _after_create(tokens)
    name, rest = _table_name(rest)
    check_name(name, "table")
    body, options = _split_body(name, rest)
    _check_options(name, options)
    _check_body(f"table {name}", body)
    rows = _scratch_columns(f"table {name}", _join(body))
    columns = [_column(f"table {name}", row, default) for row, default in zip(rows, _defaults(rows), strict=True)]
    columns, default_id = _with_key(name, columns)
    return declare_table(name, columns, default_id=default_id, owned=owned, generation=generation)


def parse_add_column(sql: str) -> AddedColumn:
    """The table's name and the column of one ALTER TABLE … ADD COLUMN statement. Raises SchemaRefused."""
    usage = "ALTER TABLE name ADD COLUMN column TYPE …"
    tokens = _statement(sql, usage)
    if len(tokens) < 2 or not tokens[0].is_word("ALTER") or not tokens[1].is_word("TABLE"):
        raise SchemaRefused(f"not a column: expected {usage}")
    name, rest = _table_name(tokens[2:])
    if not rest or not rest[0].is_word("ADD"):
        raise SchemaRefused(f"table {name}: columns can be added; renaming and dropping would lose others' writes")
    rest = rest[1:]
    if rest and rest[0].is_word("COLUMN"):
        rest = rest[1:]
    return AddedColumn(name, _parse_column(name, rest))


def _parse_column(table: str, tokens: Sequence[Token]) -> Column:
    where = f"table {table}"
    _check_body(where, tokens)
    rows = _scratch_columns(where, _join(tokens))
    if len(rows) != 1:
        raise SchemaRefused(f"{where}: add columns one by one")
    column = _column(where, rows[0], _defaults(rows)[0])
    check_name(column.name, "column")
    if column.key:
        raise SchemaRefused(f"{where}: a key column cannot be added; declare another table")
    if column.not_null and column.default is None:
        raise SchemaRefused(f"{where}: column {column.name} is NOT NULL and needs a DEFAULT for the rows that exist")
    return column


# --- Tokens ----------------------------------------------------------------------------------------------------------


def _statement(sql: str, usage: str) -> tuple[Token, ...]:
    try:
        return one_statement(sql)
    except SqlRefused as error:
        raise SchemaRefused(f"{error}; expected {usage}") from None


def _after_create(tokens: Sequence[Token]) -> Sequence[Token]:
    if len(tokens) < 2 or not tokens[0].is_word("CREATE"):
        raise SchemaRefused("not a table: expected CREATE TABLE name(column TYPE, …)")
    if not tokens[1].is_word("TABLE"):
        reason = _NOT_TABLES.get(tokens[1].text.upper(), "expected CREATE TABLE name(column TYPE, …)")
        raise SchemaRefused(f"CREATE {tokens[1].text.upper()[:20]}: {reason}")
    rest = tokens[2:]
    if len(rest) >= 3 and rest[0].is_word("IF") and rest[1].is_word("NOT") and rest[2].is_word("EXISTS"):
        rest = rest[3:]
    return rest


def _table_name(tokens: Sequence[Token]) -> tuple[str, Sequence[Token]]:
    name = tokens[0].name if tokens else None
    if name is None:
        raise SchemaRefused("a table needs a name")
    if len(tokens) > 1 and tokens[1].is_mark("."):
        raise SchemaRefused(f"table name {name[:80]!r}.…: a table has no schema prefix; it lives in the group")
    return name, tokens[1:]


def _split_body(name: str, tokens: Sequence[Token]) -> tuple[Sequence[Token], Sequence[Token]]:
    """(what stands between the outer parentheses, what stands behind them)."""
    if tokens and tokens[0].is_word("AS"):
        raise SchemaRefused(f"table {name}: AS SELECT is refused; declare the columns, then INSERT … SELECT")
    if not tokens or not tokens[0].is_mark("("):
        raise SchemaRefused(f"table {name}: expected ( and columns behind the name")
    depth = 0
    for index, token in enumerate(tokens):
        depth += token.is_mark("(") - token.is_mark(")")
        if depth == 0:
            return tokens[1:index], tokens[index + 1 :]
    raise SchemaRefused(f"table {name}: a closing parenthesis is missing")


def _check_options(name: str, tokens: Sequence[Token]) -> None:
    text = _join(tokens).upper().replace(" ", "")
    for option in text.split(",") if text else ():
        if option not in ("STRICT", "WITHOUTROWID"):
            raise SchemaRefused(f"table {name}: only STRICT and WITHOUT ROWID may stand behind the columns")


def _check_body(where: str, tokens: Sequence[Token]) -> None:
    for index, token in enumerate(tokens):
        if token.kind is TokenKind.PARAMETER:
            raise SchemaRefused(f"{where}: a declaration has no parameters")
        word = token.text.upper() if token.kind is TokenKind.WORD else ""
        if word in _WHY_NOT and not _is_a_name(tokens, index, word):
            shown = "ON CONFLICT" if word == "ON" else "a generated column" if word in ("AS", "GENERATED") else word
            raise SchemaRefused(f"{where}: {shown} is refused: {_WHY_NOT[word]}")
        if word == "DEFAULT":
            _check_default(where, tokens[index + 1 :])


def _is_a_name(tokens: Sequence[Token], index: int, word: str) -> bool:
    """GENERATED alone is no reserved word, so it may name a column: where ALWAYS does not follow."""
    return word == "GENERATED" and not (index + 1 < len(tokens) and tokens[index + 1].is_word("ALWAYS"))


def _check_default(where: str, tokens: Sequence[Token]) -> None:
    """Refuses all but a constant: every device must fill the same value at any time."""
    rest = iter(tokens)
    token, opened = _next(rest), 0
    while token is not None and token.is_mark("("):
        token, opened = _next(rest), opened + 1
    if token is not None and (token.is_mark("-") or token.is_mark("+")):
        token = _next(rest)
    constant = token is not None and (
        token.kind in (TokenKind.NUMBER, TokenKind.STRING, TokenKind.BLOB) or token.is_word("NULL", "TRUE", "FALSE")
    )
    while constant and opened:
        token, opened = _next(rest), opened - 1
        constant = token is not None and token.is_mark(")")
    if not constant:
        if token is not None and token.kind is TokenKind.NAME:
            raise SchemaRefused(f"{where}: a text default stands in single quotes, not {token.text[:40]}")
        if token is not None and token.text.upper().startswith("CURRENT_"):
            raise SchemaRefused(
                f"{where}: DEFAULT {token.text.upper()} differs on every device; give the time yourself"
            )
        raise SchemaRefused(f"{where}: a DEFAULT is a constant, not an expression")


def _next(tokens: Iterator[Token]) -> Token | None:
    return next(tokens, None)


def _join(tokens: Sequence[Token]) -> str:
    return " ".join(token.text for token in tokens)


# --- What SQLite makes of it -----------------------------------------------------------------------------------------


def _scratch_columns(where: str, body: str) -> list[tuple[Any, ...]]:
    """(cid, name, type, notnull, dflt_value, pk, hidden) of each column of a scratch table with this body."""
    connection = apsw.Connection(":memory:")
    try:
        connection.execute(f"CREATE TABLE {_SCRATCH}({body}\n)")
        refused = connection.execute(
            f"SELECT (SELECT count(*) FROM pragma_foreign_key_list('{_SCRATCH}')),"
            f" (SELECT count(*) FROM pragma_index_list('{_SCRATCH}') WHERE origin = 'u')"
        ).fetchall()
        if refused != [(0, 0)]:
            raise SchemaRefused(f"{where}: UNIQUE and FOREIGN KEY are refused")
        return connection.execute(f"PRAGMA table_xinfo({_SCRATCH})").fetchall()
    except apsw.Error as error:
        raise SchemaRefused(f"{where}: {str(error).replace(_SCRATCH, 'it')}") from None
    finally:
        connection.close()


def _defaults(rows: Sequence[tuple[Any, ...]]) -> list[Value]:
    """The values of the columns' defaults, which are constants by now."""
    connection = apsw.Connection(":memory:")
    try:
        return [connection.execute(f"SELECT {row[4]}").get if row[4] is not None else None for row in rows]
    finally:
        connection.close()


def _column(where: str, row: tuple[Any, ...], default: Value) -> Column:
    _, name, declared, not_null, _, key, hidden = row
    if hidden:
        raise SchemaRefused(f"{where}: column {name}: {_WHY_NOT['AS']}")
    kind = _type(where, name, declared)
    if default is not None:
        try:
            [default] = normalize_values(Column(name, kind), [default])
        except BadValue:
            raise SchemaRefused(f"{where}: the default of column {name} is not a value of type {kind.value}") from None
    return Column(name, kind, bool(not_null) or key > 0, default, key)


def _type(where: str, name: str, declared: str) -> ColumnType:
    folded = declared.upper()
    if folded == "INT":
        return ColumnType.INTEGER
    if folded in ColumnType.__members__:
        return ColumnType[folded]
    if not folded:
        raise SchemaRefused(f"{where}: column {name} needs a type: INTEGER, REAL, TEXT, BLOB, or ANY for all of them")
    hint = next((hint for part, hint in _TYPE_HINTS.items() if part in folded), "INTEGER, REAL, TEXT, BLOB or ANY")
    raise SchemaRefused(f"{where}: column {name}: type {declared[:40]} would change values; use {hint}")


def _with_key(name: str, columns: list[Column]) -> tuple[list[Column], bool]:
    """The columns with a key, and whether it is the default id."""
    keys = [column for column in columns if column.key]
    if not keys:
        if any(column.name.lower() == DEFAULT_ID_NAME for column in columns):
            raise SchemaRefused(f"table {name}: say id TEXT PRIMARY KEY, or name the column otherwise")
        return [Column(DEFAULT_ID_NAME, ColumnType.TEXT, not_null=True, key=1), *columns], True
    key, others = keys[0], keys[1:]
    default_id = not others and key.name.lower() == DEFAULT_ID_NAME and key.type is ColumnType.TEXT
    if not default_id or key.name == DEFAULT_ID_NAME:
        return columns, default_id
    renamed = Column(DEFAULT_ID_NAME, key.type, True, key.default, 1)
    return [renamed if column.key else column for column in columns], True
