"""Large messages in small frames: splitting and bounded reassembly. Pure.

A message larger than one frame travels as chunks, strictly in order, beside other messages. The first chunk declares
everything: ``[0, data, total, count]``; the others are ``[index, data]``. All but the last carry as many bytes as the
first, so `count` follows from `total` and a lie shows at once. Both sides keep the same limits: at most
`assemblies_max` messages and `assembly_bytes_max` declared bytes on the way in one direction of a connection.

May assume that the session has authenticated the peer. Will not decode what it joins. Every broken rule is a
`ProtocolError`; a message that stops in the middle is dropped by `expire`.
"""

from dataclasses import dataclass
from typing import Any

from peers.config import NetConfig
from peers.errors import ProtocolError, WireFault

CHUNK_OVERHEAD_BYTES = 64
"""Room in a frame for the chunk's own head: kind, ids, index, total and count are at most 40 bytes of CBOR."""
CHUNK_BYTES_MIN = 1024
"""Least data of a chunk that is not the last: 16 MiB are then at most 16,384 chunks."""


def split(message: bytes, frame_bytes: int) -> list[list[Any]]:
    """The chunk bodies of `message`, in order, each of which fits a frame of `frame_bytes`."""
    step = frame_bytes - CHUNK_OVERHEAD_BYTES
    if step < CHUNK_BYTES_MIN:
        raise ValueError(f"frames of {frame_bytes} bytes are too small for chunks")
    total = len(message)
    count = max(1, -(-total // step))
    first: list[Any] = [0, message[:step], total, count]
    return [first, *([index, message[index * step : (index + 1) * step]] for index in range(1, count))]


class ReassemblyBudget:
    """Bytes in reassembly over all connections of a process. Shared by their reassemblers."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.held = 0


@dataclass(slots=True)
class _Assembly:
    total: int
    count: int
    step: int
    parts: list[bytes]
    held: int
    heard_at: float


class Reassembler:
    """Joins the chunks of one direction of one connection. `now` is any clock in seconds."""

    def __init__(self, config: NetConfig, budget: ReassemblyBudget | None = None) -> None:
        self._config = config
        self._budget = budget if budget is not None else ReassemblyBudget(config.process_assembly_bytes_max)
        self._open: dict[int, _Assembly] = {}
        self._declared = 0

    @property
    def open_count(self) -> int:
        return len(self._open)

    @property
    def held_bytes(self) -> int:
        """Bytes that wait for the rest of their message."""
        return sum(assembly.held for assembly in self._open.values())

    def add(self, assembly_id: int, body: Any, now: float) -> bytes | None:
        """Take one chunk; the whole message when it was the last.

        Raises:
            ProtocolError: `too_large` beyond a limit, `bad_frame` for a chunk out of order, repeated or misshapen.
        """
        if not isinstance(body, list) or len(body) < 2 or type(body[0]) is not int or type(body[1]) is not bytes:
            raise ProtocolError(WireFault.BAD_FRAME, "a chunk is not [index, bytes, …]")
        assembly = self._open.get(assembly_id)
        if assembly is None:
            assembly = self._begin(assembly_id, body, now)
        elif len(body) != 2 or body[0] != len(assembly.parts):
            raise ProtocolError(WireFault.BAD_FRAME, f"chunk {body[0]} where {len(assembly.parts)} was due")
        data: bytes = body[1]
        last = len(assembly.parts) + 1 == assembly.count
        due = assembly.total - assembly.step * (assembly.count - 1) if last else assembly.step
        if len(data) != due:
            raise ProtocolError(WireFault.BAD_FRAME, f"chunk {body[0]} has {len(data)} bytes where {due} were declared")
        self._hold(assembly, data)
        assembly.heard_at = now
        if not last:
            return None
        self._drop(assembly_id)
        return b"".join(assembly.parts)

    def expire(self, now: float) -> int:
        """Drop what got no chunk for `assembly_idle_seconds`; how many were dropped."""
        limit = now - self._config.assembly_idle_seconds
        idle = [assembly_id for assembly_id, assembly in self._open.items() if assembly.heard_at <= limit]
        for assembly_id in idle:
            self._drop(assembly_id)
        return len(idle)

    def close(self) -> None:
        """Give everything back to the shared budget: the connection has ended."""
        for assembly_id in list(self._open):
            self._drop(assembly_id)

    def _begin(self, assembly_id: int, body: list[Any], now: float) -> _Assembly:
        if len(body) != 4 or body[0] != 0 or type(body[2]) is not int or type(body[3]) is not int:
            raise ProtocolError(WireFault.BAD_FRAME, f"chunk {body[0]} of a message that was not begun")
        step, total, count = len(body[1]), body[2], body[3]
        config = self._config
        if total > config.message_bytes_max:
            raise ProtocolError(WireFault.TOO_LARGE, f"a message of {total} bytes; {config.message_bytes_max} is most")
        if total < 1 or count < 1 or step < min(CHUNK_BYTES_MIN, total) or count != -(-total // step):
            raise ProtocolError(WireFault.BAD_FRAME, f"{total} bytes are not {count} chunks of {step}")
        if len(self._open) >= config.assemblies_max or self._declared + total > config.assembly_bytes_max:
            raise ProtocolError(WireFault.TOO_LARGE, f"more than {config.assemblies_max} large messages at once")
        assembly = _Assembly(total=total, count=count, step=step, parts=[], held=0, heard_at=now)
        self._open[assembly_id] = assembly
        self._declared += total
        return assembly

    def _hold(self, assembly: _Assembly, data: bytes) -> None:
        if self._budget.held + len(data) > self._budget.bytes_max:
            raise ProtocolError(WireFault.TOO_LARGE, "too many bytes in reassembly over all connections")
        self._budget.held += len(data)
        assembly.held += len(data)
        assembly.parts.append(data)

    def _drop(self, assembly_id: int) -> None:
        assembly = self._open.pop(assembly_id)
        self._declared -= assembly.total
        self._budget.held -= assembly.held
