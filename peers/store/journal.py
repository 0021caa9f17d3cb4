"""What one group commit has changed so far, in order, in sections that each become one entry.

The doors add blocks; a failed savepoint cuts off what it had added. Sections are kept within the format's limits while
blocks are added, by estimates that are never too low: bytes before compression, rows, and the leaves that coalescing
may make (unions of updated column sets). Nothing here touches SQL.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from peers.config import ENTRY_BYTES_MAX, KIB, LEAVES_MAX, ROWS_MAX
from peers.errors import BadValue
from peers.model.entries import Action
from peers.model.ids import encode_ordinal
from peers.store.blocks import Block, block_size
from peers.store.coalesce import coalesce
from peers.store.door_table import DoorTable, Key
from peers.store.own_change import EntryDraft, OwnChange

SECTION_BYTES_MAX: Final = ENTRY_BYTES_MAX - 64 * KIB
"""Before compression; zstd adds less than 0.5 % to what it cannot compress, each leaf some 200 bytes of its own."""


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
        block.transaction = self.transaction
        if block.keys:
            self._place(block, size)

    def _place(self, block: Block, size: int | None) -> None:
        rows = len(block.keys)
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
            more = following is not None and following.transaction == section.blocks[-1].transactions()[-1]
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
        self._place(block.part(0, count // 2), None)
        self._place(block.part(count // 2, count), None)


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
