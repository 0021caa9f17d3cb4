"""Arrivals: in which order, in which batches and beside which cut-offs one replica gets to see a history.

An arrival ends complete: all entries it delivers are delivered once more in the order of `list_changes`, and the final
cut-offs are set. Two arrivals that deliver the same entries must end in the same state; entries that are void at the
end may be left out, which must make no difference.
"""

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from peers.model.ids import Hash
from peers.testing.history import Cutoffs, History, HistoryEntry


@dataclass(frozen=True)
class Deliver:
    """A batch of entries arrives. `early`: contact has lasted so long that missing deps are not waited for."""

    entries: tuple[HistoryEntry, ...]
    early: bool = False


@dataclass(frozen=True)
class SetCutoffs:
    """These cut-offs come into force."""

    cutoffs: Cutoffs


Step = Deliver | SetCutoffs


@dataclass(frozen=True)
class Arrival:
    """What happens at one replica."""

    name: str
    steps: tuple[Step, ...]

    @property
    def delivered(self) -> tuple[HistoryEntry, ...]:
        """Every entry that the replica ever gets, each once."""
        found: dict[Hash, HistoryEntry] = {}
        for step in self.steps:
            if isinstance(step, Deliver):
                found.update((entry.hash, entry) for entry in step.entries)
        return tuple(found.values())


def orders(history: History, count: int, rng: random.Random) -> list[Arrival]:
    """`count` arrivals: the first in the order of `list_changes` and in one batch, the others random."""
    plain = Arrival("list_changes", tuple(_ending(history, history.entries, early=False)))
    return [plain, *(random_arrival(history, rng, name=f"arrival {number}") for number in range(1, count))]


def random_arrival(history: History, rng: random.Random, *, name: str = "random arrival") -> Arrival:
    """A random order with batches, duplicates, some gaps, cut-offs in between, and with or without what is void."""
    without_void = rng.random() < 0.3
    entries = [entry for entry in history.entries if not (without_void and history.is_void(entry))]
    early = rng.random() < 0.5
    order = _shuffled_chains(entries, rng) if rng.random() < 0.8 else rng.sample(entries, len(entries))
    for _ in range(rng.choice((0, 0, 1, 3)) if entries else 0):
        order.insert(rng.randint(0, len(order)), rng.choice(entries))
    steps: list[Step] = []
    while order:
        size = rng.choice((1, 1, 2, 3, len(order)))
        steps.append(Deliver(tuple(order[:size]), early and rng.random() < 0.7))
        del order[:size]
    if rng.random() < 0.6:  # the others see only the last cut-offs
        places = sorted((rng.randint(0, len(steps)) for _ in history.cutoffs[1:]), reverse=True)
        for cutoffs, place in zip(reversed(history.cutoffs[1:]), places, strict=True):
            steps.insert(place, SetCutoffs(cutoffs))
    return Arrival(name, (*steps, *_ending(history, entries, early=early)))


def withholding_arrivals(history: History, count: int, rng: random.Random) -> list[Arrival]:
    """Arrivals that all lack the same entries, the tail of one log, for good; what names them is applied early.

    Only for histories without owned tables, whose entries wait for their deps as long as it takes.
    """
    log = rng.choice([entry.header.log for entry in history.entries])
    top = max(entry.header.seq for entry in history.entries if entry.header.log == log)
    first_missing = rng.randint(1, top)
    entries = [e for e in history.entries if e.header.log != log or e.header.seq < first_missing]
    result = []
    for number in range(count):
        order = _shuffled_chains(entries, rng)
        steps: list[Step] = [Deliver((entry,), rng.random() < 0.5) for entry in order]
        result.append(Arrival(f"withholding {number}", (*steps, *_ending(history, entries, early=True))))
    return result


def all_orders(history: History, limit: int) -> Iterator[Arrival]:
    """Every order of arrival that keeps each log's chain, one entry a batch, early; at most `limit` of them.

    The first cut-offs come before everything, half-way, or not at all, in turn.
    """
    chained = (order for order in itertools.permutations(history.entries) if _keeps_chains(order))
    for number, order in enumerate(itertools.islice(chained, limit)):
        steps: list[Step] = [Deliver((entry,), early=True) for entry in order]
        if len(history.cutoffs) > 1 and number % 3:
            steps.insert(0 if number % 3 == 1 else len(order) // 2, SetCutoffs(history.cutoffs[1]))
        yield Arrival(f"order {number}", (*steps, *_ending(history, order, early=True)))


def _ending(history: History, entries: Sequence[HistoryEntry], *, early: bool) -> list[Step]:
    ordered = sorted(entries, key=lambda entry: (entry.header.hlc, *entry.header.log, entry.header.seq))
    final = SetCutoffs(history.final_cutoffs)
    return [final, Deliver(tuple(ordered), early)] if history.final_cutoffs else [Deliver(tuple(ordered), early)]


def _shuffled_chains(entries: Sequence[HistoryEntry], rng: random.Random) -> list[HistoryEntry]:
    """A random order in which every entry stands after the one before it in its log."""
    waiting = list(entries)
    done: set[Hash] = set()
    result: list[HistoryEntry] = []
    while waiting:
        ready = [entry for entry in waiting if entry.header.seq == 1 or entry.header.prev in done]
        entry = rng.choice(ready)
        waiting.remove(entry)
        done.add(entry.hash)
        result.append(entry)
    return result


def _keeps_chains(order: Sequence[HistoryEntry]) -> bool:
    done: set[Hash] = set()
    for entry in order:
        if entry.header.seq > 1 and entry.header.prev not in done:
            return False
        done.add(entry.hash)
    return True
