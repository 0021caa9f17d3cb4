"""Supervisors: who is restarted with whom, in which order things start and stop, and that nothing is left."""

# ruff: noqa: PT012 - the whole block of a supervisor is what raises

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.actor import Actor
from actors.errors import ActorFailed, ActorStopped, ActorTimeout, SupervisorFailed
from actors.events import Event, Failed, GaveUp, Restarted
from actors.restart import ONE_FOR_ALL, ONE_FOR_ONE, REST_FOR_ONE, Restart, RestartPolicy, Strategy
from actors.supervisor import open_supervisor
from actors.testing import EventLog, no_task_left

ONE_RESTART = RestartPolicy(max_restarts=1)


class Worker(Actor[str]):
    """Writes down its life, and crashes on request."""

    def __init__(self, name: str = "worker", diary: list[str] | None = None) -> None:
        self.name = name
        self.diary = [] if diary is None else diary

    async def started(self) -> None:
        await trio.lowlevel.checkpoint()
        self.diary.append(f"+{self.name}")

    async def handle(self, message: str) -> str:
        match message:
            case "crash":
                raise ValueError(self.name)
            case "sleep":
                await trio.sleep(1000)
            case "interrupt":
                raise KeyboardInterrupt
        return message

    async def stopped(self) -> None:
        await trio.sleep(0.01)
        self.diary.append(f"-{self.name}")


class Quick(Worker):
    """Has nothing to clean up: its end is judged before anybody hears of its crash."""

    async def stopped(self) -> None:
        pass


def workers(diary: list[str]) -> Callable[[str], Callable[[], Worker]]:
    return lambda name: lambda: Worker(name, diary)


async def crash(ref: Any) -> None:
    with pytest.raises((ActorFailed, ActorStopped)):
        await ref.ask("crash")


@pytest.mark.parametrize(
    ("strategy", "after_the_crash"),
    [
        (ONE_FOR_ONE, ["failed r/b", "restarted r/b"]),
        (REST_FOR_ONE, ["failed r/b", "stopped r/d", "stopped r/c", "restarted r/b", "restarted r/c", "restarted r/d"]),
        (
            ONE_FOR_ALL,
            [
                *("failed r/b", "stopped r/d", "stopped r/c", "stopped r/a"),
                *("restarted r/a", "restarted r/b", "restarted r/c", "restarted r/d"),
            ],
        ),
    ],
)
async def test_order_of_starts_restarts_and_stops(
    strategy: Strategy, after_the_crash: list[str], autojump_clock: MockClock
) -> None:
    log, diary = EventLog(), list[str]()
    async with no_task_left(), open_supervisor("r", strategy=strategy, on_event=log) as root:
        refs = {name: await root.start(name, workers(diary)(name)) for name in "abcd"}
        await crash(refs["b"])
        await log.wait_for(after_the_crash[-1])
        for name in "abcd":
            assert await refs[name].ask(name) == name
        assert [child.name for child in root.children()] == list("abcd")
    started = [f"started r/{name}" for name in "abcd"]
    stopped = [f"stopped r/{name}" for name in "dcba"]
    assert log.lines == [*started, *after_the_crash, *stopped]
    assert diary[-4:] == ["-d", "-c", "-b", "-a"]


async def test_cancelling_the_block_stops_in_reverse_order_and_leaves_no_task(autojump_clock: MockClock) -> None:
    log, diary = EventLog(), list[str]()
    async with no_task_left():
        with trio.CancelScope() as scope:
            async with open_supervisor("r", on_event=log) as root:
                for name in "abc":
                    await root.start(name, workers(diary)(name))
                below = await root.start_supervisor("below")
                await below.start("x", workers(diary)("x"))
                ref = await below.start("y", workers(diary)("y"))
                await ref.tell("sleep")
                scope.cancel()
                await trio.sleep_forever()
        assert scope.cancelled_caught
    assert diary == ["+a", "+b", "+c", "+x", "+y", "-y", "-x", "-c", "-b", "-a"]
    assert log.lines[-6:] == [f"stopped r/{path}" for path in ("below/y", "below/x", "below", "c", "b", "a")]


