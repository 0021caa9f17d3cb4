"""Who had seen what: an entry's causal past as a running maximum over its own chain (docs/PROTOCOL, deps).

Kept per branch, only where it grew (`_peers_past`): ``other`` log, from which seq on, up to which of its seqs. A past
is a fact of headers alone; it never depends on whether what they name is held. Only where the other log is forked does
the branch matter: then the deps themselves are asked, and one that is not held (or void) reaches every branch.

An entry is *closed* when it covers whatever the entries that it covers do. Honest authors only write closed entries;
the merge of anything else must look at the whole log.
"""

from bisect import bisect_right
from collections.abc import Iterable

import apsw

from peers.model.entries import Dep, Header, decode_header
from peers.model.ids import LogId
from peers.store.change_log import Branch, ChangeLog, EntryInfo, State

_Steps = dict[int, tuple[list[int], list[int]]]
"""other log (its root branch) → (seqs of this branch, the maximum from there on)."""


class Causality:
    """Answers `covers` for stored entries. Reads a branch's past when it is first asked for."""

    def __init__(self, connection: apsw.Connection, log: ChangeLog) -> None:
        self._connection = connection
        self._log = log
        self._past: dict[int, _Steps] = {}
        self._deps: dict[tuple[int, LogId], list[tuple[int, Dep]]] = {}

    def load(self) -> None:
        self._past.clear()
        self._deps.clear()

    def steps(self, branch: int) -> _Steps:
        found = self._past.get(branch)
        if found is None:
            found = self._past[branch] = {}
            for other, seq, upto in self._connection.execute(
                "SELECT other, seq, upto FROM _peers_past WHERE log=? ORDER BY other, seq", (branch,)
            ):
                seqs, uptos = found.setdefault(other, ([], []))
                seqs.append(seq)
                uptos.append(upto)
        return found

    def add(self, header: Header, branch: Branch) -> None:
        """Take in the deps of an entry that is being stored at the end of `branch`."""
        steps = self.steps(branch.number) if header.deps else {}
        for dep in header.deps:
            other = self._log.root(dep.log).number
            seqs, uptos = steps.setdefault(other, ([], []))
            if uptos and uptos[-1] >= dep.seq:
                continue
            seqs.append(header.seq)
            uptos.append(dep.seq)
            self._connection.execute(
                "INSERT OR REPLACE INTO _peers_past VALUES(?,?,?,?)", (branch.number, other, header.seq, dep.seq)
            )
        if header.deps and self._deps:
            self._deps.clear()

    def upto(self, branch: int, seq: int, other: int) -> int:
        """The last seq of log `other` (its root branch) that the chain up to (branch, seq) names."""
        most = 0
        for number, last in self._log.chain_up(branch, seq):
            found = self.steps(number).get(other)
            if found is not None:
                at = bisect_right(found[0], last)
                if at and found[1][at - 1] > most:
                    most = found[1][at - 1]
        return most

    def vector(self, branch: int, seq: int) -> dict[int, int]:
        """other log (root branch) → last seq named by the chain up to (branch, seq)."""
        result: dict[int, int] = {}
        for number, last in self._log.chain_up(branch, seq):
            for other, (seqs, uptos) in self.steps(number).items():
                at = bisect_right(seqs, last)
                if at:
                    result[other] = max(result.get(other, 0), uptos[at - 1])
        return result

    def covers(self, later: EntryInfo, earlier: EntryInfo) -> bool:
        """Whether the author of `later` had seen `earlier`. Never true of equal or greater hlc."""
        if earlier.hlc >= later.hlc:
            return False
        return self.covers_place(later.branch, later.seq, earlier.branch, earlier.seq)

    def covers_place(self, branch: int, seq: int, other: int, other_seq: int) -> bool:
        """`covers` by places, without regard to the hlc."""
        if branch == other:
            return other_seq < seq
        log = self._log
        other_log = log.branches[other].log
        if log.branches[branch].log == other_log:
            return self._is_in_chain(branch, seq, other, other_seq)
        if other_log not in log.forked:
            return self.upto(branch, seq, other) >= other_seq
        return any(self._reaches(dep, other, other_seq) for dep in self.deps(branch, seq, other_log))

    def _is_in_chain(self, branch: int, seq: int, other: int, other_seq: int) -> bool:
        return any(number == other and other_seq <= last for number, last in self._log.chain_up(branch, seq))

    def _reaches(self, dep: Dep, other: int, other_seq: int) -> bool:
        found = self._log.find(dep.log, dep.seq, dep.hash)
        if found is None or found[2] is State.VOID:
            return other_seq <= dep.seq
        return self._is_in_chain(found[1], dep.seq, other, other_seq)

    def deps(self, branch: int, seq: int, other: LogId) -> list[Dep]:
        """Every dep of the chain up to (branch, seq) that names the log `other`. Reads headers: for forks only."""
        result: list[Dep] = []
        for number, last in self._log.chain_up(branch, seq):
            key = (number, other)
            if key not in self._deps:
                self._deps[key] = [
                    (header.seq, dep) for header in self._headers(number) for dep in header.deps if dep.log == other
                ]
            result.extend(dep for at, dep in self._deps[key] if at <= last)
        return result

    def _headers(self, branch: int) -> Iterable[Header]:
        rows = self._connection.execute("SELECT header FROM _peers_entry WHERE log=? ORDER BY seq", (branch,))
        return [decode_header(raw) for (raw,) in rows]

    def is_closed(self, header: Header, branch: Branch, *, before_is_closed: bool) -> bool:
        """Whether everything that the entry names is held, and nothing that those name is unknown to it.

        Where the entry before is closed, only the entry's own deps can change that.
        """
        log = self._log
        mine = self.vector(branch.number, header.seq)
        own = log.root(header.log).number
        if before_is_closed:
            heads = [(log.root(dep.log), dep.seq) for dep in header.deps]
        else:
            heads = [(log.branches[other], seq) for other, seq in mine.items()]
        for root, seq in heads:
            if root.seq < seq or root.log in log.forked:
                return False
            for other, upto in self.vector(root.number, seq).items():
                limit = header.seq - 1 if other == own else mine.get(other, 0)
                if upto > limit:
                    return False
        return True
