"""What a stranger, or a member without a route, gets to see: the same `not_available` for everything (T28)."""

from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from peers.errors import RemoteError
from peers.model.ids import blake2b_256
from peers.model.version_vector import VersionVector
from peers.sync.connection_manager import GroupsChanged
from peers.testing.hostile import HostilePeer
from peers.testing.hostile_scene import Scene, open_scene, write
from peers.wire import messages
from peers.wire.messages import ListChanges

RANDOM_ID = blake2b_256(b"a group that nobody has")
LIST = ListChanges(VersionVector(), (), 1000).to_wire()


async def stranger(scene: Scene) -> HostilePeer:
    peer = HostilePeer(scene.cluster.network, "oscar")
    await scene.nursery.start(peer.run, "b")
    return peer


async def refusal(peer: HostilePeer, slot: int, method: str, arguments: Any) -> tuple[str, str, float]:
    """Code, text and time of the answer."""
    before = trio.current_time()
    with pytest.raises(RemoteError) as caught:
        await peer.connection.call(slot, method, arguments)
    return caught.value.code, str(caught.value), round(trio.current_time() - before, 3)


async def test_w13_everything_that_is_not_there_is_not_available(tmp_path: Path, autojump_clock: MockClock) -> None:
    """W13: Unknown RPC / group slot / group id of a group we have but peer is not in: identical `not_available`, same
    timing class."""
    async with open_scene(tmp_path) as scene:
        peer = await stranger(scene)
        await scene.join()
        other_route = scene.mallory.slot(scene.group)
        scene.cluster.network.set_latency("oscar", "b", 0.05)
        answers = [
            await refusal(peer, 0, messages.GROUP_READY, [1, scene.group]),
            await refusal(peer, 0, messages.GROUP_READY, [3, RANDOM_ID]),
            await refusal(peer, 0, messages.GROUP_READY, [5, scene.cluster["b"].user_id]),
            await refusal(peer, 0, "no_such_method", []),
            await refusal(peer, 0, messages.LIST_CHANGES, LIST),
            await refusal(peer, 1, messages.LIST_CHANGES, LIST),
            await refusal(peer, other_route, messages.LIST_CHANGES, LIST),
            await refusal(peer, 999, messages.GET_NETWORK_INFO, []),
            await refusal(peer, 999, "no_such_method", None),
            await refusal(peer, 2, messages.LIST_CHANGES, ["of no shape"]),
        ]
        assert {(code, text) for code, text, _ in answers} == {("not_available", answers[0][1])}
        assert max(answer[2] for answer in answers) - min(answer[2] for answer in answers) < 0.01
        own = await refusal(scene.mallory, scene.mallory.slot(scene.group), "no_such_method", [])
        assert own[:2] == answers[0][:2]
        await scene.all_is_well()


async def test_w13_a_stranger_hears_of_no_group(tmp_path: Path, autojump_clock: MockClock) -> None:
    """T28: offers name only the groups in which our own log makes the peer a member; no route is opened to him, also
    when he offers the group himself; his pushes and digests lead nowhere."""
    async with open_scene(tmp_path) as scene:
        peer = await stranger(scene)
        await peer.offer(scene.group, RANDOM_ID)
        peer.claim(scene.group, VersionVector())
        for slot in (1, 2, 999):
            await peer.connection.notify(slot, messages.NOTIFY_OF_CHANGES, [[], [], [], []])
        digests = [[slot, bytes(32)] for slot in range(1, 20)]
        assert await peer.connection.call(0, messages.COMPARE_DIGESTS, [digests]) == []
        await write(scene.cluster, "a", "secret")
        await trio.sleep(180)
        offers = [arguments for slot, method, arguments in peer.heard if method == messages.OFFERS]
        assert offers == [[[], None]]
        assert {method for _, method, _ in peer.heard} == {messages.OFFERS}
        assert peer.reason is None
        await scene.all_is_well()


