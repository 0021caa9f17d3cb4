"""The change log of one group's file: logs and their branches, entries, leaves. Verbatim bytes in, verbatim bytes out.

A *log* is (device, incarnation). Where a device equivocated, its log is a tree: each *branch* has its own row in
`_peers_log`, with the branch and the seq from which it parted; the first branch is the log's root. An entry's local
number (`eid`) and a branch's never leave this file's database.

States of an entry: applied; parked (stored and in the vector, not applied yet); void (above its log's cut-off: not in
the vector); early (applied although what it names is not all here). Nothing here merges or judges.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import apsw

from peers.model.entries import Header, RawEntry, decode_header
from peers.model.ids import ZERO_HASH, Hash, LogId, UserId, row_maker
from peers.model.version_vector import Head, VersionVector
from peers.store.database import fetch_all, fetch_one

DDL = (
    "CREATE TABLE _peers_log(log INTEGER PRIMARY KEY, device BLOB NOT NULL, inc BLOB NOT NULL, parent INT, base INT, "
    "cut INT, seq INT NOT NULL, hash BLOB NOT NULL)",
    "CREATE TABLE _peers_author(author INTEGER PRIMARY KEY, user BLOB NOT NULL UNIQUE)",
    "CREATE TABLE _peers_entry(eid INTEGER PRIMARY KEY, log INT NOT NULL, seq INT NOT NULL, hlc INT NOT NULL, "
    "state INT NOT NULL, closed INT NOT NULL, author INT NOT NULL, ids BLOB, hash BLOB NOT NULL, "
    "header BLOB NOT NULL, sig BLOB NOT NULL, UNIQUE(log, seq, hash))",
    "CREATE INDEX _peers_entry_hlc ON _peers_entry(hlc, log)",
    "CREATE INDEX _peers_entry_waits ON _peers_entry(state) WHERE state<>0",
    "CREATE TABLE _peers_leaf(lid INTEGER PRIMARY KEY, shape INT NOT NULL, rows INT NOT NULL, data BLOB)",
    "CREATE TABLE _peers_past(log INT, other INT, seq INT, upto INT, PRIMARY KEY(log, other, seq)) WITHOUT ROWID",
    "CREATE TABLE _peers_forks(device BLOB, inc BLOB, seq INT, first BLOB, second BLOB, "
    "PRIMARY KEY(device, inc, seq, second)) WITHOUT ROWID",
    "CREATE VIEW _peers_void AS SELECT l.device, l.inc, e.seq, e.hlc, e.hash FROM _peers_entry e "
    "JOIN _peers_log l USING(log) WHERE e.state=2",
)
LEAF_BITS = 6
_INFO_MAX = 50_000
_SIGN = 1 << 63


class State(IntEnum):
    APPLIED = 0
    PARKED = 1
    VOID = 2
    EARLY = 3


class EntryInfo(NamedTuple):
    """What the merge needs to know of an entry."""

    eid: int
    branch: int
    log: LogId
    seq: int
    hlc: int
    hash: Hash
    user: UserId
    order: tuple[int, bytes, bytes, int, bytes]
    """(hlc, device, incarnation, seq, hash): the order of stamps below the owner epoch."""


class Place(NamedTuple):
    """Where a stored entry is, and how it stands."""

    eid: int
    branch: int
    state: State
    closed: int
    """1: closed; 0: not; 2: it was void, so its rows are counted anew when it is applied."""


class StoredLeaf(NamedTuple):
    shape: int
    rows: int
    data: bytes


@dataclass(slots=True)
class Branch:
    """One branch of a log. `seq` and `hash` are its last stored entry's, void or not."""

    number: int
    log: LogId
    parent: int | None
    base: int
    cut: int | None
    seq: int
    hash: Hash
    dirty: bool = False


def sql_u64(value: int) -> int:
    """An unsigned 64-bit number as SQLite's signed one, in the same order."""
    return value - _SIGN


def from_sql_u64(value: int) -> int:
    return value + _SIGN


