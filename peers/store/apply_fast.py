"""The merge, set-based: whole leaves of new rows, and updates that are newer than all they meet (store.md section 2).

Each method is a generator that yields between steps and returns whether it did the whole leaf; otherwise it has left no
trace and the slow path takes over. Multi-row VALUES and one text per shape keep a row's cost near plain SQLite's.
"""

from collections.abc import Callable, Generator, Sequence
from itertools import chain, islice
from typing import Any

import apsw

from peers.store.catalog import Catalog
from peers.store.causality import Causality
from peers.store.change_log import EntryInfo
from peers.store.rows import LocalTable
from peers.store.written import Written, WrittenLeaf


class FastPath:
    """Bulk merges into one file."""

    def __init__(self, connection: apsw.Connection, catalog: Catalog, causality: Causality, step: int) -> None:
        self._connection = connection
        self._catalog = catalog
        self._causality = causality
        self._step = step

    def new_rows(self, table: LocalTable, written: Written, leaf: WrittenLeaf) -> Generator[None, None, bool]:
        """An INSERT of rows of which nothing is here, visible or aside."""
        eid = written.info.eid
        if not table.covers_implied(leaf.leaf.columns, eid):
            return False
        implied = isinstance(leaf.leaf.keys, int) and leaf.maker == written.implied_maker
        if table.table.owned and not implied:
            return False
        first = leaf.key_columns[0]
        low, high = (first[0], first[-1]) if isinstance(leaf.leaf.keys, int) else (min(first), max(first))
        if self._meets(table.aside, "k0", low, high):
            return False
        fresh = isinstance(leaf.leaf.keys, int) or len(set(leaf.keys)) == leaf.rows
        alone = fresh and not self._meets(table.sql_name, table.key_names[0], low, high)
        if not alone:
            self._connection.execute("SAVEPOINT fast")  # costs a copy of every page that is written
        done = yield from self._insert(table, leaf, eid, implied=implied)
        if not alone:
            if not done:
                self._connection.execute("ROLLBACK TO fast")
            self._connection.execute("RELEASE fast")
        return done

    def _insert(self, table: LocalTable, leaf: WrittenLeaf, eid: int, *, implied: bool) -> Generator[None, None, bool]:
        """False as soon as a row was there already."""
        pairs = [pair for pair in zip(leaf.leaf.columns, leaf.leaf.values, strict=True) if pair[0] in table.positions]
        columns = [column for column, _ in pairs]
        lists = [*leaf.key_columns, *(values for _, values in pairs)]
        for start in range(0, leaf.rows, self._step):
            if start:
                yield
            chunk = lists if leaf.rows <= self._step else [column[start : start + self._step] for column in lists]
            before = self._connection.total_changes()
            self.run(lambda rows: table.insert_text(columns, rows), (), chunk, table.rows_per_statement(len(lists)))
            if self._connection.total_changes() - before != len(chunk[0]):
                return False
            if not implied:
                self.put_base(table, chunk[: table.key_size], eid, anew=False)
        return True

    def newer_update(self, table: LocalTable, info: EntryInfo, leaf: WrittenLeaf) -> Generator[None, None, bool]:
        """An UPDATE by an entry that covers all that ever wrote the table, of rows that are all visible."""
        if table.table.owned or not self.covers_table(table, info):
            return False
        pairs = [pair for pair in zip(leaf.leaf.columns, leaf.leaf.values, strict=True) if pair[0] in table.positions]
        if not pairs:
            return False
        columns = [column for column, _ in pairs]
        lists = [*(values for _, values in pairs), *leaf.key_columns]
        for start in range(0, leaf.rows, self._step):
            if start:
                yield
            chunk = [column[start : start + self._step] for column in lists]
            before = self._connection.total_changes()
            self._connection.executemany(table.update_text(columns), zip(*chunk, strict=True))
            if self._connection.total_changes() - before != len(chunk[0]):
                return False  # nothing to undo: whatever the slow path finds, this entry covers
            keys = chunk[len(columns) :]
            self.put_stamps(table, keys, [table.positions[column] for column in columns], info.eid)
        return True

    def covers_table(self, table: LocalTable, info: EntryInfo) -> bool:
        """Whether the entry covers every entry that has written the table so far."""
        covers = self._causality.covers_place
        return info.hlc > self._catalog.wrote_hlc(table.number) and all(
            covers(info.branch, info.seq, branch, seq) for branch, seq in self._catalog.wrote(table.number).items()
        )

    def put_stamps(self, table: LocalTable, keys: Sequence[list[Any]], positions: Sequence[int], stamp: int) -> None:
        """Give cells of rows one new stamp that covers whatever they had: their losers go."""
        self.set_stamps(table, keys, positions, stamp)
        self.drop_losers(table, keys, positions)

    def set_stamps(self, table: LocalTable, keys: Sequence[list[Any]], positions: Sequence[int], stamp: int) -> None:
        """Give cells of rows one new stamp; their losers stay."""
        cells = [f"c{at}" if at >= 0 else "d" for at in positions]
        self.run(
            lambda rows: table.stamp_text(cells, rows), (stamp,), keys, table.rows_per_statement(table.key_size)
        )  # fmt: skip

    def put_base(self, table: LocalTable, keys: Sequence[list[Any]], stamp: int, *, anew: bool) -> None:
        """Give whole rows one base stamp. `anew`: over whatever stamps and losers they had."""
        self.run(
            lambda rows: table.base_text(rows, anew=anew), (stamp,), keys, table.rows_per_statement(table.key_size)
        )  # fmt: skip
        if anew:
            self.drop_losers(table, keys, None)

    def drop_losers(self, table: LocalTable, keys: Sequence[list[Any]], positions: Sequence[int] | None) -> None:
        """Forget the other maximal writes of these cells; None: of all cells of the rows."""
        if self._connection.execute(f"SELECT 1 FROM {table.losers} LIMIT 1").fetchone() is None:
            return
        cells = "" if positions is None else f" AND c IN ({','.join(map(str, positions))})"
        self._connection.executemany(table.drop_side_text(table.losers) + cells, zip(*keys, strict=True))

    def _meets(self, name: str, key: str, low: Any, high: Any) -> bool:
        """Whether any row of a table lies in this range of the key's first column."""
        found = self._connection.execute(f"SELECT 1 FROM {name} WHERE {key} BETWEEN ? AND ? LIMIT 1", (low, high))
        return found.fetchone() is not None

    def run(
        self, text: Callable[[int], str], first: tuple[Any, ...], columns: Sequence[Sequence[Any]], per_statement: int
    ) -> None:
        """Run a multi-row statement over all rows of some columns; `first` are parameters before the rows'."""
        rows, size = len(columns[0]), per_statement * len(columns)
        values = chain.from_iterable(zip(*columns, strict=True))
        statements = rows // per_statement
        if statements:
            taken = zip(*[islice(values, statements * size)] * size, strict=True)  # one iterator, so `size` at a time
            parameters = ((*first, *some) for some in taken) if first else taken
            self._connection.executemany(text(per_statement), parameters)
        if rows % per_statement:
            self._connection.execute(text(rows % per_statement), (*first, *values))
