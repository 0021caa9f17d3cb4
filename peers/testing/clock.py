"""Simulated wall clocks: virtual time plus this device's own error."""

import trio

EPOCH_MS = 1_767_225_600_000
"""Where simulated time begins: 2026-01-01T00:00Z. Any date serves; a fixed one makes runs repeatable."""


class SimulatedClock:
    """A device's wall clock. Follows trio's clock (a MockClock in simulations), off by `skew_ms`."""

    def __init__(self, skew_ms: int = 0) -> None:
        self.skew_ms = skew_ms

    def __call__(self) -> int:
        """Milliseconds since the Unix epoch, as this device believes."""
        return EPOCH_MS + int(trio.current_time() * 1000) + self.skew_ms

    def jump(self, by_ms: int) -> None:
        """Somebody, or NTP, set the clock."""
        self.skew_ms += by_ms
