"""What to exchange: decisions about vectors, as pure functions.

A cursor is a claim about what a peer holds, or a guess at what I shall hold once the pages in flight are stored. It
only chooses what to ask or send next; what a replica *is* comes from its store alone.
"""

from collections.abc import Callable, Iterable

from peers.errors import EntryRefused
from peers.model.entries import Header, RawEntry, decode_header
from peers.model.ids import DeviceId, Hash, LogId, blake2b_256
from peers.model.operations import SignedBytes
from peers.model.version_vector import Head, VersionVector

HEADS_TOLD_MAX = 64
"""Control heads sent with a cursor while operations are still in flight."""


def advanced(cursor: VersionVector, entries: Iterable[RawEntry]) -> VersionVector:
    """The cursor after these entries, as far as their headers can be read; the rest is left to ingest to refuse."""
    heads = dict(cursor.heads)
    for entry in entries:
        try:
            header = decode_header(entry.header)
        except EntryRefused:
            continue
        heads[header.log] = _after(heads.get(header.log, ()), header)
    return VersionVector(heads)


def _after(heads: tuple[Head, ...], header: Header) -> tuple[Head, ...]:
    top = Head(header.seq, header.hash)
    if top in heads:
        return heads
    others = tuple(head for head in heads if head.hash != header.prev)
    if len(others) == len(heads) and heads and header.seq > heads[-1].seq:
        return (top,)  # a stretch of the log that is not in the page: what precedes it is held or asked for again
    return tuple(sorted((*others, top)))


def own_logs_disputed(
    claimed: VersionVector, device: DeviceId, holds: Callable[[LogId, int, Hash], bool]
) -> frozenset[LogId]:
    """The logs of *my* device of which a peer claims an entry that I do not hold: fetch them before anything is sent.

    A restored backup, a lost WAL or a lying disk looks like this, also where I have written more since than was lost:
    so the entries themselves are compared, not how many there are. A lie is found out because only my own signature
    proves such an entry.
    """
    return frozenset(
        log
        for log, heads in claimed.heads.items()
        if log.device == device and not all(holds(log, head.seq, head.hash) for head in heads)
    )


def pull_cursor(mine: VersionVector, disputed: Iterable[LogId]) -> VersionVector:
    """Where a pull begins. Of a disputed log it names nothing: the peer would take mine for a longer one of the same
    chain, and send nothing."""
    without = set(disputed)
    return VersionVector({log: heads for log, heads in mine.heads.items() if log not in without})


def heads_after(heads: tuple[Hash, ...], operations: Iterable[SignedBytes]) -> tuple[Hash, ...]:
    """Control heads to name once these operations (in causal order) are on their way to be stored."""
    new = [blake2b_256(raw) for raw, _ in operations][-HEADS_TOLD_MAX:]
    return tuple(sorted({*heads, *new})) if new else heads


def pull_wanted(
    mine: VersionVector, held: Iterable[Hash], claimed: VersionVector, claimed_heads: Iterable[Hash]
) -> bool:
    """Whether a peer claims entries or operations that are not held here."""
    return bool(mine.behind(claimed)) or not set(claimed_heads) <= set(held)
