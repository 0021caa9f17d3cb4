"""What a supervisor reports to its listener: frozen facts, in the order in which they happened.

Every life of a child begins with `Started` (the first) or `Restarted`, and ends with exactly one of `Stopped` or
`Failed`. A child that fails before it is up has no beginning, only `Failed`. `at` is `trio.current_time()`.
`path` names the child from the root: "device/team-alpha/writer".
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Started:
    """The child is up for the first time."""

    path: str
    at: float


@dataclass(frozen=True, slots=True)
class Restarted:
    """The child is up again; `restarts` counts from 1."""

    path: str
    at: float
    restarts: int


@dataclass(frozen=True, slots=True)
class Stopped:
    """The child ended because it was told to, or because it had finished."""

    path: str
    at: float


@dataclass(frozen=True, slots=True)
class Failed:
    """The child ended with an error: in `started`, in a message, or in `stopped`."""

    path: str
    at: float
    error: BaseException


@dataclass(frozen=True, slots=True)
class Unheard:
    """A message that was told, not asked, met an error of `Actor.replies`. The actor goes on; nobody else heard it."""

    path: str
    at: float
    error: BaseException


@dataclass(frozen=True, slots=True)
class GaveUp:
    """The supervisor at `path` stops its children and fails upward. `error` is None if a child finished too often."""

    path: str
    at: float
    error: BaseException | None


Event = Started | Restarted | Stopped | Failed | Unheard | GaveUp
