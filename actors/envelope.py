"""One message on its way, and the way back for its answer.

An envelope is answered at most once: the first of `answer` and `fail` counts, later ones do nothing. After the asker
has gone away (cancelled, timed out) an answer does nothing either.
"""

from enum import Enum
from typing import Any, Generic, TypeVar

from trio.lowlevel import Abort, Task, current_task, reschedule
from trio.lowlevel import wait_task_rescheduled as park

M = TypeVar("M")


class _State(Enum):
    TOLD = 0
    OPEN = 1
    ANSWERED = 2
    FAILED = 3
    ABANDONED = 4


_TOLD, _OPEN, _ANSWERED, _FAILED, _ABANDONED = _State


class Envelope(Generic[M]):
    """A message that was told or asked. A told one has nobody to answer to."""

    __slots__ = ("_result", "_state", "_task", "message")

    def __init__(self, message: M, *, asked: bool) -> None:
        self.message = message
        self._state = _OPEN if asked else _TOLD
        self._result: Any = None
        self._task: Task | None = None

    @property
    def told(self) -> bool:
        """Nobody ever waited for an answer."""
        return self._state is _TOLD

    @property
    def unheard(self) -> BaseException | None:
        """The error that a told message was failed with: nobody has heard it."""
        return self._result if self._state is _TOLD else None

    @property
    def waiting(self) -> bool:
        """An asker waits for an answer that has not been given."""
        return self._state is _OPEN

    def answer(self, value: Any) -> None:
        """Let the ask return `value`."""
        if self._state is _OPEN:
            self._settle(_ANSWERED, value)

    def fail(self, error: BaseException) -> None:
        """Let the ask raise `error`. Give each envelope an error object of its own."""
        if self._state is _OPEN:
            self._settle(_FAILED, error)
        elif self._state is _TOLD:
            self._result = error

    async def wait(self) -> Any:
        """The answer. For the asker only."""
        if self._state is _OPEN:
            self._task = current_task()
            await park(self._abandon)
        if self._state is _FAILED:
            error, self._result = self._result, None
            try:
                raise error
            finally:
                del error  # a frame in the error's own traceback must not hold the error
        return self._result

    def _settle(self, state: _State, result: Any) -> None:
        self._state = state
        self._result = result
        task, self._task = self._task, None
        if task is not None:
            reschedule(task)

    def _abandon(self, _: Any) -> Abort:
        self._state = _ABANDONED
        self._task = None
        return Abort.SUCCEEDED
