"""The orders of arrival that the store's tests rely on: complete, and of every kind that they promise."""

import random

import pytest

from peers.testing.arrivals import Deliver, SetCutoffs, all_orders, orders, withholding_arrivals
from peers.testing.histories import focused_history, random_history


@pytest.mark.parametrize("seed", range(30))
def test_an_arrival_delivers_all_that_counts_and_ends_with_the_final_cutoffs(seed: int) -> None:
    history = random_history(seed) if seed % 2 else focused_history(seed)
    valid = {entry.hash for entry in history.entries if not history.is_void(entry)}
    for arrival in orders(history, 6, random.Random(seed)):
        delivered = {entry.hash for entry in arrival.delivered}
        assert delivered in (valid, {entry.hash for entry in history.entries})
        last = arrival.steps[-1]
        assert isinstance(last, Deliver)
        assert {entry.hash for entry in last.entries} == delivered
        held: set[bytes] = set()
        for entry in last.entries:  # the order of list_changes keeps chains
            assert entry.header.seq == 1 or entry.header.prev in held
            held.add(entry.hash)
        cutoffs = [step.cutoffs for step in arrival.steps if isinstance(step, SetCutoffs)]
        assert (cutoffs[-1] if cutoffs else {}) == history.final_cutoffs
        assert history.expected(arrival.delivered) == history.expected()


def test_arrivals_have_duplicates_batches_gaps_and_early_steps() -> None:
    kinds = set()
    for seed in range(60):
        for arrival in orders(random_history(seed), 4, random.Random(seed))[1:]:
            held: set[bytes] = set()
            deliveries = [step for step in arrival.steps if isinstance(step, Deliver)]
            for step in deliveries[:-1]:
                kinds.add("batch" if len(step.entries) > 1 else "single")
                kinds.add("early" if step.early else "patient")
                for entry in step.entries:
                    if entry.hash in held:
                        kinds.add("duplicate")
                    if entry.header.seq > 1 and entry.header.prev not in held:
                        kinds.add("gap")
                    held.add(entry.hash)
    assert kinds == {"batch", "single", "early", "patient", "duplicate", "gap"}


def test_withheld_entries_are_the_same_tail_for_all() -> None:
    history = random_history(11)
    arrivals = withholding_arrivals(history, 4, random.Random(1))
    delivered = [{entry.hash for entry in arrival.delivered} for arrival in arrivals]
    assert all(own == delivered[0] for own in delivered)
    assert len(delivered[0]) < len(history.entries)


def test_all_orders_are_different_and_keep_chains() -> None:
    history = focused_history(3)
    found = [tuple(e.hash for s in arrival.steps[:-1] if isinstance(s, Deliver) for e in s.entries)
             for arrival in all_orders(history, 50)]  # fmt: skip
    assert len(set(found)) == len(found) > 1
