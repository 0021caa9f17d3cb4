"""Whole devices and a member that lies: its connection may end, all else goes on, and nothing false is stored."""

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import zstandard
from trio.testing import MockClock

from peers.config import MIB, VALUE_BYTES_MAX
from peers.model.clock import pack
from peers.model.entries import RawEntry
from peers.model.ids import GroupId, LogId
from peers.model.membership import Role
from peers.model.version_vector import Head, VersionVector
from peers.testing.hostile import NOTHING, ForgedLog, HostilePeer
from peers.testing.hostile_scene import Scene, open_scene, titles, write
from peers.wire import messages
from peers.wire.messages import Changes, ListChanges

HASH = bytes([7]) * 32


def everything(scene: Scene, name: str = "a") -> tuple[RawEntry, ...]:
    return tuple(scene.store(name).entries_since(VersionVector(), 8 * MIB).entries)


def note(scene: Scene, forged: ForgedLog, title: Any, **overrides: Any) -> RawEntry:
    return forged.entry(forged.insert(scene.note, [(title, 1)]), **overrides)


async def test_the_scene_is_honest_where_mallory_is(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_scene(tmp_path) as scene:
        await scene.join()
        log = scene.log()
        await scene.mallory.push(scene.group, [note(scene, log, "honest")], vector=log.vector)
        await scene.all_is_well()
        assert "honest" in await titles(scene.cluster, "c")
        assert scene.mallory.reason is None


@pytest.mark.parametrize("lie", ["signature", "group", "device"])
async def test_c1_forged_entries(tmp_path: Path, autojump_clock: MockClock, lie: str) -> None:
    """C1: Bad signature / other group's id / other device's id in header: `bad_signature`; batch prefix before it
    kept."""
    async with open_scene(tmp_path) as scene:
        await scene.join()
        log, victim = scene.log(), LogId(scene.cluster["a"].device_id, b"victim's")
        good = note(scene, log, "good")
        bad = {
            "signature": lambda: note(scene, log, "bad", signer=scene.mallory.person.root),
            "group": lambda: note(scene, log, "bad", group=bytes(32)),
            "device": lambda: note(scene, log, "bad", log=victim, seq=1, prev=bytes(32)),
        }[lie]()
        await scene.mallory.push(scene.group, [good, bad])
        assert await scene.problems() == ["bad_signature"]
        await scene.all_is_well()
        assert "good" in await titles(scene.cluster, "c") and "bad" not in await titles(scene.cluster, "b")


async def test_c2_a_fork_shown_to_different_devices(tmp_path: Path, autojump_clock: MockClock) -> None:
    """C2: Same `(device,inc,seq)` twice, different hash: both kept, fork proof stored, device flagged, group
    converges."""
    async with open_scene(tmp_path) as scene:
        await scene.join()
        other = HostilePeer(scene.cluster.network)
        await scene.nursery.start(other.run, "a")
        await other.open_route(scene.group)
        log = scene.log()
        first = note(scene, log, "first")
        root = log.headers[-1]
        left = note(scene, log, "left", after=root)
        right = note(scene, log, "right", after=root, hlc=log.headers[-1].hlc + 1)  # else one row id, and one row
        await scene.mallory.push(scene.group, [first, left])
        await other.push(scene.group, [first, right])
        await scene.all_is_well()
        for name in "abc":
            assert {"first", "left", "right"} <= set(await titles(scene.cluster, name))
            assert scene.cluster.group(name).status()["forks"] == 1
        assert len(scene.store("c").vector.heads[log.log]) == 2
        before = {name: link.pushed_entries for name, link in scene.links("b").items()}
        await trio.sleep(300)
        await scene.all_is_well()
        sent = sum(link.pushed_entries - before[name] for name, link in scene.links("b").items())
        assert sent <= 6, "a fork is not sent again with every hint"


@pytest.mark.parametrize("asked", [True, False])
async def test_c3_a_gap_is_asked_for(tmp_path: Path, autojump_clock: MockClock, asked: bool) -> None:
    """C3: Gap (seq 7 after 5): hold, ask for 6; no error to the user for 60 s."""
    async with open_scene(tmp_path) as scene:
        await scene.join()
        log = scene.log()
        entries = [note(scene, log, f"{number}") for number in range(1, 8)]
        requests = []

        async def answer(group: GroupId, request: ListChanges) -> Changes:
            requests.append(request.since.seq(log.log))
            return Changes((), tuple(entries[request.since.seq(log.log) :]), False) if asked else NOTHING

        scene.mallory.answer = answer  # type: ignore[method-assign]
        scene.mallory.claim(scene.group, VersionVector())
        await scene.mallory.offer(scene.group)
        await trio.sleep(1)
        await scene.mallory.push(scene.group, entries[:5], vector=VersionVector())
        await scene.mallory.push(scene.group, entries[6:], vector=log.vector)
        await trio.sleep(1)
        assert requests and requests[0] == 5, "6 is asked for at once"
        assert scene.store("b").vector.seq(log.log) == (7 if asked else 5)
        await scene.all_is_well()
        assert len(requests) <= 2, "what is not there is not asked for again and again"
        assert scene.mallory.reason is None


async def test_c4_a_time_ahead_is_held_until_it_comes(tmp_path: Path, autojump_clock: MockClock) -> None:
    """C4: `hlc` = now + 5 min / + 6 min / 2^64−1: accept / hold / hold; what is held is asked for again."""
    async with open_scene(tmp_path) as scene:
        await scene.join()
        soon, never = scene.log(), scene.log(b"never...")
        entry = note(scene, soon, "soon", hlc=pack(scene.mallory.clock() + 7 * 60_000))
        late = note(scene, never, "never", hlc=(1 << 64) - 1)

        async def answer(group: GroupId, request: ListChanges) -> Changes:
            return Changes((), (entry, late), False)

        scene.mallory.answer = answer  # type: ignore[method-assign]
        scene.mallory.claim(scene.group, VersionVector({**soon.vector.heads, **never.vector.heads}))
        await scene.mallory.offer(scene.group)
        assert await scene.problems() == ["clock_ahead"]
        await scene.all_is_well()
        assert scene.store("b").clock.last < pack(scene.mallory.clock() + 60_000)
        await trio.sleep(60)
        assert "soon" not in await titles(scene.cluster, "b")
        await trio.sleep(180)
        assert "soon" in await titles(scene.cluster, "c")
        assert "never" not in await titles(scene.cluster, "b")


async def test_c5_a_clock_that_goes_back_stops_that_log(tmp_path: Path, autojump_clock: MockClock) -> None:
    """C5: `hlc` below previous entry of the same log: `clock_order`, that log stops, others flow."""
    async with open_scene(tmp_path) as scene:
        await scene.join()
        log, second = scene.log(), scene.log(b"another.")
        first = note(scene, log, "first")
        bad, after = note(scene, log, "bad", hlc=log.headers[0].hlc), note(scene, log, "after")
        await scene.mallory.push(scene.group, [first, bad, after, note(scene, second, "flows")])
        assert "clock_order" in await scene.problems()
        await scene.all_is_well()
        found = await titles(scene.cluster, "c")
        assert {"first", "flows"} <= set(found) and not {"bad", "after"} & set(found)


@pytest.mark.parametrize("leaf", [None, b"forged"])
async def test_c6_a_leaf_is_asked_from_another_peer(
    tmp_path: Path, autojump_clock: MockClock, leaf: bytes | None
) -> None:
    """C6: Leaf does not match digest; leaf missing above the stable frontier: `bad_digest`; asked from another peer."""
    async with open_scene(tmp_path) as scene:
        await scene.join()
        scene.cluster.network.cut("a", "b")
        await write(scene.cluster, "a", "wanted")
        (true,) = scene.store("a").entries_since(scene.store("b").vector, MIB).entries
        await scene.mallory.push(scene.group, [true._replace(leaves=(leaf,))], vector=scene.store("a").vector)
        assert await scene.problems() == ["bad_digest"]
        assert await titles(scene.cluster, "b") == []
        scene.cluster.network.heal("a", "b")
        await scene.cluster.settled("a", "b", "c")
        assert await titles(scene.cluster, "c") == ["wanted"]
        assert await scene.problems() == []
        await scene.all_is_well()


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, 1 << 63, "x" * (300 * 1024), [1], True], ids=lambda v: repr(v)[:9]
)
async def test_c9_bad_values(tmp_path: Path, autojump_clock: MockClock, value: Any) -> None:
    """C9: NaN, ±inf, 2^63, 300 KiB text: `bad_value` at receive, from whoever sends it."""
    async with open_scene(tmp_path) as scene:
        await scene.join()
        log = scene.log()
        await scene.mallory.push(scene.group, [note(scene, log, value)], vector=log.vector)
        (problem,) = await scene.problems()
        assert problem in ("bad_value", "bad_encoding")
        await scene.all_is_well()
        assert scene.store("b").vector.seq(log.log) == 0