@pytest.mark.parametrize("slot", [2, 0, -1, 1 << 32])
@pytest.mark.parametrize("known", [True, False])
async def test_w13_slots_that_are_not_the_peers_to_open(
    tmp_path: Path, autojump_clock: MockClock, slot: int, known: bool
) -> None:
    """A slot of the wrong parity or range ends the connection, whether or not the group exists."""
    async with open_scene(tmp_path) as scene:
        peer = await stranger(scene)
        with pytest.raises(Exception, match="ended"):
            await peer.connection.call(0, messages.GROUP_READY, [slot, scene.group if known else RANDOM_ID])
        await trio.sleep(1)
        assert peer.reason is not None and peer.reason.code == ("protocol" if slot == 2 else "bad_encoding")
        await scene.all_is_well()


async def test_w13_a_number_is_used_once_also_where_it_was_refused(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_scene(tmp_path) as scene:
        peer = await stranger(scene)
        assert (await refusal(peer, 0, messages.GROUP_READY, [1, RANDOM_ID]))[0] == "not_available"
        with pytest.raises(Exception, match="ended"):
            await peer.connection.call(0, messages.GROUP_READY, [1, scene.group])
        await trio.sleep(1)
        assert peer.reason is not None and peer.reason.code == "protocol"


async def test_w13_calls_on_a_closed_route(tmp_path: Path, autojump_clock: MockClock) -> None:
    """After `group_closed` the slot is gone; the route may be opened again under another number."""
    async with open_scene(tmp_path) as scene:
        await scene.mallory.open_route(scene.group)
        first = scene.mallory.slot(scene.group)
        assert (await scene.mallory.pull(scene.group)).operations
        await scene.mallory.connection.notify(0, messages.GROUP_CLOSED, [first])
        assert (await refusal(scene.mallory, first, messages.LIST_CHANGES, LIST))[0] == "not_available"
        await scene.mallory.open_route(scene.group)
        assert (await scene.mallory.pull(scene.group)).operations
        assert (await refusal(scene.mallory, first, messages.LIST_CHANGES, LIST))[0] == "not_available"


async def test_h14_rights_are_checked_on_every_call(tmp_path: Path, autojump_clock: MockClock) -> None:
    """H14, as far as groups can end so far: a group that this device gives up is not available from then on, and its
    routes close at once."""
    async with open_scene(tmp_path) as scene:
        await scene.mallory.open_route(scene.group)
        scene.mallory.claim(scene.group, VersionVector())
        await scene.mallory.offer(scene.group)
        await trio.sleep(1)
        group, device = scene.group, scene.cluster["b"]
        context = device._contexts.pop(group)
        assert (await refusal(scene.mallory, scene.mallory.slot(group), messages.LIST_CHANGES, LIST))[0] == (
            "not_available"
        )
        assert (await refusal(scene.mallory, scene.mallory.slot(group), messages.GET_NETWORK_INFO, []))[0] == (
            "not_available"
        )
        await device._manager.tell(GroupsChanged())
        await trio.sleep(1)
        assert messages.GROUP_CLOSED in {method for _, method, _ in scene.mallory.heard}
        offers = [arguments for _, method, arguments in scene.mallory.heard if method == messages.OFFERS]
        assert offers[-1] == [[], None]
        device._contexts[group] = context


@pytest.mark.parametrize("method", [messages.GROUP_READY, messages.COMPARE_DIGESTS])
@pytest.mark.parametrize("arguments", [None, [], [1], ["a", "b"], [[[1]]], {"a": 1}])
async def test_calls_of_no_shape_end_the_connection(
    tmp_path: Path, autojump_clock: MockClock, method: str, arguments: Any
) -> None:
    async with open_scene(tmp_path) as scene:
        peer = await stranger(scene)
        with pytest.raises(Exception, match="ended"):
            await peer.connection.call(0, method, arguments)
        await trio.sleep(1)
        assert peer.reason is not None and peer.reason.code == "bad_encoding"
