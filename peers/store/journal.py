"""What one group commit has changed so far, in order, and how it becomes the changes of its entries.

The doors add *blocks*: rows of one table, one action and one set of columns, written by one transaction. At the end
each *section* (what one entry will hold) is coalesced: of several writes of a cell in one entry only the last is
signed. Per key that leaves, in this order, at most: an insert; or a restore; and an update; then a delete. An insert
that is deleted again in the same entry stays an insert and a delete, so that `restore` and history know the row.

Sections are kept within the format's limits while blocks are added, by estimates that are never too low: bytes before
compression, rows, and the leaves that coalescing may make (unions of updated column sets). Nothing here touches SQL.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Final, NamedTuple

from peers.config import ENTRY_BYTES_MAX, KIB, LEAVES_MAX, ROWS_MAX
from peers.errors import BadValue
from peers.model.entries import Action
from peers.model.ids import encode_ordinal, row_ids
from peers.model.schema import Value
from peers.store.door_table import DoorTable, Key
from peers.store.own_change import EntryDraft, OwnChange

SECTION_BYTES_MAX: Final = ENTRY_BYTES_MAX - 64 * KIB
"""Before compression; zstd adds less than 0.5 % to what it cannot compress, each leaf some 200 bytes of its own."""


@dataclass(slots=True)
class Block:
    """Rows of one table that one transaction wrote with one action. Keys are distinct within a block."""

    table: DoorTable
    action: Action
    columns: tuple[int, ...]
    """Places among the table's value columns."""
    keys: list[Key]
    values: list[list[Value]]
    """One list per column."""
    transaction: int = 0
    first_ordinal: int | None = None
    """Keys are the section's own default ids from this ordinal on."""
    old_rows: list[Key] | None = None
    """DELETE: whole rows as they were, in declared order."""

    def part(self, start: int, stop: int) -> "Block":
        first = None if self.first_ordinal is None else self.first_ordinal + start
        values = [column[start:stop] for column in self.values]
        old_rows = None if self.old_rows is None else self.old_rows[start:stop]
        return replace(self, keys=self.keys[start:stop], values=values, first_ordinal=first, old_rows=old_rows)


@dataclass(slots=True)
class Section:
    """The blocks of one future entry."""

    draft: EntryDraft
    blocks: list[Block] = field(default_factory=list)
    rows: int = 0
    size: int = 0
    groups: set[tuple[int, Action, tuple[int, ...]]] = field(default_factory=set)
    """(table, action, columns) of the blocks."""


class Mark(NamedTuple):
    """A point in the journal to go back to."""

    sections: int
    blocks: int
    rows: int
    size: int
    ordinal: int


