"""The group's control operations in its file: verbatim bytes, the set in memory, and what follows from them.

New declarations become tables and columns here, and `GroupMembers` shows who is in. An operation whose past is not held
is not stored; it comes again.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import apsw

from peers.errors import EntryFault, OperationRefused
from peers.model import membership
from peers.model.ids import GroupId, Hash
from peers.model.operation_graph import Operations
from peers.model.operations import Kind, Operation, SignedBytes, decode_operation, decode_stored
from peers.model.schema import Schema, schema_of
from peers.store.catalog import Catalog
from peers.store.change_log import ChangeLog

DDL = (
    "CREATE TABLE _peers_control(n INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, op BLOB NOT NULL, sig BLOB NOT NULL)",
    "CREATE TABLE GroupMembers(user_id BLOB PRIMARY KEY, role TEXT NOT NULL) WITHOUT ROWID",
)


@dataclass(slots=True)
class OperationsReport:
    """What became of operations."""

    added: list[Operation] = field(default_factory=list)
    held: list[Hash] = field(default_factory=list)
    """Ids of operations whose past is not here."""
    missing: set[Hash] = field(default_factory=set)
    """What to ask for: parents that nobody has sent."""
    refused: list[tuple[EntryFault, str]] = field(default_factory=list)
    tables: frozenset[str] = frozenset()
    """Tables that are new, or have new columns."""


class ControlLog:
    """Operations of one group. `apply_schema` is to be called once after `add` and after `load`."""

    def __init__(self, connection: apsw.Connection, catalog: Catalog, log: ChangeLog, group: GroupId) -> None:
        self._connection = connection
        self._catalog = catalog
        self._log = log
        self._group = group
        self.operations = Operations(group=group)

    @staticmethod
    def create(connection: apsw.Connection) -> None:
        for statement in DDL:
            connection.execute(statement)

    def load(self) -> Schema:
        """Read the operations anew; returns the schema that they declare, which the file follows already."""
        self.operations = Operations(group=self._group)
        for raw, signature in self._connection.execute("SELECT op, sig FROM _peers_control ORDER BY n"):
            self.operations.add(decode_stored(raw, signature))
        return self._schema()

    def _schema(self) -> Schema:
        return schema_of(membership.declarations(self.operations)) if len(self.operations) else Schema()

    def add(self, signed: Iterable[SignedBytes]) -> OperationsReport:
        """Store operations, in whatever order they come."""
        report = OperationsReport()
        waiting = []
        for raw, signature in signed:
            try:
                operation = decode_operation(raw, signature)
                if operation.group != self._group:
                    raise OperationRefused(EntryFault.BAD_SIGNATURE, "an operation of another group")
            except OperationRefused as error:
                report.refused.append((error.fault, str(error)))
            else:
                waiting.append(operation)
        before = len(self.operations)
        left = self.operations.add_all(waiting)
        for _, operation in self.operations.tail(before):
            self._connection.execute(
                "INSERT INTO _peers_control(id, op, sig) VALUES(?,?,?)",
                (operation.id, operation.raw, operation.signature),
            )
            report.added.append(operation)
        report.held = [operation.id for operation in left]
        named = {parent for operation in left for parent in operation.parents}
        report.missing = self.operations.missing(named) - {operation.id for operation in left}
        return report

    def apply_schema(self, added: Iterable[Operation]) -> set[int]:
        """Make tables and members follow what was added. Returns the numbers of tables that are new or have grown."""
        kinds = {operation.kind for operation in added}
        if kinds - {Kind.TABLE, Kind.COLUMN}:
            self._write_members()
        return self._catalog.declare(self._schema(), self._log.next_eid) if kinds else set()

    def _write_members(self) -> None:
        self._connection.execute("DELETE FROM GroupMembers")
        self._connection.executemany(
            "INSERT INTO GroupMembers VALUES(?,?)",
            [(user, role.name.lower()) for user, role in membership.members(self.operations).items()],
        )
