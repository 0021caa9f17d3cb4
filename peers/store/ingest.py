"""Entries of others on their way in: one order of checks, one fault name per step (docs/PROTOCOL, ingest).

*Refused* stops that log from that branch only; others flow. *Held* is not stored and comes again. *Parked* is stored
and in the vector, not yet applied. Everything of one call is one SQLite transaction, merged in steps: closing the
generator between two of them rolls all of it back.

That an entry names a table of membership (C8) cannot happen: tables are named by hashes of declarations, and what is
not declared is parked as unknown.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field

import apsw

from peers.config import CLOCK_AHEAD_MAX_MS, ENTRY_BYTES_MAX, LEAVES_MAX, StoreConfig
from peers.errors import EntryFault, EntryHeld, EntryRefused
from peers.model import membership
from peers.model.clock import HybridClock, is_ahead
from peers.model.entries import SIGNATURE_PREFIX, Flag, Header, Leaf, RawEntry, decode_header, decode_leaf
from peers.model.ids import GroupId, Hash, LogId, UserId, blake2b_256, short
from peers.model.keys import verify
from peers.store.catalog import Catalog
from peers.store.causality import Causality
from peers.store.change_log import Branch, ChangeLog, State, StoredLeaf
from peers.store.control_log import ControlLog
from peers.store.meta import Meta
from peers.store.own_log import OwnLog
from peers.store.owned import OwnedRows
from peers.store.waiting import Waiting
from peers.store.written import check_leaf, written_leaf

Problem = tuple[EntryFault, str, Header | None]


@dataclass(slots=True)
class IngestReport:
    """What became of the entries of one call."""

    stored: list[Header] = field(default_factory=list)
    duplicate: int = 0
    held: list[Problem] = field(default_factory=list)
    refused: list[Problem] = field(default_factory=list)
    parked: int = 0
    """Entries that wait after the call, these and earlier ones."""
    tables: frozenset[str] = frozenset()
    """Tables whose rows may have changed."""
    missing_control: set[Hash] = field(default_factory=set)
    """Control operations to ask for."""
    own_branch: bool = False
    """An entry of this device's own current log was not held here: a new incarnation was started."""


@dataclass(slots=True)
class _Checked:
    """An entry that may be stored."""

    header: Header
    signature: bytes
    user: UserId
    leaves: list[tuple[Leaf, bytes]]


