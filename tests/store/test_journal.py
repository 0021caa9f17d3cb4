"""The journal of a group commit: what is coalesced, what is cut off, and where a new entry begins."""

from collections.abc import Callable
from typing import Any

import apsw
import pytest

from peers.config import ENTRY_BYTES_MAX, LEAVES_MAX, ROWS_MAX
from peers.errors import BadValue
from peers.model.codec import dumps
from peers.model.entries import Action
from peers.store.blocks import Block, block_size, column_size
from peers.store.declarations import parse_table
from peers.store.door_table import DoorTable
from peers.store.journal import Journal
from peers.store.own_change import EntryDraft
from peers.store.rows import LocalTable


def door_table(sql: str) -> DoorTable:
    connection = apsw.Connection(":memory:")
    connection.create_scalar_function("peers_id", lambda *_: "", 0, flags=apsw.SQLITE_INNOCUOUS)
    table = parse_table(sql)
    local = LocalTable(1, table, {c.id: at for at, c in enumerate(table.values)}, [0] * len(table.values))
    connection.execute(local.create_statements()[0])
    made = DoorTable(connection, local)
    connection.close()
    return made


@pytest.fixture
def reserve() -> Callable[[EntryDraft | None], EntryDraft]:
    drafts: list[EntryDraft] = []

    def make(previous: EntryDraft | None) -> EntryDraft:
        assert previous is (drafts[-1] if drafts else None)
        drafts.append(EntryDraft(100 + len(drafts), b"maker..8"))
        return drafts[-1]

    return make


TABLE = door_table("CREATE TABLE t(a INTEGER, b INTEGER)")
WIDE = door_table(f"CREATE TABLE w({', '.join(f'c{i} ANY' for i in range(20))})")


def insert(key: str, a: int, b: int) -> Block:
    return Block(TABLE, Action.INSERT, (0, 1), [(key,)], [[a], [b]])


def update(key: str, place: int, value: int) -> Block:
    return Block(TABLE, Action.UPDATE, (place,), [(key,)], [[value]])


def delete(key: str, a: int = 0, b: int = 0) -> Block:
    return Block(TABLE, Action.DELETE, (), [(key,)], [], old_rows=[(key, a, b)])


def restore(key: str) -> Block:
    return Block(TABLE, Action.RESTORE, (), [(key,)], [])


Told = list[tuple[str, list[str], list[list[Any]]]]


def told(journal: Journal) -> list[Told]:
    return [
        [(change.action.name, [key[0] for key in change.keys], change.values) for change in changes]
        for _, changes, _ in journal.entries()
    ]


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        ([insert("1", 1, 2), insert("2", 3, 4)], [("INSERT", ["1", "2"], [[1, 3], [2, 4]])]),
        ([insert("1", 1, 2), update("1", 0, 9)], [("INSERT", ["1"], [[9], [2]])]),
        ([insert("1", 1, 2), delete("1")], [("INSERT", ["1"], [[1], [2]]), ("DELETE", ["1"], [])]),
        ([insert("1", 1, 2), delete("1"), insert("1", 5, 6)], [("INSERT", ["1"], [[5], [6]])]),
        ([delete("1"), insert("1", 5, 6)], [("INSERT", ["1"], [[5], [6]])]),
        ([update("1", 0, 1), update("1", 1, 2), update("1", 0, 3)], [("UPDATE", ["1"], [[3], [2]])]),
        ([update("1", 0, 1), delete("1")], [("UPDATE", ["1"], [[1]]), ("DELETE", ["1"], [])]),
        ([delete("1"), restore("1")], [("RESTORE", ["1"], [])]),
        ([restore("1"), update("1", 1, 7)], [("RESTORE", ["1"], []), ("UPDATE", ["1"], [[7]])]),
        ([restore("1"), delete("1")], [("DELETE", ["1"], [])]),
        ([insert("1", 1, 2), delete("1"), restore("1")], [("INSERT", ["1"], [[1], [2]])]),
    ],
)
def test_writes_of_one_key_are_coalesced(reserve: Any, blocks: list[Block], expected: Told) -> None:
    journal = Journal(reserve)
    for number, block in enumerate(blocks):
        journal.transaction = number
        journal.add(block)
    assert told(journal) == [expected]


