"""Whether and when a failed child is started again: pure decisions, obeyed by the supervisor.

No clock and no randomness here: times come in as numbers of seconds, a random number as a number.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Restart(Enum):
    """Which ends of a child ask for a new life."""

    PERMANENT = "permanent"
    """Any end."""
    TRANSIENT = "transient"
    """A failure, but not `Actor.finish`."""
    TEMPORARY = "temporary"
    """None. Also a sibling's failure only stops it."""


class Strategy(Enum):
    """Which siblings share the fate of a failed child."""

    ONE_FOR_ONE = "one_for_one"
    ONE_FOR_ALL = "one_for_all"
    REST_FOR_ONE = "rest_for_one"
    """The failed child and all that were started after it, because they may depend on it."""


ONE_FOR_ONE = Strategy.ONE_FOR_ONE
ONE_FOR_ALL = Strategy.ONE_FOR_ALL
REST_FOR_ONE = Strategy.REST_FOR_ONE


@dataclass(frozen=True, kw_only=True)
class RestartPolicy:
    """At most `max_restarts` within any `window_seconds`; the delay before one doubles from first to max."""

    max_restarts: int = 5
    window_seconds: float = 60.0
    backoff_first_seconds: float = 0.1
    backoff_max_seconds: float = 10.0

    def __post_init__(self) -> None:
        if self.max_restarts < 0 or self.window_seconds <= 0:
            raise ValueError("a restart policy needs max_restarts >= 0 and window_seconds > 0")
        if not 0 <= self.backoff_first_seconds <= self.backoff_max_seconds:
            raise ValueError("a restart policy needs 0 <= backoff_first_seconds <= backoff_max_seconds")


@dataclass(frozen=True, slots=True)
class RestartAfter:
    delay: float
    """Seconds."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    pass


def recent(policy: RestartPolicy, failures: Sequence[float], now: float) -> tuple[float, ...]:
    """The failures that still count at `now`."""
    return tuple(at for at in failures if now - at < policy.window_seconds)


def decide(policy: RestartPolicy, failures: Sequence[float], now: float) -> RestartAfter | GiveUp:
    """What to do about the latest failure. `failures` are the times of all failures, the latest included."""
    count = len(recent(policy, failures, now))
    if count > policy.max_restarts:
        return GiveUp()
    # Beyond 2**64 the maximum has long been reached, and a float could not hold the power.
    doublings = min(max(count - 1, 0), 64)
    return RestartAfter(min(policy.backoff_first_seconds * 2.0**doublings, policy.backoff_max_seconds))


def jittered(delay: float, fraction: float) -> float:
    """Between half the delay and all of it, by a random `fraction` in [0, 1): what failed together returns apart."""
    return delay * (1.0 - fraction / 2.0)
