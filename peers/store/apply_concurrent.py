"""The merge of updates that are neither new nor newer than all they meet: many rows at once, cell by cell.

For rows that are visible and have no conflict yet, each cell has one write, and few entries made them all: each pair of
entries is compared once, and what follows is done in bulk statements. Every other row is the slow path's.
"""

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any

import apsw

from peers.model.schema import Value
from peers.store.apply_fast import FastPath
from peers.store.change_log import ChangeLog, EntryInfo
from peers.store.row_state import Key, RowStore
from peers.store.rows import LocalTable

Relation = Callable[[EntryInfo, int], int]
"""1: the entry covers the entry of that number; −1: is covered by it; 0: neither."""


class _Verdict(IntEnum):
    """What a write does to the one that stands in its cell."""

    REPLACES = 1
    WINS = 2
    LOSES = 3
    IS_OLD = 4


class ConcurrentUpdates:
    """Updates in tables without owners, by entries that are closed."""

    def __init__(
        self, connection: apsw.Connection, log: ChangeLog, rows: RowStore, fast: FastPath, relation: Relation
    ) -> None:
        self._connection = connection
        self._log = log
        self._rows = rows
        self._fast = fast
        self._relation = relation

    def update(
        self, table: LocalTable, info: EntryInfo, keys: Sequence[Key], cells: Sequence[tuple[int, list[Value]]]
    ) -> bool:
        """Merge cells: (position, a value for each key). The keys differ. False, and nothing done, for other rows."""
        self._rows.stage(table, keys)
        if self._rows.has_losers(table) and self._connection.execute(table.staged_loser_text).fetchone() is not None:
            return False
        found = self._connection.execute(table.cells_text([at for at, _ in cells])).fetchall()
        if not all(row[0] for row in found):
            return False
        _, bases, *columns = (list(column) for column in zip(*found, strict=True))
        key_columns = [list(column) for column in zip(*keys, strict=True)]
        takers: dict[tuple[int, ...], list[int]] = {}
        verdicts = {0: _Verdict.REPLACES}
        for number, (at, values) in enumerate(cells):
            stamps = self._stamps(table, at, keys, bases, columns[number])
            for stamp in set(stamps) - verdicts.keys():
                verdicts[stamp] = self._verdict(info, stamp)
            judged = [verdicts[stamp] for stamp in stamps]
            shown = columns[len(cells) + number]
            self._record(table, at, _part([*key_columns, stamps, shown], _places(judged, _Verdict.WINS)))
            mine = [info.eid] * len(keys)
            self._record(table, at, _part([*key_columns, mine, values], _places(judged, _Verdict.LOSES)))
            takers.setdefault(_places(judged, _Verdict.REPLACES, _Verdict.WINS), []).append(number)
        for taken, numbers in takers.items():
            some = [(at, _part([values], taken)[0]) for at, values in (cells[number] for number in numbers)]
            self._take(table, info, _part(key_columns, taken), some)
        return True

    def _record(self, table: LocalTable, at: int, columns: list[list[Any]]) -> None:
        """Writes that are not shown, although nothing covers them: the keys' columns, stamps, values."""
        if columns[0]:
            *key_columns, stamps, values = columns
            rows = [*key_columns, [at] * len(stamps), stamps, values]
            self._fast.run(table.put_losers_text, (), rows, table.rows_per_statement(len(rows)))

    def _take(
        self, table: LocalTable, info: EntryInfo, keys: list[list[Any]], cells: Sequence[tuple[int, list[Value]]]
    ) -> None:
        """Show these values, under the stamp of the entry."""
        if keys[0]:
            columns, values = [table.by_position[at].id for at, _ in cells], [values for _, values in cells]
            self._connection.executemany(table.update_text(columns), zip(*values, *keys, strict=True))
            self._fast.set_stamps(table, keys, [at for at, _ in cells], info.eid)

    def _stamps(
        self, table: LocalTable, at: int, keys: Sequence[Key], bases: list[int | None], stamps: list[int | None]
    ) -> list[int]:
        """The stamp of each row's cell; 0 where no write has set it. Fills in `bases` where they are needed."""
        if None in stamps:
            if None in bases:
                implied = self._rows.implied_bases(table, keys)
                bases[:] = [mine if base is None else base for base, mine in zip(bases, implied, strict=True)]
            first = table.first_eids[at]
            return [
                ((base or 0) if (base or 0) >= first else 0) if stamp is None else stamp
                for stamp, base in zip(stamps, bases, strict=True)
            ]
        return [stamp or 0 for stamp in stamps]

    def _verdict(self, info: EntryInfo, stamp: int) -> _Verdict:
        relation = self._relation(info, stamp)
        if relation:
            return _Verdict.REPLACES if relation > 0 else _Verdict.IS_OLD
        return _Verdict.WINS if info.order > self._log.info(stamp).order else _Verdict.LOSES


def _places(judged: Sequence[_Verdict], *wanted: _Verdict) -> tuple[int, ...]:
    """Which rows have one of these verdicts."""
    counted = sum(map(judged.count, wanted))
    if counted in (0, len(judged)):  # the usual case: all were written by entries alike
        return tuple(range(counted))
    return tuple(place for place, verdict in enumerate(judged) if verdict in wanted)


def _part(columns: list[list[Any]], places: tuple[int, ...]) -> list[list[Any]]:
    """The rows at some places."""
    if len(places) == len(columns[0]):
        return columns
    return [[column[place] for place in places] for column in columns]
