"""The check of `test_merge_oracle` over as many seeds as wanted; prints failing histories, made as short as it can.

python tests/store/fuzz.py --histories 5000 --seed 1
"""

import argparse
import random
import sys
from dataclasses import replace
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parent)]

import apsw  # noqa: E402
from test_merge_oracle import check  # noqa: E402

from peers.errors import PeersError  # noqa: E402
from peers.testing.arrivals import Arrival, Deliver, SetCutoffs, orders  # noqa: E402
from peers.testing.histories import focused_history, random_history  # noqa: E402
from peers.testing.history import History  # noqa: E402

FAILURES = (AssertionError, PeersError, apsw.Error, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""A wrong end, and whatever a bug raises."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--histories", type=int, default=1000, help="how many, half of them focused")
    parser.add_argument("--orders", type=int, default=4, help="arrivals of each")
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--failures", type=int, default=3, help="stop after so many")
    arguments = parser.parse_args()
    failures = 0
    for number in range(arguments.histories):
        make = focused_history if number % 2 else random_history
        history = make(arguments.seed + number // 2)
        failed = first_failure(history, arguments.orders, number)
        if failed is not None:
            failures += 1
            report(*shortened(history, failed))
        if failures >= arguments.failures:
            break
        if number % 500 == 499:
            print(f"{number + 1} histories, {failures} bad", flush=True)
    print(f"{failures} bad")
    return 1 if failures else 0


def first_failure(history: History, count: int, seed: int) -> Arrival | None:
    arrivals = orders(history, count, random.Random(seed))
    return next((arrival for arrival in arrivals if fails(history, arrival)), None)


def fails(history: History, arrival: Arrival) -> bool:
    """Whether the arrival ends otherwise than the oracle says, or the store raises."""
    try:
        check(history, [arrival])
    except FAILURES:
        return True
    return False


def shortened(history: History, arrival: Arrival) -> tuple[History, Arrival]:
    """Leave out last entries, then steps, as long as it still fails."""
    while len(history.entries) > 1:
        kept = history.entries[:-1]
        steps = tuple(
            Deliver(tuple(e for e in step.entries if e in kept), step.early) if isinstance(step, Deliver) else step
            for step in arrival.steps
        )
        if not fails(replace(history, entries=kept), replace(arrival, steps=steps)):
            break
        history, arrival = replace(history, entries=kept), replace(arrival, steps=steps)
    position = 0
    while position < len(arrival.steps) - 1:  # the last step delivers everything
        fewer = replace(arrival, steps=arrival.steps[:position] + arrival.steps[position + 1 :])
        is_last_cutoffs = isinstance(arrival.steps[position], SetCutoffs) and not any(
            isinstance(step, SetCutoffs) for step in arrival.steps[position + 1 :]
        )
        if not is_last_cutoffs and fails(history, fewer):
            arrival = fewer
        else:
            position += 1
    return history, arrival


def report(history: History, arrival: Arrival) -> None:
    print(f"\n=== {history.name}, {arrival.name}")
    names = {entry.hash: f"e{number}" for number, entry in enumerate(history.entries)}
    logs: dict[object, str] = {}
    for entry in history.entries:
        header = entry.header
        log = logs.setdefault(header.log, f"log{len(logs)}({header.device[:2].hex()})")
        deps = " ".join(names.get(dep.hash, "?") for dep in header.deps)
        void = " VOID" if history.is_void(entry) else ""
        print(
            f"{names[entry.hash]} {log}:{header.seq} prev={names.get(header.prev)} hlc={header.hlc} saw [{deps}]{void}"
        )
        for leaf in entry.leaves:
            print(f"    {leaf.action.name} {leaf.table.hex()} keys={leaf.keys} values={leaf.values}")
    for step in arrival.steps:
        if isinstance(step, Deliver):
            print(f"  deliver {' '.join(names[entry.hash] for entry in step.entries)}{' early' if step.early else ''}")
        else:
            print(f"  cut-offs { {logs.get(log, '?'): seq for log, seq in step.cutoffs.items()} }")
    try:
        check(history, [arrival])
    except FAILURES as error:
        print(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    sys.exit(main())
