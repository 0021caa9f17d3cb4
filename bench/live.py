"""Live: a write on A until it is committed on B, two processes; against a bare TCP line between two plain files.

A stamps the clock before it writes; B stamps it when its live query has shown the row, which is after B's commit. The
clock is the machine's monotonic one, the same in both processes. One write at a time, as a person makes them.
A commits FULL; B as merges do, which the limit copies: what was merged can be fetched again.
"""

import socket
import statistics
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trio

from bench.child import Child, ParentLine
from bench.harness import Line, Settings
from bench.homes import GROUP_NAME, make_pair
from bench.limits import Plain
from bench.rows import TABLE, as_rows, ids, trades
from peers.device import Device, open_device

WRITES = 500
ROUNDS = 5
"""Ours and the limit take turns this often; the first few writes of each are not counted."""
WARM_UP = 5
MERGES_ARE_FULL = False
"""How the store commits entries of others (`GroupStore.ingest`)."""
_DURABILITY = f"A FULL, B {'FULL' if MERGES_ARE_FULL else 'NORMAL'}"
_NEWEST = f"SELECT id FROM {TABLE} ORDER BY id DESC LIMIT 1"
_LENGTH = struct.Struct("!I")


def run(settings: Settings) -> list[Line]:
    folder = settings.folder / "live"
    folder.mkdir()
    writes = max(10, settings.scaled(WRITES) // ROUNDS)
    pair = make_pair(folder, 0, settings.batch)
    ours: list[float] = []
    bare: list[float] = []
    plain_paths = folder / "a.db", folder / "b.db"
    with (
        Child("live:device_b", pair.receiver) as b,
        Child("live:device_a", pair.owner) as a,
        Child("live:plain_b", plain_paths[1]) as plain_b,
        Child("live:plain_a", plain_paths[0]) as plain_a,
    ):
        b.tell(address=a.hear()["address"])
        b.hear()
        plain_a.tell(port=plain_b.hear()["port"])
        plain_a.hear()
        number = 0
        for _ in range(ROUNDS):
            for times, writer, reader in ((bare, plain_a, plain_b), (ours, a, b)):
                for count in range(writes + WARM_UP):
                    number += 1
                    writer.tell(row=number)
                    start, end = writer.hear()["start"], reader.hear()["end"]
                    if count >= WARM_UP:
                        times.append((end - start) * 1000)
    p50, limit = statistics.median(ours), statistics.median(bare)
    p99, limit_p99 = _p99(ours), _p99(bare)
    name = f"TCP + commit: bare sockets between plain files, {_DURABILITY}"
    detail = {"writes": len(ours), "min_ms": min(ours), "max_ms": max(ours)}
    return [
        Line(
            "live", f"write on A -> on B, {_DURABILITY}, p50", p50, "ms", name, limit, limit / p50, target=2.0,
            target_is_ratio=False, detail=detail,
        ),
        Line("live", "the same, p99", p99, "ms", name, limit_p99, limit_p99 / p99),
    ]  # fmt: skip


def _p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


def _row(number: int) -> dict[str, Any]:
    return {name: values[number % 100] for name, values in trades(100).items()} | {"ts": number}


# --- Devices ---------------------------------------------------------------------------------------------------------


async def device_a(arguments: Sequence[str], line: ParentLine) -> None:
    """HOME: listen; write a row whenever asked."""
    async with open_device(Path(arguments[0])) as device:
        line.tell(address=await device.listen("127.0.0.1:0"))
        table = device.group(GROUP_NAME).table(TABLE)
        while asked := await line.ask():
            row = _row(asked["row"])
            start = time.perf_counter()
            await table.save(row)
            line.tell(start=start, answered=time.perf_counter())


async def device_b(arguments: Sequence[str], line: ParentLine) -> None:
    """HOME: connect; say when each new row was there."""
    async with open_device(Path(arguments[0])) as device:
        asked = await line.ask()
        await device.connect(asked["address"], remember=False)
        await _arrived(device)
        async with trio.open_nursery() as nursery:

            async def report(*, task_status: "trio.TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
                first = True
                async for _ in device.group(GROUP_NAME).watch(_NEWEST):
                    end = time.perf_counter()
                    if first:
                        task_status.started()
                        first = False
                        continue
                    line.tell(end=end)

            await nursery.start(report)
            line.tell(ready=True)
            while await line.ask():
                pass
            nursery.cancel_scope.cancel()


async def _arrived(device: Device) -> None:
    """Until the group with its table is here."""
    with trio.fail_after(30):
        while device.group(GROUP_NAME).pending or not device.group(GROUP_NAME).tables():  # noqa: ASYNC110
            await trio.sleep(0.01)


# --- The limit -------------------------------------------------------------------------------------------------------


async def plain_a(arguments: Sequence[str], line: ParentLine) -> None:
    """FILE: on `port`, connect; commit a row whenever asked, then send it."""
    asked = await line.ask()
    plain = Plain(Path(arguments[0]), full=True)
    with socket.create_connection(("127.0.0.1", asked["port"])) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line.tell(ready=True)
        rows = as_rows(ids(10_000, 1), trades(10_000))
        while asked := await line.ask():
            row = rows[asked["row"]]
            data = "\0".join(map(str, row)).encode()
            start = time.perf_counter()
            plain.insert_each([row])
            connection.sendall(_LENGTH.pack(len(data)) + data)
            line.tell(start=start)
    plain.close()


async def plain_b(arguments: Sequence[str], line: ParentLine) -> None:
    """FILE: accept one connection; commit each row that comes."""
    plain = Plain(Path(arguments[0]), full=MERGES_ARE_FULL)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        line.tell(port=listener.getsockname()[1])
        connection, _ = await trio.to_thread.run_sync(listener.accept)
        with connection, connection.makefile("rb") as stream:
            while head := stream.read(_LENGTH.size):
                cells = stream.read(_LENGTH.unpack(head)[0]).decode().split("\0")
                row = (*cells[:3], int(cells[3]), float(cells[4]), cells[5], int(cells[6]))
                plain.insert_each([row])
                line.tell(end=time.perf_counter())
    plain.close()
