"""Group: what a program holds of one group: its tables, its members, its state.

Everything is local: reads and writes touch this device's file only, and exchange happens beside them.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import trio

from peers.errors import NotAllowed, SchemaRefused, UsageError
from peers.model import schema
from peers.model.ids import GroupId, Hash, UserId
from peers.model.membership import Role, members
from peers.model.operations import Kind
from peers.model.version_vector import VersionVector
from peers.store.capture import Parameters, Result, Rows
from peers.store.declarations import parse_add_column, parse_table
from peers.store.live_query import LiveQuery
from peers.store.table import Table
from peers.store.transaction import Transaction
from peers.store.writer import Execute, IssueOperation, Transact
from peers.sync.data_context import DataContext

T = TypeVar("T")


class Group:
    """One group on this device. Made by `Device`; valid until the device is closed."""

    def __init__(self, context: DataContext, name: str) -> None:
        self._context = context
        self._wanted_name = name

    @property
    def id(self) -> GroupId:
        """BLAKE2b-256 of the group's genesis, 32 bytes."""
        return self._context.group_id

    @property
    def name(self) -> str:
        """The display name that the group's creator gave; before the group arrives, what `join_group` was told."""
        if self.pending or self._context.replica.personal:
            return self._wanted_name
        name: str = self._context.replica.store.operations.genesis.fields[1]
        return name

    @property
    def pending(self) -> bool:
        """Wanted, but not here yet: no member who has granted this user was met."""
        return self._context.pending

    @property
    def role(self) -> Role | None:
        """This user's role now; None while pending."""
        return self._context.replica.my_role

    @property
    def vector(self) -> VersionVector:
        """What this replica holds of every log."""
        return self._context.replica.vector

    @property
    def control_heads(self) -> tuple[Hash, ...]:
        """The heads of the control operations held here."""
        return self._context.replica.control_heads

    def members(self) -> dict[UserId, Role]:
        """Everyone with a role, by this replica's own log."""
        return members(self._context.replica.store.operations)

    async def grant(self, user: UserId, role: Role) -> None:
        """Give a user a role. Raises NotAllowed unless this user's rank is above it."""
        mine = self.role
        if mine is None or mine < Role.ADMIN or mine <= role:
            raise NotAllowed(f"group {self.name}: a {_role_name(mine)} cannot grant {role.name.lower()}; ask the owner")
        await self._issue(Kind.GRANT, (user, int(role), None))

    # --- schema -------------------------------------------------------------------------------------------------------

    def tables(self) -> tuple[schema.Table, ...]:
        """The declared tables under the names by which SQL sees them."""
        return self._context.replica.store.schema.tables

    async def create_table(self, sql: str, *, owned: bool = False) -> schema.Table:
        """Declare a table by plain SQL: ``CREATE TABLE trades(symbol TEXT, qty INTEGER DEFAULT 1)``.

        Without a primary key, or with ``id TEXT PRIMARY KEY``, rows get default ids. Declaring the same table again
        changes nothing.

        Raises:
            SchemaRefused: with what replication cannot carry, and why.
            NotAllowed: the group's schema is changed by admins only.
        """
        table = parse_table(sql, owned=owned)
        known = self._context.replica.store.schema
        if known.by_id(table.id) is not None and _columns(table) <= _columns(known.by_id(table.id)):
            return table
        if known.by_name(table.name) is not None:
            raise SchemaRefused(
                f"table {table.name} is declared already, otherwise: add columns, or choose another name"
            )
        await self._declare(Kind.TABLE, schema.table_to_fields(table))
        return table

    async def add_column(self, sql: str) -> None:
        """``ALTER TABLE trades ADD COLUMN fee REAL DEFAULT 0``: O(1), whatever the number of rows."""
        name, column = parse_add_column(sql)
        table = self._context.replica.store.schema.by_name(name)
        if table is None:
            raise UsageError(f"no table {name} in group {self.name}", code="not_found")
        await self._declare(Kind.COLUMN, schema.column_to_fields(table.id, column, table.generation))

    async def _declare(self, kind: Kind, fields: Sequence[Any]) -> None:
        policy = (
            "admins" if self._context.replica.personal else self._context.replica.store.operations.genesis.fields[2]
        )
        needed = Role.WRITER if policy == "writers" else Role.ADMIN
        if self.role is None or self.role < needed:
            raise NotAllowed(f"group {self.name}: a {_role_name(self.role)} cannot change the schema; ask an admin")
        await self._issue(kind, tuple(fields))

    async def _issue(self, kind: Kind, fields: tuple[Any, ...]) -> None:
        await self._context.replica.writer.ask(IssueOperation(kind, fields, ()))
        await self._context.replica.membership_changed()

    # --- rows ---------------------------------------------------------------------------------------------------------

    async def execute(self, sql: str, parameters: Parameters = ()) -> Result:
        """One SQL statement, written durably and signed before this returns.

        Raises:
            SqlRefused: a statement that replication cannot carry, with the reason.
            NotAllowed: this user is a reader here.
        """
        self._check_writer()
        result: Result = await self._context.replica.writer.ask(Execute(sql, parameters))
        return result

    async def query(self, sql: str, parameters: Parameters = ()) -> Rows:
        """Rows of a SELECT over what is committed here; it neither waits for the writer nor sees half a transaction.

        Raises SqlRefused for what is not one reading statement.
        """
        await trio.lowlevel.checkpoint()
        return self._context.replica.reader.read(sql, parameters)

    async def transact(self, function: Callable[[Transaction], T]) -> T:
        """Run `function(transaction)` as one transaction over any tables; what it returns. It must not await.

        The whole transaction lands, or (when it raises) nothing of it, here and on every replica.
        """
        self._check_writer()
        result: T = await self._context.replica.writer.ask(Transact(function))
        return result

    def table(self, name: str) -> Table:
        """Typed access to one table: save, get, find, delete, restore."""
        return Table(name, self._context.replica.writer, self.watch)

    def watch(self, sql: str, parameters: Parameters = ()) -> LiveQuery:
        """``async for rows in group.watch(sql)``: now, and again whenever a commit changes its rows."""
        return LiveQuery(self._context.replica.store, self._context.replica.feed, sql, parameters)

    async def state_hash(self) -> bytes:
        """32 bytes that are equal on two replicas exactly when they show the same rows, tombstones and conflicts.

        Of what is committed when the computation starts. It runs in small steps: everything else goes on meanwhile.
        """
        replica = self._context.replica
        async with replica.hash_lock:
            known = replica.store.hashing.known
            if known is not None:
                return known
            with contextlib.closing(replica.store.hashing.steps()) as steps:
                while True:
                    try:
                        next(steps)
                    except StopIteration as end:
                        return bytes(end.value)
                    await trio.lowlevel.checkpoint()

    def conflicts(self) -> int:
        """Cells whose concurrent writes differ and that no later write has settled."""
        return self._context.replica.store.conflict_count()

    def status(self) -> dict[str, Any]:
        """As plain values, for `peers status`."""
        described: dict[str, Any] = {
            "id": self.id.hex(),
            "name": self.name,
            "pending": self.pending,
            "role": None if self.role is None else self.role.name.lower(),
        }
        if self.pending:
            return described
        store = self._context.replica.store
        return described | {
            "members": len(self.members()),
            "rows": store.row_counts(),
            "conflicts": store.conflict_count(),
            "entries": sum(store.vector.seq(log) for log in store.vector.heads),
            **store.status(),
            "peers": {device.hex(): link.status() for device, link in self._context.links.items()},
        }

    def _check_writer(self) -> None:
        if not self.pending and (self.role is None or self.role < Role.WRITER):
            raise NotAllowed(f"group {self.name}: a {_role_name(self.role)} cannot write; ask an admin to grant writer")


def _columns(table: schema.Table | None) -> set[bytes]:
    return set() if table is None else {column.id for column in table.columns}


def _role_name(role: Role | None) -> str:
    return "stranger" if role is None else role.name.lower()
