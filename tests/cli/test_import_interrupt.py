"""`peers import` in a process of its own, ended by Ctrl-C: the same command continues and adds nothing twice.

`kill -9` in the middle is in tests/processes/test_kill.py.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from peers.cli.main import run

ROWS = 120_000


def test_an_interrupted_import_continues_and_adds_nothing_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """L5: Ctrl-C anywhere: it ends in order with 130; confirmed batches are there, each once."""
    home, file = tmp_path / "home", tmp_path / "rows.csv"
    file.write_text("n,text\n" + "".join(f"{n},text {n}\n" for n in range(ROWS)))
    for args in (["init"], ["group", "create", "team"]):
        assert run(["--home", str(home), *args]) == 0
    command = [sys.executable, "-m", "peers", "--home", str(home), "import", "team", "rows", str(file)]
    chance = random.Random(2)
    interrupted, done = 0, False
    for attempt in range(60):
        delay = None if attempt > 50 else chance.uniform(0.0, 0.3)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if delay is not None and _wait_until_open(home, process):
            time.sleep(delay)
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        if process.returncode == 0:
            done = True
            break
        assert process.returncode == 130
        interrupted += 1
    assert done
    assert interrupted >= 3
    capsys.readouterr()
    sql = "SELECT count(*) n, count(DISTINCT n) d, count(DISTINCT id) i, sum(n) s FROM rows"
    assert run(["--home", str(home), "sql", "team", sql, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == [{"n": ROWS, "d": ROWS, "i": ROWS, "s": ROWS * (ROWS - 1) // 2}]


def _wait_until_open(home: Path, process: "subprocess.Popen[bytes]") -> bool:
    """Until the process holds the home's lock, so that the signal meets the import and not the interpreter's start."""
    pid = str(process.pid)
    deadline = time.perf_counter() + 30
    while process.poll() is None and time.perf_counter() < deadline:
        if pid in (home / "lock").read_text().split() and os.path.exists(f"/proc/{pid}"):
            return True
        time.sleep(0.005)
    return False
