"""Imports a CSV file into a table of a group, inside the device: types, table, then batches of rows.

The file is streamed twice (types, then rows), so memory is bounded by a batch. An import is not one transaction: each
batch commits together with `(what is imported, next line)`, so the same command after a crash continues where it
stopped and adds nothing twice. Bad lines are told and left out; the rest is imported.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from peers.cli.control_socket import Progress
from peers.cli.csv_file import CsvFile
from peers.cli.csv_types import BadLine, TypeInference, column_names, columns_of, convert_rows
from peers.config import MIB, StoreConfig
from peers.errors import UsageError
from peers.group import Group
from peers.model import codec
from peers.model.schema import Column, Table, check_name
from peers.store.transaction import Transaction

SCAN_ROWS = 1000
"""Rows between two checkpoints of the event loop while the file is only read."""
BAD_LINES_TOLD = 1000
"""Bad lines that are told one by one; of further ones only the number."""


@dataclass(frozen=True)
class ImportPlan:
    """What is imported into what: the arguments of the command, checked."""

    path: Path
    table: str
    key: tuple[str, ...]
    nulls: frozenset[str]
    delimiter: str

    @classmethod
    def from_arguments(cls, args: dict[str, Any]) -> "ImportPlan":
        delimiter = args.get("delimiter", ",")
        if len(delimiter) != 1 or delimiter in '"\r\n':
            raise UsageError("a delimiter is one character, and no quote or line end")
        check_name(args["table"], "table")
        nulls = frozenset({"", *args.get("nulls", ())})
        return cls(Path(args["file"]), args["table"], tuple(args.get("key", ())), nulls, delimiter)

    def mark(self, group: bytes, digest: bytes) -> bytes:
        """Names this import of this very file, for continuing it."""
        parts = [group, digest, self.table.lower(), list(self.key), sorted(self.nulls), self.delimiter]
        return hashlib.blake2b(codec.dumps(parts), digest_size=32).digest()


async def import_file(group: Group, args: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Progress: `{"phase", "bytes", "of_bytes", "rows"}` and `{"bad": [line, reason]}`."""
    plan = ImportPlan.from_arguments(args)
    known = next((table for table in group.tables() if table.name.lower() == plan.table.lower()), None)
    scan = await _scan(plan, infer=known is None, progress=progress)
    if known is None:
        table = await group.create_table(_create_sql(plan.table, scan.columns, plan.key))
    else:
        table = known
    columns = _match(scan.header, scan.columns, table, plan)
    importer = _Importer(group, table, columns, plan, plan.mark(group.id, scan.digest), progress)
    start = 0 if args.get("again") else await importer.next_line()
    return await importer.run(start, created=known is None)


# --- the first pass --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Scan:
    header: list[str]
    columns: list[Column]
    digest: bytes


async def _scan(plan: ImportPlan, *, infer: bool, progress: Progress) -> _Scan:
    digest = await _digest(plan.path)
    with CsvFile(plan.path, delimiter=plan.delimiter) as file:
        names = column_names(file.header, default_id=not plan.key)
        key = _key_names(plan, file.header, names)
        inference = TypeInference(len(names), plan.nulls)
        if infer:
            size = plan.path.stat().st_size
            for rows, _, _ in _batches(file, SCAN_ROWS):
                inference.add(rows)
                done = {"phase": "types", "bytes": file.position_bytes, "of_bytes": size, "rows": 0}
                await progress(done)
                await trio.lowlevel.checkpoint()
        return _Scan(file.header, columns_of(names, inference.types(), key), digest)


async def _digest(path: Path) -> bytes:
    digest = hashlib.blake2b(digest_size=32)
    with path.open("rb") as file:
        while part := file.read(MIB):
            digest.update(part)
            await trio.lowlevel.checkpoint()
    return digest.digest()


def _key_names(plan: ImportPlan, header: Sequence[str], names: Sequence[str]) -> list[str]:
    """The key's columns, which the user names as the file does or as the table will."""
    key = []
    for wanted in plan.key:
        matches = [n for h, n in zip(header, names, strict=True) if wanted in (h, n) or wanted.lower() == n.lower()]
        if not matches:
            raise UsageError(f"{plan.path} has no column {wanted!r} for the key; it has {', '.join(names)[:200]}")
        if matches[0] in key:
            raise UsageError(f"the key names column {wanted!r} twice")
        key.append(matches[0])
    return key