class Journal:
    """The changes of one group commit. `reserve(previous)` gives the draft of the next entry."""

    def __init__(self, reserve: Callable[[EntryDraft | None], EntryDraft]) -> None:
        self._reserve = reserve
        self.sections: list[Section] = []
        self.transaction = 0
        """Number of the transaction that adds blocks now."""
        self.broken: BaseException | None = None
        """Set where SQL failed after its block was added: the commit must not happen."""

    @property
    def draft(self) -> EntryDraft:
        """The draft whose ids new rows get."""
        return self._section().draft

    def new_id(self) -> tuple[str, int]:
        """The next default id, and its ordinal."""
        draft = self.draft
        ordinal = draft.next_ordinal
        draft.next_ordinal += 1
        return f"{draft.head}{encode_ordinal(ordinal)}{draft.tail}", ordinal

    def __bool__(self) -> bool:
        return any(section.blocks for section in self.sections)

    def mark(self) -> Mark:
        if not self.sections:
            return Mark(0, 0, 0, 0, 0)
        last = self.sections[-1]
        return Mark(len(self.sections), len(last.blocks), last.rows, last.size, last.draft.next_ordinal)

    def cut(self, mark: Mark) -> None:
        """Forgets what was added since `mark`: its savepoint was rolled back."""
        if mark.sections == 0 and self.sections:
            del self.sections[1:]  # the first draft is kept: reserving has moved the clock already
            self._reset(self.sections[0], Mark(1, 0, 0, 0, 0))
        elif self.sections:
            del self.sections[mark.sections :]
            self._reset(self.sections[-1], mark)

    @staticmethod
    def _reset(section: Section, mark: Mark) -> None:
        del section.blocks[mark.blocks :]
        section.rows, section.size = mark.rows, mark.size
        section.groups = {(block.table.number, block.action, block.columns) for block in section.blocks}
        section.draft.next_ordinal = mark.ordinal

    def room(self, table: DoorTable, rows: int, size: int) -> None:
        """Begins a new section where an insert of `rows` rows and `size` bytes would not fit into the current one.

        Called before ids are drawn, so that the ids are those of the entry that will hold the rows.
        """
        section = self._section()
        group = (table.number, Action.INSERT, table.all_places)
        if section.blocks and not _fits(section, group, rows, size):
            self.sections.append(Section(self._reserve(section.draft)))

    def add(self, block: Block, size: int | None = None) -> None:
        """Appends the block, split over new sections where it does not fit. Raises BadValue for too large a row.

        `size` is the block's, where the caller has estimated it already.
        """
        rows = len(block.keys)
        if not rows:
            return
        block.transaction = self.transaction
        section, group = self._section(), (block.table.number, block.action, block.columns)
        if size is None:
            size = block_size(block)
        if not _fits(section, group, rows, size):
            if not _fits(Section(section.draft), group, rows, size):
                self._add_halves(block)
                return
            section = Section(self._reserve(section.draft))
            self.sections.append(section)
        section.blocks.append(block)
        section.rows += rows
        section.size += size
        section.groups.add(group)

    def deleted_row(self, table: DoorTable, key: Key) -> Key | None:
        """The row as it was, where the last change of the key in this commit is a delete."""
        for section in reversed(self.sections):
            for block in reversed(section.blocks):
                if block.table is table and key in block.keys:
                    return block.old_rows[block.keys.index(key)] if block.old_rows is not None else None
        return None

    def entries(self) -> Iterator[tuple[EntryDraft, list[OwnChange], bool]]:
        """(draft, changes, more) of each entry, in order."""
        sections = [section for section in self.sections if section.blocks]
        for index, section in enumerate(sections):
            following = sections[index + 1].blocks[0] if index + 1 < len(sections) else None
            more = following is not None and following.transaction == section.blocks[-1].transaction
            yield section.draft, coalesce(section.blocks, section.draft), more

    def _section(self) -> Section:
        if not self.sections:
            self.sections.append(Section(self._reserve(None)))
        return self.sections[-1]

    def _add_halves(self, block: Block) -> None:
        count = len(block.keys)
        if count == 1:
            limit = SECTION_BYTES_MAX // KIB
            raise BadValue(f"table {block.table.name}: a row holds at most {limit} KiB; put large things elsewhere")
        self.add(block.part(0, count // 2))
        self.add(block.part(count // 2, count))


# --- Sizes -----------------------------------------------------------------------------------------------------------


def column_size(values: Sequence[Value]) -> int:
    """CBOR bytes of the values, or more: 9 for a number, 9 and its bytes for a text or blob."""
    kinds = set(map(type, values))
    if kinds.isdisjoint((str, bytes)):
        return 9 * len(values)
    if kinds == {str}:
        together = "".join(values)  # type: ignore[arg-type]
        return 9 * len(values) + (len(together) if together.isascii() else 4 * len(together))
    return 9 * len(values) + sum(
        len(value) if type(value) is bytes else 4 * len(value) for value in values if isinstance(value, str | bytes)
    )


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
        size += sum(map(column_size, zip(*block.keys, strict=True)))
    return size + 3 * len(block.keys)  # the transaction's ordinal


def _fits(section: Section, group: tuple[int, Action, tuple[int, ...]], rows: int, size: int) -> bool:
    return (
        section.rows + rows <= ROWS_MAX
        and section.size + size <= SECTION_BYTES_MAX
        and (group in section.groups or _leaves(section.groups | {group}) <= LEAVES_MAX)
    )


def _leaves(groups: Iterable[tuple[int, Action, tuple[int, ...]]]) -> int:
    """The most leaves that coalescing may make of the groups: updates of one row may unite their columns."""
    unions: dict[int, set[frozenset[int]]] = {}
    others = 0
    for table, action, columns in groups:
        if action is not Action.UPDATE:
            others += 1
            continue
        known = unions.setdefault(table, set())
        added = frozenset(columns)
        known |= {added | columns for columns in known} | {added}
        if len(known) > LEAVES_MAX:
            return len(known)
    return others + sum(map(len, unions.values()))


# --- Coalescing ------------------------------------------------------------------------------------------------------

_ORDER = (Action.INSERT, Action.RESTORE, Action.UPDATE, Action.DELETE)


def coalesce(blocks: Sequence[Block], draft: EntryDraft) -> list[OwnChange]:
    """The changes of one entry: per table, action and columns one, so ordered that the later may follow the earlier."""
    many = len({block.transaction for block in blocks}) > 1
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
    ordinals = list(chain.from_iterable([b.transaction] * len(b.keys) for b in group)) if many else None
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
    return first if list(zip(expected, strict=True)) == keys else None


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
        for index, key in enumerate(block.keys):
            row = rows.setdefault(key, _Row(block.table))
            row.transaction = block.transaction
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
        return Block(row.table, action, columns, [key], values, row.transaction, None, old)

    if row.inserted:
        yield block(Action.INSERT, row.table.all_places)
    else:
        if row.restored:
            yield block(Action.RESTORE)
        if row.cells:
            yield block(Action.UPDATE, tuple(sorted(row.cells)))
    if row.old_row is not None:
        yield block(Action.DELETE, (), [row.old_row])
