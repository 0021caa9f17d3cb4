"""The merge rule: laws over random histories, and every counter-example that shaped it, by name."""

import itertools
import random
from collections.abc import Sequence
from operator import itemgetter

import pytest
from hypothesis import HealthCheck, given, settings

from peers.model import codec
from peers.model.clock import pack
from peers.model.entries import Action, Dep, Leaf, LeafRef, decode_header, decode_leaf, encode_header
from peers.model.ids import ZERO_HASH, LogId, blake2b_256, row_id, row_maker
from peers.model.merge import (
    Causality,
    CellRef,
    Cutoffs,
    MergeResult,
    OracleEntry,
    RowRef,
    applied_entries,
    decode_cells,
    merge,
    read_entry,
    state_hash,
    valid_entries,
)
from peers.model.schema import Column, ColumnType, Schema, declare_table
from peers.model.state import BUCKETS, DELETED, bucket_of
from peers.testing.histories import FOCUSED_SHAPES, RANDOM_SHAPES, focused_history, random_history
from peers.testing.history import History
from peers.testing.strategies import histories

NOTE = declare_table(
    "note",
    [
        Column("k", ColumnType.TEXT, not_null=True, key=1),
        Column("a", ColumnType.INTEGER),
        Column("b", ColumnType.TEXT, not_null=True),
        Column("c", ColumnType.INTEGER, default=9),
    ],
)
IDEA = declare_table(
    "idea",
    [Column("id", ColumnType.TEXT, not_null=True, key=1), Column("a", ColumnType.INTEGER)],
    default_id=True,
    owned=True,
)
SCHEMA = Schema((NOTE, IDEA))
A, B, C = (column.id for column in NOTE.values)
ROW = RowRef(NOTE.id, ("k",))
OWNED = RowRef(IDEA.id, ("row of the owner",))
IDEA_A = IDEA.values[0].id
INSERT = {DELETED: 0, A: None, B: "", C: 9}


class Lab:
    """Entries by hand: devices a, b, c …, one user each, hlc = the number of entries unless told."""

    def __init__(self) -> None:
        self.tips: dict[str, OracleEntry] = {}
        self.count = 0

    def write(
        self,
        device: str,
        cells: dict[bytes, object],
        *,
        saw: Sequence[OracleEntry] = (),
        row: RowRef = ROW,
        hlc: int | None = None,
        prev: OracleEntry | None = None,
        creates: bool = False,
        more: bool = False,
        claims: Sequence[Dep] = (),
    ) -> OracleEntry:
        """The next entry of the device's log, or a fork of it after `prev`. `saw` become its deps."""
        self.count += 1
        before = prev or self.tips.get(device)
        named = [Dep(*entry.log, entry.seq, entry.hash) for entry in saw]
        entry = OracleEntry(
            log=log_of(device), seq=before.seq + 1 if before else 1, hash=blake2b_256(b"%d" % self.count),
            prev=before.hash if before else ZERO_HASH, hlc=hlc or self.count, user=device[:1].encode() * 32,
            deps=(*named, *claims), cells={CellRef(*row, column): value for column, value in cells.items()},
            creates=frozenset({row} if creates else ()), more=more,
        )  # fmt: skip
        self.tips[device] = entry
        return entry


def log_of(device: str) -> LogId:
    """`a` and `a2` are two devices of one user."""
    return LogId(device.encode().ljust(32, b"."), b"incarnat")


def result_of(*entries: OracleEntry, cutoffs: Cutoffs | None = None) -> MergeResult:
    """The merge, which must not depend on the order of the entries or on repeats."""
    expected = merge(entries, SCHEMA, cutoffs)
    for order in itertools.islice(itertools.permutations(entries), 24):
        assert merge((*order, order[0]), SCHEMA, cutoffs) == expected
    return expected


def members(result: MergeResult, column: bytes, row: RowRef = ROW) -> list[object]:
    return [member.value for member in result.rows[row].cells[column].members]


# --- Laws -------------------------------------------------------------------------------------------------------------

law = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def facts(history: History) -> tuple[list[OracleEntry], Causality, dict[RowRef, list[OracleEntry]]]:
    valid = valid_entries([entry.oracle for entry in history.entries], history.final_cutoffs)
    rows: dict[RowRef, list[OracleEntry]] = {}
    for entry in applied_entries(valid):
        for ref in {cell.row for cell in entry.cells}:
            rows.setdefault(ref, []).append(entry)
    return valid, Causality(valid), rows


