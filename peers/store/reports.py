"""What a group's file says of itself: rows, conflicts, what waits, and what was not taken and why."""

from typing import Any

import apsw

from peers.errors import EntryFault
from peers.store import views
from peers.store.catalog import Catalog
from peers.store.ingest import IngestReport, Problem
from peers.store.waiting import Waiting

PROBLEMS_KEPT = 100
"""Reasons that are remembered: what a person can read, and no peer can fill the memory with."""
_HELD = (EntryFault.GAP, EntryFault.MISSING_CONTROL, EntryFault.CLOCK_AHEAD)


class Reports:
    """Counts on demand. Problems are kept until an entry of that device is taken again."""

    def __init__(self, connection: apsw.Connection, catalog: Catalog, waiting: Waiting) -> None:
        self._connection = connection
        self._catalog = catalog
        self._waiting = waiting
        self._problems: dict[tuple[bytes, EntryFault], Problem] = {}

    def keep_problems(self, report: IngestReport) -> None:
        for header in report.stored:
            for key in [key for key in self._problems if key[0] == header.device]:
                del self._problems[key]
        for problem in (*report.refused, *report.held):
            device = problem[2].device if problem[2] is not None else b""
            if len(self._problems) < PROBLEMS_KEPT:
                self._problems[device, problem[0]] = problem

    def conflict_count(self) -> int:
        return sum(views.count_conflicts(self._connection, table) for table in self._catalog.by_number.values())

    def row_counts(self) -> dict[str, int]:
        return {
            table.name: self._count(f"SELECT count(*) FROM {table.sql_name}")
            for table in self._catalog.by_number.values()
        }

    def status(self) -> dict[str, Any]:
        problems = list(self._problems.values())
        held = sum(1 for fault, _, _ in problems if fault in _HELD)
        shapes = ",".join(map(str, self._catalog.parked_shapes())) or "NULL"
        return {
            "parked": len(self._waiting.parked),
            "early": len(self._waiting.early),
            "parked_leaves": self._count(f"SELECT count(*) FROM _peers_leaf WHERE shape IN ({shapes})")
            if shapes
            else 0,
            "held": held,
            "refused": len(problems) - held,
            "void": self._count("SELECT count(*) FROM _peers_entry WHERE state=2"),
            "forks": self._count("SELECT count(*) FROM _peers_forks"),
            "reasons": [f"{fault.value}: {text}" for fault, text, _ in problems],
        }

    def _count(self, sql: str) -> int:
        found: int = self._connection.execute(sql).get
        return found
