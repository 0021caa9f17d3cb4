"""The benches run, in small, and print their rows. How fast they are is for people to read, not for a test."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent

ROWS = {
    "write": ["bulk insert", "bulk update", "SQL door", "one awaited durable write", "100 durable writers"],
    "merge": ["remote new rows", "newer", "older", "newcomer wins", "newcomer loses"],
    "sync": ["cold sync"],
    "live": ["p50", "p99"],
    "open": ["a group's file", "the whole device"],
}
"""What each bench has to say something about."""


def run_bench(folder: Path, *names: str) -> tuple[str, dict[str, Any]]:
    """(what it printed, its JSON) of a run that worked."""
    path = folder / "figures.json"
    command = [sys.executable, "-m", "bench", *names, "--quick", "--rows", "300", "--repetitions", "1"]
    done = subprocess.run(
        [*command, "--json", str(path), "--folder", str(folder)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    figures: dict[str, Any] = json.loads(path.read_text())
    return done.stdout, figures


@pytest.mark.parametrize("name", ROWS)
def test_a_bench_runs_and_prints_each_of_its_rows(name: str, tmp_path: Path) -> None:
    printed, figures = run_bench(tmp_path, name)
    lines = figures["lines"]
    for what in ROWS[name]:
        assert any(what in line["what"] for line in lines), what
    for line in lines:
        assert line["value"] > 0 and line["limit_value"] > 0 and line["ratio"] > 0, line
        assert line["verdict"] in ("", "ok", "below")
    assert any(line["verdict"] for line in lines), "every bench has a goal"
    for heading in ("bench", "measured", "of limit", "ratio", "target"):
        assert heading in printed
    assert not list(tmp_path.glob("peers-bench-*")), "its databases are gone"


def test_a_bench_that_cannot_run_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "write", "--quick", "--folder", str(tmp_path / "nowhere")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0 and "nowhere" in done.stderr
