"""What a supervisor keeps: children, each as lives that it can begin, end and begin again.

A child knows how to live once (`run`) and how to end for good (`close`). Whether it lives again is not its business.
"""

from collections.abc import Awaitable, Callable
from enum import Enum, auto
from typing import Any, Generic, TypeVar

import trio

from actors.actor import Actor, run_messages
from actors.envelope import Envelope
from actors.errors import ActorFailed, ActorStopped, ActorTimeout
from actors.events import Event
from actors.mailbox import Mailbox
from actors.ref import Ref
from actors.restart import Restart

M = TypeVar("M")


class Life(Enum):
    """Where a child stands."""

    DOWN = auto()
    STARTING = auto()
    UP = auto()
    STOPPING = auto()
    CLOSED = auto()


class Child:
    """One child of a supervisor. `path` is its name from the root, `restarts` counts its lives after the first."""

    def __init__(self, name: str, path: str, restart: Restart) -> None:
        self.name = name
        self.path = path
        self.restart = restart
        self.restarts = 0
        self.life = Life.DOWN
        self.closed = trio.Event()
        # The present life, written by the supervisor. The scope is shielded: only the supervisor ends a life.
        self.scope = trio.CancelScope(shield=True)
        self.settled = trio.Event()
        self.ended = trio.Event()
        self.error: BaseException | None = None
        self.ever_up = False
        self.start_awaited = False
        self.final = False

    @property
    def stopped(self) -> bool:
        """It will not live again."""
        return self.life is Life.CLOSED

    async def wait_stopped(self) -> None:
        """Return when it will not live again."""
        await self.closed.wait()

    def renew(self, *, start_awaited: bool) -> None:
        """Make ready for one more life."""
        self.scope = trio.CancelScope(shield=True)
        self.settled = trio.Event()
        self.ended = trio.Event()
        self.error = None
        self.start_awaited = start_awaited
        self.life = Life.STARTING

    async def run(self, up: Callable[[], None]) -> None:
        """Live once, calling `up` when the child is ready. Returning is a normal end, raising a failure."""
        raise NotImplementedError

    def close(self) -> None:
        """End for good. Called when no life runs."""
        self.life = Life.CLOSED
        self.closed.set()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path} {self.life.name.lower()}>"


class Environment:
    """What the whole tree shares."""

    def __init__(
        self, on_event: Callable[[Event], None] | None, random: Callable[[], float] | None, stop_grace_seconds: float
    ) -> None:
        self.on_event = on_event
        self.random = random
        self.stop_grace_seconds = stop_grace_seconds


class Restarting:
    """A restart under way. `waiting` are the children that it has not begun again yet.

    Shielded like a child's life: a cancellation from outside must not take it before the supervisor waits for its end.
    """

    def __init__(self, children: list[Child]) -> None:
        self.waiting = children
        self.scope = trio.CancelScope(shield=True)
        self.done = trio.Event()


class ActorChild(Child, Generic[M]):
    """An actor with its mailbox. Mailbox and ref are the same for all lives; the actor object is new in each."""

    def __init__(
        self,
        name: str,
        path: str,
        restart: Restart,
        factory: Callable[[], Actor[M]],
        *,
        capacity: int,
        stop_grace_seconds: float,
        unheard: Callable[[BaseException], None],
    ) -> None:
        super().__init__(name, path, restart)
        self._factory = factory
        self._mailbox: Mailbox[Envelope[M]] = Mailbox(capacity)
        self._stop_grace_seconds = stop_grace_seconds
        self._unheard = unheard
        self.ref: Ref[M] = Ref(name, path, self._mailbox, self.closed)

    async def run(self, up: Callable[[], None]) -> None:
        actor = self._factory()
        actor.ref = self.ref
        self.ref.runs_in(trio.lowlevel.current_task())
        await actor.started()
        held: list[Envelope[M]] = []
        try:
            up()
            await run_messages(actor, self._mailbox, held, self._unheard)
        except Exception as crash:
            for envelope in held:
                failed = ActorFailed(f"actor {self.path} crashed on this message: {crash!r}")
                failed.__cause__ = crash
                envelope.fail(failed)
            raise
        finally:
            for envelope in held:
                envelope.fail(ActorStopped(f"actor {self.path} was stopped while it handled this message"))
            await self._clean_up(actor)

    def close(self) -> None:
        super().close()
        for envelope in self._mailbox.close():
            envelope.fail(ActorStopped(f"actor {self.path} was stopped before it handled this message"))

    async def _clean_up(self, actor: Actor[M]) -> None:
        with trio.move_on_after(self._stop_grace_seconds, shield=True) as scope:
            await actor.stopped()
        if scope.cancelled_caught:
            raise ActorTimeout(f"actor {self.path} did not clean up within {self._stop_grace_seconds:g} s")


class _TaskStatus:
    """What a plain task calls when it is up, as with `trio.Nursery.start`."""

    def __init__(self, started: Callable[[Any], None]) -> None:
        self._started = started

    def started(self, value: Any = None) -> None:
        self._started(value)


class TaskChild(Child):
    """A plain async function with `task_status`. `value` is what it said when it was up."""

    def __init__(self, name: str, path: str, fn: Callable[..., Awaitable[object]], args: tuple[object, ...]) -> None:
        super().__init__(name, path, Restart.TEMPORARY)
        self._fn = fn
        self._args = args
        self.value: Any = None

    async def run(self, up: Callable[[], None]) -> None:
        def started(value: Any) -> None:
            if self.life is Life.UP:
                raise RuntimeError(f"task {self.path} said twice that it started")
            self.value = value
            up()

        await self._fn(*self._args, task_status=_TaskStatus(started))
        if self.life is Life.STARTING:
            raise RuntimeError(f"task {self.path} ended without a word that it started")
