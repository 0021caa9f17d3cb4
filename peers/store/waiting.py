"""Entries that are stored but wait: for what they name, for the rest of their transaction, or applied early.

An entry is applied when the one before it is, when everything it names is (a dep above a cut-off counts as there), and
when its transaction is complete. One that waits only for a dep is applied anyway after so much contact, except where it
writes owned tables; it is *early* until what it names is here and not early itself, and until then not named in our own
deps. What waits is kept by local number; entries are read again from the log when their turn comes.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import apsw

from peers.model.entries import Flag, Header
from peers.model.ids import LogId, row_maker
from peers.store.apply import Apply
from peers.store.catalog import Catalog
from peers.store.causality import Causality
from peers.store.change_log import LEAF_BITS, ChangeLog, EntryInfo, State
from peers.store.database import fetch_all, fetch_one
from peers.store.written import Written, WrittenLeaf, read_leaf


@dataclass(slots=True)
class _Waiter:
    eid: int
    branch: int
    header: Header


class Standing(NamedTuple):
    """How an entry that is to be applied stands."""

    state: State
    closed: bool


class Waiting:
    """What waits in one file."""

    def __init__(
        self, connection: apsw.Connection, catalog: Catalog, log: ChangeLog, causality: Causality, apply: Apply
    ) -> None:
        self._connection = connection
        self._catalog = catalog
        self._log = log
        self._causality = causality
        self._apply = apply
        self.parked: dict[int, _Waiter] = {}
        self.early: dict[int, _Waiter] = {}

    def load(self) -> None:
        """Read what waits anew."""
        self.parked, self.early = {}, {}
        for eid, state in fetch_all(
            self._connection, "SELECT eid, state FROM _peers_entry WHERE state<>0 AND state<>2"
        ):
            waiter = _Waiter(eid, self._log.info(eid).branch, self._log.header(eid))
            (self.parked if state == State.PARKED else self.early)[eid] = waiter

    def park(self, eid: int, branch: int, header: Header) -> None:
        self.parked[eid] = _Waiter(eid, branch, header)

    # --- What an entry waits for -------------------------------------------------------------------------------------

    def before(self, header: Header) -> State:
        """The state of the entry before it in its log."""
        if header.seq == 1:
            return State.APPLIED
        found = self._log.find(header.log, header.seq - 1, header.prev)
        return State.PARKED if found is None else found[2]

    def deps(self, header: Header) -> State:
        """APPLIED where all that it names is or lies above a cut-off; EARLY where some is early; else PARKED."""
        worst = State.APPLIED
        for dep in header.deps:
            if self._log.is_above_cut(dep.log, dep.seq):
                continue
            found = self._log.find(dep.log, dep.seq, dep.hash)
            if found is None or found[2] in (State.PARKED, State.VOID):
                return State.PARKED
            if found[2] is State.EARLY:
                worst = State.EARLY
        return worst

    def readiness(self, header: Header) -> State:
        """`before` and `deps` together, for an entry that is its whole transaction."""
        before = self.before(header)
        if before not in (State.APPLIED, State.EARLY):
            return State.PARKED
        deps = self.deps(header)
        return before if deps is State.APPLIED else deps

    # --- Applying ----------------------------------------------------------------------------------------------------

    def apply_now(
        self, info: EntryInfo, header: Header, leaves: list[WrittenLeaf], standing: Standing, ids: bytes | None
    ) -> Iterator[None]:
        """Apply an entry that was stored just now as `standing` says."""
        yield from self._apply_as(Written(info, header, standing.closed, _maker(info, header, ids), leaves), standing)

    def _apply_parked(self, waiter: _Waiter, state: State) -> Iterator[None]:
        """Apply an entry whose turn has come, and note its state."""
        eid, header = waiter.eid, waiter.header
        info = self._log.info(eid)
        mark, ids = fetch_one(self._connection, "SELECT closed, ids FROM _peers_entry WHERE eid=?", (eid,))
        standing = self.standing(header, info.branch, state)
        self._log.set_state(eid, state, int(standing.closed))
        leaves, maker = self.read(waiter), _maker(info, header, ids)
        yield from self._apply_as(Written(info, header, standing.closed, maker, leaves, anew=mark == 2), standing)

    def _apply_as(self, written: Written, standing: Standing) -> Iterator[None]:
        info = written.info
        self._log.moved.add(info.log)
        self.parked.pop(info.eid, None)
        if standing.state is State.EARLY:
            self.early[info.eid] = _Waiter(info.eid, info.branch, written.header)
        yield from self._apply.apply(written)

    def standing(self, header: Header, branch: int, state: State) -> Standing:
        """With whether it is closed. The deps of the entry are taken in already."""
        return Standing(state, state is State.APPLIED and self._is_closed(header, branch))

    def _is_closed(self, header: Header, branch: int) -> bool:
        if not header.deps and header.seq == 1:
            return True
        before = True
        if header.seq > 1:
            found = self._log.find(header.log, header.seq - 1, header.prev)
            assert found is not None
            before = bool(found.closed)
        return self._causality.is_closed(header, self._log.branches[branch], before_is_closed=before)

    def read(self, waiter: _Waiter) -> list[WrittenLeaf]:
        user = self._log.info(waiter.eid).user
        return [read_leaf(self._catalog, leaf, user, waiter.header) for leaf in self._log.leaves(waiter.eid)]

    def drain(self, *, patient: bool) -> Iterator[None]:
        """Apply whatever need not wait any longer, again and again until nothing moves. Not `patient`: also early."""
        moved = True
        while moved:
            moved = False
            for waiter in sorted(self.parked.values(), key=lambda w: w.header.hlc):
                if waiter.eid not in self.parked or waiter.header.flags & Flag.MORE:
                    continue
                group, state = self._group(waiter, patient=patient)
                for member in group:
                    yield from self._apply_parked(member, state)
                moved = moved or bool(group)
            if self._settle_early():
                moved = True

    def _group(self, tail: _Waiter, *, patient: bool) -> tuple[list[_Waiter], State]:
        """The entries of the transaction that `tail` ends, if their turn has come."""
        group = [tail]
        while True:
            first = group[0].header
            found = None if first.seq == 1 else self._log.find(first.log, first.seq - 1, first.prev)
            before = State.APPLIED if first.seq == 1 else State.PARKED if found is None else found[2]
            if before in (State.APPLIED, State.EARLY):
                break
            if found is None or found[0] not in self.parked or not self.parked[found[0]].header.flags & Flag.MORE:
                return [], State.PARKED
            group.insert(0, self.parked[found[0]])
        states = [before, *(self.deps(member.header) for member in group)]
        if State.PARKED not in states:
            return group, State.EARLY if State.EARLY in states else State.APPLIED
        if patient or any(self._writes_owned(member) for member in group):
            return [], State.PARKED
        return group, State.EARLY

    def recompute_entry(self, eid: int) -> None:
        """All rows of an entry are counted anew before the commit."""
        info = self._log.info(eid)
        self._apply.recompute_entry(self.read(_Waiter(eid, info.branch, self._log.header(eid))))

    def recompute_log(self, log: LogId) -> None:
        """All rows of a forked log: which of its branches others had seen may have become known."""
        for branch in self._log.logs[log]:
            rows = fetch_all(
                self._connection, "SELECT eid FROM _peers_entry WHERE log=? AND state IN (0,3)", (branch.number,)
            )
            for (eid,) in rows:
                self.recompute_entry(eid)

    def recompute_shapes(self, shapes: Iterable[int]) -> None:
        """All rows of the applied leaves of these shapes: a declaration has made them readable."""
        marks = ",".join(map(str, shapes)) or "NULL"
        rows = fetch_all(
            self._connection,
            f"SELECT DISTINCT e.eid FROM _peers_leaf l JOIN _peers_entry e ON e.eid=l.lid>>{LEAF_BITS} "
            f"WHERE l.shape IN ({marks}) AND e.state IN (0,3)",
        )
        for (eid,) in rows:
            self.recompute_entry(eid)

    def close_rows(self, eid: int) -> None:
        self._apply.close_rows(eid)

    def _writes_owned(self, waiter: _Waiter) -> bool:
        for leaf in self._log.leaves(waiter.eid):
            table = self._catalog.by_number.get(self._catalog.shape(leaf.shape).tid)
            if table is not None and table.table.owned:
                return True
        return False

    def _settle_early(self) -> bool:
        """Early entries whose deps are here now are as good as any; their rows are counted anew."""
        moved = False
        for waiter in sorted(self.early.values(), key=lambda w: w.header.hlc):
            if self.readiness(waiter.header) is not State.APPLIED:
                continue
            del self.early[waiter.eid]
            self._log.moved.add(waiter.header.log)
            closed = self._is_closed(waiter.header, waiter.branch)
            self._log.set_state(waiter.eid, State.APPLIED, int(closed))
            self._apply.recompute_entry(self.read(waiter))
            if closed:
                self._apply.close_rows(waiter.eid)
            moved = True
        return moved


def _maker(info: EntryInfo, header: Header, ids: bytes | None) -> bytes | None:
    """Of the ids that name this entry as their base; `ids` as it is kept (`ChangeLog.implied_ids`)."""
    return None if ids == b"" else row_maker(info.user, header.device, ids or header.incarnation, header.hlc)
