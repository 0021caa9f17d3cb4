"""Slots: which group a call on a connection is about. Pure.

A slot is a route in one direction: `group_ready(slot, group)` says "calls of mine on this slot are about that group".
The dialler numbers its slots odd, the listener even; a number is never reused in a connection. After the offers no
group id travels, so a peer that guesses numbers learns nothing: an unknown slot and a forbidden one answer alike.
"""

from peers.errors import ProtocolError, WireFault
from peers.model.ids import GroupId

ROUTES_MAX = 100_000
"""Routes that a peer may open in one connection: hundreds of groups, opened and closed hundreds of times."""


class SlotTable:
    """The routes of one connection, both directions."""

    __slots__ = ("_inbound", "_inbound_parity", "_inbound_used", "_next", "_outbound")

    def __init__(self, *, dialled: bool) -> None:
        self._next = 1 if dialled else 2
        self._inbound_parity = 0 if dialled else 1
        self._outbound: dict[GroupId, int] = {}
        self._inbound: dict[int, GroupId] = {}
        self._inbound_used: set[int] = set()

    def take(self) -> int:
        """A fresh number for a route that I want to open."""
        slot = self._next
        self._next += 2
        return slot

    def opened(self, slot: int, group: GroupId) -> None:
        """The peer accepted my route."""
        self._outbound[group] = slot

    def outbound(self, group: GroupId) -> int | None:
        return self._outbound.get(group)

    def outbound_groups(self) -> dict[GroupId, int]:
        return dict(self._outbound)

    def close_outbound(self, group: GroupId) -> int | None:
        return self._outbound.pop(group, None)

    def use(self, slot: int) -> None:
        """The peer names a number for a new route, which uses it up, whatever the answer is.

        Raises ProtocolError for a number of my parity or one used before.
        """
        if slot % 2 != self._inbound_parity or slot in self._inbound_used or len(self._inbound_used) >= ROUTES_MAX:
            raise ProtocolError(WireFault.PROTOCOL, f"slot {slot} is not the peer's to open")
        self._inbound_used.add(slot)

    def accept(self, slot: int, group: GroupId) -> None:
        """From now on calls on this slot, which the peer may `use`, are about the group."""
        self._inbound = {known: other for known, other in self._inbound.items() if other != group}
        self._inbound[slot] = group

    def inbound(self, slot: int) -> GroupId | None:
        """The group that a call of the peer on `slot` is about; None where there is no such route."""
        return self._inbound.get(slot)

    def close_inbound(self, slot: int) -> None:
        self._inbound.pop(slot, None)
