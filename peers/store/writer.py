"""TableWriter: the one task that writes a group's file. What has queued goes into one group commit.

Messages (frozen dataclasses), and what an ask of each returns:

    Transact(fn)              what fn(transaction) returns
    Execute, Query            Result, Rows
    Save, SaveColumns         the key, the keys
    Delete, Restore           whether there was such a row
    Ingest(entries)           IngestReport           merges entries of others, in steps
    AddOperations(operations) OperationsReport
    IssueOperation(…)         the Operation
    BeginPublishing, RenewIncarnation, SetCutoffs      None
    Call(fn)                  what fn(store) returns, between two commits

User transactions that wait together share one SQLite transaction, one durable commit and one entry; each has a
savepoint, so a failing one rolls back alone and its error is the answer. Answers are given after the commit: an ask
that returned is durable. A query among them sees what stands before it in the queue. Everything else runs alone,
between group commits. A merge commits or rolls back whole, whoever waits for it.

Errors of Peers and errors of a user's own function are answers; anything else crashes the actor.
"""

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import apsw
import trio

from actors.actor import Actor
from actors.envelope import Envelope
from peers.config import StoreConfig
from peers.errors import DiskFull, PeersError, UsageError
from peers.model.entries import RawEntry
from peers.model.ids import LogId
from peers.model.operations import Kind, Operation, SignedBytes
from peers.store.capture import Parameters
from peers.store.commit_feed import Commit, CommitFeed, Origin
from peers.store.doors import Doors
from peers.store.group_store import GroupStore
from peers.store.journal import Journal
from peers.store.transaction import Transaction, savepoint


@dataclass(frozen=True)
class Transact:
    """`fn` runs inside the commit and must not await."""

    fn: Callable[[Transaction], Any]


@dataclass(frozen=True)
class Execute:
    sql: str
    parameters: Parameters = ()


@dataclass(frozen=True)
class Query:
    sql: str
    parameters: Parameters = ()


@dataclass(frozen=True)
class Save:
    table: str
    row: Mapping[str, Any]


@dataclass(frozen=True)
class SaveColumns:
    """One sequence of values per column; `count` rows, where there is no column."""

    table: str
    columns: Mapping[str, Sequence[Any]]
    count: int | None = None


@dataclass(frozen=True)
class Delete:
    table: str
    key: Any


@dataclass(frozen=True)
class Restore:
    table: str
    key: Any


@dataclass(frozen=True)
class Ingest:
    entries: tuple[RawEntry, ...]
    contact_seconds: float = 0.0
    """How long there has been contact with devices that could have sent what is missing."""


@dataclass(frozen=True)
class AddOperations:
    operations: tuple[SignedBytes, ...]


@dataclass(frozen=True)
class IssueOperation:
    kind: Kind
    fields: tuple[Any, ...]
    enclosed: tuple[Operation, ...] = ()


@dataclass(frozen=True)
class BeginPublishing:
    """Durably note that own entries may leave this device from now on."""


@dataclass(frozen=True)
class RenewIncarnation:
    reason: str


@dataclass(frozen=True)
class SetCutoffs:
    cutoffs: Mapping[LogId, int | None]


@dataclass(frozen=True)
class Call:
    fn: Callable[[GroupStore], Any]


UserMessage = Transact | Execute | Query | Save | SaveColumns | Delete | Restore
Message = UserMessage | Ingest | AddOperations | IssueOperation | BeginPublishing | RenewIncarnation | SetCutoffs | Call
_ALIKE_MIN: Final = 4
"""Saves in a row from which on one bulk insert is cheaper."""
_USER = (Transact, Execute, Query, Save, SaveColumns, Delete, Restore)


