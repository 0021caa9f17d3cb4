"""Tell and ask: every ask ends, whatever becomes of the actor."""

import gc
import weakref
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.actor import Actor
from actors.envelope import Envelope
from actors.errors import ActorFailed, ActorStopped, ActorTimeout, MailboxFull
from actors.restart import Restart, RestartPolicy
from actors.supervisor import Supervisor, open_supervisor
from actors.testing import EventLog, no_task_left


class Refused(Exception):
    pass


class Calculator(Actor[Any]):
    """Answers numbers with their double, and does what a text says."""

    replies = (Refused,)

    def __init__(self) -> None:
        self.seen: list[Any] = []

    async def handle(self, message: Any) -> Any:
        self.seen.append(message)
        match message:
            case int():
                return message * 2
            case "seen":
                return self.seen
            case "refuse":
                raise Refused("no")
            case "refuse in a nursery":
                async with trio.open_nursery():
                    raise Refused("no")
            case "two errors":
                raise ExceptionGroup("two", [Refused("no"), ValueError("no")])
            case "crash":
                raise ValueError("crash")
            case "sleep":
                await trio.sleep(10)
                return "slept"
            case "ask yourself":
                return await self.ref.ask(1)
            case "tell yourself":
                await self.ref.tell("told")
            case "finish":
                self.finish()
                return "last words"
        return None


class Batcher(Actor[int]):
    batch_max = 4

    async def handle_batch(self, batch: list[Envelope[int]]) -> None:
        for envelope in batch:
            if envelope.message == 13:
                raise ValueError("13")
            if envelope.message != 7:
                envelope.answer((envelope.message, len(batch)))
        await trio.sleep(1)


async def test_ask_and_tell() -> None:
    async with no_task_left(), open_supervisor("root") as root:
        ref = await root.start("calculator", Calculator)
        assert (ref.name, ref.path, repr(ref)) == ("calculator", "root/calculator", "<Ref root/calculator>")
        assert await ref.ask(21) == 42
        await ref.tell("one")
        ref.tell_nowait("two")
        assert await ref.ask("seen") == [21, "one", "two", "seen"]
        assert ref.statistics().received == 4
        assert not ref.stopped
    assert ref.stopped
    await ref.wait_stopped()


async def test_a_stopped_actor_raises_and_never_hangs(autojump_clock: MockClock) -> None:
    async with open_supervisor("root") as root:
        ref = await root.start("calculator", Calculator)
        await root.stop("calculator")
        await root.stop("calculator")
        with pytest.raises(ActorStopped, match="root/calculator is stopped"):
            await ref.ask(1)
        with pytest.raises(ActorStopped):
            await ref.ask(1, timeout=5)
        with pytest.raises(ActorStopped):
            await ref.tell(1)
        with pytest.raises(ActorStopped):
            ref.tell_nowait(1)
    with pytest.raises(ActorStopped):
        await ref.ask(1)


async def test_the_message_in_progress_those_that_wait_and_blocked_senders_get_stopped(
    autojump_clock: MockClock,
) -> None:
    errors = []

    async def ask(message: str) -> None:
        with pytest.raises(ActorStopped) as info:
            await ref.ask(message)
        errors.append(str(info.value))

    async def tell() -> None:
        with pytest.raises(ActorStopped) as info:
            await ref.tell("late")
        errors.append(str(info.value))

    async with open_supervisor("root") as root, trio.open_nursery() as nursery:
        ref = await root.start("calculator", Calculator, mailbox=1)
        for message in ("sleep", "waits", "blocked"):
            nursery.start_soon(ask, message)
            await wait_all_tasks_blocked()
        nursery.start_soon(tell)
        await wait_all_tasks_blocked()
        assert ref.statistics().blocked_senders == 2
        await root.stop("calculator")
    assert sorted(errors) == [
        "actor root/calculator is stopped",
        "actor root/calculator is stopped",
        "actor root/calculator was stopped before it handled this message",
        "actor root/calculator was stopped while it handled this message",
    ]