@given(histories())
@law
def test_a_set_has_one_meaning_whatever_the_order_and_the_repeats(history: History) -> None:
    entries = [entry.oracle for entry in history.entries]
    expected = history.expected()
    rng = random.Random(len(entries))
    parts = [rng.sample(entries, rng.randint(0, len(entries))) for _ in range(2)] + [entries]
    for order in itertools.permutations(parts):  # (x ∪ y) ∪ z in every order, with what they share repeated
        result = merge(list(itertools.chain(*order)), history.world.schema, history.final_cutoffs)
        assert result == expected
        assert state_hash(result) == state_hash(expected)


@given(histories())
@law
def test_no_retained_write_disappears_unless_covered_and_the_greatest_wins(history: History) -> None:
    _, causality, rows = facts(history)
    result = history.expected()
    assert set(result.rows) == set(rows)
    for ref, writers in rows.items():
        epochs = epochs_by_recursion(history, ref, writers, causality)
        for column, cell in result.rows[ref].cells.items():
            writes = [entry for entry in writers if CellRef(*ref, column) in entry.cells]
            stamps = {entry.hash: entry.stamp(epochs[entry.hash]) for entry in writes}
            assert len(set(stamps.values())) == len(writes)
            assert cell.winner == max(stamps.values())
            kept = {member.stamp.hash for member in cell.members}
            for entry in writes:
                coverers = [other for other in writes if causality.covers(other, entry)]
                assert (entry.hash in kept) == (not coverers)
                assert all(stamps[other.hash] > stamps[entry.hash] for other in coverers)


def epochs_by_recursion(
    history: History, ref: RowRef, writers: list[OracleEntry], causality: Causality
) -> dict[bytes, int]:
    """The owner epochs, computed top-down as the text says them."""
    table = history.world.schema.by_id(ref.table)
    assert table is not None
    owners = {entry.user for entry in writers if ref in entry.creates}
    assert len(owners) <= 1

    def epoch(entry: OracleEntry) -> int:
        below = max((epoch(other) for other in writers if causality.covers(entry, other)), default=0)
        return below + (entry.user in owners)

    return {entry.hash: epoch(entry) if table.owned else 0 for entry in writers}


@given(histories())
@law
def test_what_is_void_might_as_well_never_have_been_received(history: History) -> None:
    received = [entry for entry in history.entries if not history.is_void(entry)]
    assert history.expected(received) == history.expected()


@given(histories())
@law
def test_the_bytes_that_travel_say_what_the_oracle_was_given(history: History) -> None:
    for entry in history.entries:
        header = decode_header(entry.raw.header)
        leaves = [decode_leaf(data or b"", ref.rows) for data, ref in zip(entry.raw.leaves, header.leaves, strict=True)]
        user = history.world.user_of(header.device)
        assert read_entry(header, leaves, history.world.schema, user) == entry.oracle
        assert all(
            other.header.hlc < header.hlc for other in history.entries if other.hash in {d.hash for d in header.deps}
        )


@given(histories())
@law
def test_the_state_hash_is_that_of_the_listed_cells(history: History) -> None:
    result = history.expected()
    sums: dict[bytes, list[int]] = {}
    for (table, key), row in result.rows.items():
        cells = row.cells.items()
        winners = sorted((cell.winner, column, [cell.value]) for column, cell in cells)
        others = sorted((stamp, column, [value]) for column, cell in cells for stamp, value in cell.members[:0:-1])
        heads = [
            [[list(stamp), [place[1] for place in group]] for stamp, group in itertools.groupby(some, itemgetter(0))]
            for some in (winners, others)
        ]
        values = [value for _, _, (value,) in (*winners, *others)]
        digest = blake2b_256(codec.dumps([table, *heads]) + codec.dumps([*key, *values]))
        table_sums = sums.setdefault(table, [0] * BUCKETS)
        table_sums[bucket_of(key)] = (table_sums[bucket_of(key)] + int.from_bytes(digest, "big")) % (1 << 256)
    joined = sorted([table, b"".join(number.to_bytes(32, "big") for number in own)] for table, own in sums.items())
    assert state_hash(result) == blake2b_256(codec.dumps([1, joined]))


