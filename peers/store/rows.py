"""One declared table as it lies on disk: names, positions, DDL and SQL text.

The user's table has exactly the declared columns. Beside it lie three side tables of the same key (`n` is the table's
local number, `i` a column's local position)::

    _peers_s<n>(k0 …, b, d, c<i> …)   stamps of the winning writes where they differ from what is implied
    _peers_a<n>(k0 …, c<i> …)         rows kept aside: deleted, or with no retained insert
    _peers_m<n>(k0 …, c, s, v)        the other causally maximal writes: cell c (−1 is `deleted`), stamp, value

A stamp is ``owner_epoch << 40 | eid``; 0 is "never written". `b` is the base stamp: NULL means the entry that the
default id names. `d` and `c<i>`: NULL means as the base — for a column that this replica learned of after the base
entry arrived, as never written. A default-id row without a side row is all as its id implies.

SQL text only; nothing here executes it. Names come from `schema.check_name` and are quoted all the same.
"""

from collections.abc import Iterable, Sequence
from functools import cached_property

import apsw

from peers.model.schema import Column, ColumnType, Table

DELETED = -1
"""The position of the hidden cell `deleted` in `_peers_m`."""
EPOCH_SHIFT = 40
EID_MASK = (1 << EPOCH_SHIFT) - 1
_VALUES_ROWS = 50
_VALUES_PARAMETERS_MAX = 10_000


def quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class LocalTable:
    """A table with its local number and the local positions of its value columns. Replaced whole by a declaration."""

    def __init__(self, number: int, table: Table, positions: dict[bytes, int], first_eids: Sequence[int]) -> None:
        self.number = number
        self.table = table
        self.positions = positions
        """column id → position, value columns only."""
        self.first_eids = tuple(first_eids)
        """By position: entries below this local number did not write the column when they were applied."""
        self.by_position: tuple[Column, ...] = tuple(
            sorted((column for column in table.values if column.id in positions), key=lambda c: positions[c.id])
        )
        self.first_eid_max = max(self.first_eids, default=0)
        self.defaults = tuple(column.shown_default for column in self.by_position)
        self.key_size = len(table.key)
        self._insert_texts: dict[tuple[tuple[bytes, ...], int], str] = {}
        self._update_texts: dict[tuple[bytes, ...], str] = {}

    @property
    def name(self) -> str:
        return self.table.name

    @cached_property
    def sql_name(self) -> str:
        return quote(self.table.name)

    @cached_property
    def key_names(self) -> tuple[str, ...]:
        return tuple(quote(column.name) for column in self.table.key)

    @cached_property
    def side_key(self) -> str:
        """`k0, k1 …`"""
        return ", ".join(f"k{i}" for i in range(self.key_size))

    @cached_property
    def user_key(self) -> str:
        return ", ".join(self.key_names)

    @cached_property
    def where_user(self) -> str:
        """`"id"=?1` …: the user's table by key."""
        return " AND ".join(f"{name}=?{i + 1}" for i, name in enumerate(self.key_names))

    @cached_property
    def where_side(self) -> str:
        return " AND ".join(f"k{i}=?{i + 1}" for i in range(self.key_size))

    @property
    def stamps(self) -> str:
        return f"_peers_s{self.number}"

    @property
    def aside(self) -> str:
        return f"_peers_a{self.number}"

    @property
    def losers(self) -> str:
        return f"_peers_m{self.number}"

    def covers_implied(self, columns: Iterable[bytes], eid: int) -> bool:
        """Whether an insert of exactly `columns` by entry `eid` is what a base stamp of `eid` implies."""
        named = set(columns)
        return all((column in named) == (eid >= self.first_eids[at]) for column, at in self.positions.items())

    # --- DDL ---------------------------------------------------------------------------------------------------------

    def create_statements(self) -> list[str]:
        columns = []
        for column in self.table.columns:
            text = f"{quote(column.name)} {column.type.value}"
            if column.not_null:
                text += " NOT NULL"
            if self.table.default_id and column.key:
                text += " DEFAULT (peers_id())"
            elif column.default is not None:
                text += f" DEFAULT {_literal(column)}"
            columns.append(text)
        keys = [f"k{i} {column.type.value} NOT NULL" for i, column in enumerate(self.table.key)]
        cells = [f"c{i}" for i in range(len(self.by_position))]
        stamps = [f"{cell} INT" for cell in cells]
        return [
            f"CREATE TABLE {self.sql_name}({', '.join(columns)}, PRIMARY KEY({self.user_key})) STRICT, WITHOUT ROWID",
            f"CREATE TABLE {self.stamps}({', '.join([*keys, 'b INT', 'd INT', *stamps])}, "
            f"PRIMARY KEY({self.side_key})) WITHOUT ROWID",
            f"CREATE TABLE {self.aside}({', '.join([*keys, *cells])}, PRIMARY KEY({self.side_key})) WITHOUT ROWID",
            f"CREATE TABLE {self.losers}({', '.join(keys)}, c INT NOT NULL, s INT NOT NULL, v, "
            f"PRIMARY KEY({self.side_key}, c, s)) WITHOUT ROWID",
        ]

    def add_column_statements(self, column: Column) -> list[str]:
        """To run when `column` is already one of `by_position`. O(1) whatever the number of rows."""
        at = self.positions[column.id]
        text = f"{quote(column.name)} {column.type.value}"
        if column.not_null:
            text += " NOT NULL"
        if column.shown_default is not None:
            text += f" DEFAULT {_literal(column)}"
        default = "" if column.shown_default is None else f" DEFAULT {_literal(column)}"
        return [
            f"ALTER TABLE {self.sql_name} ADD COLUMN {text}",
            f"ALTER TABLE {self.stamps} ADD COLUMN c{at} INT",
            f"ALTER TABLE {self.aside} ADD COLUMN c{at}{default}",
        ]

    # --- Bulk statements ---------------------------------------------------------------------------------------------

    def rows_per_statement(self, width: int) -> int:
        return max(1, min(_VALUES_ROWS, _VALUES_PARAMETERS_MAX // max(1, width)))

    def insert_text(self, columns: Sequence[bytes], rows: int) -> str:
        """INSERT of `rows` rows: key columns, then `columns`. Existing keys are left alone."""
        cached = self._insert_texts.get((tuple(columns), rows))
        if cached is not None:
            return cached
        names = [*self.key_names, *(self.column_name(column) for column in columns)]
        row = "(" + ",".join("?" * len(names)) + ")"
        text = f"INSERT INTO {self.sql_name}({', '.join(names)}) VALUES {','.join([row] * rows)} ON CONFLICT DO NOTHING"
        self._insert_texts[tuple(columns), rows] = text
        return text

    def update_text(self, columns: Sequence[bytes]) -> str:
        """UPDATE of one row: the columns' values, then the key."""
        cached = self._update_texts.get(tuple(columns))
        if cached is not None:
            return cached
        sets = ", ".join(f"{self.column_name(column)}=?" for column in columns)
        where = " AND ".join(f"{name}=?" for name in self.key_names)
        text = f"UPDATE {self.sql_name} SET {sets} WHERE {where}"
        self._update_texts[tuple(columns)] = text
        return text

    def stamp_text(self, cells: Sequence[str], rows: int) -> str:
        """UPSERT of the stamps `cells` (`c0`, `d`, …) of `rows` rows, all to ?1; then the keys."""
        names = ", ".join(cells)
        sets = ", ".join(f"{cell}=?1" for cell in cells)
        ones = ",?1" * len(cells)
        row = [
            "(" + ",".join(f"?{2 + at * self.key_size + k}" for k in range(self.key_size)) + ones + ")"
            for at in range(rows)
        ]
        into = f"{self.stamps}({self.side_key}, {names})"
        return f"INSERT INTO {into} VALUES {','.join(row)} ON CONFLICT DO UPDATE SET {sets}"

    def base_text(self, rows: int, *, anew: bool) -> str:
        """INSERT of the base stamps of `rows` rows, all to ?1; `anew`: over whatever stamps stand there."""
        size = self.key_size
        row = ["(" + ",".join(f"?{2 + at * size + k}" for k in range(size)) + ",?1)" for at in range(rows)]
        cells = ["d", *(f"c{i}" for i in range(len(self.by_position)))]
        conflict = "UPDATE SET b=?1, " + ", ".join(f"{cell}=NULL" for cell in cells) if anew else "NOTHING"
        return f"INSERT INTO {self.stamps}({self.side_key}, b) VALUES {','.join(row)} ON CONFLICT DO {conflict}"

    # --- Statements by key -------------------------------------------------------------------------------------------

    @property
    def stage(self) -> str:
        """A temporary table of keys, by which many rows are read at once."""
        return f"temp._peers_k{self.number}"

    @cached_property
    def stage_text(self) -> str:
        keys = ", ".join(f"k{i} {column.type.value}" for i, column in enumerate(self.table.key))
        return f"CREATE TABLE IF NOT EXISTS {self.stage}({keys})"

    def stage_insert_text(self, rows: int) -> str:
        row = "(" + ",".join("?" * self.key_size) + ")"
        return f"INSERT INTO {self.stage} VALUES {','.join([row] * rows)}"

    @cached_property
    def load_text(self) -> str:
        """One row for every staged key, in their order: visible?, its cells, aside?, its cells, side?, b, d, stamps."""
        user = ", ".join(["u." + self.key_names[0] + " IS NOT NULL", *(f"u.{quote(c.name)}" for c in self.by_position)])
        places = range(len(self.by_position))
        aside = ", ".join(["a.k0 IS NOT NULL", *(f"a.c{i}" for i in places)])
        stamps = ", ".join(["s.k0 IS NOT NULL", "s.b", "s.d", *(f"s.c{i}" for i in places)])
        on_user = " AND ".join(f"u.{name}=q.k{i}" for i, name in enumerate(self.key_names))
        on_aside = " AND ".join(f"a.k{i}=q.k{i}" for i in range(self.key_size))
        on_stamps = " AND ".join(f"s.k{i}=q.k{i}" for i in range(self.key_size))
        return (
            f"SELECT {user}, {aside}, {stamps} FROM {self.stage} q LEFT JOIN {self.sql_name} u ON {on_user} "
            f"LEFT JOIN {self.aside} a ON {on_aside} LEFT JOIN {self.stamps} s ON {on_stamps} ORDER BY q.rowid"
        )

    @cached_property
    def load_losers_text(self) -> str:
        """Of every staged key. CROSS: otherwise the planner reads all losers of the table."""
        keys = ", ".join(f"q.k{i}" for i in range(self.key_size))
        on = " AND ".join(f"m.k{i}=q.k{i}" for i in range(self.key_size))
        return f"SELECT {keys}, m.c, m.s, m.v FROM {self.stage} q CROSS JOIN {self.losers} m ON {on}"

    @cached_property
    def staged_loser_text(self) -> str:
        on = " AND ".join(f"m.k{i}=q.k{i}" for i in range(self.key_size))
        return f"SELECT 1 FROM {self.stage} q CROSS JOIN {self.losers} m ON {on} LIMIT 1"

    def cells_text(self, positions: Sequence[int]) -> str:
        """One row for every staged key, in their order: visible?, base, the stamps of some cells, their values."""
        on_user = " AND ".join(f"u.{name}=q.k{i}" for i, name in enumerate(self.key_names))
        on_stamps = " AND ".join(f"s.k{i}=q.k{i}" for i in range(self.key_size))
        stamps = [f"s.c{at}" for at in positions]
        values = [f"u.{quote(self.by_position[at].name)}" for at in positions]
        return (
            f"SELECT {', '.join([f'u.{self.key_names[0]} IS NOT NULL', 's.b', *stamps, *values])} FROM {self.stage} q "
            f"LEFT JOIN {self.sql_name} u ON {on_user} LEFT JOIN {self.stamps} s ON {on_stamps} ORDER BY q.rowid"
        )

    @cached_property
    def put_user_text(self) -> str:
        return self._put(self.sql_name, self.key_names, [quote(column.name) for column in self.by_position])

    @cached_property
    def put_aside_text(self) -> str:
        keys = [f"k{i}" for i in range(self.key_size)]
        return self._put(self.aside, keys, [f"c{i}" for i in range(len(self.by_position))])

    @cached_property
    def put_stamps_text(self) -> str:
        keys = [f"k{i}" for i in range(self.key_size)]
        return self._put(self.stamps, keys, ["b", "d", *(f"c{i}" for i in range(len(self.by_position)))])

    @cached_property
    def put_loser_text(self) -> str:
        return self.put_losers_text(1)

    def put_losers_text(self, rows: int) -> str:
        row = f"({','.join('?' * (self.key_size + 3))})"
        return f"INSERT OR REPLACE INTO {self.losers}({self.side_key}, c, s, v) VALUES {','.join([row] * rows)}"

    @cached_property
    def drop_user_text(self) -> str:
        return f"DELETE FROM {self.sql_name} WHERE {self.where_user}"

    def drop_side_text(self, table: str) -> str:
        return f"DELETE FROM {table} WHERE {self.where_side}"

    def column_name(self, column: bytes) -> str:
        return quote(self.by_position[self.positions[column]].name)

    def _put(self, table: str, keys: Sequence[str], cells: Sequence[str]) -> str:
        names = [*keys, *cells]
        sets = ", ".join(f"{cell}=excluded.{cell}" for cell in cells)
        conflict = f"UPDATE SET {sets}" if sets else "NOTHING"
        return f"INSERT INTO {table}({', '.join(names)}) VALUES({','.join('?' * len(names))}) ON CONFLICT DO {conflict}"


def _literal(column: Column) -> str:
    value = column.shown_default
    if column.type is ColumnType.REAL and isinstance(value, int):
        value = float(value)
    return str(apsw.format_sql_value(value))
