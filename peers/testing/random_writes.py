"""Random leaves: inserts, updates, deletes and restores of few rows with few values, so that writes meet.

Honest about rights (rows of owned tables are deleted and restored by the group's owner or under the log that made them,
and inserted under ids that their author made) and about types; everything else is allowed to happen.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from peers.model.entries import Action, Leaf
from peers.model.ids import parse_row_id, row_ids, row_maker
from peers.model.merge import Key
from peers.model.schema import Column, ColumnType, Table, Value

T = TypeVar("T")

_VALUES: Mapping[ColumnType, Sequence[Value]] = {
    ColumnType.INTEGER: (0, 1, 2, -5, 1 << 40),
    ColumnType.REAL: (0.0, 1.5, -2.25),
    ColumnType.TEXT: ("", "a", "b", "ä", "a text of more than fifteen bytes"),
    ColumnType.BLOB: (b"", b"x", bytes(40)),
    ColumnType.ANY: (1, 1.0, "1", b"1", 0, "a"),
}
_KEYS: Mapping[ColumnType, Sequence[Value]] = {
    ColumnType.INTEGER: (-1, 0, 7),
    ColumnType.TEXT: ("", "k", "l"),
    ColumnType.BLOB: (b"", b"k", b"\x00\xff"),
}


@dataclass(frozen=True, kw_only=True)
class Writer:
    """Who writes, and in which entry."""

    user: bytes
    device: bytes
    incarnation: bytes
    hlc: int
    is_admin: bool
    former_incarnation: bytes | None = None
    """An earlier incarnation of the device, under which a re-signed tail may have made its ids."""

    def made(self, key: Key) -> bool:
        """Whether a default id was made under this very log."""
        parts = parse_row_id(key[0]) if isinstance(key[0], str) else None
        return parts is not None and parts.maker == row_maker(self.user, self.device, self.incarnation, parts.hlc)


@dataclass(frozen=True, kw_only=True)
class WriteShape:
    """How much the entries of a history write, and where."""

    tables: tuple[str, ...] = ("trade", "idea", "tagof", "setting", "mark")
    leaves_max: int = 3
    rows_max: int = 3
    keys_max: int = 4
    """Default-id rows of one table; beyond it inserts become updates. Natural keys have a pool of their own."""
    delete_weight: int = 2
    restore_weight: int = 1
    skipped_column: float = 0.05
    """Chance that an insert does not know a column (its author has an older schema)."""


class LeafMaker:
    """Makes the leaves of one history's entries."""

    def __init__(self, rng: random.Random, shape: WriteShape, tables: Sequence[Table]) -> None:
        self._rng = rng
        self._shape = shape
        self._tables = [table for table in tables if table.name in shape.tables]

    def leaves(self, writer: Writer, known: Mapping[bytes, Sequence[Key]]) -> list[Leaf]:
        """The leaves of one entry. `known`: the keys that the author has seen, by table."""
        rng = self._rng
        ordinal = rng.choice((0, 0, 5))
        result: list[Leaf] = []
        for _ in range(rng.randint(1, self._shape.leaves_max)):
            table = rng.choice(self._tables)
            keys = list(known.get(table.id, ()))
            action = self._action(table, keys)
            if action is Action.INSERT:
                leaf, ordinal = self._insert(table, writer, keys, ordinal)
                result.append(leaf)
                if isinstance(leaf.keys, list) and rng.random() < 0.15:
                    result.append(Leaf(table.id, Action.DELETE, (), leaf.keys, []))
            else:
                leaf_or_none = self._change(table, action, writer, keys)
                result.extend([leaf_or_none] if leaf_or_none is not None else [])
        if not result:
            result.append(self._insert(self._tables[0], writer, [], ordinal)[0])
        return result

    def _action(self, table: Table, known: Sequence[Key]) -> Action:
        if not known:
            return Action.INSERT
        fresh = 3 if not table.default_id or len(known) < self._shape.keys_max else 1
        weights = {
            Action.INSERT: fresh,
            Action.UPDATE: 5 if table.values else 0,
            Action.DELETE: self._shape.delete_weight,
            Action.RESTORE: self._shape.restore_weight,
        }
        return weighted(self._rng, weights)

    def _insert(self, table: Table, writer: Writer, known: list[Key], ordinal: int) -> tuple[Leaf, int]:
        rng = self._rng
        count = rng.randint(1, self._shape.rows_max)
        columns = [c for c in table.values if rng.random() >= self._shape.skipped_column] or list(table.values)
        id_incarnation = None
        keys: int | list[list[Any]]
        if not table.default_id:
            keys = _columns_of([tuple(rng.choice(_KEYS[column.type]) for column in table.key) for _ in range(count)])
        else:
            again = [key for key in known if not table.owned or writer.made(key)]
            if again and (len(known) >= self._shape.keys_max or rng.random() < 0.3):
                keys = _columns_of([rng.choice(again) for _ in range(count)])
            else:
                if rng.random() < 0.5:
                    id_incarnation = writer.former_incarnation
                keys, ordinal = ordinal, ordinal + count
                if id_incarnation is None and rng.random() < 0.3:  # spelled out, as where ordinals are not consecutive
                    maker = row_maker(writer.user, writer.device, writer.incarnation, writer.hlc)
                    keys = [list(row_ids(writer.hlc, keys, count, maker))]
        return self._leaf(table, Action.INSERT, columns, keys, count, id_incarnation), ordinal

    def _change(self, table: Table, action: Action, writer: Writer, known: list[Key]) -> Leaf | None:
        rng = self._rng
        if table.owned and action is not Action.UPDATE and not writer.is_admin:
            known = [key for key in known if writer.made(key)]
        if not known:
            return None
        picked = [rng.choice(known) for _ in range(rng.randint(1, self._shape.rows_max))]
        if rng.random() < 0.8:
            picked = list(dict.fromkeys(picked))
        columns: list[Column] = []
        if action is Action.UPDATE:
            columns = rng.sample(table.values, rng.randint(1, len(table.values)))
        return self._leaf(table, action, columns, _columns_of(picked), len(picked), None)

    def _leaf(
        self,
        table: Table,
        action: Action,
        columns: Sequence[Column],
        keys: int | list[list[Any]],
        rows: int,
        id_incarnation: bytes | None,
    ) -> Leaf:
        values: list[list[Any]] = [[self._value(column) for _ in range(rows)] for column in columns]
        ordinals = sorted(self._rng.randrange(3) for _ in range(rows)) if self._rng.random() < 0.2 else None
        return Leaf(table.id, action, tuple(column.id for column in columns), keys, values, ordinals, id_incarnation)

    def _value(self, column: Column) -> Value:
        if not column.not_null and self._rng.random() < 0.15:
            return None
        return self._rng.choice(_VALUES[column.type])


def weighted(rng: random.Random, weights: Mapping[T, float]) -> T:
    """One of the keys, by weight; never one of weight 0 (Hypothesis' random objects take weights as hints)."""
    possible = {choice: weight for choice, weight in weights.items() if weight}
    return rng.choices(list(possible), list(possible.values()))[0]


def _columns_of(keys: Sequence[Key]) -> list[list[Any]]:
    return [list(column) for column in zip(*keys, strict=True)]
