"""Views that any SQLite tool can read: open conflicts, and the change log leaf by leaf. Made anew by declarations."""

from collections.abc import Iterable

import apsw

from peers.store.rows import EID_MASK, LocalTable, quote

CHANGES = (
    "CREATE VIEW _peers_changes AS SELECT u.user AS user_id, l.device AS device_id, l.inc AS incarnation, e.seq, "
    "(e.hlc >> 16) + 140737488355328 AS time_ms, t.name AS table_name, "
    "CASE s.action WHEN 0 THEN 'added' WHEN 1 THEN 'updated' WHEN 2 THEN 'deleted' ELSE 'restored' END AS action, "
    "f.rows AS row_count, CASE e.state WHEN 0 THEN 'applied' WHEN 1 THEN 'parked' WHEN 2 THEN 'void' ELSE 'early' END "
    "AS state FROM _peers_leaf f JOIN _peers_entry e ON e.eid = f.lid >> 6 JOIN _peers_log l USING(log) "
    "JOIN _peers_author u USING(author) JOIN _peers_shape s USING(shape) JOIN _peers_table t USING(tid)"
)
_COLUMNS = "table_name, row_key, column_name, value, user_id, device_id, time_ms, is_winner"
_NOTHING = ", ".join(f"NULL AS {name}" for name in _COLUMNS.split(", "))


def create_views(connection: apsw.Connection, tables: Iterable[LocalTable]) -> None:
    """`_peers_conflicts`: every maximal write of a cell whose maximal writes say different things."""
    parts = [_conflicts(table) for table in tables]
    connection.execute("DROP VIEW IF EXISTS _peers_conflicts")
    body = " UNION ALL ".join(parts) if parts else f"SELECT {_NOTHING} WHERE 0"
    connection.execute(f"CREATE VIEW _peers_conflicts AS {body}")


def count_conflicts(connection: apsw.Connection, table: LocalTable) -> int:
    """The cells of a table that are in conflict."""
    if connection.execute(f"SELECT 1 FROM {table.losers} LIMIT 1").fetchone() is None:
        return 0
    counted = f"SELECT count(*) FROM (SELECT DISTINCT {table.side_key}, c FROM ({_members(table)}) WHERE differs)"
    return int(connection.execute(counted).get)


def _members(table: LocalTable) -> str:
    """The losers of a table beside their winner's value and stamp, and whether the values differ."""
    user = " AND ".join(f"u.{name}=m.k{i}" for i, name in enumerate(table.key_names))
    aside = " AND ".join(f"a.k{i}=m.k{i}" for i in range(table.key_size))
    side = " AND ".join(f"s.k{i}=m.k{i}" for i in range(table.key_size))
    visible = f"u.{table.key_names[0]} IS NOT NULL"
    values = "".join(
        f" WHEN {at} THEN CASE WHEN {visible} THEN u.{quote(column.name)} ELSE a.c{at} END"
        for at, column in enumerate(table.by_position)
    )
    stamps = "".join(f" WHEN {at} THEN coalesce(s.c{at}, s.b)" for at in range(len(table.by_position)))
    value = f"CASE m.c WHEN -1 THEN NOT ({visible}){values} END"
    stamp = f"CASE m.c WHEN -1 THEN coalesce(s.d, s.b){stamps} END"
    keys = ", ".join(f"m.k{i} AS k{i}" for i in range(table.key_size))
    inner = (
        f"SELECT {keys}, m.c AS c, m.v AS v, m.s AS stamp, {value} AS winner, {stamp} AS winner_stamp "
        f"FROM {table.losers} m LEFT JOIN {table.sql_name} u ON {user} LEFT JOIN {table.aside} a ON {aside} "
        f"LEFT JOIN {table.stamps} s ON {side}"
    )
    return f"SELECT *, v IS NOT winner OR typeof(v) <> typeof(winner) AS differs FROM ({inner})"


def _conflicts(table: LocalTable) -> str:
    same = " AND ".join(f"d.k{i}=x.k{i}" for i in range(table.key_size))
    key = "x.k0" if table.key_size == 1 else " || ', ' || ".join(f"quote(x.k{i})" for i in range(table.key_size))
    column = "".join(f" WHEN {at} THEN {_text(column.name)}" for at, column in enumerate(table.by_position))
    column = f"CASE x.c WHEN -1 THEN 'deleted'{column} END"
    keys = ", ".join(f"k{i}" for i in range(table.key_size))
    members = _members(table)
    both = (
        f"SELECT {keys}, c, v, stamp, 0 AS is_winner FROM ({members}) UNION ALL "
        f"SELECT DISTINCT {keys}, c, winner, winner_stamp, 1 FROM ({members})"
    )
    return (
        f"SELECT {_text(table.name)} AS table_name, {key} AS row_key, {column} AS column_name, x.v AS value, "
        "a.user AS user_id, l.device AS device_id, (e.hlc >> 16) + 140737488355328 AS time_ms, x.is_winner "
        f"FROM ({both}) x LEFT JOIN _peers_entry e ON e.eid = x.stamp & {EID_MASK} LEFT JOIN _peers_log l USING(log) "
        f"LEFT JOIN _peers_author a USING(author) WHERE EXISTS (SELECT 1 FROM ({members}) d WHERE {same} AND d.c=x.c "
        f"AND d.differs)"
    )


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
