"""A device as a process of its own: `python -m peers … up` on a free port of loopback, and the real command line.

What ends a process here does so by its own id. Waiting is polling with a deadline: nothing in these tests relies on
how long something takes.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
import trio

from peers.cli.control_socket import ask_device, connect_control_socket
from peers.errors import ConnectionLost
from peers.home import HomeFolder

ROOT = Path(__file__).resolve().parents[2]
PEERS = [sys.executable, "-m", "peers"]
WAIT_SECONDS = 60.0
"""Bound of every wait: many times what an idle machine needs."""
POLL_SECONDS = 0.02

_LISTENING = re.compile(r"^listening on (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Done:
    """A command line that has ended."""

    code: int
    out: str
    errors: str


def environment(**extra: str) -> dict[str, str]:
    """The tests' own, with this checkout's peers and output that is not held back."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **extra}


async def wait_until(done: Callable[[], Awaitable[bool]], what: str) -> None:
    """Poll `done` until it is true. Fails with `what` after WAIT_SECONDS."""
    deadline = trio.current_time() + WAIT_SECONDS
    while not await done():
        assert trio.current_time() < deadline, f"after {WAIT_SECONDS:.0f} s still waiting until {what}"
        await trio.sleep(POLL_SECONDS)


async def _silent(_: Any) -> None:
    pass