class Ingest:
    """Takes in entries of one group."""

    def __init__(
        self,
        connection: apsw.Connection,
        catalog: Catalog,
        log: ChangeLog,
        causality: Causality,
        control: ControlLog,
        waiting: Waiting,
        own: OwnLog,
        meta: Meta,
        *,
        group: GroupId,
        clock: HybridClock,
        now_ms: Callable[[], int],
        config: StoreConfig,
    ) -> None:
        self._connection = connection
        self._catalog = catalog
        self._log = log
        self._causality = causality
        self._control = control
        self._waiting = waiting
        self._own = own
        self._meta = meta
        self._owned = OwnedRows(log, control, causality)
        self._group = group
        self._clock = clock
        self._now_ms = now_ms
        self._config = config

    def ingest(
        self, entries: Sequence[RawEntry], report: IngestReport, *, contact_seconds: float
    ) -> Generator[None, None, None]:
        """Check, store and apply; yields between steps. Inside the caller's transaction."""
        broken: set[LogId] = set()
        rows = 0
        for raw in entries:
            header: Header | None = None
            try:
                header = decode_header(raw.header)
                checked = self._check(raw, header, broken, report)
                if checked is None:
                    continue
                yield from self._take(checked, report)
            except EntryRefused as error:
                report.refused.append((error.fault, str(error), header))
                if header is not None and error.fault is not EntryFault.BAD_SIGNATURE:
                    broken.add(header.log)
            except EntryHeld as error:
                report.held.append((error.fault, str(error), header))
                if header is not None:
                    broken.add(header.log)
            if header is not None:
                rows += header.rows
                if rows >= self._config.step_rows:
                    rows = 0
                    yield
        patient = contact_seconds < self._config.parked_after_seconds
        yield from self._waiting.drain(patient=patient)

    # --- The checks, in their order ----------------------------------------------------------------------------------

    def _check(self, raw: RawEntry, header: Header, broken: set[LogId], report: IngestReport) -> _Checked | None:
        """None for what is here already. Raises EntryRefused, EntryHeld."""
        size = sum(len(leaf) for leaf in raw.leaves if leaf is not None)
        if len(raw.leaves) > LEAVES_MAX or size > ENTRY_BYTES_MAX:
            raise EntryRefused(EntryFault.TOO_LARGE, f"{_name(header)}: more than 64 leaves or 1 MiB")
        if header.group != self._group:
            raise EntryRefused(EntryFault.BAD_SIGNATURE, f"{_name(header)}: an entry of another group")
        if self._log.find(header.log, header.seq, header.hash) is not None:
            report.duplicate += 1
            return None
        if not verify(header.device, SIGNATURE_PREFIX, raw.header, raw.signature):
            raise EntryRefused(EntryFault.BAD_SIGNATURE, f"{_name(header)}: the signature is not the device's")
        before = self._check_chain(header, broken)
        user = self._check_rights(header, report)
        if before is not None and header.hlc <= before:
            raise EntryRefused(EntryFault.CLOCK_ORDER, f"{_name(header)}: its time is not after the entry's before it")
        self._check_clock(header)
        leaves = self._check_leaves(raw, header)
        self._owned.check(header, user, leaves, self._catalog)
        return _Checked(header, raw.signature, user, leaves)

    def _check_chain(self, header: Header, broken: set[LogId]) -> int | None:
        """The hlc of the entry before; None where this is the first."""
        if header.seq == 1:
            return None
        found = self._log.find(header.log, header.seq - 1, header.prev)
        if found is None:
            reason = "what stands before it was not taken" if header.log in broken else "entries before it are missing"
            raise EntryHeld(EntryFault.GAP, f"{_name(header)}: {reason}")
        return self._log.info(found[0]).hlc

    def _check_rights(self, header: Header, report: IngestReport) -> UserId:
        operations = self._control.operations
        missing = operations.missing(header.control_heads)
        if missing:
            report.missing_control |= missing
            raise EntryHeld(EntryFault.MISSING_CONTROL, f"{_name(header)}: names operations that are missing")
        user = membership.author_of(operations, header.device, header.control_heads)
        if user is None:
            raise EntryRefused(EntryFault.UNKNOWN_DEVICE, f"{_name(header)}: the device is not certified there")
        held = membership.role(operations, user, header.control_heads)
        if held is None or held < membership.Role.WRITER:
            raise EntryRefused(EntryFault.NOT_ALLOWED, f"{_name(header)}: its author was no writer there")
        return user

    def _check_clock(self, header: Header) -> None:
        now = self._now_ms()
        if is_ahead(header.hlc, now, CLOCK_AHEAD_MAX_MS):
            ahead = ((header.hlc >> 16) - now) / 1000
            raise EntryHeld(EntryFault.CLOCK_AHEAD, f"{_name(header)}: {ahead:.0f} s ahead of the clock here")

    def _check_leaves(self, raw: RawEntry, header: Header) -> list[tuple[Leaf, bytes]]:
        if len(raw.leaves) != len(header.leaves):
            raise EntryRefused(EntryFault.BAD_DIGEST, f"{_name(header)}: leaves are missing")
        result = []
        for data, ref in zip(raw.leaves, header.leaves, strict=True):
            if data is None or blake2b_256(data) != ref.digest:
                raise EntryRefused(EntryFault.BAD_DIGEST, f"{_name(header)}: a leaf is missing or not the signed one")
            leaf = decode_leaf(data, ref.rows)
            self._check_declared(header, leaf)
            table = self._catalog.by_id(leaf.table)
            if table is not None:
                check_leaf(table, leaf)
            result.append((leaf, data))
        return result

    def _check_declared(self, header: Header, leaf: Leaf) -> None:
        """By the entry's own past, so that every replica says the same, whatever has arrived there besides."""
        operations, heads = self._control.operations, header.control_heads
        if not membership.declares_all(operations, (leaf.table, *leaf.columns), heads):
            reason = "writes a table or column that its own past does not declare"
            raise EntryRefused(EntryFault.BAD_VALUE, f"{_name(header)}: {reason}")

    # --- Storing -----------------------------------------------------------------------------------------------------

    def _take(self, checked: _Checked, report: IngestReport) -> Generator[None, None, None]:
        header = checked.header
        if header.log == self._own.id:
            report.own_branch = True
            self._own.renew(max(self._meta.published, header.seq - 1))
        branch = self._place(header)
        void = self._log.is_above_cut(header.log, header.seq)
        incarnations = {leaf.id_incarnation for leaf, _ in checked.leaves}
        incarnation = next(iter(incarnations)) if len(incarnations) == 1 else None
        ids = self._log.implied_ids(header, checked.user, incarnation)
        self._causality.add(header, branch)
        stored = [
            StoredLeaf(self._catalog.shape_number(leaf.table, leaf.action, leaf.columns), ref.rows, data)
            for (leaf, data), ref in zip(checked.leaves, header.leaves, strict=True)
        ]
        state = State.VOID if void else self._state(header)
        standing = self._waiting.standing(header, branch.number, state)
        info = self._log.store(
            header, checked.signature, stored, branch=branch, user=checked.user, state=state,
            closed=standing.closed or state in (State.VOID, State.PARKED), ids=ids,
        )  # fmt: skip
        self._clock.observe(header.hlc)
        report.stored.append(header)
        if header.log in self._log.forked:
            self._waiting.recompute_log(header.log)
        if state is State.PARKED:
            self._waiting.park(info.eid, branch.number, header)
        elif state is not State.VOID:
            leaves = [
                written_leaf(self._catalog.shape(of.shape), leaf, of.rows, checked.user, header, checked=True)
                for (leaf, _), of in zip(checked.leaves, stored, strict=True)
            ]
            yield from self._waiting.apply_now(info, header, leaves, standing, ids)

    def _state(self, header: Header) -> State:
        """Whether it can be applied at once. What another entry goes on with waits for that."""
        return State.PARKED if header.flags & Flag.MORE else self._waiting.readiness(header)

    def _place(self, header: Header) -> Branch:
        """The branch that the entry ends; a new one where its place is taken (a fork: the proof is kept)."""
        branches = self._log.logs.get(header.log)
        if branches is None:
            return self._log.root(header.log)
        if header.seq == 1:
            root = branches[0]
            if root.seq == 0:
                return root
            return self._fork(header, root, self._log.hash_at(root.number, 1))
        found = self._log.find(header.log, header.seq - 1, header.prev)
        assert found is not None
        before = self._log.branches[found[1]]
        if before.seq == header.seq - 1:
            return before
        return self._fork(header, before, self._log.hash_at(before.number, header.seq))

    def _fork(self, header: Header, parent: Branch, twin: Hash) -> Branch:
        self._connection.execute(
            "INSERT OR IGNORE INTO _peers_forks VALUES(?,?,?,?,?)", (*header.log, header.seq, twin, header.hash)
        )
        self._causality.load()
        return self._log.add_branch(header.log, parent=parent.number, base=header.seq - 1)


def _name(header: Header) -> str:
    return f"entry {header.seq} of device {short(header.device)}"
