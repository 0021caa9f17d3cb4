"""What waits to be sent on a connection, and in which order its frames go. Pure.

Control messages (pings, pongs, cancels) go first. Then small messages, which are one frame, and chunks of large ones
take turns, so that a page of history delays a live write by one chunk. Small messages keep their order among
themselves, as do large ones; a small one may overtake a large one. At most `assemblies_max` large messages with
`assembly_bytes_max` bytes are begun at once, which is what the other side holds.
"""

from collections import deque
from collections.abc import Iterator

from peers.config import NetConfig


class Outbox:
    """`put_*` whole messages, `next_frame` until it gives None."""

    def __init__(self, config: NetConfig) -> None:
        self._config = config
        self._control: deque[bytes] = deque()
        self._small: deque[bytes] = deque()
        self._large: deque[tuple[Iterator[bytes], int]] = deque()  # begun: (frames to come, size of the message)
        self._begun_bytes = 0
        self._later: deque[tuple[Iterator[bytes], int]] = deque()
        self._small_next = True
        self.waiting_bytes = 0

    @property
    def waiting(self) -> int:
        """Messages, without control, of which a frame is still to be sent."""
        return len(self._small) + len(self._large) + len(self._later)

    @property
    def waiting_control(self) -> int:
        return len(self._control)

    def put_control(self, message: bytes) -> None:
        self._control.append(message)

    def put_small(self, message: bytes) -> None:
        """A message that is its own only frame."""
        self._small.append(message)
        self.waiting_bytes += len(message)

    def put_large(self, frames: Iterator[bytes], size: int) -> None:
        """A message of `size` bytes that travels as `frames`."""
        self._later.append((frames, size))
        self.waiting_bytes += size
        self._begin_large()

    def next_frame(self) -> bytes | None:
        if self._control:
            return self._control.popleft()
        if self._small and (self._small_next or not self._large):
            self._small_next = False
            message = self._small.popleft()
            self.waiting_bytes -= len(message)
            return message
        while self._large:
            self._small_next = True
            frames, size = self._large.popleft()
            frame = next(frames, None)
            if frame is not None:
                self._large.append((frames, size))
                return frame
            self._begun_bytes -= size
            self.waiting_bytes -= size
            self._begin_large()
        if self._small:
            return self.next_frame()
        return None

    def _begin_large(self) -> None:
        config = self._config
        while self._later and len(self._large) < config.assemblies_max:
            size = self._later[0][1]
            if self._begun_bytes + size > config.assembly_bytes_max:
                return
            self._begun_bytes += size
            self._large.append(self._later.popleft())
