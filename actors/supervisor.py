"""Supervisors: they start children in order, restart what fails, and stop in reverse order.

* A child's life is shielded from every cancellation but its supervisor's. So cancelling the block of `open_supervisor`
  stops the children one after the other, the last started first, each with its `stopped()`; then no task is left.
* A failure is judged by the pure policy in `actors.restart`, counted for the whole supervisor. When it is too much, the
  supervisor stops its children and fails itself: out of `open_supervisor`, or as a failed child of its parent.
* Here, and only here, `except Exception` stands: this is where a crash ends and a decision begins.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import trio

from actors.actor import Actor
from actors.child import ActorChild, Child, Environment, Life, Restarting, TaskChild
from actors.errors import ActorError, ActorStopped, SupervisorFailed
from actors.events import Event, Failed, GaveUp, Restarted, Started, Stopped, Unheard
from actors.ref import Ref
from actors.restart import ONE_FOR_ALL, ONE_FOR_ONE, GiveUp, Restart, RestartPolicy, Strategy, decide, jittered, recent

M = TypeVar("M")


class Supervisor(Child):
    """Made by `open_supervisor`, or below another one by `start_supervisor`."""

    def __init__(
        self,
        name: str,
        path: str,
        restart: Restart,
        strategy: Strategy,
        policy: RestartPolicy,
        environment: Environment,
    ) -> None:
        super().__init__(name, path, restart)
        self._strategy = strategy
        self._policy = policy
        self._environment = environment
        self._children: dict[str, Child] = {}
        self._nursery: trio.Nursery | None = None
        self._body = trio.CancelScope()
        self._failures: tuple[float, ...] = ()
        self._failure: BaseException | None = None
        self._restarting: dict[str, Restarting] = {}  # by child with ONE_FOR_ONE, else at most one, under ""
        self._overtaken: list[Restarting] = []  # cancelled, and perhaps not ended yet

    async def start(
        self,
        name: str,
        factory: Callable[[], Actor[M]],
        *,
        mailbox: int = 256,
        restart: Restart = Restart.PERMANENT,
    ) -> Ref[M]:
        """Start an actor; return when its `started()` has. `factory` makes a new object for each of its lives.

        Raises:
          ActorStopped: this supervisor is stopping.
          ValueError: a child of this name lives already.
          Exception: what the factory or `started()` raised; then there is no such child, and nothing is restarted.
        """
        path = f"{self.path}/{name}"
        child = ActorChild(
            name,
            path,
            restart,
            factory,
            capacity=mailbox,
            stop_grace_seconds=self._environment.stop_grace_seconds,
            unheard=lambda error: self._emit(Unheard(path, trio.current_time(), error)),
        )
        await self._start(child)
        return child.ref

    async def start_task(self, name: str, fn: Callable[..., Awaitable[object]], *args: object) -> TaskChild:
        """Run `fn(*args, task_status=...)` as a temporary child; return when it has called `task_status.started()`.

        What it passed there is the child's `value`. Its failure is an event; it is not restarted and harms no sibling.
        Raises what `start` raises.
        """
        child = TaskChild(name, f"{self.path}/{name}", fn, args)
        await self._start(child)
        return child

    async def start_supervisor(
        self,
        name: str,
        *,
        strategy: Strategy = ONE_FOR_ONE,
        policy: RestartPolicy | None = None,
        restart: Restart = Restart.PERMANENT,
    ) -> "Supervisor":
        """Start a supervisor below this one.

        When it gives up, this one treats it as a failed child. Restarted, it starts its own children again in their
        order, and their refs stay valid; a temporary one is gone with all its children. Raises what `start` raises.
        """
        path = f"{self.path}/{name}"
        child = Supervisor(name, path, restart, strategy, policy or RestartPolicy(), self._environment)
        await self._start(child)
        return child

    async def stop(self, name: str) -> None:
        """Stop a child for good and return when it has ended. Without such a child there is nothing to do."""
        child = self._children.get(name)
        if child is None:
            await trio.lowlevel.checkpoint()
        else:
            await self._halt(child, final=True)

    def children(self) -> list[Child]:
        """The children that live or will live again, in the order of their start."""
        return list(self._children.values())

    async def run(self, up: Callable[[], None]) -> None:
        async with self.open():
            up()
            await trio.sleep_forever()

    def close(self) -> None:
        super().close()
        for child in reversed(self.children()):
            child.close()
        self._children.clear()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """One life of the supervisor: children may live in it, and none outlives it."""
        self._body = trio.CancelScope()
        self._failures = ()
        self._failure = None
        body_error: BaseException | None = None
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                with self._body:
                    for child in self.children():  # those of an earlier life
                        await self._begin(child, start_awaited=True)
                        if child.error is not None:
                            raise child.error
                    yield
            except BaseException as error:  # noqa: BLE001 - raised again below, without the nursery's group around it
                body_error = error
            finally:
                with trio.CancelScope(shield=True):
                    await self._halt_all()
                self._nursery = None
        outcome = self._outcome(body_error)
        if outcome is not None:
            raise outcome

    def _outcome(self, body_error: BaseException | None) -> BaseException | None:
        if self._failure is None:
            return body_error
        if body_error is None or isinstance(body_error, ActorError):
            return self._failure  # an actor's error in the body is a consequence of the failure
        return BaseExceptionGroup(f"supervisor {self.path} failed, and so did its user", [self._failure, body_error])

    async def _start(self, child: Child) -> None:
        if self._nursery is None or self._failure is not None or self._body.cancel_called:
            raise ActorStopped(f"supervisor {self.path} is stopped and starts nothing: {child.name}")
        if child.name in self._children:
            raise ValueError(f"supervisor {self.path} has a child {child.name!r} already")
        self._children[child.name] = child
        try:
            await self._begin(child, start_awaited=True)
        finally:
            if not child.ever_up and not child.stopped:
                with trio.CancelScope(shield=True):
                    await self._halt(child, final=True)
        if child.error is not None and not child.ever_up:
            raise child.error
        if not child.ever_up:
            raise ActorStopped(f"{child.path} was stopped while it started")

    async def _begin(self, child: Child, *, start_awaited: bool) -> None:
        """Begin a life; return when it is up or has ended."""
        nursery = self._nursery
        if nursery is None or child.life is not Life.DOWN:
            return
        child.renew(start_awaited=start_awaited)
        nursery.start_soon(self._live, child, name=child.path)
        await child.settled.wait()

    async def _live(self, child: Child) -> None:
        """One life of a child, as a task. Nothing leaves it but through `_ended`."""
        error: BaseException | None = None
        try:
            with child.scope:
                await child.run(lambda: self._up(child))
        except Exception as crash:  # noqa: BLE001 - a crash ends here and becomes a decision
            error = crash
        except BaseException as interrupt:  # noqa: BLE001 - Ctrl-C in a child: stop in order, then raise it
            error = interrupt
            self._fail(interrupt)
        self._ended(child, error)
        child.ended.set()
        child.settled.set()

    def _up(self, child: Child) -> None:
        if child.life is not Life.STARTING:
            return
        child.life = Life.UP
        child.start_awaited = False
        now = trio.current_time()
        if child.ever_up:
            child.restarts += 1
            self._emit(Restarted(child.path, now, child.restarts))
        else:
            child.ever_up = True
            self._emit(Started(child.path, now))
        child.settled.set()

    def _ended(self, child: Child, error: BaseException | None) -> None:
        """Judge the end of a life. Synchronous, so that nothing happens between an end and what follows from it."""
        stopping = child.life is Life.STOPPING
        child.life = Life.DOWN
        child.error = error
        now = trio.current_time()
        self._emit(Stopped(child.path, now) if error is None else Failed(child.path, now, error))
        if child.final or child.restart is Restart.TEMPORARY or (error is None and child.restart is Restart.TRANSIENT):
            if not stopping or child.final:
                self._remove(child)
            return
        if stopping or child.start_awaited or self._failure is not None:
            return
        if any(child in restarting.waiting for restarting in self._restarting.values()):
            return  # a restart that will begin it again is under way: the same trouble is not counted twice
        self._failures = (*recent(self._policy, self._failures, now), now)
        match decide(self._policy, self._failures, now):
            case GiveUp():
                self._emit(GaveUp(self.path, now, error))
                failure = SupervisorFailed(
                    f"supervisor {self.path} gave up: {len(self._failures)} failures within "
                    f"{self._policy.window_seconds:g} s, the last of {child.path}: {error!r}"
                )
                failure.__cause__ = error
                self._fail(failure)
            case decision:
                self._restart_with_siblings(child, decision.delay)

    def _restart_with_siblings(self, child: Child, delay: float) -> None:
        children = self.children()
        key = ""
        if self._strategy is ONE_FOR_ONE:
            children, key = [child], child.name
        elif self._strategy is not ONE_FOR_ALL:
            children = children[children.index(child) :]
        earlier = self._restarting.get(key)
        if earlier is not None:
            # It was overtaken by a new failure: what it has not begun yet goes with the new restart.
            earlier.scope.cancel()
            self._overtaken = [one for one in (*self._overtaken, earlier) if not one.done.is_set()]
            children = [one for one in self.children() if one in children or one in earlier.waiting]
        restarting = self._restarting[key] = Restarting(children)
        if self._environment.random is not None:
            delay = jittered(delay, self._environment.random())
        if self._nursery is not None:
            self._nursery.start_soon(self._restart, key, restarting, delay, name=f"{self.path} restarts {child.name}")

    async def _restart(self, key: str, restarting: Restarting, delay: float) -> None:
        with restarting.scope:
            for child in reversed(list(restarting.waiting)):
                await self._halt(child, final=child.restart is Restart.TEMPORARY)
            await trio.sleep(delay)
            # After each wait a newer restart may have taken over; then this one's scope is cancelled, and it must not
            # begin anything any more, not even up to its next checkpoint.
            while restarting.waiting and not restarting.scope.cancel_called:
                await self._begin(restarting.waiting.pop(0), start_awaited=False)
        if self._restarting.get(key) is restarting:
            del self._restarting[key]
        restarting.done.set()

    async def _halt(self, child: Child, *, final: bool) -> None:
        """End the child's present life, if any, and wait for it; if `final`, also close it. Safe to cancel."""
        child.final = child.final or final
        if child.life is Life.DOWN:
            if final:
                self._remove(child)
            return
        if child.life in (Life.STARTING, Life.UP):
            child.life = Life.STOPPING
            child.scope.cancel()
        await child.ended.wait()

    async def _halt_all(self) -> None:
        self._body.cancel()  # from here on nothing is started
        restarting = [*self._restarting.values(), *self._overtaken]
        for one in restarting:
            one.scope.cancel()
        # A supervisor that fails below another may live again: then its children keep their mailboxes.
        final = self.final or self.restart is Restart.TEMPORARY
        for child in reversed(self.children()):
            await self._halt(child, final=final or child.restart is Restart.TEMPORARY)
        for one in restarting:
            await one.done.wait()

    def _remove(self, child: Child) -> None:
        if self._children.get(child.name) is child:
            del self._children[child.name]
        for restarting in self._restarting.values():
            if child in restarting.waiting:
                restarting.waiting.remove(child)
        child.close()

    def _fail(self, failure: BaseException) -> None:
        """Let this supervisor end by `failure`; the first one counts."""
        if self._failure is None:
            self._failure = failure
        self._body.cancel()

    def _emit(self, event: Event) -> None:
        listener = self._environment.on_event
        if listener is None:
            return
        try:
            listener(event)
        except Exception as error:  # noqa: BLE001 - not swallowed: it ends this supervisor
            self._environment.on_event = None
            self._fail(error)


@asynccontextmanager
async def open_supervisor(
    name: str,
    *,
    strategy: Strategy = ONE_FOR_ONE,
    policy: RestartPolicy | None = None,
    on_event: Callable[[Event], None] | None = None,
    random: Callable[[], float] | None = None,
    stop_grace_seconds: float = 5.0,
) -> AsyncIterator[Supervisor]:
    """Open a tree of children; at the end of the block all of them are stopped, the last started first.

    The block should only use the children: it is cancelled when the supervisor gives up, and ends before they do.

    Args:
      on_event: called synchronously with what happens in the whole tree; must not block. If it raises, the tree ends.
      random: numbers in [0, 1) that shorten restart delays by up to half; None for no jitter.
      stop_grace_seconds: how long each actor's `stopped()` may take.

    Raises:
      SupervisorFailed: it gave up; `__cause__` is the last failure.
      Exception: what the block raised, as it is, without a group around it.
    """
    environment = Environment(on_event, random, stop_grace_seconds)
    supervisor = Supervisor(name, name, Restart.TEMPORARY, strategy, policy or RestartPolicy(), environment)
    supervisor.final = True
    try:
        async with supervisor.open():
            yield supervisor
    finally:
        supervisor.close()
