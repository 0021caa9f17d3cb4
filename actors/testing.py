"""For tests of actors: a listener that keeps an ordered list, and a check that nothing is left running."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from actors.events import Event


class EventLog:
    """A listener. `lines` are the events in order, as "started root/a": what a test compares."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._news = trio.Event()

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self._news.set()
        self._news = trio.Event()

    @property
    def lines(self) -> list[str]:
        return [f"{type(event).__name__.lower()} {event.path}" for event in self.events]

    async def wait_for(self, line: str, *, times: int = 1) -> None:
        """Return when the line has been logged `times` times."""
        while self.lines.count(line) < times:
            await self._news.wait()


@asynccontextmanager
async def no_task_left() -> AsyncIterator[None]:
    """Check that the block ends with as many tasks as it began with. For a program that starts none beside it."""
    before = trio.lowlevel.current_statistics().tasks_living
    try:
        yield
    finally:
        after = trio.lowlevel.current_statistics().tasks_living
        assert after == before, f"{after - before} tasks more than before"