class DeviceProcess:
    """Made by `open_devices`. `start` and any end may follow each other; what it prints is kept over all of them."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.home = folder / name
        self.address = ""
        self.user = ""
        self.device = ""
        self._out = folder / f"{name}.out"
        self._errors = folder / f"{name}.err"
        self._process: trio.Process | None = None

    @property
    def process(self) -> trio.Process:
        assert self._process is not None, f"{self.name} does not run"
        return self._process

    @property
    def errors(self) -> str:
        """What it ever printed on standard error."""
        return self._errors.read_text("utf-8") if self._errors.exists() else ""

    @property
    def out(self) -> str:
        """What it ever printed on standard output."""
        return self._out.read_text("utf-8") if self._out.exists() else ""

    async def init(self) -> None:
        await self.cli("init", "--name", self.name)
        who = json.loads((await self.cli("id", "--json")).out)
        self.user, self.device = who["user"], who["device"]

    # --- the process --------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Returns when it listens and answers; `address` is what it printed."""
        assert self._process is None
        before = self._out.stat().st_size if self._out.exists() else 0
        command = [*PEERS, "--home", str(self.home), "up", "--listen", "127.0.0.1:0", "--until-stdin-closes"]
        with self._out.open("ab") as out, self._errors.open("ab") as errors:
            self._process = await trio.lowlevel.open_process(
                command, stdin=subprocess.PIPE, stdout=out, stderr=errors, env=environment(), cwd=ROOT
            )

        async def listens() -> bool:
            assert self.process.poll() is None, f"{self.name} ended: {self.errors}"
            found = _LISTENING.search(self._out.read_text("utf-8")[before:])
            self.address = found.group(1) if found else ""
            return bool(self.address)

        await wait_until(listens, f"{self.name} listens")

    def kill(self) -> None:
        """`kill -9`, at once; `ended` waits for it."""
        self.process.kill()

    async def ended(self) -> int:
        """Wait until the process has ended; its exit code."""
        with trio.fail_after(WAIT_SECONDS):
            code = await self.process.wait()
        assert self.process.stdin is not None
        await self.process.stdin.aclose()
        self._process = None
        return code

    async def stop(self) -> None:
        """As a user does: SIGTERM. It must end in order, with nothing on standard error, ever."""
        self.process.terminate()
        assert await self.ended() == 0
        assert self.errors == ""

    async def discard(self) -> None:
        """At the end of a test, whatever state it is in."""
        if self._process is not None:
            with trio.CancelScope(shield=True):
                self.kill()
                await self.ended()

    # --- asking -------------------------------------------------------------------------------------------------------

    async def cli(self, *args: str, code: int = 0) -> Done:
        """`peers --home … ARGS`: the real command line in a process of its own, which must end with `code`."""
        with trio.fail_after(WAIT_SECONDS):
            run = await trio.run_process(
                [*PEERS, "--home", str(self.home), *args],
                capture_stdout=True, capture_stderr=True, check=False, env=environment(), cwd=ROOT,
            )  # fmt: skip
        done = Done(run.returncode, run.stdout.decode(), run.stderr.decode())
        assert done.code == code, done
        return done

    async def ask(
        self, command: str, args: dict[str, Any], progress: Callable[[Any], Awaitable[None]] = _silent
    ) -> Any:
        """The same command through the running device's socket, without an interpreter's start."""
        stream = await connect_control_socket(HomeFolder(self.home))
        if stream is None:
            raise ConnectionLost(f"{self.name} does not answer: {self.errors}")
        return await ask_device(stream, command, args, progress)

    async def query(self, group: str, sql: str, *parameters: Any) -> list[list[Any]]:
        rows: list[list[Any]] = []

        async def collect(part: dict[str, Any]) -> None:
            rows.extend(part.get("rows", ()))

        await self.ask("sql", {"group": group, "sql": sql, "parameters": list(parameters)}, collect)
        return rows

    async def execute(self, group: str, sql: str, *parameters: Any) -> int:
        """The number of rows changed; durable when this returns."""
        done = await self.ask("sql", {"group": group, "sql": sql, "parameters": list(parameters)})
        return int(done["rows_changed"])

    async def group(self, group: str) -> dict[str, Any]:
        """What `peers status` says of one group; {} where the device knows none of that id."""
        found = await self.ask("status", {})
        return next((dict(one) for one in found["groups"] if one["id"] == group), {})

    async def state_hash(self, group: str) -> str:
        return str(await self.ask("state_hash", {"group": group}))

    # --- the file itself ----------------------------------------------------------------------------------------------

    def read_file(self, group: str, sql: str) -> list[tuple[Any, ...]]:
        """Rows as another program sees them, whether the device runs or not."""
        uri = f"file:{self.home / 'groups' / group}.db?mode=ro"
        connection = apsw.Connection(uri, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
        try:
            connection.set_busy_timeout(5000)
            return list(connection.execute(sql))
        finally:
            connection.close()

    def count(self, group: str, table: str) -> int:
        """Rows of a table, 0 while there is no such table or no such file yet."""
        try:
            return int(self.read_file(group, f"SELECT count(*) FROM {table}")[0][0])
        except (apsw.SQLError, apsw.CantOpenError):
            return 0


@asynccontextmanager
async def open_devices(folder: Path, *names: str) -> AsyncIterator[list[DeviceProcess]]:
    """Devices with homes in `folder`, not started yet. None of their processes outlives the block."""
    devices = [DeviceProcess(folder, name) for name in names]
    try:
        async with trio.open_nursery() as nursery:
            for device in devices:
                nursery.start_soon(device.init)
        yield devices
    finally:
        for device in devices:
            await device.discard()


async def share_group(owner: DeviceProcess, *others: DeviceProcess, role: str = "writer") -> str:
    """A new group `team` of the owner, to which the others are granted and which they want; its id."""
    made = await owner.ask("create_group", {"name": "team"})
    group = str(made["id"])
    for other in others:
        await owner.ask("grant", {"group": group, "user": other.user, "role": role})
        await other.ask("join", {"group": group})
    return group


async def wait_until_equal(group: str, *devices: DeviceProcess) -> None:
    """Until all hold as many entries, and the same state hashes; nothing may be held, refused or void."""

    async def equal() -> bool:
        found = [await device.group(group) for device in devices]
        if any(one.get("pending", True) for one in found) or len({one["entries"] for one in found}) != 1:
            return False
        return len({await device.state_hash(group) for device in devices}) == 1

    await wait_until(equal, f"{', '.join(device.name for device in devices)} are equal")
    for device in devices:
        now = await device.group(group)
        assert {name: now[name] for name in ("parked", "held", "refused", "void")} == {
            "parked": 0, "held": 0, "refused": 0, "void": 0,
        }, (device.name, now)  # fmt: skip
