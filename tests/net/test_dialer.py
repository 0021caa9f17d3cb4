"""The dialer: its policy alone, and its tasks in virtual time."""

from random import Random
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from peers.config import NetConfig
from peers.errors import UsageError
from peers.net.close_reason import CloseReason
from peers.net.dialer import Dialer, next_wait
from peers.net.transport import Transport
from peers.testing.network import SimulatedNetwork

CONFIG = NetConfig()


def test_backoff_doubles_up_to_five_minutes() -> None:
    failures, waits = 0, []
    for _ in range(15):
        wait, failures = next_wait("dial_failed", failures, 0.0, CONFIG, 1.0)
        waits.append(wait)
    assert waits[:4] == [0.5, 1.0, 2.0, 4.0] and waits[-1] == 300.0
    assert next_wait("dial_failed", 10_000, 0.0, CONFIG, 0.0) == (150.0, 10_001)


def test_a_steady_connection_begins_anew() -> None:
    assert next_wait("connection_lost", 9, 60.0, CONFIG, 1.0) == (0.5, 1)
    assert next_wait("connection_lost", 9, 59.0, CONFIG, 1.0)[0] > 200


@pytest.mark.parametrize(("code", "wait"), [("clock_skew", 60.0), ("replaced", 300.0), ("version_mismatch", 300.0)])
def test_reasons_that_choose_the_wait(code: str, wait: float) -> None:
    """H7: retried after 1 min."""
    assert next_wait(code, 0, 0.0, CONFIG, 1.0)[0] == wait


class Dialling:
    """A dialer at alice; bob accepts and holds. `reason` is what every connection ends with."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.network = SimulatedNetwork(Random(2))
        self.nursery = nursery
        self.times: list[float] = []
        self.reason = CloseReason("connection_lost")
        self.lives_seconds = 0.0
        self.redundant: set[str] = set()
        self.dialer = Dialer(
            self.network.endpoint("alice"),
            self.connect,
            self.start,
            random_source=Random(3),
            config=CONFIG,
            is_redundant=self.redundant.__contains__,
        )

    async def start(self, name: str, fn: Any, *args: Any) -> None:
        await self.nursery.start(fn, *args)

    async def connect(self, transport: Transport, address: str) -> CloseReason:
        self.times.append(trio.current_time())
        await trio.sleep(self.lives_seconds)
        return self.reason

    async def listen(self) -> None:
        await self.nursery.start(self.network.endpoint("bob").listen, "sim://bob", hold)


async def hold(transport: Transport) -> None:
    await trio.sleep_forever()


async def test_it_dials_until_somebody_answers(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    dialling = Dialling(nursery)
    dialling.lives_seconds = 1e6
    assert await dialling.dialer.want("sim://bob") == "sim://bob"
    await trio.sleep(20)
    (statistics,) = dialling.dialer.statistics()
    assert 4 <= statistics.attempts <= 8 and not statistics.connected
    assert statistics.last is not None and statistics.last.code == "dial_failed"
    await dialling.listen()
    dialling.dialer.retry()
    await trio.sleep(1)
    (statistics,) = dialling.dialer.statistics()
    assert statistics.connected and statistics.next_at is None and len(dialling.times) == 1
    assert dialling.network.open_connections == [("alice", "bob")]
    nursery.cancel_scope.cancel()


async def test_forget_ends_the_connection(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    dialling = Dialling(nursery)
    dialling.lives_seconds = 1e6
    await dialling.listen()
    await dialling.dialer.want("sim://bob")
    await trio.sleep(1)
    assert dialling.dialer.forget("sim://bob") and not dialling.dialer.forget("sim://bob")
    await trio.sleep(1)
    assert dialling.network.open_connections == [] and dialling.dialer.addresses == []
    await dialling.dialer.want("sim://bob")
    await trio.sleep(1)
    assert len(dialling.times) == 2
    nursery.cancel_scope.cancel()


async def test_h8_our_own_address_is_remembered(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """H8: dialled our own address: `self_connection`, address remembered as own."""
    dialling = Dialling(nursery)
    dialling.reason = CloseReason("self_connection")
    await dialling.listen()
    await dialling.dialer.want("sim://bob")
    await trio.sleep(1000)
    await dialling.dialer.want("sim://bob")
    await trio.sleep(1000)
    assert dialling.dialer.own_addresses == {"sim://bob"}
    assert len(dialling.times) == 1 and dialling.dialer.addresses == []


async def test_h7_a_skewed_clock_is_tried_again_after_a_minute(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """H7: no ban; retried after 1 min."""
    dialling = Dialling(nursery)
    dialling.reason = CloseReason("clock_skew")
    await dialling.listen()
    await dialling.dialer.want("sim://bob")
    await trio.sleep(300)
    gaps = [later - earlier for earlier, later in zip(dialling.times, dialling.times[1:], strict=False)]
    assert len(gaps) >= 4 and all(30 <= gap <= 61 for gap in gaps)
    nursery.cancel_scope.cancel()


async def test_want_refuses_what_is_not_dialled(nursery: trio.Nursery) -> None:
    dialer = Dialling(nursery).dialer
    with pytest.raises(UsageError, match="link-local"):
        await dialer.want("169.254.169.254:80")
    with pytest.raises(UsageError, match="private"):
        await dialer.want("10.0.0.1", learned_over="ws://8.8.8.8:3333")
    assert dialer.addresses == []


async def test_an_address_forgotten_a_moment_ago_may_be_wanted_again(nursery: trio.Nursery) -> None:
    """A supervisor refuses two children of one name, and the first task may still be closing its connection."""
    names: list[str] = []
    dialling = Dialling(nursery)

    async def start(name: str, fn: Any, *args: Any) -> None:
        assert name not in names
        names.append(name)
        await nursery.start(fn, *args)

    dialer = Dialer(
        dialling.network.endpoint("carol"), dialling.connect, start, random_source=Random(3), config=CONFIG
    )  # fmt: skip
    for _ in range(2):
        await dialer.want("ws://bob:3333")
        assert dialer.forget("ws://bob:3333")
    assert len(names) == 2


async def test_an_address_of_a_connected_device_is_not_dialled(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    dialling = Dialling(nursery)
    dialling.lives_seconds = 1e6
    dialling.redundant.add("sim://bob")
    await dialling.listen()
    await dialling.dialer.want("sim://bob")
    await trio.sleep(1000)
    (statistics,) = dialling.dialer.statistics()
    assert statistics.attempts == 0 and statistics.last is not None and statistics.last.code == "not_admitted"
    dialling.redundant.clear()
    dialling.dialer.retry()
    await trio.sleep(1)
    assert len(dialling.times) == 1
    nursery.cancel_scope.cancel()