async def test_replies_are_answers_not_crashes() -> None:
    log = EventLog()
    async with open_supervisor("root", on_event=log) as root:
        ref = await root.start("calculator", Calculator)
        with pytest.raises(Refused):
            await ref.ask("refuse")
        with pytest.raises(Refused):
            await ref.ask("refuse in a nursery")
        await ref.tell("refuse")
        assert await ref.ask(1) == 2
    assert log.lines == ["started root/calculator", "unheard root/calculator", "stopped root/calculator"]


async def test_a_group_with_another_error_in_it_is_a_crash(autojump_clock: MockClock) -> None:
    async with open_supervisor("root") as root:
        ref = await root.start("calculator", Calculator)
        with pytest.raises(ActorFailed) as info:
            await ref.ask("two errors")
        assert isinstance(info.value.__cause__, ExceptionGroup)


async def test_a_crash_fails_its_ask_and_ref_and_mailbox_survive_the_restart(autojump_clock: MockClock) -> None:
    log = EventLog()
    answers: list[Any] = []

    async def ask(message: Any) -> None:
        try:
            answers.append(await ref.ask(message))
        except ActorFailed as error:
            answers.append(error.__cause__)

    async with open_supervisor("root", on_event=log) as root:
        ref = await root.start("calculator", Calculator)
        async with trio.open_nursery() as nursery:
            for message in ("sleep", "crash", 1, "seen"):
                nursery.start_soon(ask, message)
                await wait_all_tasks_blocked()
        match answers:
            case ["slept", ValueError(), 2, [1, "seen"]]:
                pass
            case other:
                pytest.fail(f"{other}")
    assert [line.split()[0] for line in log.lines] == ["started", "failed", "restarted", "stopped"]


async def test_ask_with_a_timeout(autojump_clock: MockClock) -> None:
    async with open_supervisor("root") as root:
        ref = await root.start("calculator", Calculator, mailbox=1)
        start = trio.current_time()
        with pytest.raises(ActorTimeout, match="did not answer within 2 s"):
            await ref.ask("sleep", timeout=2)
        await ref.tell("fills the mailbox")
        with pytest.raises(trio.TooSlowError):
            await ref.ask("no room", timeout=3)
        assert trio.current_time() - start == 5
        # The message that nobody waits for any more was handled all the same; the one that never got in was not.
        assert await ref.ask("seen", timeout=20) == ["sleep", "fills the mailbox", "seen"]


async def test_a_cancelled_ask_gives_up_the_answer_only(autojump_clock: MockClock) -> None:
    async with open_supervisor("root") as root:
        ref = await root.start("calculator", Calculator)
        with trio.move_on_after(1):
            await ref.ask("sleep")
        assert await ref.ask(1) == 2
        with trio.CancelScope() as scope:
            scope.cancel()
            await ref.ask("never sent")
        assert await ref.ask("seen") == ["sleep", 1, "seen"]


async def test_an_actor_that_asks_itself_crashes_at_once(autojump_clock: MockClock) -> None:
    async with open_supervisor("root") as root:
        ref = await root.start("calculator", Calculator)
        with pytest.raises(ActorFailed, match="asks itself"):
            await ref.ask("ask yourself")
        await ref.ask("tell yourself")
        assert await ref.ask("seen") == ["tell yourself", "told", "seen"]


async def test_finish_ends_a_transient_actor_after_its_answer() -> None:
    log = EventLog()
    async with open_supervisor("root", on_event=log) as root:
        ref = await root.start("calculator", Calculator, restart=Restart.TRANSIENT)
        assert await ref.ask("finish") == "last words"
        await ref.wait_stopped()
        with pytest.raises(ActorStopped):
            await ref.ask(1)
        assert root.children() == []
    assert log.lines == ["started root/calculator", "stopped root/calculator"]


async def test_finish_of_a_permanent_actor_restarts_it(autojump_clock: MockClock) -> None:
    log = EventLog()
    async with open_supervisor("root", on_event=log) as root:
        ref = await root.start("calculator", Calculator)
        await ref.ask("finish")
        assert await ref.ask("seen") == ["seen"]
    assert [line.split()[0] for line in log.lines] == ["started", "stopped", "restarted", "stopped"]


