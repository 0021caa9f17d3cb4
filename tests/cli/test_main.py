"""The entry point: what errors look like and how the process ends. Real processes where streams and signals matter."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from peers.cli.main import run

PEERS = [sys.executable, "-m", "peers"]


def peers(home: Path, *args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PEERS_HOME": str(home), **environ}
    return subprocess.run([*PEERS, *args], env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    path = tmp_path / "home"
    monkeypatch.setenv("PEERS_HOME", str(path))
    assert run(["init", "--name", "laptop"]) == 0
    capsys.readouterr()
    return path


@pytest.mark.parametrize(
    ("args", "usage", "message"),
    [
        (["stat"], "peers [OPTIONS] COMMAND", "No such command 'stat'. Did you mean 'status'?"),
        (
            ["group", "membrs", "x"],
            "peers group [OPTIONS] COMMAND",
            "No such command 'membrs'. Did you mean 'members'?",
        ),
        (["id", "--jsn"], "peers id [OPTIONS]", "No such option '--jsn'. Did you mean '--json'?"),
        (["sql", "team"], "peers sql [OPTIONS] GROUP SQL", "Missing argument 'SQL'."),
        (
            ["group", "grant", "g", "u", "king"],
            "peers group grant",
            "'king' is not one of 'reader', 'writer', 'admin'.",
        ),
        (["import", "g", "t", "nowhere.csv"], "peers import", "File 'nowhere.csv' does not exist."),
    ],
)
def test_l1_wrong_usage(args: list[str], usage: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """L1: unknown command/option, missing argument, wrong type: exit 2, usage line, nearest command suggested."""
    assert run(args) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(f"Usage: {usage}")
    assert lines[-1].startswith("peers: usage: ")
    assert message in lines[-1]


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    assert "Commands:" in capsys.readouterr().err
    assert run(["--help"]) == 0
    assert "demo" in capsys.readouterr().out


def test_an_error_is_one_line_with_its_code(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("peers: home_exists: ")
    assert error.count("\n") == 1
    assert run(["sql", "nowhere", "SELECT 1"]) == 2
    assert capsys.readouterr().err.startswith("peers: not_found: no group 'nowhere' here")


def test_l2_connect_needs_a_running_device(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """L2: a command that needs a running device finds none: exit 3 with the command to start it; also where a
    killed one left its run.json."""
    for stale in (None, '{"pid": 999999999, "socket": "/nowhere", "listening": ""}'):
        if stale is not None:
            (home / "run.json").write_text(stale)
        assert run(["connect", "127.0.0.1:1"]) == 3
        error = capsys.readouterr().err
        assert error.startswith("peers: not_running: ")
        assert f"peers --home {home} up" in error


def test_a_missing_home_says_how_to_make_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--home", str(tmp_path / "none"), "id"]) == 1
    assert f"`peers --home {tmp_path / 'none'} init`" in capsys.readouterr().err


def test_init_shows_ids_and_24_words_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--home", str(tmp_path / "h"), "init", "--name", "la\x1bptop"]) == 0
    out = capsys.readouterr().out
    assert len(re.findall(r"\b\d+ [a-z]+", out.split("kept nowhere.")[1])) == 24
    assert "\x1b" not in out
    user = re.search(r"user +([0-9a-f]{64})", out)
    assert user is not None
    assert run(["--home", str(tmp_path / "h"), "id"]) == 0
    assert user.group(1) in capsys.readouterr().out


def test_l4_a_closed_pipe_is_no_error(home: Path) -> None:
    """L4: output piped to a closed pipe: no traceback."""
    assert run(["group", "create", "team"]) == 0
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000) SELECT i, hex(i) FROM n"
    for style in ([], ["--csv"], ["--json"]):
        reading, writing = os.pipe()
        os.close(reading)
        env = {**os.environ, "PEERS_HOME": str(home)}
        process = subprocess.run(
            [*PEERS, "sql", "team", many, *style],
            env=env,
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
        os.close(writing)
        assert (process.returncode, b"Traceback" in process.stderr) == (141, False), process.stderr


def test_l4_a_locale_without_unicode_is_no_error(home: Path) -> None:
    """L4: non-UTF-8 locale: no traceback, escaped output."""
    assert run(["group", "create", "Gruppe ü 漢"]) == 0
    done = peers(home, "group", "list", PYTHONIOENCODING="ascii", LC_ALL="C", PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr
    assert r"Gruppe \xfc \u6f22" in done.stdout


class Running:
    """A `peers up` process."""

    def __init__(self, home: Path, *args: str) -> None:
        env = {**os.environ, "PEERS_HOME": str(home), "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [*PEERS, "up", "--listen", "127.0.0.1:0", *args],
            env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.first = self.process.stdout.readline()
        self.listening = self.process.stdout.readline()

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def end(self) -> tuple[int, str]:
        _, errors = self.process.communicate(timeout=30)
        return self.process.returncode, errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_l5_a_signal_stops_a_device_in_order(home: Path, number: signal.Signals) -> None:
    """L5: Ctrl-C / SIGTERM: clean stop within 5 s."""
    with Running(home) as running:
        assert running.first.startswith("device 'laptop' ")
        assert re.fullmatch(r"listening on ws://127\.0\.0\.1:\d+\n", running.listening)
        began = time.perf_counter()
        running.process.send_signal(number)
        assert running.end() == (0, "")
        assert time.perf_counter() - began < 5
        assert not (home / "run.json").exists()
        assert not (home / "socket").exists()


def test_commands_reach_the_running_device_and_others_cannot_start(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Running(home) as running:
        assert run(["group", "create", "team"]) == 0
        assert run(["status"]) == 0
        out = capsys.readouterr().out
        assert f"running yes, process {running.process.pid}, listening on ws://127.0.0.1:" in out
        assert "team" in out
        assert run(["up"]) == 3
        assert capsys.readouterr().err.startswith(f"peers: already_running: {home} ")
        running.process.stdin.close()  # type: ignore[union-attr]
        running.process.stdin = None
        assert run(["id"]) == 0
    assert run(["group", "list"]) == 0  # the killed device left its run.json and socket behind
    assert "team" in capsys.readouterr().out


def test_a_device_can_live_as_long_as_who_started_it(home: Path) -> None:
    with Running(home, "--until-stdin-closes") as running:
        assert running.end()[0] == 0


def test_l3_a_port_in_use_is_named_and_nothing_is_half_started(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """L3: port in use: the reason; nothing half-started."""
    with Running(home) as running:
        port = running.listening.strip().rsplit(":", 1)[1]
        other = str(tmp_path / "other")
        assert run(["--home", other, "init"]) == 0
        assert run(["--home", other, "up", "--listen", f"127.0.0.1:{port}"]) == 2
        error = capsys.readouterr().err
        assert error.startswith(
            f"peers: cannot_listen: cannot listen on ws://127.0.0.1:{port}: Address already in use: "
        )
        assert "--listen" in error
        assert error.count("\n") == 1
        assert not (tmp_path / "other" / "run.json").exists()
        assert run(["--home", other, "id"]) == 0