async def test_the_error_of_the_block_leaves_as_it_is(autojump_clock: MockClock) -> None:
    diary: list[str] = []
    with pytest.raises(LookupError, match="mine"):
        async with no_task_left(), open_supervisor("r") as root:
            await root.start("a", workers(diary)("a"))
            raise LookupError("mine")
    assert diary == ["+a", "-a"]


async def test_giving_up_leaves_the_block_as_one_error(autojump_clock: MockClock) -> None:
    log, diary = EventLog(), list[str]()
    with pytest.raises(SupervisorFailed, match="supervisor r gave up: 2 failures within 60 s") as info:
        async with no_task_left(), open_supervisor("r", policy=ONE_RESTART, on_event=log) as root:
            refs = [await root.start(name, workers(diary)(name)) for name in "abc"]
            await crash(refs[1])
            await log.wait_for("restarted r/b")
            await crash(refs[1])
            await trio.sleep_forever()
    assert isinstance(info.value.__cause__, ValueError)
    assert log.lines[-5:] == ["restarted r/b", "failed r/b", "gaveup r", "stopped r/c", "stopped r/a"]
    for ref in refs:
        with pytest.raises(ActorStopped):
            await ref.ask("x")


async def test_an_ask_in_the_block_ends_when_the_supervisor_gives_up(autojump_clock: MockClock) -> None:
    with pytest.raises(SupervisorFailed):
        async with open_supervisor("r", policy=RestartPolicy(max_restarts=0)) as root:
            ref = await root.start("a", Quick)
            await ref.ask("crash")  # raises ActorFailed here: a consequence, not a second error


async def test_another_error_of_the_block_is_not_lost_when_the_supervisor_gives_up(autojump_clock: MockClock) -> None:
    with pytest.RaisesGroup(SupervisorFailed, LookupError):
        async with open_supervisor("r", policy=RestartPolicy(max_restarts=0)) as root:
            ref = await root.start("a", Quick)
            try:
                await ref.ask("crash")
            finally:
                raise LookupError("mine")


async def test_backoff_doubles_and_counts_within_the_window_only(autojump_clock: MockClock) -> None:
    log = EventLog()
    policy = RestartPolicy(max_restarts=2, window_seconds=10, backoff_first_seconds=1, backoff_max_seconds=8)
    async with open_supervisor("r", policy=policy, on_event=log) as root:
        ref = await root.start("a", Quick)
        for times in range(1, 5):
            if times == 3:
                await trio.sleep(20)
            await crash(ref)
            await log.wait_for("restarted r/a", times=times)
    assert [event.at for event in log.events if isinstance(event, Failed | Restarted)] == [0, 1, 1, 3, 23, 24, 24, 26]
    assert [event.restarts for event in log.events if isinstance(event, Restarted)] == [1, 2, 3, 4]


async def test_jitter_shortens_the_delay(autojump_clock: MockClock) -> None:
    log = EventLog()
    policy = RestartPolicy(backoff_first_seconds=4, backoff_max_seconds=4)
    async with open_supervisor("r", policy=policy, on_event=log, random=lambda: 0.5) as root:
        await crash(await root.start("a", Quick))
        await log.wait_for("restarted r/a")
    assert [event.at for event in log.events if isinstance(event, Restarted)] == [3]


async def test_a_nested_supervisor_that_gives_up_is_restarted_with_its_children_and_refs(
    autojump_clock: MockClock,
) -> None:
    log, diary = EventLog(), list[str]()
    async with no_task_left(), open_supervisor("r", on_event=log) as root:
        await root.start("a", workers(diary)("a"))
        below = await root.start_supervisor("s", strategy=ONE_FOR_ALL, policy=RestartPolicy(max_restarts=0))
        x = await below.start("x", workers(diary)("x"))
        y = await below.start("y", workers(diary)("y"))
        await crash(x)
        await log.wait_for("failed r/s")
        with pytest.raises(ActorStopped, match="supervisor r/s is stopped"):
            await below.start("z", Worker)
        assert await y.ask("hello") == "hello"
        assert await x.ask("hello") == "hello"
    assert log.lines == [
        *("started r/a", "started r/s", "started r/s/x", "started r/s/y"),
        *("failed r/s/x", "gaveup r/s", "stopped r/s/y", "failed r/s"),
        *("restarted r/s/x", "restarted r/s/y", "restarted r/s"),
        *("stopped r/s/y", "stopped r/s/x", "stopped r/s", "stopped r/a"),
    ]


