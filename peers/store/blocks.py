"""Blocks: rows of one table that a door has written with one action, and how large they will be when encoded."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from peers.model.entries import Action
from peers.model.schema import Value
from peers.store.door_table import DoorTable, Key
from peers.store.key_columns import columns_of


@dataclass(slots=True)
class Block:
    """Rows of one table that were written with one action. Keys are distinct within a block."""

    table: DoorTable
    action: Action
    columns: tuple[int, ...]
    """Places among the table's value columns."""
    keys: Sequence[Key]
    values: list[list[Value]]
    """One list per column."""
    transaction: int = 0
    """The transaction that wrote the rows …"""
    spread: bool = False
    """… or the first of as many consecutive ones, one for each row."""
    first_ordinal: int | None = None
    """Keys are the section's own default ids from this ordinal on."""
    old_rows: list[Key] | None = None
    """DELETE: whole rows as they were, in declared order."""

    def part(self, start: int, stop: int) -> "Block":
        first = None if self.first_ordinal is None else self.first_ordinal + start
        values = [column[start:stop] for column in self.values]
        old_rows = None if self.old_rows is None else self.old_rows[start:stop]
        transaction = self.transaction + start if self.spread else self.transaction
        return replace(
            self,
            keys=self.keys[start:stop],
            values=values,
            transaction=transaction,
            first_ordinal=first,
            old_rows=old_rows,
        )

    def transactions(self) -> Sequence[int]:
        """The transaction of each row."""
        count = len(self.keys)
        return range(self.transaction, self.transaction + count) if self.spread else [self.transaction] * count


def column_size(values: Sequence[Value]) -> int:
    """CBOR bytes of the values, or more: 9 for a number, 9 and its bytes for a text or blob."""
    try:
        together = "".join(values)  # type: ignore[arg-type]
    except TypeError:  # not all are texts
        if {str, bytes}.isdisjoint(map(type, values)):
            return 9 * len(values)
        return 9 * len(values) + sum(
            len(value) if type(value) is bytes else 4 * len(value) for value in values if isinstance(value, str | bytes)
        )
    return 9 * len(values) + (len(together) if together.isascii() else 4 * len(together))


def row_size(values: Iterable[Value]) -> int:
    """`column_size` of the cells of one row, and its transaction's ordinal."""
    size = 3
    for value in values:
        size += 9
        if type(value) is str:
            size += len(value) if value.isascii() else 4 * len(value)
        elif type(value) is bytes:
            size += len(value)
    return size


def block_size(block: Block) -> int:
    if len(block.keys) == 1:
        return row_size([*block.keys[0], *(values[0] for values in block.values)])
    size = sum(map(column_size, block.values))
    if block.first_ordinal is None:
        size += sum(map(column_size, columns_of(block.keys)))
    return size + 3 * len(block.keys)  # the transaction's ordinal
