"""The merge rule: what a *set* of entries means, whatever their order of arrival. Specification and oracle in one.

`merge` is slow and obvious on purpose. `store.apply` does the same incrementally and set-based; the tests hold it to
this file. No SQL, no local numbers, no order: commutative, associative and idempotent because it takes a set.

*Valid* is an entry at or below its log's cut-off; it is *applied* when its transaction is complete among valid entries.
What is not valid is as if it had never been received, only the names that others gave it (their deps) count.

*Covers*: entry E covers entry W when W has the smaller hlc, and W is an ancestor of E in E's own chain, or one of the
deps in E's chain (its own included) reaches W: of the same log, W's seq not above the dep's, and, where the entry that
the dep names is itself valid and held, W is it or its ancestor. So a dep counts whether what it names is held, parked
or void; only for fork twins does the branch become known with the entry. The past is not transitive through the deps of
others: an author names every log whose head moved. Demanding the smaller hlc makes the relation acyclic whatever a
malicious author claims to have seen (an honest one is always above what it names), and so "covers ⇒ greater stamp".

*Owner epoch* (owned tables): of a write to a row, the highest epoch among the applied writes to that row (any of its
cells) that it covers, plus 1 if its author owns the row. The owner is the author of an applied insert whose id that
author made; a row without one is nobody's.

Per cell, the writes that no other write of the cell covers are kept; the greatest stamp among them, which is the
greatest of all, wins.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from peers.model import codec
from peers.model.entries import Action, Dep, Flag, Header, Leaf
from peers.model.ids import Hash, LogId, UserId, parse_row_id, row_ids, row_maker
from peers.model.schema import Schema, Table, Value
from peers.model.state import DELETED, Cell, Stamp, StateSums, row_digest

Key = tuple[Value, ...]
Cutoffs = Mapping[LogId, int | None]
"""Effective cut-off of each log: the last seq that counts. None, or a log not named: no limit."""


class RowRef(NamedTuple):
    """One row of the group: its table's id and the values of its key."""

    table: bytes
    key: Key


class CellRef(NamedTuple):
    """One cell of the group; `column` is `DELETED` for the hidden one."""

    table: bytes
    key: Key
    column: bytes

    @property
    def row(self) -> RowRef:
        return RowRef(self.table, self.key)


@dataclass(frozen=True, kw_only=True)
class OracleEntry:
    """What the rule needs of an entry: its place, its claims and its last write of each cell."""

    log: LogId
    seq: int
    hash: Hash
    prev: Hash
    hlc: int
    user: UserId
    deps: tuple[Dep, ...] = ()
    cells: Mapping[CellRef, Value] = field(default_factory=dict)
    creates: frozenset[RowRef] = frozenset()
    """The inserted rows whose default ids this author made: they make it the owner in an owned table."""
    more: bool = False

    def stamp(self, owner_epoch: int) -> Stamp:
        return Stamp(owner_epoch, self.hlc, self.log.device, self.log.incarnation, self.seq, self.hash)


class Member(NamedTuple):
    """One causally maximal write of a cell."""

    stamp: Stamp
    value: Value


@dataclass(frozen=True)
class CellState:
    """The maximal writes of a cell, greatest first; the first wins. Equal values are kept too."""

    members: tuple[Member, ...]

    @property
    def winner(self) -> Stamp:
        return self.members[0].stamp

    @property
    def value(self) -> Value:
        return self.members[0].value

    @property
    def in_conflict(self) -> bool:
        """Whether the maximal writes say different things (1 and 1.0 do)."""
        return len({codec.dumps(member.value) for member in self.members}) > 1


@dataclass(frozen=True)
class RowState:
    """A row with at least one retained write."""

    visible: bool
    cells: Mapping[bytes, CellState]
    """By column id, `DELETED` among them. A column without retained write is not named."""

    def shown(self, table: Table) -> tuple[Value, ...]:
        """The values of the columns that are not part of the key, in the table's order."""
        return tuple(
            self.cells[column.id].value if column.id in self.cells else column.shown_default for column in table.values
        )


