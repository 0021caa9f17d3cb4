"""How a figure is made: interleaved repetitions, paired ratios, medians, and the table they are printed in.

A contest runs its contestants in turn, again and again, and in the opposite order every second time; a ratio is the
median of the ratios within each repetition, so that a neighbour who comes and goes slows both sides alike. CPU seconds
stand beside wall time: where the machine is shared, the verdict follows the CPU ratio, and the output says so. Nothing
here asserts: figures are printed.
"""

import gc
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

_SPIN_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Settings:
    """What one run is about."""

    folder: Path
    """For the databases: deleted afterwards."""
    rows: int = 100_000
    repetitions: int = 5
    quick: bool = False
    batch: int = 1000

    def scaled(self, count: int) -> int:
        """`count` in a full run; a fiftieth of it, and at least 20, in a quick one."""
        return max(20, count // 50) if self.quick else count


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds of one measured part."""

    wall: float
    cpu: float


@dataclass(slots=True)
class Stopwatch:
    """Filled when the block ends."""

    wall: float = 0.0
    cpu: float = 0.0

    @property
    def took(self) -> Took:
        return Took(self.wall, self.cpu)


@contextmanager
def measured() -> Iterator[Stopwatch]:
    """Wall and CPU seconds (of this process) of a block. Garbage of what was before is not counted."""
    gc.collect()
    watch = Stopwatch()
    cpu, wall = time.process_time(), time.perf_counter()
    try:
        yield watch
    finally:
        watch.wall, watch.cpu = time.perf_counter() - wall, time.process_time() - cpu


Contestant = Callable[[int], Took]
"""Prepares repetition `n`, and returns what its measured part took."""


def contest(repetitions: int, contestants: Mapping[str, Contestant]) -> dict[str, list[Took]]:
    """Every contestant `repetitions` times, in turn."""
    results: dict[str, list[Took]] = {name: [] for name in contestants}
    for repetition in range(repetitions):
        order = list(contestants) if repetition % 2 == 0 else list(contestants)[::-1]
        for name in order:
            results[name].append(contestants[name](repetition))
    return results


def ratio(limit: Sequence[Took], ours: Sequence[Took]) -> tuple[float, float]:
    """(wall, CPU): how fast we are as a share of the limit, medians of the repetitions' own ratios."""
    pairs = list(zip(limit, ours, strict=True))
    wall = statistics.median(ours.wall and limit.wall / ours.wall for limit, ours in pairs)
    cpu = statistics.median(limit.cpu / max(ours.cpu, 1e-9) for limit, ours in pairs)
    return wall, cpu


def wall_of(times: Sequence[Took]) -> float:
    return statistics.median(took.wall for took in times)


@dataclass(frozen=True)
class Line:
    """One row of the table."""

    bench: str
    what: str
    value: float
    unit: str
    """"rows/s", "writes/s" (more is better) or "ms" (less is better)."""
    limit: str
    limit_value: float
    ratio: float
    cpu_ratio: float | None = None
    """None where CPU time says nothing: latencies, and what waits for the disk."""
    target: float | None = None
    target_is_ratio: bool = True
    by_cpu: bool = False
    """The verdict follows the CPU ratio: the machine was shared."""
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        if self.target is None:
            return ""
        if not self.target_is_ratio:
            return "ok" if self.value <= self.target else "below"
        judged = self.cpu_ratio if self.by_cpu and self.cpu_ratio is not None else self.ratio
        return "ok" if judged >= self.target else "below"


def compare(
    bench: str,
    what: str,
    rows: int,
    limit_name: str,
    limit: Sequence[Took],
    ours: Sequence[Took],
    *,
    target: float | None = None,
    unit: str = "rows/s",
    cpu_counts: bool = True,
) -> Line:
    """The line of a contest over `rows` things a repetition."""
    wall, cpu = ratio(limit, ours)
    detail = {
        "wall_seconds": [took.wall for took in ours],
        "cpu_seconds": [took.cpu for took in ours],
        "limit_wall_seconds": [took.wall for took in limit],
        "limit_cpu_seconds": [took.cpu for took in limit],
    }
    return Line(
        bench, what, rows / wall_of(ours), unit, limit_name, rows / wall_of(limit), wall,
        cpu if cpu_counts else None, target, detail=detail,
    )  # fmt: skip


def stolen() -> float:
    """The share of a busy loop's time that others took from it."""
    shares = []
    for _ in range(5):
        with measured() as watch:
            end = time.process_time() + _SPIN_SECONDS
            while time.process_time() < end:
                pass
        shares.append(1 - watch.cpu / watch.wall)
    return max(0.0, statistics.median(shares))


def judged(lines: Sequence[Line], *, shared: bool) -> list[Line]:
    """The lines with their verdict by CPU time where the machine was shared."""
    return [replace(line, by_cpu=shared and line.cpu_ratio is not None) for line in lines]


def as_table(lines: Sequence[Line]) -> Table:
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("bench")
    table.add_column("what", overflow="fold")
    table.add_column("limit", overflow="fold")
    for name in ("measured", "of limit", "ratio", "CPU ratio", "target"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for line in lines:
        table.add_row(
            line.bench, line.what, line.limit, _number(line.value, line.unit), _number(line.limit_value, line.unit),
            _share(line.ratio), _share(line.cpu_ratio), _target(line), _mark(line),
        )  # fmt: skip
    return table


def _number(value: float, unit: str) -> str:
    return f"{value:,.2f} ms" if unit == "ms" else f"{value:,.0f} {unit}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _target(line: Line) -> str:
    if line.target is None:
        return ""
    return f">= {line.target:.2f}" if line.target_is_ratio else f"<= {line.target:g} ms"


def _mark(line: Line) -> str:
    verdict = line.verdict
    if not verdict:
        return ""
    color = "green" if verdict == "ok" else "red"
    return f"[{color}]{verdict}[/]" + (" (CPU)" if line.by_cpu and line.target_is_ratio else "")


def as_json(lines: Sequence[Line], about: Mapping[str, Any]) -> dict[str, Any]:
    return {"about": dict(about), "lines": [asdict(line) | {"verdict": line.verdict} for line in lines]}


def console() -> Console:
    """As wide as the table wants to be where the output is no terminal."""
    return Console(width=None if os.isatty(1) else 170, highlight=False)