class ChangeLog:
    """All of one group's logs. Logs are held in memory; entries are looked up and kept for a while."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self.branches: dict[int, Branch] = {}
        self.logs: dict[LogId, list[Branch]] = {}
        self.forked: set[LogId] = set()
        self.cut: set[LogId] = set()
        self.moved: set[LogId] = set()
        """Logs whose heads our own next entry may have to name."""
        self._infos: dict[int, EntryInfo] = {}
        self._authors: dict[bytes, int] = {}
        self._users: dict[int, bytes] = {}
        self._tags: dict[tuple[int, bytes], int | None] = {}
        self._last_found: tuple[LogId, int, Hash, Place] | None = None
        """The answer of `find`: each entry asks several times for the one before it."""
        self._next_eid = 0
        self._next_branch = 0
        self._vector: VersionVector | None = None

    @staticmethod
    def create(connection: apsw.Connection) -> None:
        for statement in DDL:
            connection.execute(statement)

    def load(self) -> None:
        """Read what is held in memory anew: at the start, and after a rollback."""
        connection = self._connection
        self.branches, self.logs, self.forked, self.cut = {}, {}, set(), set()
        self._infos, self._tags, self._vector, self._last_found = {}, {}, None, None
        for number, device, inc, parent, base, cut, seq, digest in connection.execute(
            "SELECT log, device, inc, parent, base, cut, seq, hash FROM _peers_log ORDER BY log"
        ):
            self._remember(Branch(number, LogId(device, inc), parent, base or 0, cut, seq, digest))
        self._users = dict(fetch_all(connection, "SELECT author, user FROM _peers_author"))
        self._authors = {user: number for number, user in self._users.items()}
        self._next_eid = connection.execute("SELECT coalesce(max(eid), 0) + 1 FROM _peers_entry").get
        self._next_branch = max(self.branches, default=0) + 1
        self.moved = set(self.logs)

    def _remember(self, branch: Branch) -> None:
        self.branches[branch.number] = branch
        of_log = self.logs.setdefault(branch.log, [])
        of_log.append(branch)
        if len(of_log) > 1:
            self.forked.add(branch.log)
        if branch.cut is not None:
            self.cut.add(branch.log)

    # --- Logs --------------------------------------------------------------------------------------------------------

    @property
    def next_eid(self) -> int:
        return self._next_eid

    def root(self, log: LogId) -> Branch:
        """The first branch of a log; made where the log is not known."""
        found = self.logs.get(log)
        return found[0] if found else self.add_branch(log, parent=None, base=0)

    def add_branch(self, log: LogId, *, parent: int | None, base: int) -> Branch:
        cut = self.logs[log][0].cut if log in self.logs else None
        branch = Branch(self._next_branch, log, parent, base, cut, base, ZERO_HASH)
        self._next_branch += 1
        self._connection.execute(
            "INSERT INTO _peers_log VALUES(?,?,?,?,?,?,?,?)",
            (branch.number, *log, parent, base, cut, base, ZERO_HASH),
        )
        self._remember(branch)
        return branch

    def flush(self) -> None:
        """Write the heads that moved. Called before every commit."""
        for branch in self.branches.values():
            if branch.dirty:
                self._connection.execute(
                    "UPDATE _peers_log SET seq=?, hash=? WHERE log=?", (branch.seq, branch.hash, branch.number)
                )
                branch.dirty = False

    def set_cut(self, log: LogId, cut: int | None) -> None:
        self.root(log)
        for branch in self.logs[log]:
            branch.cut = cut
            self._connection.execute("UPDATE _peers_log SET cut=? WHERE log=?", (cut, branch.number))
        (self.cut.discard if cut is None else self.cut.add)(log)
        self._vector = None

    def is_above_cut(self, log: LogId, seq: int) -> bool:
        if log not in self.cut:
            return False
        cut = self.logs[log][0].cut
        return cut is not None and seq > cut

    def chain_up(self, branch: int, seq: int) -> list[tuple[int, int]]:
        """(branch, last seq) of the chain that ends in `seq` of `branch`, the branch itself first."""
        result = []
        number: int | None = branch
        while number is not None:
            result.append((number, seq))
            here = self.branches[number]
            seq = min(seq, here.base)
            number = here.parent
        return result

    @property
    def vector(self) -> VersionVector:
        """What is stored of every log, up to its cut-off."""
        if self._vector is None:
            heads = {log: self._heads(branches) for log, branches in self.logs.items()}
            self._vector = VersionVector({log: found for log, found in heads.items() if found})
        return self._vector

    def _heads(self, branches: Iterable[Branch]) -> tuple[Head, ...]:
        heads: set[Head] = set()
        for branch in branches:
            seq, digest = branch.seq, branch.hash
            if branch.cut is not None and seq > branch.cut:
                seq = branch.cut
                if seq > branch.base:
                    digest = self.hash_at(branch.number, seq)
            if seq > branch.base:
                heads.add(Head(seq, digest))
        return tuple(sorted(heads))

    def effective_seq(self, branch: Branch) -> int:
        return branch.seq if branch.cut is None else min(branch.seq, branch.cut)

    # --- Entries -----------------------------------------------------------------------------------------------------

    def hash_at(self, branch: int, seq: int) -> Hash:
        found: Hash = self._connection.execute("SELECT hash FROM _peers_entry WHERE log=? AND seq=?", (branch, seq)).get
        return found

    def find(self, log: LogId, seq: int, digest: Hash) -> Place | None:
        """A stored entry."""
        last = self._last_found
        if last is not None and last[2] == digest and last[1] == seq and last[0] == log:
            return last[3]
        for branch in self.logs.get(log, ()):
            if branch.base < seq <= branch.seq:
                row = fetch_one(
                    self._connection,
                    "SELECT eid, state, closed FROM _peers_entry WHERE log=? AND seq=? AND hash=?",
                    (branch.number, seq, digest),
                )
                if row is not None:
                    found = Place(row[0], branch.number, State(row[1]), row[2])
                    self._last_found = (log, seq, digest, found)
                    return found
        return None

    def store(
        self,
        header: Header,
        signature: bytes,
        leaves: Sequence[StoredLeaf],
        *,
        branch: Branch,
        user: UserId,
        state: State,
        closed: bool,
        ids: bytes | None,
    ) -> EntryInfo:
        """Store an entry at the end of `branch`. `ids`: the incarnation of the ids that it implies (`implied_ids`)."""
        eid = self._next_eid
        self._next_eid += 1
        connection = self._connection
        connection.execute(
            "INSERT INTO _peers_entry VALUES(?,?,?,?,?,?,?,?,?,?,?)",
            (eid, branch.number, header.seq, sql_u64(header.hlc), int(state), int(closed), self.author_number(user),
             ids, header.hash, header.raw, signature),
        )  # fmt: skip
        for place, leaf in enumerate(leaves):
            connection.execute("INSERT INTO _peers_leaf VALUES(?,?,?,?)", (eid << LEAF_BITS | place, *leaf))
        branch.seq, branch.hash, branch.dirty = header.seq, header.hash, True
        self.moved.add(header.log)
        self._vector = None
        info = _info(eid, branch.number, header.log, header.seq, header.hlc, header.hash, user)
        self._keep(info)
        self._last_found = (info.log, info.seq, info.hash, Place(eid, branch.number, state, int(closed)))
        if ids != b"" and self._tags:
            maker = row_maker(user, header.device, ids or header.incarnation, header.hlc)
            if (header.hlc, maker) in self._tags:
                self._tags[header.hlc, maker] = eid
        return info

    def author_number(self, user: UserId) -> int:
        number = self._authors.get(user)
        if number is None:
            number = len(self._authors) + 1
            self._connection.execute("INSERT INTO _peers_author VALUES(?,?)", (number, user))
            self._authors[user] = number
            self._users[number] = user
        return number

    def info(self, eid: int) -> EntryInfo:
        found = self._infos.get(eid)
        if found is None:
            branch, seq, hlc, digest, author = fetch_one(
                self._connection, "SELECT log, seq, hlc, hash, author FROM _peers_entry WHERE eid=?", (eid,)
            )
            found = _info(
                eid, branch, self.branches[branch].log, seq, from_sql_u64(hlc), digest, self._users[author]
            )  # fmt: skip
            self._keep(found)
        return found

    def _keep(self, info: EntryInfo) -> None:
        if len(self._infos) >= _INFO_MAX:
            self._infos.clear()
        self._infos[info.eid] = info

    def header(self, eid: int) -> Header:
        return decode_header(self._connection.execute("SELECT header FROM _peers_entry WHERE eid=?", (eid,)).get)

    def state(self, eid: int) -> State:
        return State(self._connection.execute("SELECT state FROM _peers_entry WHERE eid=?", (eid,)).get)

    def set_state(self, eid: int, state: State, closed: int) -> None:
        """`closed`: as in `Place`."""
        self._last_found = None
        self._connection.execute("UPDATE _peers_entry SET state=?, closed=? WHERE eid=?", (int(state), closed, eid))

    def replace(self, eid: int, header: Header, signature: bytes, *, branch: Branch, ids: bytes) -> None:
        """The entry's header has become another, of another log (own entries that were never published)."""
        self._last_found = None
        self._connection.execute(
            "UPDATE _peers_entry SET log=?, seq=?, hash=?, header=?, sig=?, ids=coalesce(ids,?) WHERE eid=?",
            (branch.number, header.seq, header.hash, header.raw, signature, ids, eid),
        )

    def leaves(self, eid: int) -> list[StoredLeaf]:
        rows = self._connection.execute(
            "SELECT shape, rows, data FROM _peers_leaf WHERE lid BETWEEN ? AND ? ORDER BY lid",
            (eid << LEAF_BITS, (eid + 1 << LEAF_BITS) - 1),
        )
        return [StoredLeaf(*row) for row in rows]

    def leaf(self, lid: int) -> StoredLeaf:
        shape, rows, data = fetch_one(self._connection, "SELECT shape, rows, data FROM _peers_leaf WHERE lid=?", (lid,))
        return StoredLeaf(shape, rows, data)

    def raw(self, eid: int) -> RawEntry:
        header, signature = fetch_one(self._connection, "SELECT header, sig FROM _peers_entry WHERE eid=?", (eid,))
        return RawEntry(header, signature, tuple(leaf.data for leaf in self.leaves(eid)))

    # --- Ids ---------------------------------------------------------------------------------------------------------

    def implied_ids(self, header: Header, user: UserId, incarnation: bytes | None) -> bytes | None:
        """What to keep as an entry's `ids`: None for its own incarnation, another incarnation, or b"" for none.

        Two entries that share hlc and maker (a fork) would imply the same ids: only the first stored does.
        """
        maker = row_maker(user, header.device, incarnation or header.incarnation, header.hlc)
        return b"" if self.entry_of_id(header.hlc, maker) is not None else incarnation

    def entry_of_id(self, hlc: int, maker: bytes) -> int | None:
        """The entry that a default id of these fields implies as its base, or None."""
        tag = (hlc, maker)
        if tag in self._tags:
            return self._tags[tag]
        found = None
        for eid, branch, author, ids in self._connection.execute(
            "SELECT eid, log, author, ids FROM _peers_entry WHERE hlc=?", (sql_u64(hlc),)
        ):
            log = self.branches[branch].log
            if ids != b"" and row_maker(self._users[author], log.device, ids or log.incarnation, hlc) == maker:
                found = eid
        if len(self._tags) >= _INFO_MAX:
            self._tags.clear()
        self._tags[tag] = found
        return found

    def id_logs(self, user: UserId) -> set[LogId]:
        """(device, incarnation) under which stored entries of a user made ids, where it is not the entry's own."""
        author = self._authors.get(user)
        rows = self._connection.execute(
            "SELECT DISTINCT log, ids FROM _peers_entry WHERE author=? AND ids IS NOT NULL AND ids<>x''", (author,)
        )
        return {LogId(self.branches[branch].log.device, ids) for branch, ids in rows}

    def forget_entries(self) -> None:
        """Entries were re-signed in place: look them up anew."""
        self._infos.clear()
        self._tags.clear()
        self._vector = None


def _info(eid: int, branch: int, log: LogId, seq: int, hlc: int, digest: Hash, user: UserId) -> EntryInfo:
    return EntryInfo(eid, branch, log, seq, hlc, digest, user, (hlc, log.device, log.incarnation, seq, digest))
