"""How the demo shows what happens while it happens: lines, and bars below them on a terminal."""

import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import trio
from rich.progress import BarColumn, Progress, TextColumn

from peers.cli.output import console, say


class Live:
    """Lines are stamped with the seconds since the beginning."""

    def __init__(self) -> None:
        self._began = trio.current_time()

    def say(self, text: str) -> None:
        say(f"{trio.current_time() - self._began:7.2f} s  {text}")

    @contextmanager
    def importing(self) -> Iterator[Callable[[dict[str, Any]], Awaitable[None]]]:
        """A bar for the progress messages of `import`. Bad lines are only counted, by their end result."""
        with _bars() as bars:
            task = bars.add_task("A imports", total=None)

            async def show(part: dict[str, Any]) -> None:
                if "bytes" in part:
                    share = part["bytes"] / 2 + (part["of_bytes"] / 2 if part["phase"] == "rows" else 0)
                    bars.update(task, completed=share, total=part["of_bytes"] or 1)

            yield show

    @contextmanager
    def receiving(self, names: Sequence[str], rows: int) -> Iterator[Callable[[Sequence[int]], None]]:
        """A bar for each device."""
        with _bars() as bars:
            tasks = [bars.add_task(f"{name} receives", total=max(rows, 1)) for name in names]

            def show(counts: Sequence[int]) -> None:
                for task, count in zip(tasks, counts, strict=True):
                    bars.update(task, completed=count)

            yield show


def _bars() -> Progress:
    to = console(sys.stdout)
    columns = (TextColumn("          {task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    return Progress(*columns, console=to, disable=not to.is_terminal, transient=True)