def test_histories_are_the_same_for_the_same_seed_and_hit_what_they_are_for() -> None:
    assert random_history(7) == random_history(7)
    assert focused_history(7) == focused_history(7)
    made = [focused_history(seed) for seed in range(150)] + [random_history(seed) for seed in range(50)]
    results = [history.expected() for history in made]
    rows = [row for result in results for row in result.rows.values()]
    cells = [cell for row in rows for cell in row.cells.values()]
    assert sum(not row.visible for row in rows) > 20
    assert sum(DELETED not in row.cells for row in rows) > 5
    assert sum(len(cell.members) > 1 and not cell.in_conflict for cell in cells) > 20
    assert sum(cell.in_conflict for cell in cells) > 50
    assert any(cell.winner.owner_epoch > 1 for cell in cells)
    assert sum(history.is_void(entry) for history in made for entry in history.entries) > 20
    places = [[(e.header.log, e.header.seq, e.header.hlc) for e in history.entries] for history in made]
    assert sum(len(set(own)) < len(own) for own in places) > 3  # twins that share the ids of their rows
    assert sum(entry.oracle.more for history in made for entry in history.entries) > 5
    assert all(history.name for history in made)
    assert len(RANDOM_SHAPES) + len(FOCUSED_SHAPES) == 20


# --- Counter-examples (design/store.md section 6; T23 of design/3-security.md) ---------------------------------------


def test_t23_owner_and_later_writer_are_one_total_order() -> None:
    lab = Lab()
    created = lab.write("o", {DELETED: 0, IDEA_A: 0}, row=OWNED, creates=True)
    second = lab.write("o", {IDEA_A: 2}, row=OWNED)
    n1 = lab.write("n", {IDEA_A: 11}, saw=[second], row=OWNED)
    n2 = lab.write("m", {IDEA_A: 12}, saw=[created], row=OWNED)  # later clock, has not seen `second`
    result = result_of(created, second, n1, n2)
    assert members(result, IDEA_A, OWNED) == [11, 12]
    stamps = [member.stamp.owner_epoch for member in result.rows[OWNED].cells[IDEA_A].members]
    assert stamps == [2, 1]
    assert members(result_of(created, second, n2), IDEA_A, OWNED) == [2, 12]  # pairwise, the owner beats n2 as well


def test_ce1_void_or_missing_deps_do_not_change_the_causal_past() -> None:
    lab = Lab()
    a1 = lab.write("a", {**INSERT, A: 1})
    b1 = lab.write("b", {B: "b"}, saw=[a1])
    c1 = lab.write("c", {A: 2}, saw=[b1])  # names only b1, which had seen a1: it has not acknowledged a1
    cut = {log_of("b"): 0}
    assert members(result_of(a1, c1), A) == members(result_of(a1, b1, c1, cutoffs=cut), A) == [2, 1]
    assert members(result_of(a1, b1, c1), A) == [2, 1]
    honest = lab.write("d", {A: 3}, saw=[a1, b1])
    assert members(result_of(a1, honest), A) == members(result_of(a1, b1, honest, cutoffs=cut), A) == [3]
    a2 = lab.write("a", {A: 4})  # a dep counts for all that lies below it, also where it is beyond the cut-off
    knows_a2 = lab.write("e", {A: 5}, saw=[a2])
    assert members(result_of(a1, knows_a2, cutoffs={log_of("a"): 1}), A) == [5]


def test_ce2_a_transaction_over_several_entries_counts_when_it_is_complete() -> None:
    lab = Lab()
    first = lab.write("a", {**INSERT, A: 1}, more=True, hlc=10)
    last = lab.write("a", {A: 2}, hlc=11)
    assert result_of(first).rows == {}
    assert members(result_of(first, last), A) == [2]
    assert result_of(first, last, cutoffs={log_of("a"): 1}).rows == {}


