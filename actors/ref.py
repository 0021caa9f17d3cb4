"""The handle by which others reach an actor: all that they may know of it.

A ref outlives the actor object: after a restart the same ref reaches the new one, and what waited in the mailbox still
waits. It is dead only when its supervisor has stopped the actor for good; then everything here raises `ActorStopped`.
"""

from typing import Any, Generic, TypeVar

import trio
from trio.lowlevel import Task, checkpoint_if_cancelled, current_task

from actors.envelope import Envelope
from actors.errors import ActorStopped, ActorTimeout, MailboxClosed, MailboxFull
from actors.mailbox import Mailbox, MailboxStatistics

M = TypeVar("M")


class Ref(Generic[M]):
    """Sends messages of type `M` to one actor. Made by `Supervisor.start`."""

    __slots__ = ("_mailbox", "_stopped", "_task", "name", "path")

    def __init__(self, name: str, path: str, mailbox: Mailbox[Envelope[M]], stopped: trio.Event) -> None:
        self.name = name
        self.path = path
        self._mailbox = mailbox
        self._stopped = stopped
        self._task: Task | None = None

    @property
    def stopped(self) -> bool:
        """No message will be handled any more."""
        return self._stopped.is_set()

    async def tell(self, message: M) -> None:
        """Put the message into the mailbox, waiting for room; not for its handling.

        Raises:
          ActorStopped: the message is not in.
        """
        try:
            await self._mailbox.send(Envelope(message, asked=False))
        except MailboxClosed:
            raise self._gone() from None

    def tell_nowait(self, message: M) -> None:
        """Put the message into the mailbox.

        Raises:
          MailboxFull: no room now.
          ActorStopped: never again.
        """
        try:
            self._mailbox.send_nowait(Envelope(message, asked=False))
        except MailboxFull as full:
            raise MailboxFull(f"actor {self.path}: {full}") from None
        except MailboxClosed:
            raise self._gone() from None

    async def ask(self, message: M, *, timeout: float | None = None) -> Any:
        """What the actor answers. It never waits for an actor that will not answer.

        Cancelling an ask gives up the answer only: a message that is in the mailbox will be handled.

        Raises:
          ActorStopped: the actor is stopped, or was before it answered.
          ActorFailed: the actor crashed on this message.
          ActorTimeout: `timeout` seconds have passed; room in the mailbox is waited for in them too.
          Exception: one of the actor's `replies`, as its answer.
        """
        if timeout is not None:
            with trio.move_on_after(timeout):
                return await self.ask(message)
            raise ActorTimeout(f"actor {self.path} did not answer within {timeout:g} s")
        await checkpoint_if_cancelled()
        if current_task() is self._task:
            raise RuntimeError(f"actor {self.path} asks itself: it would wait for ever; call the method, or tell")
        envelope = Envelope(message, asked=True)
        try:
            try:
                self._mailbox.send_nowait(envelope)
            except MailboxFull:
                await self._mailbox.send(envelope)
        except MailboxClosed:
            raise self._gone() from None
        return await envelope.wait()

    async def wait_stopped(self) -> None:
        """Return when no message will be handled any more."""
        await self._stopped.wait()

    def runs_in(self, task: Task) -> None:
        """Say which task handles the messages. For the supervisor only."""
        self._task = task

    def statistics(self) -> MailboxStatistics:
        return self._mailbox.statistics()

    def __repr__(self) -> str:
        return f"<Ref {self.path}{' stopped' if self.stopped else ''}>"

    def _gone(self) -> ActorStopped:
        return ActorStopped(f"actor {self.path} is stopped")
