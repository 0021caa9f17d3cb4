"""How reliable a connection is: latency of the last pings, rate of errors. Pure; `now` is any clock in seconds."""

from collections import deque
from typing import Final

LATENCY_PINGS: Final = 10
"""The requirement: the mean of the last ten."""
ERROR_WEIGHT: Final = 0.1
"""The requirement: an exponentially weighted moving average with 0.1 for the newest."""


class Health:
    """Told of pings, answers and failures."""

    def __init__(self) -> None:
        self._sent_at: dict[int, float] = {}
        self._latencies: deque[float] = deque(maxlen=LATENCY_PINGS)
        self.error_rate = 0.0

    @property
    def latency_seconds(self) -> float | None:
        """Mean round trip of the last pings; None before the first."""
        return sum(self._latencies) / len(self._latencies) if self._latencies else None

    def pinged(self, ping_id: int, now: float) -> None:
        self._sent_at[ping_id] = now
        if len(self._sent_at) > LATENCY_PINGS:
            del self._sent_at[next(iter(self._sent_at))]

    def ponged(self, ping_id: int, now: float) -> None:
        sent_at = self._sent_at.pop(ping_id, None)
        if sent_at is not None:
            self._latencies.append(now - sent_at)
            self.succeeded()

    def is_open(self, ping_id: int) -> bool:
        return ping_id in self._sent_at

    def succeeded(self) -> None:
        self.error_rate *= 1.0 - ERROR_WEIGHT

    def failed(self) -> None:
        """A ping or call without an answer in time. An error that the peer answers is an answer."""
        self.error_rate += (1.0 - self.error_rate) * ERROR_WEIGHT