LARGE: dict[str, Callable[[Scene, ForgedLog], RawEntry]] = {
    "65 leaves": lambda scene, log: log.entry(*[log.insert(scene.note, [("x", at)]) for at in range(65)]),
    "65536 rows": lambda scene, log: log.entry(log.insert(scene.note, [("x", 1)] * 65_536), rows=65_536),
    "2 MiB": lambda scene, log: log.entry(bytes(2 * MIB)),
    "5 MiB declared": lambda scene, log: log.entry(zstandard.ZstdCompressor().compress(bytes(5 * MIB))),
    "10 GiB declared": lambda scene, log: log.entry(b"\x28\xb5\x2f\xfd\xe0" + (10 << 30).to_bytes(8, "little")),
    "no leaves": lambda scene, log: log.entry(),
    "long value": lambda scene, log: note(scene, log, "x" * (VALUE_BYTES_MAX + 1)),
}


@pytest.mark.parametrize("case", LARGE)
async def test_c10_limits_at_receive(tmp_path: Path, autojump_clock: MockClock, case: str) -> None:
    """C10: 65 leaves; 65,536 rows; 2 MiB compressed; leaf declaring 5 MiB; 0 leaves without `ack`. W10: a body of
    10 GiB is refused by its declared size. Refused, or the connection with who sends it ends; others flow."""
    async with open_scene(tmp_path) as scene:
        await scene.join()
        log = scene.log()
        await scene.mallory.push(scene.group, [LARGE[case](scene, log)])
        problems = await scene.problems()
        assert problems or (scene.mallory.reason is not None and scene.mallory.reason.code == "bad_encoding")
        await scene.all_is_well()
        assert scene.store("b").vector.seq(log.log) == 0


