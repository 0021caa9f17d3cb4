"""`peers demo` as a user runs it: real processes, real sockets."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from peers.cli.demo_story import Conflict, DeviceOutcome, Outcome

DEMO = [sys.executable, "-m", "peers", "demo"]
ROOT = Path(__file__).parents[2]


def small_csv(folder: Path) -> Path:
    path = folder / "small.csv"
    path.write_text(
        "n,when,price,who\n" + "".join(f"{n},2024-01-{n % 28 + 1:02},{n}.25,w{n % 9}\n" for n in range(500))
    )
    return path


@contextmanager
def demo(folder: Path, *args: str) -> Iterator[subprocess.Popen[str]]:
    """Runs in `folder`, where the homes will stay."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [*DEMO, *args], cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def pids(folder: Path) -> list[int]:
    """Of the devices that run below the folder, by name."""
    return [json.loads(path.read_text())["pid"] for path in sorted(folder.glob("peers-demo-*/*/run.json"))]


def wait_for_devices(folder: Path) -> list[int]:
    deadline = time.perf_counter() + 60
    while len(found := pids(folder)) < 3 and time.perf_counter() < deadline:
        time.sleep(0.02)
    assert len(found) == 3
    return found


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def assert_all_gone(found: list[int]) -> None:
    deadline = time.perf_counter() + 10
    while any(map(is_alive, found)) and time.perf_counter() < deadline:
        time.sleep(0.02)
    assert not any(map(is_alive, found))


def test_three_devices_become_equal(tmp_path: Path) -> None:
    with demo(tmp_path, str(small_csv(tmp_path))) as process:
        out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, (out, errors)
    table = [line.split() for line in out.splitlines() if re.match(r"[ABC] +\d", line)]
    assert [row[:3] for row in table] == [["A", "499", "1"], ["B", "499", "1"], ["C", "499", "1"]]
    assert len({row[3] for row in table}) == 1
    assert [row[4:] for row in table] == [["B"], ["A,", "C"], ["B"]]
    conflict = next(line for line in out.splitlines() if line.startswith("conflict "))
    assert "edited on A" in conflict
    assert "edited on B" in conflict
    assert "rows a second" in out
    assert "bytes a row" in out
    look = re.search(r"--home (\S+) sql demo \"(.*)\"", out)
    assert look is not None
    command = [sys.executable, "-m", "peers", "--home", look.group(1), "sql", "demo", look.group(2), "--csv"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    shown = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=True)
    assert len(shown.stdout.splitlines()) == 6


def test_a_withheld_entry_is_noticed(tmp_path: Path) -> None:
    with demo(tmp_path, str(small_csv(tmp_path)), "--break") as process:
        out, errors = process.communicate(timeout=120)
    assert process.returncode == 1, (out, errors)
    assert "peers: demo_failed: " in errors
    assert "Equal on all three devices" not in out


def test_l5_ctrl_c_stops_the_demo_and_its_devices(tmp_path: Path) -> None:
    with demo(tmp_path, str(small_csv(tmp_path)), "--break") as process:
        found = wait_for_devices(tmp_path)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors == "peers: interrupted: stopped\n"
    assert_all_gone(found)


@pytest.mark.parametrize("victim", ["device", "demo"])
def test_a_killed_process_leaves_nothing_running(tmp_path: Path, victim: str) -> None:
    with demo(tmp_path, str(small_csv(tmp_path)), "--break") as process:
        found = wait_for_devices(tmp_path)
        os.kill(found[1] if victim == "device" else process.pid, signal.SIGKILL)
        _, errors = process.communicate(timeout=30)
    if victim == "device":
        assert process.returncode == 1
        assert errors.startswith("peers: demo_failed: device B ended with code -9")
        assert errors.count("\n") == 1
    assert_all_gone(found)


def test_a_file_that_is_too_small_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tiny.csv"
    path.write_text("a\n1\n")
    with demo(tmp_path, str(path)) as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors == f"peers: demo_failed: {path} has 1 rows; the demo needs 4\n"


def device(name: str, *, rows: int = 9, conflicts: int = 1, state: str = "aa", met: str = "B") -> DeviceOutcome:
    return DeviceOutcome(name, rows, conflicts, state, list(met))


def test_every_way_to_be_wrong_is_a_problem() -> None:
    def problems(*devices: DeviceOutcome) -> list[str]:
        return Outcome(10, 1.0, 1.0, 1.0, [Conflict("c", [1, 2], 2)], list(devices)).problems()

    a, b, c = device("A"), device("B", met="AC"), device("C")
    assert problems(a, b, c) == []
    assert problems(a, b, device("C", rows=10)) == ["C has 10 rows instead of 9"]
    assert problems(device("A", conflicts=0), b, c) == ["A has 0 conflicts instead of 1"]
    assert problems(a, b, device("C", state="bb")) == ["the state hashes differ"]
    assert problems(a, b, device("C", met="AB")) == ["A and C were connected, which the story forbids"]
    assert problems(device("A", met="BC"), b, c) == ["A and C were connected, which the story forbids"]