async def test_a_temporary_supervisor_that_gives_up_is_gone_and_harms_nobody(autojump_clock: MockClock) -> None:
    log = EventLog()
    async with open_supervisor("r", strategy=ONE_FOR_ALL, on_event=log) as root:
        a = await root.start("a", Worker)
        below = await root.start_supervisor("s", policy=RestartPolicy(max_restarts=0), restart=Restart.TEMPORARY)
        x = await below.start("x", Worker)
        y = await below.start("y", Worker)
        await crash(x)
        await y.wait_stopped()
        await below.wait_stopped()
        with pytest.raises(ActorStopped):
            await x.ask("hello")
        with pytest.raises(ActorStopped):
            await below.start("z", Worker)
        assert await a.ask("hello") == "hello"
        again = await root.start_supervisor("s")
        assert await (await again.start("x", Worker)).ask("hello") == "hello"
    assert log.lines[4:9] == ["failed r/s/x", "gaveup r/s", "stopped r/s/y", "failed r/s", "started r/s"]


async def test_failure_climbs_the_tree_until_somebody_copes(autojump_clock: MockClock) -> None:
    never = RestartPolicy(max_restarts=0)
    with pytest.raises(SupervisorFailed, match="supervisor r gave up") as info:
        async with no_task_left(), open_supervisor("r", policy=never) as root:
            below = await root.start_supervisor("s", policy=never)
            await crash(await below.start("x", Worker))
            await trio.sleep_forever()
    cause = info.value.__cause__
    assert isinstance(cause, SupervisorFailed) and isinstance(cause.__cause__, ValueError)


async def test_stopping_a_nested_supervisor_closes_all_below() -> None:
    async with open_supervisor("r") as root:
        below = await root.start_supervisor("s")
        deeper = await below.start_supervisor("t")
        x = await deeper.start("x", Worker)
        await root.stop("s")
        assert x.stopped and deeper.stopped and below.stopped
        assert root.children() == []


