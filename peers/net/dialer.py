"""Keeps wanted addresses connected: one task per address, with backoff and jitter. The policy is pure, in `next_wait`.

The dialer starts its tasks through `start` (a supervisor's `start_task`), so it has no nursery of its own; it lives
as long as what it started. What a connection is for, and when one is one too many, others decide: `connect` returns
why it ended, and that reason chooses how long to wait.
"""

import itertools
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import trio

from peers.config import NetConfig
from peers.errors import DialFailed, UsageError, WireFault
from peers.net.address import parse, why_not_dial
from peers.net.close_reason import CloseReason
from peers.net.transport import Network, Transport

Connect = Callable[[Transport, str], Awaitable[CloseReason]]
"""Run a connection over a transport that was dialled at an address, to its end."""
IsRedundant = Callable[[str], bool]
"""Whether the device that an address leads to is connected already, whoever dialled."""
Start = Callable[..., Awaitable[object]]
"""``await start(name, fn, *args)`` runs ``fn(*args, task_status=…)`` as a task until it is started."""

NOT_ADMITTED: Final = "not_admitted"
REDUNDANT_CODES: Final = frozenset({"replaced", NOT_ADMITTED})
"""The device is connected otherwise, or there is no place for it: no reason to hurry back."""
_COLD_CODES: Final = REDUNDANT_CODES | {
    WireFault.VERSION_MISMATCH.value,
    WireFault.WRONG_PEER.value,
    WireFault.NOT_TRUSTED.value,
    WireFault.DEVICE_REVOKED.value,
    WireFault.BAD_IDENTITY.value,
}
"""Waiting a little changes nothing: as rarely as an address that is long dead."""


def _never(_: str) -> bool:
    return False


def next_wait(code: str, failures: int, lived_seconds: float, config: NetConfig, jitter: float) -> tuple[float, int]:
    """How long to wait before the next attempt, and the count of failures from then on. Pure.

    Args:
        code: of the `CloseReason` or error that ended the attempt.
        failures: attempts in a row before this one that did not lead to a steady connection.
        lived_seconds: how long the connection lived; 0 where there was none.
        jitter: 0 to 1; half of the wait is drawn, so that two devices do not keep meeting in the same moment.
    """
    if lived_seconds >= config.dial_steady_seconds:
        failures = 0
    if code == WireFault.CLOCK_SKEW.value:
        wait = config.clock_skew_retry_seconds
    elif code in _COLD_CODES:
        wait = config.dial_backoff_max_seconds
    else:
        # The exponent is bounded: 2 ** 1100 is no float.
        wait = min(config.dial_backoff_max_seconds, config.dial_backoff_first_seconds * 2.0 ** min(failures, 32))
    return wait * (0.5 + 0.5 * jitter), failures + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DialStatistics:
    """One wanted address. `last` is how the latest attempt ended; `next_at` (trio time) when none is under way."""

    address: str
    attempts: int
    connected: bool
    last: CloseReason | None
    next_at: float | None


class _Wanted:
    """What the task of one address knows."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.scope = trio.CancelScope()
        self.retry_now = trio.Event()
        self.attempts = 0
        self.connected = False
        self.last: CloseReason | None = None
        self.next_at: float | None = None


class Dialer:
    """`want` and `forget` addresses. `own_addresses` are those at which we met ourselves: not dialled again."""

    def __init__(
        self,
        network: Network,
        connect: Connect,
        start: Start,
        *,
        random_source: random.Random,
        config: NetConfig,
        is_redundant: IsRedundant = _never,
    ) -> None:
        self._network = network
        self._is_redundant = is_redundant
        self._connect = connect
        self._start = start
        self._random = random_source
        self._config = config
        self._wanted: dict[str, _Wanted] = {}
        self._numbers = itertools.count(1)
        self.own_addresses: set[str] = set()

    @property
    def addresses(self) -> list[str]:
        return list(self._wanted)

    async def want(self, address: str, *, learned_over: str | None = None) -> str:
        """Keep `address` connected until `forget`; its text form. Wanted again, it is tried at once.

        Args:
            learned_over: the remote address of the connection over which a peer told us; None for this device's own
                configuration, which may name more (see `address.why_not_dial`).

        Raises:
            UsageError: `bad_address`: not an address, or not one that may be dialled.
        """
        target = parse(address, default_port=self._config.port)
        text = str(target)
        forbidden = why_not_dial(target, learned_over=learned_over)
        if forbidden is not None:
            raise UsageError(f"{text} is not dialled: {forbidden}", code="bad_address")
        if text in self._wanted:
            self.retry(text)
        elif text not in self.own_addresses:
            wanted = self._wanted[text] = _Wanted(text)
            # Numbered: the task of the same address, forgotten a moment ago, may still be closing its connection.
            await self._start(f"dial {text} #{next(self._numbers)}", self._keep, wanted)
        return text

    def forget(self, address: str) -> bool:
        """Stop dialling, and end the connection that came of it; whether it was wanted."""
        wanted = self._wanted.pop(str(parse(address, default_port=self._config.port)), None)
        if wanted is None:
            return False
        wanted.scope.cancel()
        return True

    def retry(self, address: str | None = None) -> None:
        """Do not wait any longer: the network has changed, or the other connection to that device ended."""
        for wanted in self._wanted.values():
            if address is None or wanted.address == address:
                wanted.retry_now.set()

    def statistics(self) -> list[DialStatistics]:
        return [
            DialStatistics(
                address=wanted.address,
                attempts=wanted.attempts,
                connected=wanted.connected,
                last=wanted.last,
                next_at=wanted.next_at,
            )
            for wanted in self._wanted.values()
        ]

    async def _keep(self, wanted: _Wanted, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        try:
            with wanted.scope:
                await self._dial_for_ever(wanted)
        finally:
            if self._wanted.get(wanted.address) is wanted:
                del self._wanted[wanted.address]

    async def _dial_for_ever(self, wanted: _Wanted) -> None:
        failures = 0
        while True:
            wanted.retry_now = trio.Event()
            lived_seconds, reason = await self._attempt(wanted)
            wanted.last = reason
            if reason.code == WireFault.SELF_CONNECTION.value:
                self.own_addresses.add(wanted.address)
                return
            wait_seconds, failures = next_wait(
                reason.code, failures, lived_seconds, self._config, self._random.random()
            )
            wanted.next_at = trio.current_time() + wait_seconds
            with trio.move_on_after(wait_seconds):
                await wanted.retry_now.wait()
                failures = 0
            wanted.next_at = None

    async def _attempt(self, wanted: _Wanted) -> tuple[float, CloseReason]:
        """(seconds that the connection lived, why it ended)"""
        if self._is_redundant(wanted.address):
            # Two devices that keep each other's address would replace each other's connection for ever.
            return 0.0, CloseReason(NOT_ADMITTED, "there is a connection with that device already")
        wanted.attempts += 1
        try:
            async with self._network.dial(wanted.address) as transport:
                wanted.connected = True
                opened_at = trio.current_time()
                reason = await self._connect(transport, wanted.address)
                return trio.current_time() - opened_at, reason
        except DialFailed as error:
            return 0.0, CloseReason(error.code, str(error))
        finally:
            wanted.connected = False