@dataclass(frozen=True)
class MergeResult:
    """The state that a set of entries means."""

    rows: Mapping[RowRef, RowState]

    def table(self, table_id: bytes) -> dict[Key, RowState]:
        return {ref.key: row for ref, row in self.rows.items() if ref.table == table_id}

    def conflicts(self) -> dict[CellRef, CellState]:
        """The cells whose maximal writes say different things."""
        return {
            CellRef(*ref, column): cell
            for ref, row in self.rows.items()
            for column, cell in row.cells.items()
            if cell.in_conflict
        }


def merge(entries: Collection[OracleEntry], schema: Schema, cutoffs: Cutoffs | None = None) -> MergeResult:
    """The state that this set of entries means. Raises ValueError where a log's chain has a gap."""
    valid = valid_entries(entries, cutoffs or {})
    causality = Causality(valid)
    rows: dict[RowRef, dict[Hash, OracleEntry]] = {}
    for entry in applied_entries(valid):
        for cell in entry.cells:
            rows.setdefault(cell.row, {})[entry.hash] = entry
    return MergeResult({
        ref: _merge_row(ref, list(writers.values()), causality, schema)
        for ref, writers in sorted(rows.items(), key=_row_order)
    })  # fmt: skip


def valid_entries(entries: Iterable[OracleEntry], cutoffs: Cutoffs) -> list[OracleEntry]:
    """The entries at or below the effective cut-off of their log, each once."""
    limits = {log: seq for log, seq in cutoffs.items() if seq is not None}
    return list({entry.hash: entry for entry in entries if entry.seq <= limits.get(entry.log, entry.seq)}.values())


def applied_entries(valid: Collection[OracleEntry]) -> list[OracleEntry]:
    """Without those whose transaction goes on in an entry that is not there (`more`): these are parked."""
    followers: dict[Hash, list[OracleEntry]] = {}
    for entry in valid:
        followers.setdefault(entry.prev, []).append(entry)
    complete: set[Hash] = set()
    for entry in sorted(valid, key=lambda entry: -entry.seq):  # followers first
        if not entry.more or any(follower.hash in complete for follower in followers.get(entry.hash, ())):
            complete.add(entry.hash)
    return [entry for entry in valid if entry.hash in complete]


class Causality:
    """Who had seen what, among valid entries."""

    def __init__(self, valid: Collection[OracleEntry]) -> None:
        self._places = {entry.hash: (entry.log, entry.seq) for entry in valid}
        self._chains: dict[Hash, frozenset[Hash]] = {}
        self._deps: dict[Hash, frozenset[Dep]] = {}
        for entry in sorted(valid, key=lambda entry: entry.seq):
            if entry.seq > 1 and self._places.get(entry.prev) != (entry.log, entry.seq - 1):
                raise ValueError(f"the entry before {entry.seq} is not in the set")
            self._chains[entry.hash] = self._chains.get(entry.prev, frozenset()) | {entry.hash}
            self._deps[entry.hash] = self._deps.get(entry.prev, frozenset()) | set(entry.deps)

    def covers(self, later: OracleEntry, earlier: OracleEntry) -> bool:
        """Whether the author of `later` had seen `earlier`."""
        if earlier.hlc >= later.hlc:
            return False
        if earlier.hash in self._chains[later.hash]:
            return True
        return any(self._reaches(dep, earlier) for dep in self._deps[later.hash] if dep.log == earlier.log)

    def _reaches(self, dep: Dep, entry: OracleEntry) -> bool:
        if self._places.get(dep.hash) == (dep.log, dep.seq):
            return entry.hash in self._chains[dep.hash]
        return entry.seq <= dep.seq


def _merge_row(ref: RowRef, writers: list[OracleEntry], causality: Causality, schema: Schema) -> RowState:
    table = schema.by_id(ref.table)
    epochs = _owner_epochs(ref, writers, causality) if table is not None and table.owned else {}
    columns: dict[bytes, list[OracleEntry]] = {}
    for entry in writers:
        for cell in entry.cells:
            if cell.row == ref:
                columns.setdefault(cell.column, []).append(entry)
    cells = {}
    for column, entries in sorted(columns.items()):
        maximal = [entry for entry in entries if not any(causality.covers(other, entry) for other in entries)]
        members = [
            Member(entry.stamp(epochs.get(entry.hash, 0)), entry.cells[CellRef(*ref, column)]) for entry in maximal
        ]
        cells[column] = CellState(tuple(sorted(members, key=lambda member: member.stamp, reverse=True)))
    visible = DELETED in cells and cells[DELETED].value == 0
    return RowState(visible, cells)