async def test_c15_everything_twice_from_three_peers(tmp_path: Path, autojump_clock: MockClock) -> None:
    """C15: Duplicate delivery of everything, twice, from 3 peers: no change, no growth."""
    async with open_scene(tmp_path) as scene:
        await scene.join()
        relays = [scene.mallory]
        for name in ("oscar", "trudy"):
            relay = HostilePeer(scene.cluster.network, name)
            await scene.cluster.group("a").grant(relay.person.user, Role.READER)
            await trio.sleep(1)
            await scene.nursery.start(relay.run, "b")
            await relay.open_route(scene.group)
            relays.append(relay)
        await scene.all_is_well()
        entries, operations = everything(scene, "b"), scene.store("b").operations_since(())
        before = rows_of_file(scene), scene.store("b").state_hash(), scene.store("b").vector
        for relay in relays:
            for _ in range(2):
                await relay.push(scene.group, entries, operations=operations)
        await trio.sleep(5)
        assert (rows_of_file(scene), scene.store("b").state_hash(), scene.store("b").vector) == before
        assert await scene.problems() == []
        await scene.all_is_well()


def rows_of_file(scene: Scene) -> dict[str, int]:
    store = scene.store("b")
    names = [name for (name,) in store.query("SELECT name FROM sqlite_schema WHERE type='table'")]
    return {name: store.query(f'SELECT count(*) FROM "{name}"')[0][0] for name in names}


async def claim_and_offer(scene: Scene, vector: VersionVector) -> None:
    """Mallory lets the victim open a route, and says that it holds `vector`."""
    scene.mallory.claim(scene.group, vector)
    await scene.mallory.offer(scene.group)
    await trio.sleep(1)


async def test_c16_entries_that_are_claimed_and_never_sent(tmp_path: Path, autojump_clock: MockClock) -> None:
    """C16: Peer lies: vector says it has entries it never sends: other peers asked; never skip."""
    async with open_scene(tmp_path) as scene:
        await scene.join()
        theirs = LogId(scene.cluster["a"].device_id, scene.store("a").own_log.incarnation)
        asked = []

        async def answer(group: GroupId, request: ListChanges) -> Changes:
            asked.append(request)
            return NOTHING

        scene.mallory.answer = answer  # type: ignore[method-assign]
        await claim_and_offer(scene, VersionVector({theirs: (Head(1000, HASH),), scene.log().log: (Head(9, HASH),)}))
        assert len(asked) == 1
        await scene.all_is_well()
        await trio.sleep(600)
        assert len(asked) <= 12, "about once a minute"
        await scene.all_is_well()


