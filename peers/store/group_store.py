"""One group on disk: the facade of the store. Everything is synchronous and inline; the table writer calls it.

Calls that write on behalf of a door (`reserve_entry`, `append_own`) run inside the writer's open
`database.transaction(durable=True)`; the others open their own. After anything that raised, what is held in memory is
read anew from the file when it is next needed.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peers.config import CLOCK_AHEAD_MAX_MS, StoreConfig
from peers.errors import NotAllowed, NotFound
from peers.model import membership
from peers.model.clock import HybridClock, is_ahead
from peers.model.entries import RawEntry
from peers.model.ids import INCARNATION_BYTES, GroupId, Hash, LogId
from peers.model.membership import Role
from peers.model.operation_graph import Operations
from peers.model.operations import Kind, Operation, SignedBytes, decode_operation, sign_operation
from peers.model.schema import Schema
from peers.model.version_vector import VersionVector
from peers.store import apply as apply_module
from peers.store import views
from peers.store.apply import Apply
from peers.store.catalog import Catalog
from peers.store.causality import Causality
from peers.store.change_log import ChangeLog, from_sql_u64
from peers.store.control_log import ControlLog, OperationsReport
from peers.store.cutoffs import Cutoffs
from peers.store.database import Database, fetch_all
from peers.store.ingest import Ingest, IngestReport
from peers.store.meta import Meta
from peers.store.own_change import Appended, EntryDraft, OwnChange
from peers.store.own_log import Author as Author
from peers.store.own_log import OwnLog
from peers.store.pages import Page, Pages
from peers.store.reports import Reports
from peers.store.rows import LocalTable
from peers.store.state_hash import StateHash
from peers.store.waiting import Waiting


class GroupStore:
    """A group's file, open for writing as one device. Made by `create` or `open`."""

    def __init__(
        self,
        database: Database,
        meta: Meta,
        *,
        author: Author,
        now_ms: Callable[[], int],
        random_bytes: Callable[[int], bytes],
        config: StoreConfig,
    ) -> None:
        connection = database.connection
        group = meta.group
        self.database = database
        self.author = author
        self.group_id: GroupId = group
        self.clock = HybridClock()
        self._now_ms = now_ms
        self._random_bytes = random_bytes
        self._config = config
        self._meta = meta
        self.catalog = Catalog(connection)
        self._log = ChangeLog(connection)
        self._causality = Causality(connection, self._log)
        self._control = ControlLog(connection, self.catalog, self._log, group)
        self._apply = Apply(connection, self.catalog, self._log, self._causality, config)
        self._waiting = Waiting(connection, self.catalog, self._log, self._causality, self._apply)
        self._own = OwnLog(
            connection, self.catalog, self._log, self._causality, self._apply, meta,
            group=group, author=author, clock=self.clock, now_ms=now_ms, random_bytes=random_bytes,
        )  # fmt: skip
        self._ingest = Ingest(
            connection, self.catalog, self._log, self._causality, self._control, self._waiting, self._own, meta,
            group=group, clock=self.clock, now_ms=now_ms, config=config,
        )  # fmt: skip
        self._cutoffs = Cutoffs(connection, self._log, self._waiting)
        self._pages = Pages(connection, self._log)
        self.hashing = StateHash(database, self.catalog, config)
        self._reports = Reports(connection, self.catalog, self._waiting)
        self._dirty = False
        """Whether memory may be ahead of what is committed."""
        self._committed = VersionVector()
        database.on_begin = self._before_transaction
        database.on_rollback = self._rolled_back

    # --- Making and opening ------------------------------------------------------------------------------------------

    @staticmethod
    def create(
        path: Path | str,
        operations: Sequence[SignedBytes],
        *,
        author: Author,
        now_ms: Callable[[], int],
        random_bytes: Callable[[int], bytes],
        config: StoreConfig,
        nonce: bytes,
    ) -> "GroupStore":
        """A new file for the group whose genesis is the first of `operations`."""
        group = decode_operation(*operations[0]).group
        database = Database(path, config, create=True)
        meta = Meta(database.connection, database.path)
        with database.transaction(durable=True) as connection:
            meta.create(group=group, nonce=nonce, incarnation=random_bytes(INCARNATION_BYTES))
            Catalog.create(connection)
            ChangeLog.create(connection)
            ControlLog.create(connection)
            for statement in (*apply_module.DDL, views.CHANGES):
                connection.execute(statement)
            views.create_views(connection, ())
        store = GroupStore(
            database, meta, author=author, now_ms=now_ms, random_bytes=random_bytes, config=config
        )  # fmt: skip
        store._load()
        report = store.add_operations(operations)
        if report.refused:
            store.close()
            raise NotFound(f"{path}: the group's first operations are damaged: {report.refused[0][1]}")
        return store

    @staticmethod
    def open(
        path: Path | str,
        *,
        author: Author,
        now_ms: Callable[[], int],
        random_bytes: Callable[[int], bytes],
        config: StoreConfig,
        nonce: bytes | None,
        group_id: GroupId | None = None,
    ) -> "GroupStore":
        """An existing file. Where `nonce` (device.db's) is not the file's, one of them is a copy: new incarnation.

        The file takes the given nonce over; where none is given it makes one (`store.nonce`), to be kept in device.db.
        Raises DatabaseCorrupt, DatabaseLocked; NotFound where the file is another group's.
        """
        database = Database(path, config, create=False)
        try:
            meta = Meta(database.connection, database.path)
            with database.errors():
                meta.load()
            if group_id is not None and meta.group != group_id:
                raise NotFound(f"{path}: the file of another group; move it away")
            store = GroupStore(
                database, meta, author=author, now_ms=now_ms, random_bytes=random_bytes, config=config
            )  # fmt: skip
            with database.errors():
                store._load()
            if nonce is None or nonce != meta.nonce:
                with store._transaction(durable=True):
                    store._own.renew(meta.published)
                    meta.set_nonce(nonce if nonce is not None else random_bytes(INCARNATION_BYTES))
        except BaseException:
            database.close()
            raise
        return store

    def close(self) -> None:
        self.database.close()

    def _load(self) -> None:
        """Read what is held in memory anew: at the start, and after a rollback."""
        self._meta.load()
        self._log.load()
        self._causality.load()
        self.catalog.load(self._control.load())
        self._apply.load()
        self._waiting.load()
        self._own.load()
        row = self.database.connection.execute("SELECT max(hlc) FROM _peers_entry").get
        self.clock.observe(0 if row is None else from_sql_u64(row))
        now = self._now_ms()
        for operation in self.operations:
            if not is_ahead(operation.hlc, now, CLOCK_AHEAD_MAX_MS):
                self.clock.observe(operation.hlc)

    def _flush(self) -> None:
        self._log.flush()
        self.catalog.flush()

    @contextmanager
    def _transaction(self, *, durable: bool) -> Iterator[None]:
        """A transaction in which memory moves with the file."""
        with self.database.transaction(durable=durable):
            self._dirty = True
            self._apply.touched = set()
            yield
            self._flush()
        self._dirty = False

    def _rolled_back(self) -> None:
        if self._dirty:
            self._dirty = False
            self._load()

    # --- What is held ------------------------------------------------------------------------------------------------

    @property
    def operations(self) -> Operations:
        return self._control.operations

    @property
    def schema(self) -> Schema:
        return self.catalog.schema

    @property
    def vector(self) -> VersionVector:
        """What is committed of every log: while a merge is under way, what was committed before it began."""
        if not self.database.connection.in_transaction:
            self._committed = self._log.vector
        return self._committed

    def _before_transaction(self) -> None:
        self._committed = self._log.vector

    def holds(self, log: LogId, seq: int, digest: Hash) -> bool:
        """Whether this very entry is stored here, on whatever branch."""
        with self.database.errors():
            return self._log.find(log, seq, digest) is not None

    @property
    def digest(self) -> Hash:
        """What the one-minute comparison exchanges."""
        return self.vector.digest(self.operations.heads)

    @property
    def own_log(self) -> LogId:
        return self._own.id

    @property
    def nonce(self) -> bytes:
        return self._meta.nonce

    def role(self, user: bytes | None = None) -> Role | None:
        """This device's user's role, or another principal's. None where he has none."""
        return membership.role(self.operations, self.author.user if user is None else user)

    def table(self, name: str) -> LocalTable:
        """Raises NotFound."""
        table = self.catalog.by_name.get(name.lower())
        if table is None:
            raise NotFound(f"table {name}: not declared in this group")
        return table

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Rows of a SELECT, as last committed. For the program itself; users' SQL goes through the door."""
        database = self.database
        with database.errors():
            reader = database.connection if database.path == ":memory:" else database.shared_reader
            return fetch_all(reader, sql, parameters)

    # --- Control operations ------------------------------------------------------------------------------------------

    def add_operations(self, signed: Iterable[SignedBytes]) -> OperationsReport:
        """Store operations of anybody; new declarations become tables, and what waited for them is applied."""
        return self._add_operations(list(signed), durable=False)

    def _add_operations(self, signed: list[SignedBytes], *, durable: bool) -> OperationsReport:
        with self._transaction(durable=durable):
            report = self._control.add(signed)
            if report.added:
                self._declare(report)
        now = self._now_ms()
        for operation in report.added:
            if not is_ahead(operation.hlc, now, CLOCK_AHEAD_MAX_MS):
                self.clock.observe(operation.hlc)
        return report

    def _declare(self, report: OperationsReport) -> None:
        parked = self.catalog.parked_shapes()
        changed = self._control.apply_schema(report.added)
        if changed:
            views.create_views(self.database.connection, self.catalog.by_number.values())
            self._waiting.recompute_shapes([n for n in parked if self.catalog.shape(n).tid in changed])
            for _ in self._apply.finish():
                pass
        report.tables = frozenset(self.catalog.by_number[tid].name for tid in changed)

    def issue_operation(self, kind: Kind, fields: Sequence[Any], enclosed: Sequence[Operation] = ()) -> Operation:
        """Sign an operation of this device, store it durably, return it."""
        operation = sign_operation(
            self.author.device_key,
            group=self.group_id,
            kind=kind,
            parents=self.operations.heads,
            hlc=self.clock.tick(self._now_ms()),
            enclosed=enclosed,
            fields=fields,
        )
        self._add_operations([operation.signed], durable=True)
        return operation

    def operations_since(self, heads: Iterable[Hash]) -> list[SignedBytes]:
        """What somebody who holds P(heads) lacks, causes first."""
        return [operation.signed for operation in self.operations.since(heads)]

    # --- Entries of others -------------------------------------------------------------------------------------------

    def entries_since(self, vector: VersionVector, limit_bytes: int) -> Page:
        """A page of what somebody who holds `vector` lacks, causes before effects. Only what is committed."""
        with self.database.errors():
            return self._pages.since(vector, limit_bytes, committed=self.vector)

    def ingest(
        self, entries: Sequence[RawEntry], *, contact_seconds: float = 0.0
    ) -> Generator[None, None, IngestReport]:
        """Take entries in: one SQLite transaction, yielding between steps; closing the generator rolls it back.

        `contact_seconds`: for how long what waits has been asked for in vain; from `parked_after_seconds` on, entries
        that wait only for a dep are applied. May be called without entries for that alone.
        """
        report = IngestReport()
        with self._transaction(durable=False):
            yield from self._ingest.ingest(entries, report, contact_seconds=contact_seconds)
            yield from self._apply.finish()
        report.tables = frozenset(self.catalog.by_number[tid].name for tid in self._apply.touched)
        report.parked = len(self._waiting.parked)
        self._reports.keep_problems(report)
        return report

    def set_cutoffs(self, cutoffs: Mapping[LogId, int | None]) -> None:
        """Effective cut-offs of logs: the last seq that counts, None for no limit. What they change is recomputed."""
        with self._transaction(durable=False):
            for _ in self._cutoffs.set(cutoffs):
                pass
            for _ in self._apply.finish():
                pass
            if self._own.is_cut:
                self._own.renew(self._own.branch.seq)

    # --- Own entries -------------------------------------------------------------------------------------------------

    def check_writer(self) -> None:
        """Raises NotAllowed unless this device may write now."""
        heads = self.operations.heads
        user = membership.author_of(self.operations, self.author.device_key.public, heads)
        held = membership.role(self.operations, self.author.user)
        if user != self.author.user or held is None or held < Role.WRITER:
            raise NotAllowed("you are not a writer of this group; ask an admin")

    def reserve_entry(self) -> EntryDraft:
        """A timestamp and row ids for the next own entry. Inside the writer's transaction."""
        if self._own.is_cut:
            self._dirty = True
            self._own.renew(self._own.branch.seq)
        return self._own.reserve()

    def append_own(self, draft: EntryDraft, changes: Sequence[OwnChange], *, more: bool = False) -> Appended:
        """Write log and side tables for what the doors changed. Inside the writer's transaction, which must roll back
        where this raises. `more`: the transaction goes on in the next entry."""
        self._dirty = True
        appended = self._own.append(draft, changes, self.operations.heads, more=more)
        self._flush()
        return appended

    @property
    def publishing(self) -> bool:
        """Whether own entries may be sent: each own commit notes so itself from then on."""
        return self._own.publishing

    def begin_publishing(self) -> None:
        """From now on own entries may be sent: durably noted before the first is."""
        with self._transaction(durable=True):
            self._meta.set_published(self._own.branch.seq)
        self._own.publishing = True

    def renew_incarnation(self, reason: str) -> None:
        """Go on in a new log; own entries that were never published are re-signed there. `reason` is for the record."""
        with self._transaction(durable=True):
            self._own.renew(self._meta.published)
            self._meta.note("renewed", reason)

    # --- Reports -----------------------------------------------------------------------------------------------------

    def state_hash(self) -> Hash:
        """Over all retained rows, tombstones and conflict sets, as last committed. At once: it may take seconds."""
        return self.hashing.now()

    def conflict_count(self) -> int:
        """Cells whose maximal writes say different things."""
        return self._reports.conflict_count()

    def row_counts(self) -> dict[str, int]:
        """Visible rows by table."""
        return self._reports.row_counts()

    def status(self) -> dict[str, Any]:
        """What waits and what was not taken, counted."""
        return self._reports.status()
