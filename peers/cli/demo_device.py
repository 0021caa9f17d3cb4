"""One device of the demo: a `peers up` process of its own, spoken to through its control socket."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import trio

from peers.cli.control_socket import Progress, ask_device, connect_control_socket, read_run_info
from peers.clocks import random_bytes, wall_clock_ms
from peers.errors import ConnectionLost, PeersError
from peers.home import HomeFolder, create_home

START_SECONDS = 30.0
"""Until a process answers: an interpreter start on a busy machine, many times over."""
STOP_SECONDS = 5.0
"""The promised time of a clean stop; then the process is killed."""
_POLL_SECONDS = 0.02


class DemoFailed(PeersError):
    """The demo could not be carried out, or its outcome is not what it must be."""

    code = "demo_failed"


async def _silent(_: Any) -> None:
    pass


class DemoDevice:
    """Its home is made at once; `start` runs the process in a nursery, `stop` ends it by its pid, whatever happens."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.home = HomeFolder(folder / name)
        made, _ = create_home(self.home.path, name=name, random_bytes=random_bytes, now_ms=wall_clock_ms)
        with made:
            self.device, self.user = made.device.hex(), made.user.hex()
        self.address = ""
        self.log = folder / f"{name}.log"
        self._process: trio.Process | None = None
        self._stopping = False

    async def start(self, nursery: trio.Nursery, *options: str) -> None:
        """Returns when the device listens and answers. A process that dies later fails the nursery."""
        command = [sys.executable, "-m", "peers", "--home", str(self.home.path), "up", "--listen", "127.0.0.1:0"]
        with self.log.open("ab") as log:
            run = partial(
                trio.lowlevel.open_process,
                [*command, "--until-stdin-closes", *options],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C goes to the demo, which stops its devices in order
            )
            self._process = await run()
        nursery.start_soon(self._watch, self._process)
        deadline = trio.current_time() + START_SECONDS
        while trio.current_time() < deadline:
            stream = await connect_control_socket(self.home)
            if stream is not None:
                await ask_device(stream, "id", {})
                info = read_run_info(self.home)
                self.address = info.listening if info else ""
                return
            await trio.sleep(_POLL_SECONDS)
        raise DemoFailed(f"device {self.name} does not answer after {START_SECONDS:.0f} s: see {self.log}")

    async def _watch(self, process: trio.Process) -> None:
        await process.wait()
        if not self._stopping:
            raise DemoFailed(f"device {self.name} ended with code {process.returncode}: {self._last_words()}")

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"{self.log} is empty"

    async def ask(self, command: str, args: dict[str, Any] | None = None, progress: Progress = _silent) -> Any:
        """One command of the running device. Raises PeersError."""
        stream = await connect_control_socket(self.home)
        if stream is None:
            raise ConnectionLost(f"device {self.name} does not answer: {self._last_words()}")
        return await ask_device(stream, command, args or {}, progress)

    async def query(self, group: str, sql: str, *parameters: Any) -> list[list[Any]]:
        """The rows of a SELECT."""
        rows: list[list[Any]] = []

        async def collect(part: dict[str, Any]) -> None:
            rows.extend(part.get("rows", ()))

        await self.ask("sql", {"group": group, "sql": sql, "parameters": list(parameters)}, collect)
        return rows

    async def execute(self, group: str, sql: str, *parameters: Any) -> None:
        """One statement that changes exactly one row."""
        done = await self.ask("sql", {"group": group, "sql": sql, "parameters": list(parameters)})
        if done["rows_changed"] != 1:
            raise DemoFailed(f"device {self.name}: {sql} changed {done['rows_changed']} rows instead of one")

    async def stop(self) -> None:
        """End the process in order, or after a while at once. Also while everything else is cancelled."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        self._stopping = True
        with trio.CancelScope(shield=True):
            process.terminate()
            with trio.move_on_after(STOP_SECONDS):
                await process.wait()
            if process.returncode is None:
                os.kill(process.pid, signal.SIGKILL)
                await process.wait()
            if process.stdin is not None:
                await process.stdin.aclose()