def test_rows_carry_their_transaction_where_there_are_several(reserve: Any) -> None:
    journal = Journal(reserve)
    journal.add(insert("1", 1, 1))
    assert [change.ordinals for _, changes, _ in journal.entries() for change in changes] == [None]
    journal.transaction = 3
    journal.add(insert("2", 1, 1))
    journal.transaction = 5
    journal.add(Block(TABLE, Action.INSERT, (0, 1), [("3",), ("4",)], [[1, 1], [1, 1]], spread=True))
    assert [change.ordinals for _, changes, _ in journal.entries() for change in changes] == [[0, 3, 5, 6]]


def test_what_is_cut_off_is_forgotten_with_its_ids(reserve: Any) -> None:
    journal = Journal(reserve)
    start = journal.mark()
    key, ordinal = journal.new_id()
    journal.add(Block(TABLE, Action.INSERT, (0, 1), [(key,)], [[1], [1]], first_ordinal=ordinal))
    middle = journal.mark()
    journal.new_id()
    journal.add(update("9", 0, 1))
    for _ in range(3):
        journal.add(Block(TABLE, Action.UPDATE, (0,), [(str(i),) for i in range(ROWS_MAX)], [[1] * ROWS_MAX]))
    assert len(list(journal.entries())) > 1
    journal.cut(middle)
    assert told(journal) == [[("INSERT", [key], [[1], [1]])]] and journal.new_id()[1] == 1
    journal.cut(start)
    assert told(journal) == [] and journal.new_id() == (key, 0)


def test_an_entry_never_gets_too_many_rows_bytes_or_leaves(reserve: Any) -> None:
    journal = Journal(reserve)
    for number in range(40):
        journal.transaction = number
        for pair in range(19):
            places = tuple(sorted({number % 20, pair}))
            journal.add(Block(WIDE, Action.UPDATE, places, [("k",), ("l",)], [["é" * 3000] * 2 for _ in places]))
    entries = list(journal.entries())
    assert len(entries) > 2
    for _, changes, _ in entries:
        assert len(changes) <= LEAVES_MAX and sum(change.rows for change in changes) <= ROWS_MAX
        assert sum(len(dumps([change.keys, change.values])) for change in changes) <= ENTRY_BYTES_MAX


def test_more_says_that_a_transaction_goes_on(reserve: Any) -> None:
    journal = Journal(reserve)
    size = 40_000
    for number, rows in enumerate((size, size, 4 * size)):
        journal.transaction = number
        journal.add(Block(TABLE, Action.DELETE, (), [(str(i),) for i in range(rows)], [], old_rows=[()] * rows))
    more = [more for _, _, more in journal.entries()]
    assert more[:2] == [False, False] and all(more[2:-1]) and not more[-1] and len(more) > 4


def test_a_row_that_no_entry_can_hold_is_refused(reserve: Any) -> None:
    journal = Journal(reserve)
    with pytest.raises(BadValue, match="a row holds at most"):
        journal.add(Block(WIDE, Action.UPDATE, tuple(range(5)), [("k",)], [["x" * 250_000]] * 5))
    assert told(journal) == []


@pytest.mark.parametrize("values", [[1, -(1 << 63), None], ["a", "é€"], [b"x" * 300, None], [1.5], ["a", 1, b"", None]])
def test_sizes_are_never_too_low(values: list[Any]) -> None:
    assert column_size(values) >= sum(len(dumps(value)) for value in values)
    block = Block(TABLE, Action.UPDATE, (0,), [(f"{i:032d}",) for i in range(len(values))], [values])
    assert block_size(block) >= len(dumps([block.keys, values])) - 10
