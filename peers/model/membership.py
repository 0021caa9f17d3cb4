"""Who may do what, as a pure function of the set of control operations (docs/PROTOCOL, membership).

Time, hlc and order of arrival never count. Evaluated here are `user`, `group`, `grant` and the personal operations
that others enclose: grants only add, so what an operation is worth follows from its own past and never changes, and
one new operation costs one step. Revocations come behind the same functions.

A principal is a user in a group; in a personal group it is a device key, or the root key, which owns it.
"""

from collections.abc import Iterable
from typing import Any

from peers.model import schema
from peers.model.ids import DeviceId, Hash, UserId
from peers.model.operation_graph import Operations
from peers.model.operations import Kind, Operation, SchemaPolicy, is_consent
from peers.model.operations import Role as Role
from peers.model.schema import Declaration

MEMORY_MAX = 4096
"""Values of heads whose answers are remembered: about the entries of a page of exchange, times four."""


def role(operations: Operations, user: bytes, heads: Iterable[Hash] | None = None) -> Role | None:
    """The role of a principal in P(heads); now, where `heads` is None. O(1) after the first time for a value of heads.

    Raises:
        EntryHeld: missing_control, where a head is not held.
    """
    return operations.derived(_Evaluation).followed().at(heads).role(user)


def author_of(operations: Operations, device: DeviceId, heads: Iterable[Hash] | None = None) -> bytes | None:
    """The principal for whom a device acts in P(heads), or None where no certification of it is there.

    Of two users' certifications the lower user id is the author's. In a personal group: the key itself, if granted.
    Raises EntryHeld as `role`.
    """
    return operations.derived(_Evaluation).followed().at(heads).author(device)


def members(operations: Operations) -> dict[bytes, Role]:
    """Every principal that has a role now."""
    evaluation = operations.derived(_Evaluation).followed()
    now = evaluation.at(None)
    roles = {user: now.role(user) for user in evaluation.principals()}
    return {user: held for user, held in sorted(roles.items()) if held is not None}


def valid_grants(operations: Operations, principal: bytes) -> list[Operation]:
    """The grants of a principal whose authors had the right to give them, at their place; causes first."""
    return list(operations.derived(_Evaluation).followed().granted.get(principal, ()))


def declarations(operations: Operations) -> list[Declaration]:
    """The schema operations whose authors had the right to declare, at their place; causes first."""
    return list(operations.derived(_Evaluation).followed().declared)


def declares(operations: Operations, object_id: bytes, heads: Iterable[Hash] | None = None) -> bool:
    """Whether a valid operation in P(heads) declares the table or column of this id. Raises EntryHeld as `role`.

    What an entry may write is settled by its own past: so every replica judges it alike, whatever it knows besides.
    """
    return declares_all(operations, (object_id,), heads)


def declares_all(operations: Operations, object_ids: Iterable[bytes], heads: Iterable[Hash] | None = None) -> bool:
    """Whether `declares` is true of each of these."""
    return all(map(operations.derived(_Evaluation).followed().at(heads).declares, object_ids))


class _Evaluation:
    """What has been found out about one set of operations; follows it as it grows."""

    def __init__(self, operations: Operations) -> None:
        self.operations = operations
        self.declared: list[Declaration] = []
        self._declarers: dict[bytes, int] = {}  # table or column id -> bits of the operations that declare it
        self._seen = 0
        self._owner: bytes | None = None
        self._grants: dict[bytes, list[tuple[int, Role]]] = {}  # principal -> [(position of a valid grant, role)]
        self.granted: dict[bytes, list[Operation]] = {}
        self._certificates = _Certificates()
        self._views: dict[tuple[Hash, ...], _View] = {}

    def followed(self) -> "_Evaluation":
        """Self, with the operations taken in that were added since."""
        for position, operation in self.operations.tail(self._seen):
            self._seen = position + 1
            self._take(position, operation)
        return self

    def at(self, heads: Iterable[Hash] | None) -> "_View":
        key = self.operations.heads if heads is None else tuple(heads)
        view = self._views.get(key)
        if view is None:
            view = _View(self, self.operations.past_bits(key))
            if len(self._views) >= MEMORY_MAX:
                self._views.clear()
            self._views[key] = view
        return view

    @property
    def personal(self) -> bool:
        return self.operations.genesis.kind is Kind.USER

    def principals(self) -> set[bytes]:
        return {*self._grants, *([] if self._owner is None else [self._owner])}

    def devices(self) -> set[DeviceId]:
        return self._certificates.devices()

    def role_in(self, bits: int, user: bytes) -> Role | None:
        if bits and user == self._owner:
            return Role.OWNER
        return max((given for position, given in self._grants.get(user, ()) if bits >> position & 1), default=None)

    def author_in(self, bits: int, device: DeviceId) -> bytes | None:
        if self.personal:
            return device if self.role_in(bits, device) is not None else None
        return self._certificates.user(bits, device)

    def _take(self, position: int, operation: Operation) -> None:
        self._certificates.take(position, operation.enclosed)
        bits = self.operations.past_bits((operation.id,))
        if operation.kind is Kind.USER:
            self._owner = operation.author
            return
        author = self.author_in(bits, operation.author)
        if operation.kind is Kind.GROUP:
            self._owner = author if author == operation.fields[0] else None
        elif author is not None:
            self._judge(position, operation, self.role_in(bits, author))

    def _judge(self, position: int, operation: Operation, rank: Role | None) -> None:
        """Take in an operation whose author had `rank` in its past. What has no right is inert."""
        match operation.kind:
            case Kind.GRANT:
                self._judge_grant(position, operation, rank)
            case Kind.TABLE | Kind.COLUMN:
                if rank is not None and rank >= self._declaring_role():
                    self._take_declaration(position, _declaration(operation))
            case _:
                pass

    def _take_declaration(self, position: int, declaration: Declaration) -> None:
        self.declared.append(declaration)
        table = declaration.table
        columns = [declaration.column] if table is None else table.columns
        named = [column.id for column in columns if column is not None]
        for object_id in named if table is None else [table.id, *named]:
            self._declarers[object_id] = self._declarers.get(object_id, 0) | 1 << position

    def declared_in(self, bits: int, object_id: bytes) -> bool:
        return bool(self._declarers.get(object_id, 0) & bits)

    def _judge_grant(self, position: int, operation: Operation, rank: Role | None) -> None:
        principal, number, agreed = operation.fields
        given = Role(number)
        # Rank strictly above: the owner makes admins, admins make writers and readers, others nobody.
        if rank is None or rank < Role.ADMIN or rank <= given:
            return
        if self.personal and (agreed is None or not is_consent(principal, operation.group, agreed)):
            return
        self._grants.setdefault(principal, []).append((position, given))
        self.granted.setdefault(principal, []).append(operation)

    def _declaring_role(self) -> Role:
        genesis = self.operations.genesis
        writers = genesis.kind is Kind.GROUP and genesis.fields[2] == SchemaPolicy.WRITERS
        return Role.WRITER if writers else Role.ADMIN


