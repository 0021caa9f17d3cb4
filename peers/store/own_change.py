"""What the doors hand over to the core: the changes of one group commit of this device.

The border: a door changes the **user's tables** with SQL inside the writer's open transaction; the core writes the
log and the side tables (`GroupStore.append_own`). The order of the calls, all in one `Database.transaction`::

    draft = store.reserve_entry()                 # an hlc and the ids of the rows to come
    … the doors run SQL; new default ids come from draft.take_ids() …
    store.append_own(draft, changes)              # nothing to call where nothing changed

Where several changes name one key, they count in the order of the list. A door should hand over as few, as large
changes as it can: each becomes one leaf (or a few). This file holds plain data only.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from peers.model.entries import Action, Header, RawEntry
from peers.model.ids import decode_digits, encode_u64, row_ids
from peers.model.schema import Column
from peers.store.rows import LocalTable


@dataclass(slots=True)
class EntryDraft:
    """An entry that is about to be written: its timestamp, and the default ids of the rows that it creates."""

    hlc: int
    maker: bytes
    """The last field of the ids (8 bytes)."""
    next_ordinal: int = 0
    head: str = field(init=False)
    tail: str = field(init=False)

    def __post_init__(self) -> None:
        self.head = encode_u64(self.hlc)
        self.tail = encode_u64(int.from_bytes(self.maker, "big"))

    def take_ids(self, count: int) -> list[str]:
        """The next `count` default ids, of ordinals `next_ordinal …`."""
        first = self.next_ordinal
        self.next_ordinal = first + count
        return row_ids(self.hlc, first, count, self.maker)

    def ordinal_of(self, key: str) -> int | None:
        """The ordinal of an id that this draft has given out; None for any other text."""
        if len(key) != 32 or not key.startswith(self.head) or not key.endswith(self.tail):
            return None
        try:
            ordinal = decode_digits(key[13:19])
        except ValueError:
            return None
        return ordinal if ordinal < self.next_ordinal else None


@dataclass(slots=True)
class OwnChange:
    """Rows of one table, one action and one set of columns, as the user's tables already show them.

    INSERT  names every value column of the table (`table.table.values`, in that order); the row is new, had been
            deleted, or is replaced as a whole. `values` as they stand in the table, defaults included.
    UPDATE  names the columns that changed; the rows are visible before and after.
    DELETE  names no columns; `old_rows` are the full rows as they stood, values of `table.table.columns` in that order.
    RESTORE is of rows that the door has moved back from where they were kept aside.
    """

    table: LocalTable
    action: Action
    keys: Sequence[tuple[Any, ...]]
    """One tuple per row, in the order of `table.table.key`. May be empty where `first_ordinal` is given."""
    columns: tuple[Column, ...] = ()
    values: list[list[Any]] = field(default_factory=list)
    """One list per column of `columns`, normalised (`schema.normalize_values`)."""
    ordinals: list[int] | None = None
    """Which of the group commit's transactions each row belongs to; None where there is only one."""
    first_ordinal: int | None = None
    """INSERT of rows with the draft's consecutive ids from this ordinal: the log then holds no keys at all."""
    old_rows: Sequence[tuple[Any, ...]] | None = None

    @property
    def rows(self) -> int:
        return len(self.values[0]) if self.first_ordinal is not None and self.values else len(self.keys)


@dataclass(frozen=True, slots=True)
class Appended:
    """What `append_own` wrote: usually one entry, several where the transaction did not fit one."""

    headers: tuple[Header, ...]
    entries: tuple[RawEntry, ...]
    """As they travel: push them as they are."""

    @property
    def header(self) -> Header:
        """The last of them."""
        return self.headers[-1]