async def test_c16_a_longer_own_log_is_claimed_without_proof(tmp_path: Path, autojump_clock: MockClock) -> None:
    """C16: claims we have more than we do: without our own signature it is a lie, and our log goes on as it is."""
    async with open_scene(tmp_path) as scene:
        await scene.join()
        own = scene.store("b").own_log
        await claim_and_offer(scene, VersionVector({own: (Head(999, HASH),)}))
        await scene.all_is_well()
        assert scene.store("b").own_log == own


async def test_c16_a_peer_that_never_answers_holds_up_nobody(tmp_path: Path, autojump_clock: MockClock) -> None:
    """C16 with W12: a pull from a silent peer does not keep the others' entries waiting."""
    async with open_scene(tmp_path) as scene:
        await scene.join()

        async def answer(group: GroupId, request: ListChanges) -> Changes:
            await trio.sleep_forever()
            raise AssertionError

        scene.mallory.answer = answer  # type: ignore[method-assign]
        scene.cluster.network.cut("a", "b")
        for number in range(30):  # more than a push holds: b has to pull it
            await scene.cluster.group("a").execute(
                "INSERT INTO note(title) VALUES(?), (?)", (f"{number}", random_text(number))
            )
        await claim_and_offer(scene, VersionVector({scene.log().log: (Head(9, HASH),)}))
        scene.cluster.network.heal("a", "b")
        scene.cluster["b"]._meeting.retry()
        before = trio.current_time()
        await scene.cluster.settled("a", "b", "c")
        assert trio.current_time() - before < 15
        await scene.all_is_well()


def random_text(seed: int) -> str:
    return random.Random(seed).randbytes(60_000).hex()


async def test_c16_endless_pages_hold_up_nobody(tmp_path: Path, autojump_clock: MockClock) -> None:
    """C16: `more` for ever, with headers that nobody can verify: the pull is given up, others are asked."""
    async with open_scene(tmp_path) as scene:
        await scene.join()
        log, pages = scene.log(b"endless."), []

        async def answer(group: GroupId, request: ListChanges) -> Changes:
            pages.append(request)
            return Changes((), (note(scene, log, "x", signer=scene.mallory.person.root),), True)

        scene.mallory.answer = answer  # type: ignore[method-assign]
        scene.cluster.network.cut("a", "b")
        for number in range(30):
            await scene.cluster.group("a").execute("INSERT INTO note(title) VALUES(?)", (random_text(number),))
        await claim_and_offer(scene, VersionVector({log.log: (Head(10**6, HASH),)}))
        scene.cluster.network.heal("a", "b")
        scene.cluster["b"]._meeting.retry()
        before = trio.current_time()
        await scene.cluster.settled("a", "b", "c", seconds=60)
        assert trio.current_time() - before < 15
        assert len(pages) < 20


@pytest.mark.parametrize("repeat", ["same page", "nothing"])
async def test_c16_more_without_progress(tmp_path: Path, autojump_clock: MockClock, repeat: str) -> None:
    """C16: `more` with a page that brings nothing new is no reason to ask for ever."""
    async with open_scene(tmp_path) as scene:
        await scene.join()
        log, asked = scene.log(), []
        entry = note(scene, log, "again")

        async def answer(group: GroupId, request: ListChanges) -> Changes:
            asked.append(request)
            return Changes((), (entry,) if repeat == "same page" else (), True)

        scene.mallory.answer = answer  # type: ignore[method-assign]
        await claim_and_offer(scene, VersionVector({log.log: (Head(50, HASH),)}))
        await scene.all_is_well()
        assert len(asked) < 6


