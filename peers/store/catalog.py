"""The group's tables as this file knows them: local numbers, positions, shapes of leaves; declarations become DDL.

A table id gets its local number when it is first seen, declared or not, so that leaves of unknown tables can be parked
by their *shape* (table, action, columns) and found again without reading them. Positions of columns follow the order in
which this replica learned of them and never change; names may, where a declaration that sorts earlier arrives later.
"""

from collections.abc import Sequence
from typing import NamedTuple

import apsw

from peers.model import codec
from peers.model.entries import Action
from peers.model.schema import Schema, Table
from peers.store.change_log import EntryInfo, from_sql_u64, sql_u64
from peers.store.database import fetch_all
from peers.store.rows import LocalTable, quote

DDL = (
    "CREATE TABLE _peers_table(tid INTEGER PRIMARY KEY, table_id BLOB NOT NULL UNIQUE, name TEXT)",
    "CREATE TABLE _peers_column(tid INT, pos INT, column_id BLOB NOT NULL, name TEXT NOT NULL, first_eid INT NOT NULL, "
    "PRIMARY KEY(tid, pos)) WITHOUT ROWID",
    "CREATE TABLE _peers_shape(shape INTEGER PRIMARY KEY, tid INT NOT NULL, action INT NOT NULL, cols BLOB NOT NULL, "
    "UNIQUE(tid, action, cols))",
    "CREATE TABLE _peers_wrote(tid INT, log INT, seq INT NOT NULL, hlc INT NOT NULL, PRIMARY KEY(tid, log)) "
    "WITHOUT ROWID",
)


class Shape(NamedTuple):
    """What leaves of one kind write."""

    number: int
    tid: int
    action: Action
    columns: tuple[bytes, ...]