class _View:
    """The answers for one value of heads, each computed once."""

    __slots__ = ("_authors", "_bits", "_declared", "_evaluation", "_roles")

    def __init__(self, evaluation: _Evaluation, bits: int) -> None:
        self._evaluation = evaluation
        self._bits = bits
        self._roles: dict[bytes, Role | None] = {}
        self._authors: dict[DeviceId, bytes | None] = {}
        self._declared: dict[bytes, bool] = {}

    def role(self, user: bytes) -> Role | None:
        if user not in self._roles:
            self._roles[user] = self._evaluation.role_in(self._bits, user)
        return self._roles[user]

    def author(self, device: DeviceId) -> bytes | None:
        if device not in self._authors:
            self._authors[device] = self._evaluation.author_in(self._bits, device)
        return self._authors[device]

    def declares(self, object_id: bytes) -> bool:
        if object_id not in self._declared:
            self._declared[object_id] = self._evaluation.declared_in(self._bits, object_id)
        return self._declared[object_id]


class _Certificates:
    """The personal operations that a group's operations enclose, and which devices they certify where (rule 4).

    A certification counts in P(H) where the grant and its whole personal past are enclosed there and the grant was
    valid in that past.
    """

    def __init__(self) -> None:
        self._logs: dict[UserId, Operations] = {}
        self._waiting: dict[UserId, dict[Hash, Operation]] = {}
        self._carriers: dict[Hash, int] = {}  # personal operation -> bits of the group operations that enclose it
        self._grants: dict[DeviceId, list[Operation]] = {}

    def devices(self) -> set[DeviceId]:
        return set(self._grants)

    def take(self, position: int, enclosed: Iterable[Operation]) -> None:
        users = []
        for operation in enclosed:
            self._carriers[operation.id] = self._carriers.get(operation.id, 0) | 1 << position
            self._waiting.setdefault(operation.group, {})[operation.id] = operation
            users.append(operation.group)
        for user in users:
            self._grow(user)

    def user(self, bits: int, device: DeviceId) -> UserId | None:
        """The lowest user for whom a certification of the device is enclosed in the operations `bits`."""
        return min((grant.group for grant in self._grants.get(device, ()) if self._is_here(bits, grant)), default=None)

    def _grow(self, user: UserId) -> None:
        log = self._logs.setdefault(user, Operations(group=user))
        before = len(log)
        left = log.add_all(self._waiting.pop(user, {}).values())
        if left:
            self._waiting[user] = {operation.id: operation for operation in left}
        for _, operation in log.tail(before):
            if operation.kind is Kind.GRANT and operation in valid_grants(log, operation.fields[0]):
                self._grants.setdefault(operation.fields[0], []).append(operation)

    def _is_here(self, bits: int, grant: Operation) -> bool:
        past = self._logs[grant.group].past((grant.id,))
        return all(self._carriers[identifier] & bits for identifier in past)


def _declaration(operation: Operation) -> Declaration:
    fields: tuple[Any, ...] = operation.fields
    if operation.kind is Kind.TABLE:
        return Declaration(operation.hlc, operation.id, table=schema.table_from_fields(fields))
    table_id, column = schema.column_from_fields(fields)
    return Declaration(operation.hlc, operation.id, table_id=table_id, column=column)