async def test_w11_the_end_in_the_middle_of_a_pull(tmp_path: Path, autojump_clock: MockClock) -> None:
    """W11: EOF without `close` in the middle of `listChanges`: `connection_lost`; stored prefix valid; resumes from
    vector."""
    async with open_scene(tmp_path) as scene:
        network = scene.cluster.network
        network.cut("a", "b")
        for number in range(60):
            await scene.cluster.group("a").execute("INSERT INTO note(title) VALUES(?)", (random_text(number),))
        network.set_latency("a", "b", 0.2)
        network.heal("a", "b")
        scene.cluster["b"]._meeting.retry()
        own = scene.store("a").own_log
        had = scene.store("b").vector.seq(own)
        with trio.fail_after(60):
            while scene.store("b").vector.seq(own) == had:  # noqa: ASYNC110
                await trio.sleep(0.01)
        network.cut("a", "b")
        await trio.sleep(1)
        middle = scene.store("b").vector.seq(own)
        assert had < middle < scene.store("a").vector.seq(own)
        assert len(await titles(scene.cluster, "b")) == middle - had
        before = network.statistics("a", "b").bytes
        network.heal("a", "b")
        await scene.cluster.settled("a", "b", "c", seconds=60)
        left = scene.store("a").vector.seq(own) - middle
        assert network.statistics("a", "b").bytes - before < (left + 8) * 80_000, "only what was missing"
        await scene.all_is_well()


async def test_messages_of_no_shape_end_that_connection_only(tmp_path: Path, autojump_clock: MockClock) -> None:
    """W6 at the level of methods: arguments of another shape are `bad_encoding`, and close."""
    async with open_scene(tmp_path) as scene:
        await scene.join()
        junk: list[Any] = [None, [], [1], [[1], [], [], []], [[[b""]], [], [], []], [[], [[b"", b"", []]], [], []]]
        for arguments in junk:
            peer = HostilePeer(scene.cluster.network)
            await scene.nursery.start(peer.run, "b")
            await peer.open_route(scene.group)
            await peer.connection.notify(peer.slot(scene.group), messages.NOTIFY_OF_CHANGES, arguments)
            await trio.sleep(1)
            assert peer.reason is not None and peer.reason.code == "bad_encoding", (arguments, peer.reason)
        await scene.all_is_well()


async def test_operations_that_are_false(tmp_path: Path, autojump_clock: MockClock) -> None:
    """M1 and C1 for operations: forged, of another group, or without a right: refused or inert."""
    async with open_scene(tmp_path) as scene:
        await scene.join()
        operations = scene.store("b").operations
        before = scene.cluster.group("b").members()
        honest = scene.mallory.certified(operations)
        forged = (honest.raw, bytes(64))
        await scene.mallory.push(scene.group, operations=[forged, (b"junk", bytes(64)), (b"", b"")])
        await scene.all_is_well()
        assert scene.cluster.group("b").members() == before


async def test_a_pending_group_is_made_of_its_own_operations_only(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A group that is wanted and not here yet begins with its very genesis, from whoever has it; junk, another group's
    operations and entries before it make nothing, and whoever sends them does not stand in the way of the others."""
    async with open_scene(tmp_path) as scene:
        cluster, other = scene.cluster, scene.store("a").operations_since(())
        team = await cluster["a"].create_group("later", schema="writers")
        for user in (cluster["b"].user_id, scene.mallory.person.user):
            await team.grant(user, Role.WRITER)
        real = team._context.replica.store.operations_since(())
        log = ForgedLog(scene.mallory.person.device_key, team.id, [HASH], scene.mallory.clock)
        junk = log.entry(bytes(10))
        answers = [
            Changes((), (junk,), False),
            Changes(((b"junk", bytes(64)), *real), (junk,), False),
            Changes(tuple(other), (), False),
            Changes(((real[0][0], bytes(64)),), (), True),
            Changes(tuple(real[1:]), (), True),
        ]
        cluster.network.cut("a", "b")
        before = cluster["b"].status()

        async def answer(group: GroupId, request: ListChanges) -> Changes:
            return answers.pop(0) if answers else NOTHING

        scene.mallory.answer = answer  # type: ignore[method-assign]
        await cluster["b"].join_group(team.id)
        for number in range(5):
            scene.mallory.claim(team.id, VersionVector({log.log: (Head(number + 1, HASH),)}), [HASH])
            await scene.mallory.offer(team.id)
            await trio.sleep(1)
            await scene.mallory.connection.notify(0, messages.OFFERS, [[], None])
            await trio.sleep(1)
            assert cluster["b"].group(team.id).pending
        assert not answers and scene.mallory.reason is None
        assert len(before["groups"]) + 1 == len(cluster["b"].status()["groups"])
        cluster.network.heal("a", "b")
        cluster["b"]._meeting.retry()
        await trio.sleep(20)
        assert not cluster["b"].group(team.id).pending
        assert cluster["b"].group(team.id).control_heads == team.control_heads
