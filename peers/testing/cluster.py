"""A cluster of whole devices in one process: the production actors over a simulated network, in virtual time.

Run it under a MockClock with ``autojump_threshold=0``. Each device is a task that holds `open_device`; `stop` ends it
as a closing program would, `crash` as a lost process would (its files stay as they are), `start` opens it again.
"""

import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from peers.config import Config
from peers.device import Device, open_device
from peers.group import Group
from peers.home import create_home
from peers.model.membership import Role
from peers.testing.clock import SimulatedClock
from peers.testing.network import SimulatedNetwork

SETTLE_SECONDS = 180.0
"""Virtual seconds within which a connected cluster must be equal: P7's 60 s of contact, the longest back-off aside."""


class SimulatedDevice:
    """One device of a cluster: its home, its clock, and, while it runs, the `Device`."""

    def __init__(self, name: str, home: Path, seed: int) -> None:
        self.name = name
        self.home = home
        self.clock = SimulatedClock()
        self._random = random.Random(f"{seed}/{name}")
        self._device: Device | None = None
        self._scope = trio.CancelScope()
        self._ended = trio.Event()

    @property
    def device(self) -> Device:
        assert self._device is not None, f"{self.name} does not run"
        return self._device

    @property
    def running(self) -> bool:
        return self._device is not None

    @property
    def address(self) -> str:
        return f"sim://{self.name}"

    def random_bytes(self, count: int) -> bytes:
        return self._random.randbytes(count)

    async def run(
        self,
        network: SimulatedNetwork,
        config: Config,
        *,
        task_status: "trio.TaskStatus[None]" = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Hold the device open until `end`."""
        self._scope, self._ended = trio.CancelScope(), trio.Event()
        try:
            with self._scope:
                async with open_device(
                    self.home,
                    network=network.endpoint(self.name),
                    config=config,
                    now_ms=self.clock,
                    random_bytes=self.random_bytes,
                ) as device:
                    await device.listen(self.address)
                    self._device = device
                    task_status.started()
                    await trio.sleep_forever()
        finally:
            self._device = None
            self._ended.set()

    async def end(self) -> None:
        self._scope.cancel()
        await self._ended.wait()


class Cluster:
    """Devices by name. Made by `open_cluster`."""

    def __init__(self, folder: Path, names: Iterable[str], seed: int, config: Config, nursery: trio.Nursery) -> None:
        self.network = SimulatedNetwork(random.Random(f"{seed}/network"))
        self.devices = {name: SimulatedDevice(name, folder / name, seed) for name in names}
        self._config = config
        self._nursery = nursery

    def __getitem__(self, name: str) -> Device:
        return self.devices[name].device

    async def start(self, name: str) -> None:
        """Open a device; the first time its home is made."""
        simulated = self.devices[name]
        if not simulated.home.exists():
            home, _ = create_home(
                simulated.home, name=name, random_bytes=simulated.random_bytes, now_ms=simulated.clock
            )
            home.close()
        await self._nursery.start(simulated.run, self.network, self._config)

    async def stop(self, name: str) -> None:
        await self.devices[name].end()

    async def restart(self, name: str) -> None:
        await self.stop(name)
        await self.start(name)

    async def connect(self, dialler: str, listener: str) -> None:
        """`dialler` keeps dialling `listener`."""
        await self[dialler].connect(self.devices[listener].address)

    async def found_group(self, owner: str, members: Iterable[str], *, schema: str = "writers") -> None:
        """`owner` makes a group "team", grants the others writer, and they want it."""
        group = await self[owner].create_group("team", schema=schema)
        for name in members:
            await group.grant(self[name].user_id, Role.WRITER)
            await self[name].join_group(group.id, name="team")

    def group(self, name: str) -> Group:
        (group,) = self[name].groups()
        return group

    async def settled(self, *names: str, seconds: float = SETTLE_SECONDS) -> None:
        """Wait until these devices (all that run, by default) hold the same entries and operations of the group.

        Raises trio.TooSlowError with what each of them holds.
        """
        chosen = names or tuple(name for name, simulated in self.devices.items() if simulated.running)
        with trio.move_on_after(seconds):
            while not self._equal(chosen):  # noqa: ASYNC110 - looks from outside, in virtual time
                await trio.sleep(0.05)
            return
        raise trio.TooSlowError({name: self._position(name) for name in chosen})

    def _equal(self, names: Iterable[str]) -> bool:
        positions = [self._position(name) for name in names]
        return all(position is not None and position == positions[0] for position in positions)

    def _position(self, name: str) -> object:
        groups = self[name].groups()
        if len(groups) != 1 or groups[0].pending:
            return None
        return groups[0].vector, groups[0].control_heads

    async def state_hashes(self, *names: str) -> set[bytes]:
        """The different state hashes of the group: one, where all is well."""
        chosen = names or tuple(name for name, simulated in self.devices.items() if simulated.running)
        return {await self.group(name).state_hash() for name in chosen}


@asynccontextmanager
async def open_cluster(
    folder: Path, names: Iterable[str], *, seed: int = 0, config: Config | None = None
) -> AsyncIterator[Cluster]:
    """A cluster whose devices all run; they know nobody yet. Everything ends with the block."""
    async with trio.open_nursery() as nursery:
        cluster = Cluster(folder, names, seed, config or Config(), nursery)
        for name in cluster.devices:
            await cluster.start(name)
        yield cluster
        for simulated in reversed(list(cluster.devices.values())):
            if simulated.running:
                await simulated.end()
        nursery.cancel_scope.cancel()