class Catalog:
    """Tables by id, name and local number; what wrote each of them last, per branch."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self.schema = Schema()
        self.by_number: dict[int, LocalTable] = {}
        self.by_name: dict[str, LocalTable] = {}
        self._numbers: dict[bytes, int] = {}
        self._shapes: dict[int, Shape] = {}
        self._shape_numbers: dict[tuple[int, int, tuple[bytes, ...]], int] = {}
        self._wrote: dict[int, dict[int, int]] = {}
        self._wrote_hlc: dict[int, int] = {}
        self._dirty: dict[tuple[int, int], tuple[int, int]] = {}

    @staticmethod
    def create(connection: apsw.Connection) -> None:
        for statement in DDL:
            connection.execute(statement)

    def load(self, schema: Schema) -> None:
        """Read what is held in memory anew. `schema` is the one that was last applied."""
        self.schema = schema
        self._numbers = dict(fetch_all(self._connection, "SELECT table_id, tid FROM _peers_table"))
        self._shapes.clear()
        self._shape_numbers.clear()
        shapes = self._connection.execute("SELECT shape, tid, action, cols FROM _peers_shape")
        for number, tid, action, columns in shapes:
            self._remember_shape(Shape(number, tid, Action(action), _split(columns)))
        self._wrote.clear()
        self._wrote_hlc.clear()
        self._dirty.clear()
        self._load_tables()

    def _load_tables(self) -> None:
        self.by_number, self.by_name = {}, {}
        columns: dict[int, list[tuple[bytes, int]]] = {}
        for tid, column_id, first in self._connection.execute(
            "SELECT tid, column_id, first_eid FROM _peers_column ORDER BY tid, pos"
        ):
            columns.setdefault(tid, []).append((column_id, first))
        for table in self.schema.tables:
            tid = self._numbers.get(table.id)
            if tid is None:
                continue
            known = columns.get(tid, [])
            positions = {column_id: at for at, (column_id, _) in enumerate(known)}
            local = LocalTable(tid, table, positions, [first for _, first in known])
            self.by_number[tid] = local
            self.by_name[table.name.lower()] = local

    def number_of(self, table_id: bytes) -> int:
        number = self._numbers.get(table_id)
        if number is None:
            number = len(self._numbers) + 1
            self._connection.execute("INSERT INTO _peers_table VALUES(?,?,NULL)", (number, table_id))
            self._numbers[table_id] = number
        return number

    def by_id(self, table_id: bytes) -> LocalTable | None:
        number = self._numbers.get(table_id)
        return None if number is None else self.by_number.get(number)

    # --- Shapes ------------------------------------------------------------------------------------------------------

    def _remember_shape(self, shape: Shape) -> None:
        self._shapes[shape.number] = shape
        self._shape_numbers[shape.tid, int(shape.action), shape.columns] = shape.number

    def shape(self, number: int) -> Shape:
        return self._shapes[number]

    def shape_number(self, table_id: bytes, action: Action, columns: tuple[bytes, ...]) -> int:
        tid = self.number_of(table_id)
        found = self._shape_numbers.get((tid, int(action), columns))
        if found is None:
            found = len(self._shapes) + 1
            self._connection.execute(
                "INSERT INTO _peers_shape VALUES(?,?,?,?)", (found, tid, int(action), b"".join(columns))
            )
            self._remember_shape(Shape(found, tid, action, columns))
        return found

    def shapes_of(self, tid: int) -> list[int]:
        return [shape.number for shape in self._shapes.values() if shape.tid == tid]

    def is_parked(self, shape: Shape) -> bool:
        """Whether leaves of this shape hold what this replica's schema does not know."""
        table = self.by_number.get(shape.tid)
        return table is None or any(column not in table.positions for column in shape.columns)

    def parked_shapes(self) -> list[int]:
        return [shape.number for shape in self._shapes.values() if self.is_parked(shape)]

    # --- What wrote a table last -------------------------------------------------------------------------------------

    def wrote(self, tid: int) -> dict[int, int]:
        """branch → last seq that wrote the table."""
        found = self._wrote.get(tid)
        if found is None:
            rows = fetch_all(self._connection, "SELECT log, seq, hlc FROM _peers_wrote WHERE tid=?", (tid,))
            found = self._wrote[tid] = {branch: seq for branch, seq, _ in rows}
            self._wrote_hlc[tid] = max((from_sql_u64(hlc) for _, _, hlc in rows), default=0)
        return found

    def wrote_hlc(self, tid: int) -> int:
        self.wrote(tid)
        return self._wrote_hlc[tid]

    def note_write(self, tid: int, info: EntryInfo) -> None:
        wrote = self.wrote(tid)
        seq = max(wrote.get(info.branch, 0), info.seq)
        wrote[info.branch] = seq
        self._wrote_hlc[tid] = max(self._wrote_hlc[tid], info.hlc)
        hlc = max(info.hlc, self._dirty.get((tid, info.branch), (0, 0))[1])
        self._dirty[tid, info.branch] = (seq, hlc)

    def move_mark(self, tid: int, branch: int, seq: int, other: int, other_seq: int) -> None:
        """Own entries of `branch` above `seq` were re-signed: they are `other`'s up to `other_seq` now."""
        wrote = self.wrote(tid)
        hlc = self._wrote_hlc[tid]
        wrote[branch], wrote[other] = seq, other_seq
        self._dirty[tid, branch], self._dirty[tid, other] = (seq, hlc), (other_seq, hlc)

    def flush(self) -> None:
        """Write what moved. Called before every commit."""
        for (tid, branch), (seq, hlc) in self._dirty.items():
            self._connection.execute(
                "INSERT INTO _peers_wrote VALUES(?,?,?,?) ON CONFLICT DO UPDATE SET seq=excluded.seq, "
                "hlc=max(hlc, excluded.hlc)",
                (tid, branch, seq, sql_u64(hlc)),
            )
        self._dirty.clear()

    # --- Declarations ------------------------------------------------------------------------------------------------

    def declare(self, schema: Schema, next_eid: int) -> set[int]:
        """Make the file follow `schema`. Returns the tables that are new or have new columns."""
        changed: set[int] = set()
        self._rename(schema)
        self.schema = schema
        for table in schema.tables:
            tid = self.number_of(table.id)
            if tid in self.by_number:
                if self._add_columns(tid, table, next_eid):
                    changed.add(tid)
            else:
                self._create(tid, table, next_eid)
                changed.add(tid)
        self._load_tables()
        return changed

    def _create(self, tid: int, table: Table, next_eid: int) -> None:
        for at, column in enumerate(table.values):
            self._insert_column(tid, at, column.id, column.name, next_eid)
        positions = {column.id: at for at, column in enumerate(table.values)}
        local = LocalTable(tid, table, positions, [next_eid] * len(positions))
        for statement in local.create_statements():
            self._connection.execute(statement)
        self._connection.execute("UPDATE _peers_table SET name=? WHERE tid=?", (table.name, tid))

    def _add_columns(self, tid: int, table: Table, next_eid: int) -> bool:
        known = self.by_number[tid]
        new = [column for column in table.values if column.id not in known.positions]
        positions, firsts = dict(known.positions), list(known.first_eids)
        for column in new:
            positions[column.id] = len(positions)
            firsts.append(next_eid)
            self._insert_column(tid, positions[column.id], column.id, column.name, next_eid)
            local = LocalTable(tid, table, positions, firsts)
            for statement in local.add_column_statements(column):
                self._connection.execute(statement)
        return bool(new)

    def _insert_column(self, tid: int, at: int, column_id: bytes, name: str, next_eid: int) -> None:
        self._connection.execute("INSERT INTO _peers_column VALUES(?,?,?,?,?)", (tid, at, column_id, name, next_eid))

    def _rename(self, schema: Schema) -> None:
        """Names that a declaration which sorts earlier has taken. Through names that no declaration can have."""
        moved: list[tuple[str, str, str]] = []
        tables: list[tuple[str, str, int]] = []
        for local in self.by_number.values():
            wanted = schema.by_id(local.table.id)
            if wanted is None:
                continue
            names = {column.id: column.name for column in wanted.columns}
            for column in local.table.columns:
                if names[column.id] != column.name:
                    self._run_rename_column(local, column.name, f"_peers_{column.id.hex()}")
                    moved.append((local.sql_name, f"_peers_{column.id.hex()}", names[column.id]))
                    self._connection.execute(
                        "UPDATE _peers_column SET name=? WHERE tid=? AND column_id=?",
                        (names[column.id], local.number, column.id),
                    )
            if wanted.name != local.table.name:
                tables.append((local.sql_name, wanted.name, local.number))
        for table, old, new in moved:
            self._connection.execute(f"ALTER TABLE {table} RENAME COLUMN {quote(old)} TO {quote(new)}")
        for at, (old, _, _) in enumerate(tables):
            self._connection.execute(f"ALTER TABLE {old} RENAME TO _peers_rename{at}")
        for at, (_, new, tid) in enumerate(tables):
            self._connection.execute(f"ALTER TABLE _peers_rename{at} RENAME TO {quote(new)}")
            self._connection.execute("UPDATE _peers_table SET name=? WHERE tid=?", (new, tid))

    def _run_rename_column(self, local: LocalTable, old: str, new: str) -> None:
        self._connection.execute(f"ALTER TABLE {local.sql_name} RENAME COLUMN {quote(old)} TO {quote(new)}")


def _split(data: bytes) -> tuple[bytes, ...]:
    return tuple(data[at : at + 8] for at in range(0, len(data), 8))


def encode_key(key: Sequence[object]) -> bytes:
    """A key as one blob, for tables that hold keys of any table."""
    return codec.dumps(list(key))


def decode_key(data: bytes) -> tuple[object, ...]:
    return tuple(codec.loads(data))