def _create_sql(name: str, columns: Sequence[Column], key: Sequence[str]) -> str:
    """All names have passed `check_name`; quoting keeps keywords apart."""
    parts = [f'"{column.name}" {column.type.value}{" NOT NULL" if column.key else ""}' for column in columns]
    if key:
        ordered = sorted((column for column in columns if column.key), key=lambda column: column.key)
        parts.append("PRIMARY KEY (" + ", ".join(f'"{column.name}"' for column in ordered) + ")")
    return f'CREATE TABLE "{name}" ({", ".join(parts)})'


def _match(header: Sequence[str], columns: Sequence[Column], table: Table, plan: ImportPlan) -> list[Column]:
    """The table's columns, in the order of the file's."""
    matched = []
    for text, column in zip(header, columns, strict=True):
        found = table.column(column.name) or table.column(text)
        if found is None:
            shown = ", ".join(c.name for c in table.columns)[:200]
            raise UsageError(f"table {table.name} has no column for {text!r} of {plan.path}; it has {shown}")
        if found in matched:
            raise UsageError(f"two columns of {plan.path} are column {found.name} of table {table.name}")
        matched.append(found)
    missing = [c.name for c in table.key if c not in matched and not table.default_id]
    if missing:
        raise UsageError(f"{plan.path} has no column {missing[0]!r}, which table {table.name} has in its key")
    if plan.key and {c.name.lower() for c in table.key} != {name.lower() for name in plan.key}:
        keys = ",".join(c.name for c in table.key)
        raise UsageError(f"table {table.name} exists and has another key: {keys}")
    return matched


# --- the second pass -------------------------------------------------------------------------------------------------


def _batches(file: CsvFile, rows_max: int) -> Iterator[tuple[list[list[str]], list[int], list[BadLine]]]:
    """(rows, their line numbers, bad lines) of up to `rows_max` lines."""
    rows: list[list[str]] = []
    numbers: list[int] = []
    bad: list[BadLine] = []
    for item in file:
        if isinstance(item, BadLine):
            bad.append(item)
        else:
            numbers.append(item[0])
            rows.append(item[1])
        if len(rows) + len(bad) >= rows_max:
            yield rows, numbers, bad
            rows, numbers, bad = [], [], []
    if rows or bad:
        yield rows, numbers, bad


class _Importer:
    """The state of one import: how many rows and bad lines so far."""

    def __init__(
        self, group: Group, table: Table, columns: list[Column], plan: ImportPlan, mark: bytes, progress: Progress
    ) -> None:
        self._group = group
        self._table = table
        self._columns = columns
        self._plan = plan
        self._mark = mark
        self._progress = progress
        self._batch_rows = StoreConfig().import_rows
        self._rows = 0
        self._bad = 0

    async def next_line(self) -> int:
        """Where an earlier run of this import stopped; 0 for none."""
        return await self._group.transact(lambda transaction: transaction.import_mark(self._mark)) or 0

    async def run(self, start: int, *, created: bool) -> dict[str, Any]:
        began = trio.current_time()
        size = self._plan.path.stat().st_size
        with CsvFile(self._plan.path, delimiter=self._plan.delimiter) as file:
            if start:
                file.skip_to(start)
            for rows, numbers, bad in _batches(file, self._batch_rows):
                await self._commit(rows, numbers, bad, file.next_line)
                done = {"phase": "rows", "bytes": file.position_bytes, "of_bytes": size, "rows": self._rows}
                await self._progress(done)
        seconds = trio.current_time() - began
        columns = [[column.name, column.type.value] for column in self._columns]
        return {
            "table": self._table.name, "created": created, "columns": columns, "rows": self._rows, "bad": self._bad,
            "continued_at": start, "seconds": seconds,
        }  # fmt: skip

    async def _commit(self, rows: list[list[str]], numbers: list[int], bad: list[BadLine], next_line: int) -> None:
        made = convert_rows(self._columns, rows, numbers, self._plan.nulls)
        values = {column.name: cells for column, cells in zip(self._columns, made.columns, strict=True)}

        def write(transaction: Transaction) -> None:
            if made.count:
                transaction.save_columns(self._table.name, values, made.count)
            transaction.set_import_mark(self._mark, next_line)

        await self._group.transact(write)
        self._rows += made.count
        for line in sorted([*bad, *made.bad], key=lambda line: line.number):
            self._bad += 1
            if self._bad <= BAD_LINES_TOLD:
                await self._progress({"bad": [line.number, line.reason]})
