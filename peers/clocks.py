"""The two real sources of nondeterminism that are not the network or the disk: the wall clock and random bytes.

Everything else takes them as arguments; `open_device` is the one place that reaches for these.
"""

import os
import time


def wall_clock_ms() -> int:
    """Milliseconds since the Unix epoch, UTC."""
    return time.time_ns() // 1_000_000


def random_bytes(count: int) -> bytes:
    """From the operating system."""
    return os.urandom(count)
