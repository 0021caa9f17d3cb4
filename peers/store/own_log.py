"""This device's own log: appending what the doors changed, naming what was seen, and starting a new incarnation.

An own entry names every head that has moved since the one before, also above a cut-off, but nothing that still waits
and nothing that was applied early. So it covers all that the tables show, and its stamps simply replace what stood
there; only rows that an entry without its whole past has written are recomputed from the log.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import apsw

from peers.config import ENTRY_BYTES_MAX, LEAVES_MAX, ROWS_MAX, TRANSACTION_BYTES_MAX
from peers.errors import BadValue, EntryFault, EntryRefused
from peers.model.clock import HybridClock
from peers.model.entries import (
    SALT_BYTES,
    SIGNATURE_PREFIX,
    Dep,
    Flag,
    Header,
    Leaf,
    LeafRef,
    RawEntry,
    decode_leaf,
    encode_header,
    encode_leaf,
)
from peers.model.ids import INCARNATION_BYTES, ZERO_HASH, GroupId, Hash, LogId, UserId, blake2b_256, row_ids, row_maker
from peers.model.keys import SigningKey
from peers.store.apply import Apply
from peers.store.catalog import Catalog
from peers.store.causality import Causality
from peers.store.change_log import LEAF_BITS, Branch, ChangeLog, EntryInfo, State, StoredLeaf
from peers.store.database import fetch_all
from peers.store.key_columns import columns_of
from peers.store.meta import Meta
from peers.store.own_change import Appended, EntryDraft, OwnChange
from peers.store.own_stamps import OwnStamps


@dataclass(frozen=True, slots=True)
class Author:
    """As whom this device writes in the group: its user (in a personal group: the device key) and its key."""

    user: UserId
    device_key: SigningKey


@dataclass(slots=True)
class _Piece:
    """Rows `start … stop` of a change, as one encoded leaf."""

    change: OwnChange
    start: int
    stop: int
    data: bytes


class OwnLog:
    """Appends to the log of (device, incarnation); everything inside the writer's open transaction."""

    def __init__(
        self,
        connection: apsw.Connection,
        catalog: Catalog,
        log: ChangeLog,
        causality: Causality,
        apply: Apply,
        meta: Meta,
        *,
        group: GroupId,
        author: Author,
        clock: HybridClock,
        now_ms: Callable[[], int],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._connection = connection
        self._catalog = catalog
        self._log = log
        self._causality = causality
        self._apply = apply
        self._meta = meta
        self._stamps = OwnStamps(connection, log, apply, author.user)
        self._group = group
        self.author = author
        self._clock = clock
        self._now_ms = now_ms
        self._random_bytes = random_bytes
        self.publishing = False
        self._goes_on = False
        self.id = LogId(author.device_key.public, b"")

    def load(self) -> None:
        """Read what is held in memory anew."""
        self.id = LogId(self.author.device_key.public, self._meta.incarnation)
        self._goes_on = False

    @property
    def branch(self) -> Branch:
        """The branch that grows: the last of the log, should it ever have been forked."""
        return self._log.logs[self.id][-1] if self.id in self._log.logs else self._log.root(self.id)

    @property
    def is_cut(self) -> bool:
        """Whether the next entry of this log would be void, so that another log must be begun."""
        return bool(self._log.cut) and self._log.is_above_cut(self.id, self.branch.seq + 1)

    # --- Appending ---------------------------------------------------------------------------------------------------

    def reserve(self) -> EntryDraft:
        """A new timestamp with the ids that go with it."""
        hlc = self._clock.tick(0 if self._goes_on else self._now_ms())
        return EntryDraft(hlc, row_maker(self.author.user, *self.id, hlc))

    def append(
        self, draft: EntryDraft, changes: Sequence[OwnChange], control_heads: tuple[Hash, ...], *, more: bool = False
    ) -> Appended:
        """Write the log and the side tables for changes that the user's tables already show."""
        groups = self._pack(changes, draft)
        headers, entries = [], []
        deps = () if self._goes_on else self._deps()
        for at, pieces in enumerate(groups):
            flags = Flag.MORE if more or at + 1 < len(groups) else Flag(0)
            leaves = tuple(LeafRef(blake2b_256(piece.data), piece.stop - piece.start) for piece in pieces)
            header = self._next_header(draft.hlc + at, control_heads, deps if at == 0 else (), leaves, flags)
            signature = self.author.device_key.sign(SIGNATURE_PREFIX, header.raw)
            stored = [StoredLeaf(self._shape(piece.change), piece.stop - piece.start, piece.data) for piece in pieces]
            info, closed = self._store(header, signature, stored, ids=None)
            for piece in pieces:
                self._stamps.write(info, piece.change, piece.start, piece.stop, implied=at == 0)
                self._catalog.note_write(piece.change.table.number, info)
                if not closed:
                    keys = piece.change.keys[piece.start : piece.stop]
                    self._apply.open_rows(piece.change.table, keys, info.eid)
                    self._apply.recompute_later(piece.change.table, keys)
            headers.append(header)
            entries.append(RawEntry(header.raw, signature, tuple(piece.data for piece in pieces)))
        self._clock.observe(headers[-1].hlc)
        self._goes_on = more
        if self.publishing:
            self._meta.set_published(headers[-1].seq)
        for _ in self._apply.finish():
            pass
        return Appended(tuple(headers), tuple(entries))

    def _next_header(
        self, hlc: int, control_heads: tuple[Hash, ...], deps: tuple[Dep, ...], leaves: tuple[LeafRef, ...], flags: Flag
    ) -> Header:
        branch = self.branch
        return encode_header(
            group=self._group, log=self.id, seq=branch.seq + 1, prev=branch.hash if branch.seq else ZERO_HASH,
            hlc=hlc, control_heads=control_heads, deps=deps, leaves=leaves, flags=flags,
        )  # fmt: skip

    def _store(
        self, header: Header, signature: bytes, leaves: list[StoredLeaf], ids: bytes | None
    ) -> tuple[EntryInfo, bool]:
        branch = self.branch
        before = branch.seq == 0 or self._is_closed_at(branch)
        self._causality.add(header, branch)
        closed = self._causality.is_closed(header, branch, before_is_closed=before)
        info = self._log.store(
            header, signature, leaves, branch=branch, user=self.author.user, state=State.APPLIED, closed=closed, ids=ids
        )  # fmt: skip
        return info, closed

    def _is_closed_at(self, branch: Branch) -> bool:
        last = self._log.find(branch.log, branch.seq, branch.hash)
        assert last is not None
        return bool(last.closed)

    def _shape(self, change: OwnChange) -> int:
        columns = tuple(column.id for column in change.columns)
        return self._catalog.shape_number(change.table.table.id, change.action, columns)

    # --- Leaves ------------------------------------------------------------------------------------------------------

    def _pack(self, changes: Sequence[OwnChange], draft: EntryDraft) -> list[list[_Piece]]:
        """The leaves of each entry; one entry wherever all fits."""
        groups: list[list[_Piece]] = [[]]
        rows = size = total = 0
        for change in changes:
            for piece in self._pieces(change, 0, change.rows, draft, first=len(groups) == 1):
                count = piece.stop - piece.start
                too_many = len(groups[-1]) >= LEAVES_MAX or rows + count > ROWS_MAX
                if groups[-1] and (too_many or size + len(piece.data) > ENTRY_BYTES_MAX):
                    groups.append([])
                    rows = size = 0
                    if change.first_ordinal is not None:
                        piece.data = self._encode(change, piece.start, piece.stop, draft, first=False)
                groups[-1].append(piece)
                rows, size, total = rows + count, size + len(piece.data), total + len(piece.data)
        if total > TRANSACTION_BYTES_MAX:
            raise BadValue("a transaction has at most 256 MiB; write it in parts")
        return groups

    def _pieces(self, change: OwnChange, start: int, stop: int, draft: EntryDraft, *, first: bool) -> Iterator[_Piece]:
        """The leaf of rows `start … stop`, or its halves where it is too large."""
        data = None
        if stop - start <= ROWS_MAX:
            try:
                data = self._encode(change, start, stop, draft, first=first)
            except EntryRefused as error:
                if error.fault is not EntryFault.TOO_LARGE or stop - start == 1:
                    raise
        if data is not None and len(data) <= ENTRY_BYTES_MAX:
            yield _Piece(change, start, stop, data)
            return
        if stop - start == 1:
            raise BadValue(f"table {change.table.name}: a row has at most 1 MiB compressed")
        middle = (start + stop) // 2
        yield from self._pieces(change, start, middle, draft, first=first)
        yield from self._pieces(change, middle, stop, draft, first=first)

    def _encode(self, change: OwnChange, start: int, stop: int, draft: EntryDraft, *, first: bool) -> bytes:
        keys: int | list[list[Any]]
        if change.first_ordinal is not None and first:
            keys = change.first_ordinal + start
        elif change.keys:
            keys = columns_of(change.keys[start:stop])
        else:
            assert change.first_ordinal is not None
            keys = [row_ids(draft.hlc, change.first_ordinal + start, stop - start, draft.maker)]
        whole = start == 0 and stop == change.rows
        values = change.values if whole else [column[start:stop] for column in change.values]
        ordinals = change.ordinals if whole or change.ordinals is None else change.ordinals[start:stop]
        columns = tuple(column.id for column in change.columns)
        leaf = Leaf(change.table.table.id, change.action, columns, keys, values, ordinals)
        return encode_leaf(leaf, self._random_bytes(SALT_BYTES))

    # --- Deps --------------------------------------------------------------------------------------------------------

    def _deps(self) -> tuple[Dep, ...]:
        """The heads to name: all that moved since the last own entry and may be named, with what only those name."""
        own = self.branch
        found: set[Dep] = set()
        for log in sorted(self._log.moved):
            if log == self.id:
                self._log.moved.discard(log)
                continue
            named, whole = self._nameable(log)
            if whole:
                self._log.moved.discard(log)
            found.update(dep for dep in named if not self._is_named(own, dep))
        for dep in list(found):
            place = self._log.find(dep.log, dep.seq, dep.hash)
            assert place is not None
            found.update(self._named_only_there(own, place[1], dep.seq, found))
        return tuple(sorted(found))

    def _nameable(self, log: LogId) -> tuple[list[Dep], bool]:
        """The last entry of each branch that does not wait, and whether that is all there is of the log."""
        result, whole = [], True
        for branch in self._log.logs[log]:
            waits = self._connection.execute(
                "SELECT min(seq) FROM _peers_entry WHERE log=? AND state IN (1,3)", (branch.number,)
            ).get
            seq = branch.seq if waits is None else waits - 1
            whole = whole and waits is None
            if seq > branch.base:
                digest = branch.hash if seq == branch.seq else self._log.hash_at(branch.number, seq)
                result.append(Dep(*log, seq, digest))
        return result, whole

    def _is_named(self, own: Branch, dep: Dep) -> bool:
        if own.seq == 0:
            return False
        if dep.log in self._log.forked:
            return dep in self._causality.deps(own.number, own.seq, dep.log)
        return self._causality.upto(own.number, own.seq, self._log.root(dep.log).number) >= dep.seq

    def _named_only_there(self, own: Branch, branch: int, seq: int, found: set[Dep]) -> list[Dep]:
        """What a head names and we would not: entries above a cut-off. Naming them keeps our own entry closed."""
        result = []
        for other, upto in self._causality.vector(branch, seq).items():
            log = self._log.branches[other].log
            if log == self.id or upto <= max([dep.seq for dep in found if dep.log == log], default=0):
                continue
            if own.seq and self._causality.upto(own.number, own.seq, other) >= upto:
                continue
            result += [dep for dep in self._causality.deps(branch, seq, log) if dep.seq == upto]
        return result

    # --- Incarnations ------------------------------------------------------------------------------------------------

    def renew(self, published: int) -> None:
        """Go on under a new incarnation. Own entries above `published` are re-signed there: nobody has seen them."""
        old = self.branch
        published = min(published, old.seq)
        tail = fetch_all(
            self._connection,
            "SELECT eid FROM _peers_entry WHERE log=? AND seq>? AND state<>2 ORDER BY seq",
            (old.number, published),
        )
        before = self._past_deps(old, tail[0][0]) if tail else []
        self._meta.set_incarnation(self._random_bytes(INCARNATION_BYTES))
        former, self.id = self.id, LogId(self.id.device, self._meta.incarnation)
        new = self._log.root(self.id)
        headers = [(eid, self._log.header(eid)) for (eid,) in tail]
        if tail:
            digest = ZERO_HASH if published == 0 else self._log.hash_at(old.number, published)
            self._cut_tail(old, published, digest)
            if published:
                before.append(Dep(*former, published, digest))
        for at, (eid, header) in enumerate(headers):
            deps = {*header.deps, *before} if at == 0 else set(header.deps)
            self._resign(eid, header, former.incarnation, new, tuple(_highest(deps)))
        self._log.forget_entries()
        self._log.moved = set(self._log.logs)
        if headers:
            self._move_marks(old.number, published, new, headers[-1][1].hlc)

    def _past_deps(self, branch: Branch, eid: int) -> list[Dep]:
        """The deps that name, in one new log, what the chain below an entry has named."""
        seq = self._log.info(eid).seq - 1
        result = []
        for other in self._causality.vector(branch.number, seq) if seq else ():
            named = self._causality.deps(branch.number, seq, self._log.branches[other].log)
            top = max(dep.seq for dep in named)
            result += named if self._log.branches[other].log in self._log.forked else [d for d in named if d.seq == top]
        return result

    def _cut_tail(self, branch: Branch, published: int, digest: Hash) -> None:
        self._connection.execute("DELETE FROM _peers_past WHERE log=? AND seq>?", (branch.number, published))
        branch.seq, branch.hash, branch.dirty = published, digest, True
        self._causality.load()

    def _resign(self, eid: int, header: Header, former: bytes, new: Branch, deps: tuple[Dep, ...]) -> None:
        refs = []
        for at, stored in enumerate(self._log.leaves(eid)):
            leaf = decode_leaf(stored.data, stored.rows)
            data = stored.data
            if leaf.id_incarnation is None:
                data = encode_leaf(replace(leaf, id_incarnation=former), self._random_bytes(SALT_BYTES))
                self._connection.execute("UPDATE _peers_leaf SET data=? WHERE lid=?", (data, eid << LEAF_BITS | at))
            refs.append(LeafRef(blake2b_256(data), stored.rows))
        anew = self._next_header(header.hlc, header.control_heads, deps, tuple(refs), header.flags)
        signature = self.author.device_key.sign(SIGNATURE_PREFIX, anew.raw)
        self._causality.add(anew, new)
        self._log.replace(eid, anew, signature, branch=new, ids=former)
        new.seq, new.hash, new.dirty = anew.seq, anew.hash, True

    def _move_marks(self, old: int, published: int, new: Branch, hlc: int) -> None:
        """What wrote each table last: the tail counts under its new log now."""
        for tid in list(self._catalog.by_number):
            wrote = self._catalog.wrote(tid)
            if wrote.get(old, 0) > published:
                self._catalog.move_mark(tid, old, published, new.number, new.seq)


def _highest(deps: set[Dep]) -> list[Dep]:
    """Of several deps of one log on one chain only the last is needed; where seqs are equal, all."""
    top: dict[LogId, int] = {}
    for dep in deps:
        top[dep.log] = max(top.get(dep.log, 0), dep.seq)
    return sorted(dep for dep in deps if dep.seq == top[dep.log])
