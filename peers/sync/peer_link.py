"""One group with one connected device: a loop that pushes and a loop that pulls, in the connection's nursery.

Both loops are driven by state, not by messages: they compare what the store holds with what the peer is believed to
hold, so nothing queues up behind a slow peer, and when the connection ends both end with it. Of a group one pull runs
at a time (`Replica.pull_lock`), a few pages in flight, so that nothing comes twice; but a peer that is slow, silent or
lying keeps the others waiting only for `pull_turn_seconds`.
"""

import trio

from peers.config import SyncConfig
from peers.errors import RemoteError, RetryableError
from peers.model.ids import DeviceId, Hash
from peers.model.version_vector import VersionVector
from peers.net.remote_device import RemoteDevice
from peers.sync import exchange
from peers.sync.replica import Replica
from peers.wire.messages import Changes, ListChanges, NetworkInfo, Notification


class PeerLink:
    """What is known of one peer in one group, and the two loops. `known` is a belief: it never makes data skip."""

    def __init__(self, replica: Replica, remote: RemoteDevice, info: NetworkInfo, config: SyncConfig) -> None:
        self.remote = remote
        self.known = info.vector
        self.known_heads: set[Hash] = set(info.control_heads)
        self.claimed = info.vector
        self.claimed_heads = info.control_heads
        self.pulled_entries = 0
        self.pushed_entries = 0
        self.last_error = ""
        self._replica = replica
        self._config = config
        self._own_log_checked = trio.Event()
        self._push_wanted = trio.Event()
        self._pull_wanted = trio.Event()
        self._stalled: tuple[VersionVector, tuple[Hash, ...]] | None = None
        self._hinted: VersionVector | None = None
        self._hint_time = -config.hint_window_seconds
        self._serving_until = 0.0
        self._resting = False

    @property
    def device_id(self) -> DeviceId:
        return self.remote.device_id

    def start(self) -> None:
        """Begin the loops; they end with the connection."""
        self.remote.connection.spawn(self._watch_commits)
        self.remote.connection.spawn(self._pull_loop)
        self.remote.connection.spawn(self._push_loop)

    def status(self) -> dict[str, object]:
        """Where this peer stands beside me, as far as it said so."""
        mine = self._replica.vector
        return {
            "name": self.remote.connection.peer.name,
            "behind": mine.count_missing(self.claimed),
            "ahead": self.claimed.count_missing(mine),
            "pulled_entries": self.pulled_entries,
            "pushed_entries": self.pushed_entries,
            "last_error": self.last_error,
        }

    def heard(self, vector: VersionVector, control_heads: tuple[Hash, ...], *, again: bool = False) -> None:
        """The peer says where it stands. `again`: also retry what an earlier pull could not bring."""
        self.claimed, self.claimed_heads = vector, control_heads
        self.told(vector, control_heads)
        if again:
            self.known, self.known_heads = vector, set(control_heads)
            self._stalled = None
        self._pull_wanted.set()
        self._push_wanted.set()

    def told(self, vector: VersionVector, control_heads: tuple[Hash, ...]) -> None:
        """The peer holds this much: none of it need be pushed. Before what it sent is stored, and the push wakes."""
        self.known = self.known.joined(vector)
        self.known_heads |= set(control_heads)

    def answered(self, request: ListChanges, changes: Changes) -> None:
        """The peer pulls from me: what it gets so need not be pushed."""
        self.known = exchange.advanced(self.known.joined(request.since), changes.entries)
        self.known_heads |= set(exchange.heads_after(request.control_heads, changes.operations))
        self._serving_until = trio.current_time() + self._config.retry_seconds if changes.more else 0.0
        self._push_wanted.set()

    def rest(self) -> None:
        """The group's file cannot be written to now: pull nothing for `retry_seconds`, then whatever is missing."""
        if not self._resting:
            self._resting = True
            self.remote.connection.spawn(self._wake_up)

    async def _wake_up(self) -> None:
        await trio.sleep(self._config.retry_seconds)
        self._resting = False
        self._pull_wanted.set()

    # --- push ---------------------------------------------------------------------------------------------------------

    async def _watch_commits(self) -> None:
        with self._replica.feed.subscribe() as commits:
            self._push_wanted.set()
            async for _ in commits:
                self._push_wanted.set()

    async def _push_loop(self) -> None:
        await self._own_log_checked.wait()
        await self._begin_publishing()
        while True:
            await self._push_wanted.wait()
            self._push_wanted = trio.Event()
            await self._push_missing()

    async def _begin_publishing(self) -> None:
        while True:
            try:
                return await self._replica.begin_publishing()
            except RetryableError as error:
                self.last_error = f"{error.code}: {error}"
                await trio.sleep(self._config.retry_seconds)

    async def _push_missing(self) -> None:
        """Send what the peer lacks; a long backlog is only announced, and pulled by the peer at its own pace."""
        while trio.current_time() >= self._serving_until and not self._peer_has_all():
            limit_bytes = self._config.push_bytes_max
            operations, more_operations = self._replica.operations_since(self.known_heads, limit_bytes)
            page = self._replica.entries_for(self.device_id, self.known, limit_bytes)
            if not operations and not page.entries:
                return
            vector, heads = self._replica.vector, self._replica.control_heads
            if page.more or more_operations:
                await self._hint(vector, heads)
                return
            await self.remote.notify_of_changes(Notification(tuple(operations), tuple(page.entries), vector, heads))
            self.known = exchange.advanced(self.known, page.entries)
            self.known_heads |= set(exchange.heads_after(heads, operations))
            self.pushed_entries += len(page.entries)

    def _peer_has_all(self) -> bool:
        """Told without a look into the file: this is asked after every commit."""
        return self.known == self._replica.vector and self.known_heads.issuperset(self._replica.control_heads)

    async def _hint(self, vector: VersionVector, heads: tuple[Hash, ...]) -> None:
        if self._hinted == vector:
            return
        await trio.sleep_until(self._hint_time + self._config.hint_window_seconds)
        self._hint_time = trio.current_time()
        self._hinted = vector
        await self.remote.notify_of_changes(Notification((), (), vector, heads))

    # --- pull ---------------------------------------------------------------------------------------------------------

    async def _pull_loop(self) -> None:
        while True:
            while self._behind():
                await self._pull_in_turn()
            if not self._resting and (self._stalled or not self._replica.own_logs_disputed(self.claimed)):
                self._own_log_checked.set()
            await self._pull_wanted.wait()
            self._pull_wanted = trio.Event()

    async def _pull_in_turn(self) -> None:
        my_turn = False
        with trio.move_on_after(self._config.pull_turn_seconds):
            await self._replica.pull_lock.acquire()
            my_turn = True
        try:
            if self._behind():
                await self._pull()
        finally:
            if my_turn:
                self._replica.pull_lock.release()

    def _behind(self) -> bool:
        if self._resting or self._stalled == (self.claimed, self.claimed_heads):
            return False
        held = self._replica.held_heads(self.claimed_heads)
        if exchange.pull_wanted(self._replica.vector, held, self.claimed, self.claimed_heads):
            return True
        return bool(self._replica.own_logs_disputed(self.claimed))

    async def _pull(self) -> None:
        """Bring over what the peer has and I have not: one pass over its pages, to the first that brings nothing."""
        target, missing, stored = (self.claimed, self.claimed_heads), self._missing(), 0
        send, receive = trio.open_memory_channel[Changes](max(0, self._config.pages_in_flight - 1))
        self.remote.connection.spawn(self._fetch, send)
        async with receive:
            async for changes in receive:
                heads = self._replica.control_heads
                report = await self._replica.receive(changes.operations, changes.entries)
                stored += report.stored
                self.pulled_entries += report.stored
                if report.problem:
                    self.last_error = report.problem
                if report.unwritable:
                    self.rest()
                    return
                if not report.stored and heads == self._replica.control_heads:
                    break  # known by now, held or refused; a peer could go on like this for ever
        if not stored and self._missing() == missing and target == (self.claimed, self.claimed_heads):
            self._stalled = target  # held, refused or withheld: asked again when the peer moves, or within a minute

    def _missing(self) -> tuple[int, int]:
        """How many entries and control heads the peer claims beyond what is held here."""
        held = self._replica.held_heads(self.claimed_heads)
        return self._replica.vector.count_missing(self.claimed), len(self.claimed_heads) - len(held)

    async def _fetch(self, send: trio.MemorySendChannel[Changes]) -> None:
        cursor = exchange.pull_cursor(self._replica.vector, self._replica.own_logs_disputed(self.claimed))
        heads = self._replica.control_heads
        async with send:
            while True:
                try:
                    changes = await self.remote.list_changes(ListChanges(cursor, heads, self._config.page_bytes))
                    await send.send(changes)
                except RemoteError as error:  # no longer admitted: the route is about to be closed
                    self.last_error = f"{error.code}: {error}"
                    return
                except trio.BrokenResourceError:
                    return
                after, heads_after = (
                    exchange.advanced(cursor, changes.entries),
                    exchange.heads_after(heads, changes.operations),
                )
                if not changes.more or (after, heads_after) == (cursor, heads):
                    return
                cursor, heads = after, heads_after
