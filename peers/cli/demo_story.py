"""What happens in the demo, step by step, and what must be true in the end.

A makes the group and imports; B and C join and receive, C from B only. The links are cut; A and B edit the same row
(one column both, others each) and different rows, and B deletes one. The links return, and all is equal: C learns of
A's edits through B, and checks A's signatures itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import trio

from peers.cli.demo_device import DemoDevice, DemoFailed
from peers.cli.demo_live import Live
from peers.cli.output import escape

GROUP = "demo"
TABLE = "trades"
STALL_SECONDS = 60.0
"""Waiting ends when nothing has moved for this long: longer than the reconnect backoff and the one-minute digest …"""
BROKEN_STALL_SECONDS = 8.0
"""… or, where an entry is withheld on purpose, as soon as ordinary exchange would long have brought it."""
_POLL_SECONDS = 0.1
ROWS_MIN = 4
"""Rows that the story touches: one edited by both, one by each, one deleted."""


@dataclass(frozen=True)
class Conflict:
    """One cell that two devices wrote apart: both values, and the one that is shown."""

    column: str
    values: list[Any]
    shown: Any


@dataclass(frozen=True)
class DeviceOutcome:
    name: str
    rows: int
    conflicts: int
    state_hash: str
    met: list[str]
    """Names of the devices that it was ever connected to."""


@dataclass(frozen=True)
class Outcome:
    """What was measured and found."""

    csv_rows: int
    import_rate: float
    sync_rate: float
    wire_bytes_a_row: float
    conflicts: list[Conflict]
    devices: list[DeviceOutcome]

    def problems(self) -> list[str]:
        """Everything that is not as it must be, in one line each; empty is success."""
        found = []
        for device in self.devices:
            if device.rows != self.csv_rows - 1:
                found.append(f"{device.name} has {device.rows:,} rows instead of {self.csv_rows - 1:,}")
            if device.conflicts != 1:
                found.append(f"{device.name} has {device.conflicts} conflicts instead of 1")
        if len({device.state_hash for device in self.devices}) != 1:
            found.append("the state hashes differ")
        met = {(device.name, other) for device in self.devices for other in device.met}
        if met & {("A", "C"), ("C", "A")}:
            found.append("A and C were connected, which the story forbids")
        return found


class _State(NamedTuple):
    """How a device stands while the others wait for it."""

    rows: int
    conflicts: int
    entries: int


@dataclass(frozen=True)
class _Column:
    name: str
    kind: str

    @property
    def is_number(self) -> bool:
        return self.kind in ("INTEGER", "REAL")

    def edited_on(self, device: str, old: Any) -> Any:
        """A value that is not the old one, and that no other device writes."""
        if not self.is_number:
            return f"edited on {device}"
        known = old if isinstance(old, int | float) and abs(old) < 1_000_000_000 else 0
        more = known + 1 + "AB".index(device)
        return more if self.kind == "INTEGER" else round(float(more), 2)


class Story:
    """Plays once. `broken`: B keeps one entry from C."""

    def __init__(
        self, a: DemoDevice, b: DemoDevice, c: DemoDevice, *, csv: Path, null: str | None, broken: bool
    ) -> None:
        self._a, self._b, self._c = a, b, c
        self._all = (a, b, c)
        self._csv = csv
        self._nulls = [] if null is None else [null]
        self._broken = broken
        self._live = Live()
        self._columns: list[_Column] = []
        self._group = ""

    async def play(self, nursery: trio.Nursery) -> Outcome:
        await self._start(nursery)
        csv_rows, import_rate = await self._import()
        sync_rate, wire_bytes = await self._share(csv_rows)
        await self._cut()
        await self._edit()
        if self._broken:
            await self._b.ask("withhold", {"group": self._group})
            self._live.say("(--break: B will keep one entry from C)")
        await self._reunite(csv_rows)
        hashes = await self._hashes(self._all)
        devices = [await self._describe(device, mark) for device, mark in zip(self._all, hashes, strict=True)]
        conflicts = await self._conflicts()
        return Outcome(csv_rows, import_rate, sync_rate, wire_bytes / max(csv_rows, 1), conflicts, devices)

    async def _start(self, nursery: trio.Nursery) -> None:
        extra = ("--withhold-from", self._c.device) if self._broken else ()
        async with trio.open_nursery() as starting:
            starting.start_soon(self._a.start, nursery)
            starting.start_soon(self._b.start, nursery, *extra)
            starting.start_soon(self._c.start, nursery)
        for device in self._all:
            self._live.say(f"{device.name} is up, listening on {device.address}")

    async def _import(self) -> tuple[int, float]:
        made = await self._a.ask("create_group", {"name": GROUP})
        self._group = made["id"]
        for device in (self._b, self._c):
            await self._a.ask("grant", {"group": self._group, "user": device.user, "role": "writer"})
        self._live.say(f"A made the group {self._group[:8]} and granted B and C")
        args = {"group": self._group, "table": TABLE, "file": str(self._csv), "nulls": self._nulls}
        with self._live.importing() as show:
            done = await self._a.ask("import", args, show)
        self._columns = [_Column(name, kind) for name, kind in done["columns"]]
        rows = int(done["rows"])
        self._live.say(f"A imported {rows:,} rows of {len(self._columns)} columns, {done['bad']:,} bad lines left out")
        if rows < ROWS_MIN:
            raise DemoFailed(f"{self._csv} has {rows} rows; the demo needs {ROWS_MIN}")
        return rows, rows / done["seconds"]

    async def _share(self, csv_rows: int) -> tuple[float, int]:
        for device in (self._b, self._c):
            await device.ask("join", {"group": self._group})
        began = trio.current_time()
        self._live.say("B connects to A, C connects to B; neither knows more than that one address")
        await self._b.ask("connect", {"address": self._a.address})
        await self._c.ask("connect", {"address": self._b.address})
        await self._wait(lambda found: all(state.rows == csv_rows for state in found), (self._b, self._c), csv_rows)
        seconds = trio.current_time() - began
        status = await self._b.ask("status")
        wire = sum(c["bytes_in"] for c in status["connections"] if c["device"] == self._a.device)
        self._live.say(f"B and C hold all rows after {seconds:.2f} s")
        return csv_rows / seconds, wire

    async def _cut(self) -> None:
        for device in self._all:
            await device.ask("offline")
        self._live.say("All links are cut")

    async def _edit(self) -> None:
        """A and B edit the first row, one column both of them and one each; then rows of their own."""
        names = ", ".join(["id", *(f'"{column.name}"' for column in self._columns)])
        rows = await self._a.query(self._group, f"SELECT {names} FROM {TABLE} ORDER BY id LIMIT {ROWS_MIN}")
        texts = [column for column in self._columns if not column.is_number]
        both = (texts or self._columns)[-1]
        # Numbers read best, but the first column often is one that nobody edits.
        numbers = [column for column in self._columns[1:] if column.is_number and column is not both]
        others = [*numbers, *(column for column in self._columns if column is not both and column not in numbers)]
        await self._set(self._a, 1, rows, both, *others[:1])
        await self._set(self._b, 1, rows, both, *others[1:2])
        await self._set(self._a, 2, rows, both)
        await self._set(self._b, 3, rows, both)
        await self._b.execute(self._group, f"DELETE FROM {TABLE} WHERE id = ?", rows[3][0])
        self._live.say("B deleted row 4")

    async def _set(self, device: DemoDevice, number: int, rows: list[list[Any]], *columns: _Column) -> None:
        row_id, *cells = rows[number - 1]
        old = dict(zip(self._columns, cells, strict=True))
        values = [column.edited_on(device.name, old[column]) for column in columns]
        sets = ", ".join(f'"{column.name}" = ?' for column in columns)
        await device.execute(self._group, f"UPDATE {TABLE} SET {sets} WHERE id = ?", *values, row_id)
        shown = ", ".join(f"{column.name} = {value!r}" for column, value in zip(columns, values, strict=True))
        self._live.say(f"{device.name} edited row {number}: {escape(shown)}")

    async def _reunite(self, csv_rows: int) -> None:
        for device in self._all:
            await device.ask("online")
        self._live.say("The links return: A – B – C")
        began = trio.current_time()
        settled = self._is_settled(csv_rows - 1)
        try:
            await self._wait(settled, self._all, csv_rows - 1)
            self._live.say(f"All three hold the same entries after {trio.current_time() - began:.2f} s")
            await self._wait(settled, self._all, csv_rows - 1, hashes=True)
            self._live.say("Their state hashes, over every cell, are equal")
        except DemoFailed as error:
            self._live.say(str(error))

    def _is_settled(self, rows: int) -> Callable[[list[_State]], bool]:
        """Rows and conflicts as expected, and as many entries everywhere: only then are hashes worth computing."""
        return lambda found: all(
            state.rows == rows and state.conflicts == 1 and state.entries == found[0].entries for state in found
        )

    async def _wait(
        self,
        done: Callable[[list[_State]], bool],
        devices: tuple[DemoDevice, ...],
        rows: int,
        *,
        hashes: bool = False,
    ) -> None:
        """Until `done` of the devices' states, and equal hashes if asked for. Raises DemoFailed for a stall."""
        stall = BROKEN_STALL_SECONDS if self._broken else STALL_SECONDS
        last: object = None
        moved = trio.current_time()
        with self._live.receiving([device.name for device in devices], rows) as show:
            while trio.current_time() < moved + stall:
                found = [await self._progress(device) for device in devices]
                now: object = found
                show([state.rows for state in found])
                if done(found):
                    marks = await self._hashes(devices) if hashes else [""]
                    if len(set(marks)) == 1:
                        return
                    now = (found, marks)
                if now != last:
                    last, moved = now, trio.current_time()
                await trio.sleep(_POLL_SECONDS)
        raise DemoFailed(f"nothing moved any more for {stall:.0f} s, and the devices are not equal")

    async def _progress(self, device: DemoDevice) -> _State:
        status = await device.ask("status")
        groups: list[dict[str, Any]] = status["groups"]
        group = next((group for group in groups if group["id"] == self._group), {})
        rows = int(group.get("rows", {}).get(TABLE, 0))
        return _State(rows, int(group.get("conflicts", 0)), int(group.get("entries", 0)))

    async def _hashes(self, devices: Sequence[DemoDevice]) -> list[str]:
        """State hashes, computed side by side: each reads every cell."""
        hashes = [""] * len(devices)

        async def ask(place: int, device: DemoDevice) -> None:
            hashes[place] = await device.ask("state_hash", {"group": self._group})

        async with trio.open_nursery() as nursery:
            for place, device in enumerate(devices):
                nursery.start_soon(ask, place, device)
        return hashes

    async def _describe(self, device: DemoDevice, state_hash: str) -> DeviceOutcome:
        status = await device.ask("status")
        met = {peer["device"] for peer in status["known_peers"]} | {c["device"] for c in status["connections"]}
        names = sorted(other.name for other in self._all if other.device in met)
        rows = (await device.query(self._group, f"SELECT count(*) FROM {TABLE}"))[0][0]
        conflicts = (await self._progress(device)).conflicts
        return DeviceOutcome(device.name, rows, conflicts, state_hash, names)

    async def _conflicts(self) -> list[Conflict]:
        """As C shows them, which was there when neither value was written."""
        columns = "column_name, value, is_winner"
        found = await self._c.query(self._group, f"SELECT {columns} FROM _peers_conflicts ORDER BY time_ms, value")
        names = sorted({name for name, _, _ in found})
        return [
            Conflict(
                name,
                [value for other, value, _ in found if other == name],
                next(value for other, value, wins in found if other == name and wins),
            )
            for name in names
        ]