def _owner_epochs(ref: RowRef, writers: list[OracleEntry], causality: Causality) -> dict[Hash, int]:
    owner = min((entry.user for entry in writers if ref in entry.creates), default=None)
    epochs: dict[Hash, int] = {}
    for entry in sorted(writers, key=lambda entry: entry.hlc):  # what an entry covers has a smaller hlc
        seen = [epochs[other.hash] for other in writers if other.hash in epochs and causality.covers(entry, other)]
        epochs[entry.hash] = max(seen, default=0) + (entry.user == owner)
    return epochs


def _row_order(item: tuple[RowRef, object]) -> tuple[bytes, list[tuple[str, Value]]]:
    ref = item[0]
    return ref.table, [(type(value).__name__, value) for value in ref.key]


# --- From real entries ------------------------------------------------------------------------------------------------


def read_entry(header: Header, leaves: Sequence[Leaf], schema: Schema, user: UserId) -> OracleEntry:
    """The oracle's view of a decoded entry that `user`'s device wrote."""
    creates: set[RowRef] = set()
    for leaf, place in zip(leaves, header.leaves, strict=True):
        table = schema.by_id(leaf.table)
        if table is not None and table.default_id and leaf.action is Action.INSERT:
            keys = leaf_keys(header, leaf, place.rows, user)
            creates.update(RowRef(leaf.table, key) for key in keys if _made_by(key, header, leaf, user))
    return OracleEntry(
        log=header.log, seq=header.seq, hash=header.hash, prev=header.prev, hlc=header.hlc, user=user,
        deps=header.deps, cells=decode_cells(header, leaves, schema, user), creates=frozenset(creates),
        more=bool(header.flags & Flag.MORE),
    )  # fmt: skip


def decode_cells(header: Header, leaves: Sequence[Leaf], schema: Schema, user: UserId) -> dict[CellRef, Value]:
    """The entry's last write of each cell: the later (leaf, row) counts.

    An insert writes the columns that it names and `deleted = 0`, an update the columns that it names, a delete
    `deleted = 1`, a restore `deleted = 0`. Tables and columns that `schema` does not know are left out (parked).
    """
    cells: dict[CellRef, Value] = {}
    for leaf, place in zip(leaves, header.leaves, strict=True):
        table = schema.by_id(leaf.table)
        if table is None:
            continue
        known = {column.id for column in table.values}
        named = [(column, values) for column, values in zip(leaf.columns, leaf.values, strict=True) if column in known]
        for row, key in enumerate(leaf_keys(header, leaf, place.rows, user)):
            for column, values in named:
                cells[CellRef(leaf.table, key, column)] = values[row]
            if leaf.action is not Action.UPDATE:
                cells[CellRef(leaf.table, key, DELETED)] = int(leaf.action is Action.DELETE)
    return cells


def leaf_keys(header: Header, leaf: Leaf, rows: int, user: UserId) -> list[Key]:
    """The key of each of the `rows` rows of a leaf."""
    if isinstance(leaf.keys, int):
        maker = row_maker(user, header.device, leaf.id_incarnation or header.incarnation, header.hlc)
        return [(key,) for key in row_ids(header.hlc, leaf.keys, rows, maker)]
    return list(zip(*leaf.keys, strict=True))


def _made_by(key: Key, header: Header, leaf: Leaf, user: UserId) -> bool:
    parts = parse_row_id(key[0]) if isinstance(key[0], str) else None
    if parts is None:
        return False
    return parts.maker == row_maker(user, header.device, leaf.id_incarnation or header.incarnation, parts.hlc)


# --- The state hash ---------------------------------------------------------------------------------------------------


def state_hash(result: MergeResult) -> Hash:
    """The state hash of this state (`model.state` documents the bytes)."""
    sums = StateSums()
    for ref, row in result.rows.items():
        members = {column: [Cell(column, *member) for member in cell.members] for column, cell in row.cells.items()}
        winners = [cells[0] for cells in members.values()]
        others = [cell for cells in members.values() for cell in cells[1:]]
        sums.add(ref.table, row_digest(ref.table, ref.key, winners, others))
    return sums.hash()
