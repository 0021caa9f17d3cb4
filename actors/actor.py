"""The base class of actors: an object that one task owns, and that handles one message after the other.

An actor keeps its state in plain attributes: nobody else touches them, so nothing needs a lock. It reports trouble by
raising. An exception that is one of its `replies` is the answer to the asker; any other is a crash, after which the
supervisor makes a new object by the actor's factory.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Generic, TypeVar

import trio

from actors.envelope import Envelope
from actors.errors import ActorFailed
from actors.mailbox import Mailbox
from actors.ref import Ref

M = TypeVar("M")


class Actor(Generic[M]):
    """Subclass, write `handle` (or `handle_batch`), and give the supervisor a factory of it."""

    batch_max: ClassVar[int] = 1
    """Above 1, what waits in the mailbox, up to this many messages, goes to `handle_batch` at once."""
    replies: ClassVar[tuple[type[Exception], ...]] = ()
    """Exceptions that are answers, not crashes."""

    ref: Ref[M]
    """The actor's own ref, set before `started`. Telling it is fine; an ask of oneself would never return."""
    finished = False

    async def started(self) -> None:
        """Make ready. The actor is up when this returns; if it raises, it must have cleaned up after itself."""

    async def handle(self, message: M) -> Any:
        """Handle one message; what this returns is the answer."""
        raise NotImplementedError(f"{type(self).__name__} handles no messages")

    async def handle_batch(self, batch: list[Envelope[M]]) -> None:
        """Handle several messages, and answer each. An ask that is left without an answer raises `ActorFailed`."""
        for envelope in batch:
            await _answer(self, envelope)

    async def stopped(self) -> None:
        """Clean up. Runs once at the end of every life that was up, shielded, for a bounded time."""

    def finish(self) -> None:
        """End this life normally after the message (or batch) in progress."""
        self.finished = True


async def run_messages(
    actor: Actor[M], mailbox: Mailbox[Envelope[M]], held: list[Envelope[M]], unheard: Callable[[BaseException], None]
) -> None:
    """The one message loop. Returns when the actor has finished; else ends by cancellation or crash.

    `held` always lists what was taken from the mailbox and is not yet done with: on a crash the caller answers for it.
    `unheard` gets the errors of `replies` that answer to nobody.
    """
    while not actor.finished:
        envelope = await mailbox.receive()
        held.append(envelope)
        if actor.batch_max > 1:
            await _run_batch(actor, mailbox, held)
        else:
            await _answer(actor, envelope)
        for envelope in held:
            if envelope.unheard is not None:
                unheard(envelope.unheard)
        held.clear()


async def _run_batch(actor: Actor[M], mailbox: Mailbox[Envelope[M]], held: list[Envelope[M]]) -> None:
    try:
        while len(held) < actor.batch_max:
            held.append(mailbox.receive_nowait())
    except trio.WouldBlock:
        pass
    await actor.handle_batch(list(held))
    for envelope in held:
        if envelope.waiting:
            # Not `None`: to many askers that would read as "done".
            envelope.fail(ActorFailed(f"actor {actor.ref.path} handled the message without an answer"))


async def _answer(actor: Actor[M], envelope: Envelope[M]) -> None:
    try:
        envelope.answer(await actor.handle(envelope.message))
    except actor.replies as error:
        envelope.fail(error)
    except ExceptionGroup as group:
        # A nursery inside `handle` puts groups around errors; with one error in it, the group says nothing more.
        reply = sole_error(group)
        if not isinstance(reply, actor.replies):
            raise
        envelope.fail(reply)


def sole_error(error: BaseException) -> BaseException:
    """What is left of the error without groups of one."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