class TableWriter(Actor[Message]):
    """Owns the store's writing connection. The store is the maker's to close, after the actor has stopped."""

    batch_max: ClassVar[int] = 256
    replies: ClassVar[tuple[type[Exception], ...]] = (PeersError,)

    def __init__(self, store: GroupStore, feed: CommitFeed, *, config: StoreConfig) -> None:
        self._store = store
        self._feed = feed
        self._config = config
        self._doors = Doors(store)
        self._one_by_one_until = 0

    async def handle_batch(self, batch: list[Envelope[Message]]) -> None:
        commit: list[Envelope[Message]] = []
        for envelope in batch:
            if isinstance(envelope.message, _USER):
                commit.append(envelope)
                if len(commit) == self._config.transactions_per_entry:
                    await self._group_commit(commit)
                    commit = []
                continue
            if commit:
                await self._group_commit(commit)
                commit = []
            try:
                envelope.answer(await self.handle(envelope.message))
            except PeersError as error:
                envelope.fail(error)
        if commit:
            await self._group_commit(commit)

    # Group commits

    async def _group_commit(self, envelopes: Sequence[Envelope[Message]]) -> None:
        journal = Journal(self._doors.reserve)
        answers: list[tuple[Any, BaseException | None]] = []
        self._one_by_one_until = 0
        entries: list[RawEntry] = []
        tables: set[str] = set()
        try:
            with self._store.database.transaction(durable=True), self._doors.journalling(journal):
                number = 0
                while number < len(envelopes):
                    journal.transaction = number
                    together = self._alike(envelopes, number, journal)
                    if together is None:
                        answers.append(await self._one(envelopes[number].message, journal))
                    else:
                        answers += [(key, None) for key in together]
                    number = len(answers)
                for draft, changes, more in journal.entries():
                    entries += self._store.append_own(draft, changes, more=more).entries
                    tables |= {change.table.name for change in changes}
        except PeersError as error:
            for envelope in envelopes:
                envelope.fail(copy.copy(error))
            return
        if entries:
            self._feed.publish(Commit(frozenset(tables), Origin.LOCAL, tuple(entries)))
        for envelope, (value, failure) in zip(envelopes, answers, strict=True):
            if failure is None:
                envelope.answer(value)
            else:
                envelope.fail(failure)

    def _alike(self, envelopes: Sequence[Envelope[Message]], start: int, journal: Journal) -> list[Any] | None:
        """The keys of the new rows that the queue holds from `start` on, saved together; None where they cannot be.

        Rows of one table that name the same columns and no key are one bulk insert. Where any of them is refused,
        they are saved one by one, so that each gets its own answer.
        """
        first = envelopes[start].message
        if start < self._one_by_one_until or not isinstance(first, Save) or "id" in first.row:
            return None
        names = first.row.keys()
        rows = [first.row]
        for envelope in envelopes[start + 1 :]:
            message = envelope.message
            if not isinstance(message, Save) or message.table != first.table or list(message.row) != list(names):
                break
            rows.append(message.row)
        table = self._doors.tables.get(first.table.lower())
        if len(rows) < _ALIKE_MIN or table is None or not table.default_id:
            return None
        transaction = Transaction(self._doors, journal)
        try:
            return transaction.save_alike(first.table, rows)
        except PeersError:
            self._one_by_one_until = start + len(rows)
            return None

    async def _one(self, message: Message, journal: Journal) -> tuple[Any, Exception | None]:
        """(answer, None) or (None, error) of one user transaction, which is rolled back where it fails."""
        connection = self._store.database.connection
        mark = journal.mark()
        transaction = Transaction(self._doors, journal)
        try:
            if isinstance(message, Transact | SaveColumns):
                with savepoint(connection, "peers_transaction"):
                    answer = await self._steps(transaction, message)
                    if journal.broken is not None:  # the function has caught an error that it could not undo
                        raise journal.broken
                    return answer, None
            return self._call(transaction, message), None
        except Exception as error:
            if journal.broken is not None:
                raise journal.broken from error
            if isinstance(error, apsw.Error) and not isinstance(message, Transact):
                raise  # of the file, not of the statement: the whole commit has failed
            if not connection.in_transaction:
                raise DiskFull(f"{self._store.database.path}: SQLite has rolled the commit back: {error}") from error
            journal.cut(mark)
            return None, error
        finally:
            transaction.close()

    async def _steps(self, transaction: Transaction, message: Transact | SaveColumns) -> Any:
        if isinstance(message, SaveColumns):
            keys: list[Any] = []
            for part in transaction.saving(message.table, message.columns, message.count):
                keys += part
                await trio.lowlevel.checkpoint()
            return keys
        result = message.fn(transaction)
        if inspect.iscoroutine(result):
            result.close()
            raise UsageError("transact takes a plain function, not an async one: a transaction never waits")
        return result

    @staticmethod
    def _call(transaction: Transaction, message: Message) -> Any:
        """One call of the transaction: each is all or nothing by itself."""
        match message:
            case Save(table, row):
                return transaction.save(table, row)
            case Execute(sql, parameters):
                return transaction.execute(sql, parameters)
            case Query(sql, parameters):
                return transaction.query(sql, parameters)
            case Delete(table, key):
                return transaction.delete(table, key)
            case Restore(table, key):
                return transaction.restore(table, key)
        raise TypeError(f"no transaction: {message!r}")

    # What runs alone

    async def handle(self, message: Message) -> Any:
        store = self._store
        match message:
            case Ingest():
                return await self._ingest(message)
            case AddOperations(operations):
                report = store.add_operations(operations)
                if report.added:
                    self._membership_changed()
                return report
            case IssueOperation(kind, fields, enclosed):
                operation = store.issue_operation(kind, fields, enclosed=enclosed)
                self._membership_changed()
                return operation
            case BeginPublishing():
                return store.begin_publishing()
            case RenewIncarnation(reason):
                return store.renew_incarnation(reason)
            case SetCutoffs(cutoffs):
                store.set_cutoffs(cutoffs)
                return self._feed.publish(Commit(self._all_tables(), Origin.REMOTE))
            case Call(fn):
                return fn(store)
        raise TypeError(f"no message of the writer: {message!r}")

    async def _ingest(self, message: Ingest) -> Any:
        """In steps. Cancelled between two of them, closing the generator rolls the whole merge back."""
        with closing(self._store.ingest(message.entries, contact_seconds=message.contact_seconds)) as steps:
            while True:
                try:
                    next(steps)
                except StopIteration as end:
                    report = end.value
                    break
                await trio.lowlevel.checkpoint()
        if report.stored or report.tables:
            self._feed.publish(Commit(frozenset(report.tables), Origin.REMOTE))
        return report

    def _membership_changed(self) -> None:
        """Operations may have declared, renamed, un-parked or voided anything: every query looks again."""
        tables = self._all_tables() | {"GroupMembers"}
        self._feed.publish(Commit(tables, Origin.BOTH, schema_changed=True))

    def _all_tables(self) -> frozenset[str]:
        return frozenset(table.name for table in self._store.schema.tables)
