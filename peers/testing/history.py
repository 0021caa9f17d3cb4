"""A history as plain facts: real signed entries, the cut-offs over time, and what the oracle makes of them.

Made by `peers.testing.histories` (random) and `peers.testing.scripted` (by hand).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from peers.model.entries import (
    SALT_BYTES,
    SIGNATURE_PREFIX,
    Dep,
    Flag,
    Header,
    Leaf,
    LeafRef,
    RawEntry,
    encode_header,
    encode_leaf,
)
from peers.model.ids import ZERO_HASH, Hash, LogId, blake2b_256
from peers.model.merge import MergeResult, OracleEntry, merge, read_entry
from peers.testing.group_world import BASE_MS, GroupWorld, WorldDevice

Cutoffs = Mapping[LogId, int | None]
FIRST_WRITE_MS = BASE_MS + 10_000
"""The wall clock when the first entry is written."""


@dataclass(frozen=True)
class HistoryEntry:
    """One entry: as it travels, decoded, and as the oracle sees it."""

    raw: RawEntry
    header: Header
    leaves: tuple[Leaf, ...]
    oracle: OracleEntry

    @property
    def hash(self) -> Hash:
        return self.header.hash


@dataclass(frozen=True)
class History:
    """The facts. `entries` in the order of writing: every entry stands after its chain and its deps."""

    name: str
    world: GroupWorld
    entries: tuple[HistoryEntry, ...]
    cutoffs: tuple[Cutoffs, ...] = ({},)
    """All cut-offs over time, from none to those in force at the end; each names every log that any of them names."""

    @property
    def final_cutoffs(self) -> Cutoffs:
        return self.cutoffs[-1]

    @property
    def now_ms(self) -> int:
        """A wall clock for the replica: after everything in the history."""
        return FIRST_WRITE_MS + 60_000

    def expected(self, entries: Sequence[HistoryEntry] | None = None) -> MergeResult:
        """What the oracle says of these entries (by default of all), under the cut-offs at the end."""
        chosen = self.entries if entries is None else entries
        return merge([entry.oracle for entry in chosen], self.world.schema, self.final_cutoffs)

    def is_void(self, entry: HistoryEntry) -> bool:
        """Whether the entry lies beyond its log's cut-off at the end."""
        return is_above(entry.header.seq, self.final_cutoffs.get(entry.header.log))


def is_above(seq: int, cutoff: int | None) -> bool:
    """Whether an entry lies beyond its log's cut-off."""
    return cutoff is not None and seq > cutoff


def signed_entry(
    world: GroupWorld,
    device: WorldDevice,
    incarnation: bytes,
    *,
    after: HistoryEntry | None,
    hlc: int,
    deps: Sequence[Dep],
    leaves: Sequence[Leaf],
    flags: Flag,
    random_bytes: Callable[[int], bytes],
) -> HistoryEntry:
    """A real entry that stands after `after` in its log."""
    data = tuple(encode_leaf(leaf, random_bytes(SALT_BYTES)) for leaf in leaves)
    header = encode_header(
        group=world.group,
        log=LogId(device.key.public, incarnation),
        seq=1 if after is None else after.header.seq + 1,
        prev=ZERO_HASH if after is None else after.hash,
        hlc=hlc,
        control_heads=world.control_heads,
        deps=tuple(deps),
        leaves=tuple(LeafRef(blake2b_256(d), leaf_rows(leaf)) for d, leaf in zip(data, leaves, strict=True)),
        flags=flags,
    )
    raw = RawEntry(header.raw, device.key.sign(SIGNATURE_PREFIX, header.raw), data)
    return HistoryEntry(raw, header, tuple(leaves), read_entry(header, leaves, world.schema, device.user))


def leaf_rows(leaf: Leaf) -> int:
    """How many rows a leaf has; consecutive ids without values count one."""
    if isinstance(leaf.keys, list):
        return len(leaf.keys[0])
    return len(leaf.values[0]) if leaf.values else 1
