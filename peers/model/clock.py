"""Hybrid logical clock: a uint64 of 48-bit Unix milliseconds (UTC) and a 16-bit counter.

Source: Kulkarni et al., "Logical Physical Clocks" (2014). Writes tick, receipts observe. The wall clock comes in as
an argument in milliseconds. A wall clock that jumps back never moves the HLC back; 65,536 events in one millisecond
carry into the next.
"""

from typing import NamedTuple

COUNTER_BITS = 16
HLC_MAX = (1 << 64) - 1


class Timestamp(NamedTuple):
    """The two fields of an hlc value, for people and tests; everything else carries the packed int."""

    milliseconds: int
    counter: int

    def pack(self) -> int:
        return self.milliseconds << COUNTER_BITS | self.counter


def unpack(hlc: int) -> Timestamp:
    return Timestamp(hlc >> COUNTER_BITS, hlc & (1 << COUNTER_BITS) - 1)


def pack(milliseconds: int, counter: int = 0) -> int:
    return milliseconds << COUNTER_BITS | counter


class HybridClock:
    """The clock of one group on one device. Owned by its table writer."""

    __slots__ = ("last",)

    def __init__(self, last: int = 0) -> None:
        self.last = last

    def tick(self, now_ms: int, count: int = 1) -> int:
        """The first of `count` consecutive new timestamps, greater than all seen and given before."""
        first = max(self.last + 1, now_ms << COUNTER_BITS)
        self.last = first + count - 1
        return first

    def observe(self, hlc: int) -> None:
        """Never give out a timestamp at or below `hlc` again. The caller has checked that it is not ahead."""
        self.last = max(self.last, hlc)


def is_ahead(hlc: int, now_ms: int, ahead_max_ms: int) -> bool:
    """Whether a received timestamp lies more than `ahead_max_ms` after the local wall clock."""
    return hlc >> COUNTER_BITS > now_ms + ahead_max_ms
