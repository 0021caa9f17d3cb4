"""Cold sync between two processes over WebSocket on loopback, against the raw copy of the same rows.

The receiver has opened its device, wants the group and holds nothing of it; the clock runs from `connect` (dial, Noise
handshake, membership, history) until its vector equals the sender's. The raw copy's clock runs from `connect`, too,
until the last commit. CPU is that of the busier of the two processes: what bounds the transfer on a machine of its own.
"""

import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import trio

from bench.child import Child, ParentLine
from bench.harness import Line, Settings, Took, compare, contest
from bench.homes import GROUP_NAME, copy_home, make_pair
from bench.limits import Plain, receive_rows, send_rows
from bench.rows import TABLE, as_rows, ids, trades
from peers.device import Device, open_device

_LOOK_SECONDS = 0.001
_SYNC_SECONDS_MAX = 300


def run(settings: Settings) -> list[Line]:
    rows, batch = settings.rows, settings.batch
    folder = settings.folder / "sync"
    folder.mkdir()
    pair = make_pair(folder, rows, batch)
    plain_path = folder / "plain.db"
    plain = Plain(plain_path, full=False)
    plain.insert(as_rows(ids(rows, batch), trades(rows)), batch)
    plain.close()
    wire: list[int] = []

    def ours(repetition: int) -> Took:
        receiver = copy_home(pair.receiver, folder / f"receiver-{repetition}")
        with Child("sync:serve", pair.owner) as server, Child("sync:pull", receiver) as client:
            hello = server.hear()
            client.hear()
            done, took = _timed(server, client, address=hello["address"], position=hello["position"])
        assert done["rows"] == rows, done
        wire.append(done["bytes_in"])
        return took

    def raw(repetition: int) -> Took:
        target = folder / f"raw-{repetition}.db"
        with Child("sync:raw_serve", plain_path, batch) as server, Child("sync:raw_pull", target) as client:
            hello = server.hear()
            client.hear()
            done, took = _timed(server, client, port=hello["port"])
        assert done["rows"] == rows, done
        return took

    times = contest(settings.repetitions, {"raw": raw, "ours": ours})
    line = compare(
        "sync", f"cold sync of {rows:,} rows, {batch:,} an entry: two processes, WebSocket, sealed, verified", rows,
        "Raw copy: TCP into executemany", times["raw"], times["ours"], target=0.4,
    )  # fmt: skip
    line.detail["wire_bytes_per_row"] = round(sum(wire) / len(wire) / rows, 1)
    return [line]


def _timed(server: Child, client: Child, **go: Any) -> tuple[dict[str, Any], Took]:
    """Start the client; (what it answers, its wall seconds and the busier process' CPU seconds)."""
    before = server.ask(cpu=True)["cpu"]
    done = client.ask(**go)
    sender_cpu = server.ask(cpu=True)["cpu"] - before
    return done, Took(done["wall"], max(done["cpu"], sender_cpu))


async def _answer_cpu(line: ParentLine) -> None:
    while await line.ask():
        line.tell(cpu=time.process_time())


def _position(device: Device) -> str:
    return device.group(GROUP_NAME).vector.digest().hex()


# --- The processes ---------------------------------------------------------------------------------------------------


async def serve(arguments: Sequence[str], line: ParentLine) -> None:
    """HOME: listen, say where and what is held."""
    async with open_device(Path(arguments[0])) as device:
        address = await device.listen("127.0.0.1:0")
        line.tell(address=address, position=_position(device))
        await _answer_cpu(line)


async def pull(arguments: Sequence[str], line: ParentLine) -> None:
    """HOME: on `address` and `position`, connect, and say how long it took to get there."""
    async with open_device(Path(arguments[0])) as device:
        line.tell(ready=True)
        asked = await line.ask()
        cpu, wall = time.process_time(), time.perf_counter()
        await device.connect(asked["address"], remember=False)
        await _until(lambda: _position(device) == asked["position"])
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        found = await device.group(GROUP_NAME).query(f"SELECT count(*) FROM {TABLE}")
        received = sum(connection["bytes_in"] for connection in device.status()["connections"])
        line.tell(wall=wall, cpu=cpu, rows=found.rows[0][0], bytes_in=received)


async def _until(test: Callable[[], bool]) -> None:
    with trio.fail_after(_SYNC_SECONDS_MAX):
        while not test():  # noqa: ASYNC110 - from outside, every millisecond: no event says that two vectors are equal
            await trio.sleep(_LOOK_SECONDS)


async def raw_serve(arguments: Sequence[str], line: ParentLine) -> None:
    """FILE BATCH: send the rows of a plain file to the first who connects."""
    path, batch = Path(arguments[0]), int(arguments[1])
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def send() -> None:
            connection, _ = listener.accept()
            with connection:
                send_rows(path, connection, batch)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, send)
            line.tell(port=listener.getsockname()[1])
            await _answer_cpu(line)


async def raw_pull(arguments: Sequence[str], line: ParentLine) -> None:
    """FILE: on `port`, connect and put the rows into a new plain file."""
    line.tell(ready=True)
    asked = await line.ask()
    cpu, wall = time.process_time(), time.perf_counter()
    with socket.create_connection(("127.0.0.1", asked["port"])) as connection:
        rows = receive_rows(Path(arguments[0]), connection)
    line.tell(wall=time.perf_counter() - wall, cpu=time.process_time() - cpu, rows=rows)
