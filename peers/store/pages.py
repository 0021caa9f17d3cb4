"""What somebody who holds a given vector lacks, in pages: causes before effects, verbatim.

Each branch that the other lacks is read from where he stands, and the branches are merged by
``(hlc, device, incarnation, seq)``. A page costs what it holds and one look-up per lacking branch; whatever he has
already is never read. Parked entries are in; void ones are not.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

import apsw

from peers.model.entries import RawEntry
from peers.model.ids import LogId
from peers.model.version_vector import VersionVector
from peers.store.change_log import Branch, ChangeLog, State, from_sql_u64
from peers.store.database import fetch_all

_READ_AHEAD = 64
_Place = tuple[int, bytes, bytes, int, int]
"""(hlc, device, incarnation, seq, eid)"""


@dataclass(frozen=True, slots=True)
class Page:
    """Entries as they travel; `more` where there are further ones."""

    entries: list[RawEntry]
    more: bool


class Pages:
    """Reads pages of one group's change log."""

    def __init__(self, connection: apsw.Connection, log: ChangeLog) -> None:
        self._connection = connection
        self._log = log

    def since(self, vector: VersionVector, limit_bytes: int, *, committed: VersionVector) -> Page:
        """At least one entry where the holder of `vector` lacks any; else up to about `limit_bytes`.

        Nothing beyond `committed`: what a merge under way has stored so far may still be rolled back.
        """
        entries: list[RawEntry] = []
        size = 0
        for place in heapq.merge(*self._lacking(vector, committed)):
            entry = self._log.raw(place[4])
            if entries and size + entry.size > limit_bytes:
                return Page(entries, True)
            entries.append(entry)
            size += entry.size
        return Page(entries, False)

    def _lacking(self, vector: VersionVector, committed: VersionVector) -> list[Iterator[_Place]]:
        streams = []
        for log, branches in self._log.logs.items():
            heads = vector.heads.get(log, ())
            mine = committed.heads.get(log, ())
            if heads == mine or not mine:
                continue
            has = self._held_by(log, branches, heads)
            for branch in branches:
                start = max(has.get(branch.number, 0), branch.base)
                last = min(self._log.effective_seq(branch), mine[-1].seq)
                if start < last:
                    streams.append(self._read(branch, start, last))
        return streams

    def _held_by(self, log: LogId, branches: list[Branch], heads: tuple[tuple[int, bytes], ...]) -> dict[int, int]:
        """branch → the last seq that the holder of these heads surely has."""
        has: dict[int, int] = {}
        for seq, digest in heads:
            found = self._log.find(log, seq, digest)
            if found is not None:
                for number, last in self._log.chain_up(found[1], seq):
                    has[number] = max(has.get(number, 0), last)
            elif len(branches) == 1 and len(heads) == 1 and seq > branches[0].seq:
                has[branches[0].number] = branches[0].seq  # his log is longer than mine: mine is a part of it
        return has

    def _read(self, branch: Branch, start: int, last: int) -> Iterator[_Place]:
        log = branch.log
        while start < last:
            rows = fetch_all(
                self._connection,
                "SELECT eid, seq, hlc, state FROM _peers_entry WHERE log=? AND seq>? AND seq<=? ORDER BY seq LIMIT ?",
                (branch.number, start, last, _READ_AHEAD),
            )
            if not rows:
                return
            for eid, seq, hlc, state in rows:
                start = seq
                if state != State.VOID:
                    yield from_sql_u64(hlc), log.device, log.incarnation, seq, eid
