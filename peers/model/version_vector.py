"""Version vectors: what a replica holds of every log.

`{log: ((seq, head hash), …)}`; several heads only where a device equivocated (a fork). A replica's own vector is built
only from entries that it verified and stored; a vector that a peer claims only chooses whom to ask.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from peers.model import codec
from peers.model.codec import BadEncoding
from peers.model.ids import INCARNATION_BYTES, KEY_BYTES, Hash, LogId, blake2b_256

SEQ_MAX = (1 << 53) - 1
LOGS_MAX = 20_000
"""Logs of a claimed vector: bounds what a peer can make us hold."""


class Head(NamedTuple):
    """The last entry of a branch of a log."""

    seq: int
    hash: Hash


@dataclass(frozen=True)
class VersionVector:
    """Heads of every log, sorted by (seq, hash) within a log. Equality is exact: the same entries."""

    heads: Mapping[LogId, tuple[Head, ...]] = field(default_factory=dict)

    def seq(self, log: LogId) -> int:
        """The highest seq held of a log; 0 for none."""
        heads = self.heads.get(log)
        return heads[-1].seq if heads else 0

    def covers(self, other: "VersionVector") -> bool:
        """Whether each head of `other` is a head here or lies below the single head here."""
        return not self.behind(other)

    def behind(self, other: "VersionVector") -> set[LogId]:
        """The logs of which `other` has a head that is not held here, as far as heads can tell."""
        return {log for log, theirs in other.heads.items() if self._lacks(log, theirs)}

    def _lacks(self, log: LogId, theirs: tuple[Head, ...]) -> bool:
        mine = self.heads.get(log, ())
        if not mine:
            return True
        if len(theirs) > len(mine):
            return True
        # A head below all of mine may be their common past: only the entries themselves could tell.
        return any(head not in mine and head.seq >= mine[0].seq for head in theirs)

    def count_missing(self, other: "VersionVector") -> int:
        """How many entries `other` has beyond this vector, not counting fork branches."""
        return sum(max(0, other.seq(log) - self.seq(log)) for log in other.heads)

    def joined(self, other: "VersionVector") -> "VersionVector":
        """The pointwise greater of two claims; where seqs are equal and hashes differ, both heads."""
        result = dict(self.heads)
        for log, theirs in other.heads.items():
            mine = result.get(log, ())
            top = max([head.seq for head in (*mine, *theirs)], default=0)
            result[log] = tuple(sorted({head for head in (*mine, *theirs) if head.seq == top}))
        return VersionVector(result)

    def to_wire(self) -> list[Any]:
        return [
            [log.device, log.incarnation, [list(head) for head in heads]] for log, heads in sorted(self.heads.items())
        ]

    @staticmethod
    def from_wire(value: Any) -> "VersionVector":
        """Raises BadEncoding unless `value` has the shape that `to_wire` gives, sorted and without repeats."""
        if not isinstance(value, list) or len(value) > LOGS_MAX:
            raise BadEncoding("a version vector is an array of at most 20,000 logs")
        heads: dict[LogId, tuple[Head, ...]] = {}
        before: LogId | None = None
        for item in value:
            if not isinstance(item, list) or len(item) != 3:
                raise BadEncoding("a vector's item is [device, incarnation, heads]")
            device, incarnation, pairs = item
            if not _is_bytes(device, KEY_BYTES) or not _is_bytes(incarnation, INCARNATION_BYTES):
                raise BadEncoding("a log is named by 32 + 8 bytes")
            log = LogId(device, incarnation)
            if before is not None and log <= before:
                raise BadEncoding("logs of a vector are sorted")
            before = log
            heads[log] = _read_heads(pairs)
        return VersionVector(heads)

    def digest(self, control_heads: Iterable[Hash] = ()) -> Hash:
        """What the one-minute comparison exchanges."""
        return blake2b_256(codec.dumps([self.to_wire(), sorted(control_heads)]))


def _read_heads(pairs: Any) -> tuple[Head, ...]:
    if not isinstance(pairs, list) or not 1 <= len(pairs) <= 64:
        raise BadEncoding("a log has 1 to 64 heads")
    heads = []
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2:
            raise BadEncoding("a head is [seq, hash]")
        seq, digest = pair
        if type(seq) is not int or not 1 <= seq <= SEQ_MAX or not _is_bytes(digest, KEY_BYTES):
            raise BadEncoding("a head is [seq, hash]")
        heads.append(Head(seq, digest))
    if heads != sorted(set(heads)):
        raise BadEncoding("heads are sorted")
    return tuple(heads)


def _is_bytes(value: Any, size: int) -> bool:
    return type(value) is bytes and len(value) == size