async def test_a_failed_first_start_raises_and_leaves_no_child(autojump_clock: MockClock) -> None:
    class Broken(Worker):
        async def started(self) -> None:
            raise OSError("no disk")

    log = EventLog()
    async with open_supervisor("r", on_event=log) as root:
        with pytest.raises(OSError, match="no disk"):
            await root.start("a", Broken)
        with pytest.raises(ZeroDivisionError):
            await root.start("a", lambda: Worker(str(1 // 0)))
        assert root.children() == []
        await root.start("a", Worker)
        with pytest.raises(ValueError, match="has a child 'a' already"):
            await root.start("a", Worker)
    assert log.lines == ["failed r/a", "failed r/a", "started r/a", "stopped r/a"]


async def test_a_cancelled_start_leaves_no_child(autojump_clock: MockClock) -> None:
    class Slow(Worker):
        async def started(self) -> None:
            await trio.sleep(100)

    async with no_task_left(), open_supervisor("r") as root:
        with trio.move_on_after(1):
            await root.start("a", Slow)
        assert root.children() == []


async def test_a_start_that_fails_in_a_restart_counts_as_a_failure(autojump_clock: MockClock) -> None:
    lives = itertools.count()

    class Shaky(Worker):
        async def started(self) -> None:
            if next(lives) in (1, 2):
                raise OSError("not yet")

    log = EventLog()
    async with open_supervisor("r", on_event=log) as root:
        ref = await root.start("a", Shaky)
        await crash(ref)
        assert await ref.ask("hello") == "hello"
    assert [line.split()[0] for line in log.lines] == ["started", "failed", "failed", "failed", "restarted", "stopped"]


async def test_a_new_failure_overtakes_a_restart_under_way(autojump_clock: MockClock) -> None:
    """b's failure takes c down; while both wait, a fails: all three start again, in order, once."""
    log = EventLog()
    policy = RestartPolicy(backoff_first_seconds=5, backoff_max_seconds=5)
    async with no_task_left(), open_supervisor("r", strategy=REST_FOR_ONE, policy=policy, on_event=log) as root:
        a, b, c = [await root.start(name, Quick) for name in "abc"]
        await crash(b)
        await trio.sleep(1)
        await crash(a)
        assert await c.ask("hello") == "hello"
        assert trio.current_time() == 6
    assert log.lines[3:9] == ["failed r/b", "stopped r/c", "failed r/a"] + [f"restarted r/{name}" for name in "abc"]


async def test_siblings_that_fail_together_are_one_failure(autojump_clock: MockClock) -> None:
    log = EventLog()
    async with open_supervisor("r", strategy=ONE_FOR_ALL, policy=ONE_RESTART, on_event=log) as root:
        a, b = await root.start("a", Worker), await root.start("b", Worker)
        a.tell_nowait("crash")
        b.tell_nowait("crash")
        await log.wait_for("restarted r/b")
    assert sorted(log.lines[2:4]) == ["failed r/a", "failed r/b"]
    assert log.lines[4:6] == ["restarted r/a", "restarted r/b"]


async def test_stop_while_a_restart_waits(autojump_clock: MockClock) -> None:
    log = EventLog()
    async with open_supervisor("r", strategy=ONE_FOR_ALL, on_event=log) as root:
        a, b = await root.start("a", Quick), await root.start("b", Quick)
        await crash(a)
        await wait_all_tasks_blocked()
        await root.stop("a")
        with pytest.raises(ActorStopped):
            await a.ask("hello")
        assert await b.ask("hello") == "hello"
    assert log.lines[2:] == ["failed r/a", "stopped r/b", "restarted r/b", "stopped r/b"]


async def test_an_actor_may_stop_itself_and_a_sibling(autojump_clock: MockClock) -> None:
    async with no_task_left(), open_supervisor("r") as root:

        class Leaver(Actor[str]):
            async def handle(self, message: str) -> None:
                await root.stop(message)

        me = await root.start("me", Leaver)
        sibling = await root.start("sibling", Worker)
        await me.ask("sibling")
        assert sibling.stopped
        with pytest.raises(ActorStopped):
            await me.ask("me")
        await me.wait_stopped()


async def test_cleaning_up_has_a_bounded_time(autojump_clock: MockClock) -> None:
    class Stuck(Worker):
        async def stopped(self) -> None:
            await trio.sleep_forever()

    log = EventLog()
    async with open_supervisor("r", on_event=log, stop_grace_seconds=7) as root:
        await root.start("a", Stuck)
        await root.start("b", Worker)
    assert 7 <= trio.current_time() < 8
    assert log.lines[2:] == ["stopped r/b", "failed r/a"]
    last = log.events[-1]
    assert isinstance(last, Failed) and isinstance(last.error, ActorTimeout)


async def test_an_error_while_cleaning_up_is_reported_and_stops_nothing_else(autojump_clock: MockClock) -> None:
    class Messy(Worker):
        async def stopped(self) -> None:
            raise OSError("disk")

    log, diary = EventLog(), list[str]()
    async with open_supervisor("r", on_event=log) as root:
        await root.start("a", workers(diary)("a"))
        await root.start("b", Messy)
    assert log.lines[2:] == ["failed r/b", "stopped r/a"]
    assert diary == ["+a", "-a"]


async def test_a_plain_task(autojump_clock: MockClock) -> None:
    async def listen(port: int, *, task_status: trio.TaskStatus[int]) -> None:
        await trio.sleep(1)
        task_status.started(port + 1)
        await trio.sleep_forever()

    async with no_task_left(), open_supervisor("r") as root:
        child = await root.start_task("listener", listen, 3333)
        assert child.value == 3334
        assert not child.stopped
        await root.stop("listener")
        assert child.stopped
        await child.wait_stopped()


async def test_a_failed_task_is_an_event_and_harms_no_sibling(autojump_clock: MockClock) -> None:
    async def connection(seconds: float, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        async with trio.open_nursery():
            await trio.sleep(seconds)
            raise OSError("cut")

    log = EventLog()
    async with open_supervisor("r", strategy=ONE_FOR_ALL, policy=RestartPolicy(max_restarts=0), on_event=log) as root:
        worker = await root.start("worker", Worker)
        for number in range(3):
            child = await root.start_task(f"connection {number}", connection, number)
            await child.wait_stopped()
        assert await worker.ask("hello") == "hello"
        assert len(root.children()) == 1
    assert [line.split()[0] for line in log.lines] == ["started"] + ["started", "failed"] * 3 + ["stopped"]


async def test_a_task_that_does_not_say_that_it_started(autojump_clock: MockClock) -> None:
    async def silent(*, task_status: trio.TaskStatus[None]) -> None:
        await trio.sleep(1)

    async def twice(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        task_status.started()

    async with open_supervisor("r") as root:
        with pytest.raises(RuntimeError, match="without a word"):
            await root.start_task("silent", silent)
        child = await root.start_task("twice", twice)
        await child.wait_stopped()
        assert isinstance(child.error, RuntimeError)


async def test_a_siblings_failure_stops_a_temporary_child_for_good(autojump_clock: MockClock) -> None:
    async def forever(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.sleep_forever()

    log = EventLog()
    async with open_supervisor("r", strategy=REST_FOR_ONE, on_event=log) as root:
        before = await root.start_task("before", forever)
        ref = await root.start("a", Worker)
        after = await root.start_task("after", forever)
        await crash(ref)
        assert await ref.ask("hello") == "hello"
        assert after.stopped and not before.stopped
    assert log.lines[3:] == ["failed r/a", "stopped r/after", "restarted r/a", "stopped r/a", "stopped r/before"]


async def test_a_temporary_actor_is_not_restarted(autojump_clock: MockClock) -> None:
    async with open_supervisor("r", policy=RestartPolicy(max_restarts=0)) as root:
        ref = await root.start("a", Worker, restart=Restart.TEMPORARY)
        await crash(ref)
        await ref.wait_stopped()
        assert root.children() == []


async def test_a_transient_actor_is_restarted_with_its_siblings(autojump_clock: MockClock) -> None:
    async with open_supervisor("r", strategy=ONE_FOR_ALL) as root:
        a = await root.start("a", Worker)
        b = await root.start("b", Worker, restart=Restart.TRANSIENT)
        await crash(a)
        assert await b.ask("hello") == "hello"


async def test_a_closed_supervisor_starts_nothing() -> None:
    async with open_supervisor("r") as root:
        pass
    with pytest.raises(ActorStopped, match="supervisor r is stopped and starts nothing: a"):
        await root.start("a", Worker)


async def test_a_start_under_way_when_the_block_ends_is_stopped(autojump_clock: MockClock) -> None:
    class Slow(Worker):
        async def started(self) -> None:
            await trio.sleep(100)

    async with no_task_left():
        errors = []

        async def start(root: Any) -> None:
            with pytest.raises(ActorStopped) as info:
                await root.start("slow", Slow)
            errors.append(str(info.value))

        async with trio.open_nursery() as nursery, open_supervisor("r") as root:
            nursery.start_soon(start, root)
            await wait_all_tasks_blocked()
        assert errors == ["r/slow was stopped while it started"]


async def test_a_listener_that_raises_ends_the_tree_in_order(autojump_clock: MockClock) -> None:
    diary: list[str] = []

    def listener(event: Event) -> None:
        if event.path == "r/b":
            raise LookupError("listener")

    with pytest.raises(LookupError, match="listener"):
        async with no_task_left(), open_supervisor("r", on_event=listener) as root:
            await root.start("a", workers(diary)("a"))
            await root.start("b", workers(diary)("b"))
            await trio.sleep_forever()
    assert diary == ["+a", "+b", "-b", "-a"]


async def test_an_interrupt_in_an_actor_stops_the_tree_in_order(autojump_clock: MockClock) -> None:
    diary: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        async with no_task_left(), open_supervisor("r") as root:
            await root.start("a", workers(diary)("a"))
            below = await root.start_supervisor("s")
            ref = await below.start("b", workers(diary)("b"))
            await ref.tell("interrupt")
            await trio.sleep_forever()
    assert diary == ["+a", "+b", "-b", "-a"]


async def test_giving_up_is_an_event_with_the_last_error(autojump_clock: MockClock) -> None:
    log = EventLog()
    with pytest.raises(SupervisorFailed):
        async with open_supervisor("r", policy=RestartPolicy(max_restarts=0), on_event=log) as root:
            await crash(await root.start("a", Worker))
            await trio.sleep_forever()
    gave_up = [event for event in log.events if isinstance(event, GaveUp)]
    assert len(gave_up) == 1 and isinstance(gave_up[0].error, ValueError)


@pytest.mark.parametrize("strategy", list(Strategy))
@pytest.mark.parametrize("seconds", [0, 1, 2, 3])
async def test_cancelling_in_the_middle_of_a_restart_leaves_no_task(
    strategy: Strategy, seconds: int, autojump_clock: MockClock
) -> None:
    """A restart that the cancellation reached first never said that it had ended, and the end of the block hung."""

    class Slow(Worker):
        async def started(self) -> None:
            await trio.sleep(2)

    policy = RestartPolicy(backoff_first_seconds=1, backoff_max_seconds=1)
    async with no_task_left():
        for _ in range(5):  # trio wakes tasks in random order
            with trio.CancelScope() as scope:
                async with open_supervisor("r", strategy=strategy, policy=policy) as root:
                    ref = await root.start("a", Slow)
                    await root.start("b", Slow)
                    await crash(ref)
                    scope.deadline = trio.current_time() + seconds
                    await trio.sleep_forever()


steps = st.lists(
    st.one_of(
        st.tuples(st.just("start"), st.integers(0, 4)),
        st.tuples(st.just("crash"), st.integers(0, 4)),
        st.tuples(st.just("stop"), st.integers(0, 4)),
        st.tuples(st.just("sleep"), st.sampled_from([0.0, 0.005, 0.05, 0.1, 1.0])),
    ),
    max_size=15,
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(Strategy), steps, st.integers(0, 6), st.floats(0, 3))
def test_whatever_happens_lives_nest_and_nothing_hangs(
    strategy: Strategy, plan: list[tuple[str, Any]], max_restarts: int, cut: float
) -> None:
    """Random starts, crashes and stops beside each other, cut at a random time.

    Every life has one beginning and one end, no two lives of one actor overlap, every ask ends, and no task is left.
    """
    log, alive, open_asks = EventLog(), list[str](), itertools.count()
    ended_asks = 0

    class Tracked(Worker):
        async def started(self) -> None:
            await trio.sleep(0.01)
            assert self.name not in alive
            alive.append(self.name)

        async def stopped(self) -> None:
            await trio.sleep(0.01)
            alive.remove(self.name)

    async def main() -> None:
        nonlocal ended_asks
        policy = RestartPolicy(max_restarts=max_restarts, backoff_first_seconds=0.01)
        refs: dict[str, Any] = {}

        async def attempt(fn: Callable[..., Any], *args: Any) -> None:
            nonlocal ended_asks
            try:
                await fn(*args)
            except (ActorStopped, ActorFailed, ValueError):
                pass
            finally:
                ended_asks += 1

        async def start(root: Any, name: str) -> None:
            refs[name] = await root.start(name, lambda: Tracked(name))

        async with no_task_left(), trio.open_nursery() as users:
            with trio.move_on_after(cut):
                try:
                    async with open_supervisor("r", strategy=strategy, policy=policy, on_event=log) as root:
                        for what, argument in plan:
                            name = str(argument)
                            if what == "sleep":
                                await trio.sleep(argument)
                            elif what == "start":
                                next(open_asks)
                                users.start_soon(attempt, start, root, name)
                            elif what == "stop":
                                next(open_asks)
                                users.start_soon(attempt, root.stop, name)
                            elif name in refs:
                                next(open_asks)
                                users.start_soon(attempt, refs[name].ask, "crash")
                        await trio.sleep(100)
                except SupervisorFailed:
                    pass

    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert alive == []
    assert ended_asks == next(open_asks)
    up: set[str] = set()
    for event in log.events:
        kind = type(event).__name__
        if kind in ("Started", "Restarted"):
            assert event.path not in up
            up.add(event.path)
        elif kind in ("Stopped", "Failed"):
            up.discard(event.path)
    assert not up
