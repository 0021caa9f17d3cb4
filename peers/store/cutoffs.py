"""Effective cut-offs: what lies above them is void; what they uncover again comes back.

Any change recomputes whole rows of all affected entries from the log; what is uncovered and still waits is recomputed
when its turn comes. Pasts are facts of headers, so no cut-off changes who had seen what, and an entry that names
something void is simply not closed here: its rows are recomputed whenever something else writes them.
"""

from collections.abc import Iterator, Mapping

import apsw

from peers.model.entries import Flag
from peers.model.ids import LogId
from peers.store.change_log import Branch, ChangeLog, State
from peers.store.database import fetch_all
from peers.store.waiting import Waiting


class Cutoffs:
    """Sets cut-offs of one group's logs."""

    def __init__(self, connection: apsw.Connection, log: ChangeLog, waiting: Waiting) -> None:
        self._connection = connection
        self._log = log
        self._waiting = waiting

    def set(self, cutoffs: Mapping[LogId, int | None]) -> Iterator[None]:
        """Inside the caller's transaction; yields between steps."""
        moved = False
        for log, cut in sorted(cutoffs.items()):
            if log not in self._log.logs and cut is None:
                continue
            if self._log.root(log).cut == cut:
                continue
            moved = True
            self._log.set_cut(log, cut)
            if log in self._log.forked:
                self._waiting.recompute_log(log)
            for branch in self._log.logs[log]:
                self._void_above(branch, cut)
                self._uncover(branch, cut)
        if moved:
            self._park_broken_transactions()
            self._waiting.load()
            yield from self._waiting.drain(patient=True)

    def _void_above(self, branch: Branch, cut: int | None) -> None:
        if cut is None:
            return
        self._change(branch, State.VOID, "seq>? AND state<>2", cut)

    def _uncover(self, branch: Branch, cut: int | None) -> None:
        limit = branch.seq if cut is None else cut
        self._change(branch, State.PARKED, "seq<=? AND state=2", limit)

    def _change(self, branch: Branch, state: State, where: str, seq: int) -> None:
        """Entries that counted no longer do, or may again: their rows are counted anew, now or in their turn."""
        rows = fetch_all(
            self._connection, f"SELECT eid FROM _peers_entry WHERE log=? AND {where} ORDER BY seq", (branch.number, seq)
        )
        for (eid,) in rows:
            self._unapply(eid, state)

    def _unapply(self, eid: int, state: State) -> None:
        if self._log.state(eid) in (State.APPLIED, State.EARLY):
            self._waiting.recompute_entry(eid)
            self._waiting.close_rows(eid)
        self._log.set_state(eid, state, 2)
        self._log.moved.add(self._log.info(eid).log)

    def _park_broken_transactions(self) -> None:
        """A transaction whose end is void now is incomplete: none of it is applied."""
        again = True
        while again:
            again = False
            for branch in list(self._log.branches.values()):
                if branch.cut is None or branch.log not in self._log.cut:
                    continue
                for eid, seq in self._ends(branch):
                    header = self._log.header(eid)
                    if header.flags & Flag.MORE and not self._goes_on(branch.log, seq, header.hash):
                        self._unapply(eid, State.PARKED)
                        again = True

    def _ends(self, branch: Branch) -> list[tuple[int, int]]:
        """Applied entries at or below the cut-off, from the top down, as long as they could be cut in the middle."""
        assert branch.cut is not None
        found: list[tuple[int, int]] = fetch_all(
            self._connection,
            "SELECT eid, seq FROM _peers_entry WHERE log=? AND seq<=? AND state IN (0,3) ORDER BY seq DESC LIMIT 1",
            (branch.number, branch.cut),
        )
        return found

    def _goes_on(self, log: LogId, seq: int, digest: bytes) -> bool:
        """Whether an applied entry follows this one."""
        for branch in self._log.logs[log]:
            rows = fetch_all(
                self._connection,
                "SELECT eid FROM _peers_entry WHERE log=? AND seq=? AND state IN (0,3)",
                (branch.number, seq + 1),
            )
            if any(self._log.header(eid).prev == digest for (eid,) in rows):
                return True
        return False
