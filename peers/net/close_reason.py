"""Why a connection ended: a stable code, a detail for people, and which side said so."""

from dataclasses import dataclass
from typing import Final

from peers.errors import PeersError, WireFault

STOPPED: Final = "stopped"
"""Code of a connection that this device ended because it stops."""


@dataclass(frozen=True, slots=True)
class CloseReason:
    """Why a connection ended. `by_peer`: the other side said so."""

    code: str
    detail: str = ""
    by_peer: bool = False

    def __str__(self) -> str:
        said = "the peer closed it: " if self.by_peer else ""
        return f"{said}{self.code}" + (f" ({self.detail})" if self.detail else "")


STOPPING: Final = CloseReason(STOPPED, "the device is stopping")


def reason_of(error: BaseException) -> CloseReason:
    """What the first error of a PeersError, a BadEncoding, or a group of them makes of a connection."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    code = error.code if isinstance(error, PeersError) else WireFault.BAD_ENCODING.value
    return CloseReason(code, str(error))
