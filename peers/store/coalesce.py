"""Blocks -> the changes of one entry: of several writes of a cell in one entry only the last is signed.

Per key that leaves, in this order, at most: an insert; or a restore; and an update; then a delete. An insert that is
deleted again in the same entry stays an insert and a delete, so that `restore` and history know the row. Pure.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

from peers.model.entries import Action
from peers.model.ids import row_ids
from peers.model.schema import Value
from peers.store.blocks import Block
from peers.store.door_table import DoorTable, Key
from peers.store.own_change import EntryDraft, OwnChange

_ORDER = (Action.INSERT, Action.RESTORE, Action.UPDATE, Action.DELETE)


def coalesce(blocks: Sequence[Block], draft: EntryDraft) -> list[OwnChange]:
    """The changes of one entry: per table, action and columns one, so ordered that the later may follow the earlier."""
    many = any(block.spread for block in blocks) or len({block.transaction for block in blocks}) > 1
    tables: dict[int, list[Block]] = {}
    for block in blocks:
        tables.setdefault(block.table.number, []).append(block)
    changes = []
    for own in tables.values():
        for group in _groups(own if _disjoint(own) else list(_compose(own))):
            changes.append(_change(group, draft, many))
    return changes


def _disjoint(blocks: Sequence[Block]) -> bool:
    """Whether no key occurs twice."""
    if len(blocks) == 1 or all(block.first_ordinal is not None for block in blocks):
        return True
    return len(set(chain.from_iterable(block.keys for block in blocks))) == sum(len(block.keys) for block in blocks)


def _groups(blocks: Iterable[Block]) -> list[list[Block]]:
    """Blocks of one action and one set of columns together, in the order of `_ORDER`."""
    groups: dict[tuple[Action, tuple[int, ...]], list[Block]] = {}
    for block in blocks:
        groups.setdefault((block.action, block.columns), []).append(block)
    return [group for action in _ORDER for (of, _), group in groups.items() if of is action]


def _change(group: Sequence[Block], draft: EntryDraft, many: bool) -> OwnChange:
    first = group[0]
    keys = first.keys if len(group) == 1 else list(chain.from_iterable(block.keys for block in group))
    values = first.values
    if len(group) > 1:
        values = [list(chain.from_iterable(columns)) for columns in zip(*(b.values for b in group), strict=True)]
    ordinals = list(chain.from_iterable(block.transactions() for block in group)) if many else None
    old_rows = None
    if first.action is Action.DELETE:
        old_rows = list(chain.from_iterable(block.old_rows or () for block in group))
    first_ordinal = first.first_ordinal if len(group) == 1 else None  # of several blocks: looked at as a whole
    if first_ordinal is None and first.action is Action.INSERT:
        first_ordinal = consecutive(first.table, keys, draft)
    columns = tuple(first.table.values[place] for place in first.columns)
    return OwnChange(first.table.local, first.action, keys, columns, values, ordinals, first_ordinal, old_rows)


def consecutive(table: DoorTable, keys: Sequence[Key], draft: EntryDraft) -> int | None:
    """The first ordinal, where the keys are consecutive default ids of the draft."""
    first = draft.ordinal_of(str(keys[0][0])) if table.default_id else None
    if first is None:
        return None
    expected = row_ids(draft.hlc, first, len(keys), draft.maker)
    return first if list(zip(expected, strict=True)) == list(keys) else None


@dataclass(slots=True)
class _Row:
    """What one entry does to one key."""

    table: DoorTable
    transaction: int = 0
    inserted: bool = False
    restored: bool = False
    cells: dict[int, Value] = field(default_factory=dict)
    old_row: Key | None = None


def _compose(blocks: Iterable[Block]) -> Iterator[Block]:
    """One-row blocks, each key's writes of a cell coalesced to the last."""
    rows: dict[Key, _Row] = {}
    for block in blocks:
        for index, (key, transaction) in enumerate(zip(block.keys, block.transactions(), strict=True)):
            row = rows.setdefault(key, _Row(block.table))
            row.transaction = transaction
            if block.action is Action.DELETE:
                row.old_row = block.old_rows[index] if block.old_rows is not None else ()
                row.restored = False
                continue
            row.inserted |= block.action is Action.INSERT
            row.restored |= block.action is Action.RESTORE
            row.old_row = None
            row.cells.update(zip(block.columns, (column[index] for column in block.values), strict=True))
    for key, row in rows.items():
        yield from _row_blocks(key, row)


def _row_blocks(key: Key, row: _Row) -> Iterator[Block]:
    def block(action: Action, columns: tuple[int, ...] = (), old: list[Key] | None = None) -> Block:
        values = [[row.cells[column]] for column in columns]
        return Block(row.table, action, columns, [key], values, row.transaction, old_rows=old)

    if row.inserted:
        yield block(Action.INSERT, row.table.all_places)
    else:
        if row.restored:
            yield block(Action.RESTORE)
        if row.cells:
            yield block(Action.UPDATE, tuple(sorted(row.cells)))
    if row.old_row is not None:
        yield block(Action.DELETE, (), [row.old_row])