def test_ce3_insert_and_delete_in_one_entry_the_later_leaf_counts() -> None:
    insert = Leaf(NOTE.id, Action.INSERT, (A, B, C), [["k"]], [[1], ["x"], [2]])
    delete = Leaf(NOTE.id, Action.DELETE, (), [["k"]], [])
    for leaves, deleted in (([insert, delete], 1), ([delete, insert], 0)):
        header = encode_header(
            group=bytes(32), log=log_of("a"), seq=1, prev=ZERO_HASH, hlc=pack(1), control_heads=(bytes(32),), deps=(),
            leaves=tuple(LeafRef(bytes(32), 1) for _ in leaves),
        )  # fmt: skip
        cells = decode_cells(header, leaves, SCHEMA, b"u" * 32)
        assert cells == {
            CellRef(*ROW, A): 1, CellRef(*ROW, B): "x", CellRef(*ROW, C): 2, CellRef(*ROW, DELETED): deleted,
        }  # fmt: skip
        entry = read_entry(header, leaves, SCHEMA, b"u" * 32)
        assert result_of(entry).rows[ROW].visible == (not deleted)


def test_later_row_of_a_leaf_counts_and_unknown_objects_are_left_out() -> None:
    twice = Leaf(NOTE.id, Action.UPDATE, (A, b"unknown!"), [["k", "k"]], [[1, 2], [3, 4]])
    foreign = Leaf(b"no table", Action.DELETE, (), [["k"]], [])
    header = encode_header(
        group=bytes(32), log=log_of("a"), seq=1, prev=ZERO_HASH, hlc=pack(1), control_heads=(bytes(32),), deps=(),
        leaves=(LeafRef(bytes(32), 2), LeafRef(bytes(32), 1)),
    )  # fmt: skip
    assert decode_cells(header, [twice, foreign], SCHEMA, b"u" * 32) == {CellRef(*ROW, A): 2}


def test_ce4_equal_concurrent_values_are_remembered() -> None:
    lab = Lab()
    base = lab.write("a", {**INSERT, A: 0})
    one, same = lab.write("a", {A: 1}), lab.write("b", {A: 1}, saw=[base])
    agreed = result_of(base, one, same)
    assert members(agreed, A) == [1, 1]
    assert agreed.conflicts() == {}
    third = lab.write("c", {A: 2}, saw=[base, same])  # has seen only one of the two
    open_conflict = result_of(base, one, same, third)
    assert members(open_conflict, A) == [2, 1]
    assert list(open_conflict.conflicts()) == [CellRef(*ROW, A)]
    closing = lab.write("c", {A: 3}, saw=[one])
    assert members(result_of(base, one, same, third, closing), A) == [3]


def test_ce5_a_restored_row_without_its_insert_shows_defaults_and_zeros() -> None:
    lab = Lab()
    insert = lab.write("a", {**INSERT, A: 1, B: "text", C: 2})
    edit = lab.write("b", {A: 5}, saw=[insert])
    cut = {log_of("a"): 0}
    aside = result_of(insert, edit, cutoffs=cut).rows[ROW]
    assert not aside.visible
    restore = lab.write("b", {DELETED: 0})
    restored = result_of(insert, edit, restore, cutoffs=cut).rows[ROW]
    assert restored.visible
    assert restored.shown(NOTE) == (5, "", 9)


def test_ce6_deps_that_are_not_closed_need_the_entries_between() -> None:
    lab = Lab()
    base = lab.write("a", {**INSERT, A: 0})
    v = lab.write("b", {A: 1}, saw=[base])
    e2 = lab.write("c", {A: 2}, saw=[base, v])
    f = lab.write("d", {A: 3}, saw=[base, e2])  # v was void where f was written
    d4 = lab.write("e", {A: 4}, saw=[base])
    assert members(result_of(base, v, f, d4), A) == [4, 3, 1]
    assert members(result_of(base, v, e2, f, d4), A) == [4, 3]
    assert members(result_of(base, v, e2, f, d4, cutoffs={log_of("b"): 0}), A) == [4, 3]


def test_ce7_owner_epochs_are_computed_so_a_void_justification_counts_nowhere() -> None:
    lab = Lab()
    created = lab.write("o", {DELETED: 0, IDEA_A: 0}, row=OWNED, creates=True)
    owner_again = lab.write("o2", {IDEA_A: 1}, saw=[created], row=OWNED)
    guest = lab.write("g", {IDEA_A: 2}, saw=[created, owner_again], row=OWNED)
    late = lab.write("h", {IDEA_A: 3}, saw=[created], row=OWNED)
    assert members(result_of(created, owner_again, guest, late), IDEA_A, OWNED) == [2, 3]
    cut = {log_of("o2"): 0}
    received = result_of(created, owner_again, guest, late, cutoffs=cut)
    assert received == result_of(created, guest, late, cutoffs=cut)
    assert members(received, IDEA_A, OWNED) == [3, 2]


