"""The set of control operations of one group: a DAG linked by hashes, of which only whole pasts are held.

Grows only. Everything that is derived from it (roles, schema) is a function of the set, never of the order of arrival;
`derived` is where such functions keep what they have computed so far. Knows nothing of what operations mean.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from peers.errors import EntryFault, EntryHeld, OperationRefused
from peers.model.ids import GroupId, Hash
from peers.model.operations import Operation

D = TypeVar("D")


class Operations:
    """The operations of one group, in an order in which causes come first.

    `group` may be given before the genesis arrives; otherwise the first genesis decides it.
    """

    def __init__(self, operations: Iterable[Operation] = (), *, group: GroupId | None = None) -> None:
        self.group = group
        self._index: dict[Hash, int] = {}
        self._list: list[Operation] = []
        self._past: list[int] = []  # bit i of item j: operation i is j or in the past of j
        self._head_set: set[Hash] = set()
        self._heads: tuple[Hash, ...] | None = ()  # None: to be sorted anew
        self._derived: dict[Callable[..., Any], Any] = {}
        for operation in operations:
            self.add(operation)

    @property
    def heads(self) -> tuple[Hash, ...]:
        """The operations that no other names as a parent, sorted."""
        if self._heads is None:
            self._heads = tuple(sorted(self._head_set))
        return self._heads

    @property
    def genesis(self) -> Operation:
        """The first operation. Raises EntryHeld(missing_control) while it is not held."""
        if not self._list:
            raise EntryHeld(EntryFault.MISSING_CONTROL, "the group's genesis is not here yet")
        return self._list[0]

    def add(self, operation: Operation) -> bool:
        """Whether the operation is new here and now held. False where it was held, or its past is not (`missing`).

        Raises:
            OperationRefused: it belongs to another group.
        """
        if self.group is not None and operation.group != self.group:
            raise OperationRefused(EntryFault.BAD_SIGNATURE, "an operation of another group")
        if operation.id in self._index or any(parent not in self._index for parent in operation.parents):
            return False
        position = len(self._list)
        past = 1 << position
        for parent in operation.parents:
            past |= self._past[self._index[parent]]
        self.group = operation.group
        self._index[operation.id] = position
        self._list.append(operation)
        self._past.append(past)
        self._head_set.difference_update(operation.parents)
        self._head_set.add(operation.id)
        self._heads = None
        return True

    def add_all(self, operations: Iterable[Operation]) -> list[Operation]:
        """Add operations in whatever order they come; returns those whose past is not held even with all the rest."""
        waiting = list(operations)
        while True:
            left = [item for item in waiting if not self.add(item) and item.id not in self._index]
            if len(left) == len(waiting):
                return left
            waiting = left

    def get(self, identifier: Hash) -> Operation | None:
        position = self._index.get(identifier)
        return None if position is None else self._list[position]

    def missing(self, identifiers: Iterable[Hash]) -> set[Hash]:
        """Those of the ids that are not held."""
        return {identifier for identifier in identifiers if identifier not in self._index}

    def past_bits(self, heads: Iterable[Hash]) -> int:
        """P(heads) as a set of bits: bit i stands for the i-th operation here.

        Raises:
            EntryHeld: missing_control, where a head is not held.
        """
        bits = 0
        for head in heads:
            position = self._index.get(head)
            if position is None:
                raise EntryHeld(EntryFault.MISSING_CONTROL, f"control operation {head[:4].hex()}… is not here yet")
            bits |= self._past[position]
        return bits

    def past(self, heads: Iterable[Hash]) -> frozenset[Hash]:
        """P(heads): the heads and everything reachable by parents. Raises EntryHeld as `past_bits`."""
        bits = self.past_bits(heads)
        return frozenset(item.id for position, item in enumerate(self._list) if bits >> position & 1)

    def since(self, heads: Iterable[Hash]) -> list[Operation]:
        """What somebody who holds P(heads) lacks, causes first. Heads that are unknown here are ignored."""
        known = self.past_bits(head for head in heads if head in self._index)
        return [item for position, item in enumerate(self._list) if not known >> position & 1]

    def tail(self, start: int) -> Iterator[tuple[int, Operation]]:
        """(position, operation) of those added from `start` on: what a derived function has not seen yet."""
        for position in range(start, len(self._list)):
            yield position, self._list[position]

    def derived(self, make: Callable[["Operations"], D]) -> D:
        """What `make` returned for this set, made once. It must follow later additions itself (`tail`)."""
        if make not in self._derived:
            self._derived[make] = make(self)
        result: D = self._derived[make]
        return result

    def __contains__(self, identifier: object) -> bool:
        return identifier in self._index

    def __len__(self) -> int:
        return len(self._list)

    def __iter__(self) -> Iterator[Operation]:
        """Causes first."""
        return iter(self._list)
