"""Every error that the runtime raises, in one tree.

    ActorError
    ├── ActorStopped       the actor is gone for good, or was stopped while it handled the message
    ├── ActorFailed        the actor crashed while it handled the message; `__cause__` is the crash
    ├── ActorTimeout       no answer in time (it is a `trio.TooSlowError` too)
    ├── MailboxFull        no room now
    ├── MailboxClosed      the mailbox takes nothing any more
    └── SupervisorFailed   a supervisor gave up; `__cause__` is the last crash

An asker that gets `ActorStopped`, `ActorFailed` or `ActorTimeout` does not know whether its message had an effect.
"""

import trio


class ActorError(Exception):
    """Base of all errors of the runtime."""


class ActorStopped(ActorError):
    """The actor is gone for good, or was stopped while it handled this message."""


class ActorFailed(ActorError):
    """The actor crashed while it handled this message. `__cause__` is what it crashed with."""


class ActorTimeout(ActorError, trio.TooSlowError):
    """An ask got no answer, or `Actor.stopped` did not return, in time."""


class MailboxFull(ActorError):
    """A message that may not wait found no room."""


class MailboxClosed(ActorError):
    """The mailbox takes nothing any more."""


class SupervisorFailed(ActorError):
    """Too many failures in too short a time. `__cause__` is the last one."""