async def _ask_all(root: Supervisor, messages: list[int]) -> list[Any]:
    ref = await root.start("batcher", Batcher)
    answers: list[Any] = [None] * len(messages)

    async def ask(index: int, message: int) -> None:
        try:
            answers[index] = await ref.ask(message)
        except ActorFailed as error:
            answers[index] = type(error.__cause__).__name__

    async with trio.open_nursery() as nursery:
        for index, message in enumerate(messages):
            nursery.start_soon(ask, index, message)
            await wait_all_tasks_blocked()
    return answers


async def test_what_queued_up_is_handled_as_one_batch(autojump_clock: MockClock) -> None:
    async with open_supervisor("root") as root:
        answers = await _ask_all(root, [0, 1, 2, 3, 4, 5])
    assert answers == [(0, 1), (1, 4), (2, 4), (3, 4), (4, 4), (5, 1)]


async def test_an_ask_that_a_batch_forgets_fails(autojump_clock: MockClock) -> None:
    async with open_supervisor("root") as root:
        answers = await _ask_all(root, [0, 1, 7, 3])
    assert answers == [(0, 1), (1, 3), "NoneType", (3, 3)]


async def test_a_crash_fails_all_of_a_batch_that_has_no_answer(autojump_clock: MockClock) -> None:
    async with open_supervisor("root") as root:
        answers = await _ask_all(root, [0, 1, 13, 3])
    assert answers == [(0, 1), (1, 3), "ValueError", "ValueError"]


async def test_a_batch_actor_without_a_batch_method_uses_handle() -> None:
    class Batching(Calculator):
        batch_max = 8

    log = EventLog()
    async with open_supervisor("root", on_event=log) as root:
        ref = await root.start("batching", Batching)
        assert await ref.ask(4) == 8
        with pytest.raises(Refused):
            await ref.ask("refuse")
        await ref.tell("refuse")
        await ref.ask(1)
    assert "unheard root/batching" in log.lines


async def test_tell_nowait_to_a_full_mailbox(autojump_clock: MockClock) -> None:
    async with open_supervisor("root") as root:
        ref = await root.start("calculator", Calculator, mailbox=1)
        ref.tell_nowait("sleep")
        await wait_all_tasks_blocked()
        ref.tell_nowait("waits")
        with pytest.raises(MailboxFull, match="root/calculator"):
            ref.tell_nowait("too many")


async def test_an_ask_while_the_actor_waits_for_its_restart_is_answered_after_it(autojump_clock: MockClock) -> None:
    policy = RestartPolicy(backoff_first_seconds=3, backoff_max_seconds=3)
    async with open_supervisor("root", policy=policy) as root:
        ref = await root.start("calculator", Calculator)
        with pytest.raises(ActorFailed):
            await ref.ask("crash")
        start = trio.current_time()
        assert await ref.ask(1) == 2
        assert trio.current_time() - start == 3


async def test_a_batch_crash_gives_each_asker_an_error_of_its_own(autojump_clock: MockClock) -> None:
    errors = []
    async with open_supervisor("root") as root:
        ref = await root.start("batcher", Batcher)

        async def ask(message: int) -> None:
            with pytest.raises(ActorFailed) as info:
                await ref.ask(message)
            errors.append(info.value)

        await ref.tell(0)
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, 13)
            await wait_all_tasks_blocked()
            nursery.start_soon(ask, 13)
    assert errors[0] is not errors[1]


async def test_a_stopped_actor_object_is_not_kept_alive() -> None:
    made: list[weakref.ref[Calculator]] = []

    def factory() -> Calculator:
        actor = Calculator()
        made.append(weakref.ref(actor))
        return actor

    async with open_supervisor("root") as root:
        ref = await root.start("calculator", factory)
        await ref.ask(1)
        await root.stop("calculator")
        gc.collect()
        assert made[0]() is None
        assert ref.stopped