def test_ce9_fork_twins_that_share_the_ids_of_their_rows_are_concurrent() -> None:
    lab = Lab()
    one = lab.write("a", {**INSERT, A: 1}, hlc=7)
    twin = lab.write("a", {**INSERT, A: 2}, hlc=7)
    twin = OracleEntry(**{**vars(twin), "seq": 1, "prev": ZERO_HASH})
    result = result_of(one, twin)
    assert sorted(members(result, A)) == [1, 2]
    assert result.rows[ROW].cells[A].winner.hash == max(one.hash, twin.hash)


def test_a_dep_names_a_branch_of_a_fork() -> None:
    lab = Lab()
    base = lab.write("a", {**INSERT, A: 0})
    left = lab.write("a", {A: 1})
    right = lab.write("a", {A: 2}, prev=base)
    right2 = lab.write("a", {B: "x"})
    seer = lab.write("b", {A: 3}, saw=[right2])
    assert members(result_of(base, left, right, right2, seer), A) == [3, 1]
    assert members(result_of(base, left, right, seer), A) == [3]  # the branch is known when its entry is there
    both = lab.write("b", {A: 4}, saw=[left])
    assert members(result_of(base, left, right, right2, seer, both), A) == [4]


def test_claiming_to_have_seen_the_future_makes_no_circle() -> None:
    lab = Lab()
    a1 = lab.write("a", {**INSERT, A: 1})
    liar = lab.write("b", {A: 2}, claims=[Dep(*log_of("a"), 1_000_000, bytes(32))])
    a2 = lab.write("a", {A: 3}, saw=[liar])
    assert members(result_of(a1, liar, a2), A) == [3]
    early = lab.write("c", {A: 4}, hlc=1, claims=[Dep(*log_of("a"), 1_000_000, bytes(32))])
    assert members(result_of(a1, liar, a2, early), A) == [3, 4]


def test_edits_do_not_resurrect_and_reinsert_writes_all_anew() -> None:
    lab = Lab()
    insert = lab.write("a", {**INSERT, A: 1})
    delete = lab.write("a", {DELETED: 1})
    edit = lab.write("b", {A: 2}, saw=[insert])
    edited = result_of(insert, delete, edit).rows[ROW]
    assert not edited.visible
    assert edited.shown(NOTE)[0] == 2
    again = lab.write("b", {**INSERT, A: 5, B: "new"}, saw=[delete])
    assert result_of(insert, delete, edit, again).rows[ROW].shown(NOTE) == (5, "new", 9)
    assert result_of(insert, delete, edit, again).rows[ROW].visible


def test_values_that_only_look_equal_are_in_conflict() -> None:
    assert len({codec.dumps(value) for value in (1, 1.0, "1", b"1")}) == 4


def test_a_gap_in_a_chain_is_an_error_of_the_caller() -> None:
    lab = Lab()
    lab.write("a", INSERT)
    second = lab.write("a", {A: 1})
    with pytest.raises(ValueError, match="not in the set"):
        merge([second], SCHEMA)


def test_an_owner_is_who_made_the_id_also_under_a_former_incarnation() -> None:
    user, device, former = b"u" * 32, b"d" * 32, b"formerly"
    for keys, id_incarnation, mine in (
        (0, None, True),
        (0, former, True),
        ([[row_id(3, 0, row_maker(user, device, b"incarnat", 3))]], None, True),
        ([[row_id(3, 0, row_maker(user, device, former, 3))]], former, True),
        ([[row_id(3, 0, row_maker(user, device, former, 3))]], None, False),
        ([["any text"]], None, False),
    ):
        leaf = Leaf(IDEA.id, Action.INSERT, (IDEA_A,), keys, [[1]], None, id_incarnation)
        header = encode_header(
            group=bytes(32), log=LogId(device, b"incarnat"), seq=1, prev=ZERO_HASH, hlc=pack(1),
            control_heads=(bytes(32),), deps=(), leaves=(LeafRef(bytes(32), 1),),
        )  # fmt: skip
        entry = read_entry(header, [leaf], SCHEMA, user)
        assert bool(entry.creates) == mine
        (row,) = result_of(entry).rows.values()
        assert row.cells[IDEA_A].winner.owner_epoch == int(mine)
