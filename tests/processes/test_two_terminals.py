"""docs/two-terminals.md, line by line: two shells, each fed exactly the commands that the page gives it.

What a person copies from a terminal is copied: the address, the group's id, the user's id. Nothing else is changed.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from tests.processes.device_process import ROOT, WAIT_SECONDS, environment, wait_until

PAGE = ROOT / "docs" / "two-terminals.md"
BLOCK = re.compile(r"^```(?:sh (\w+))?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PLACEHOLDER = re.compile(r"\b(ADDRESS|GROUP|USER)\b")
COPIED = {
    "ADDRESS": ("alice", re.compile(r"^listening on (\S+)$", re.MULTILINE)),
    "GROUP": ("alice", re.compile(r"^id +([0-9a-f]{64})$", re.MULTILINE)),
    "USER": ("bob", re.compile(r"^ +peers group grant [0-9a-f]{8} ([0-9a-f]{64}) writer$", re.MULTILINE)),
}
"""What stands for what: whose terminal shows it, and how its line looks."""


class Terminal:
    """A shell that is typed into. Its output and its errors are one text, as on a screen."""

    def __init__(self, process: trio.Process, screen: Path) -> None:
        self._process = process
        self._screen = screen
        self._commands = 0

    @property
    def text(self) -> str:
        return self._screen.read_text("utf-8")

    async def type(self, line: str) -> str:
        """Run one line; what it printed until it ended. It must succeed (what it starts behind itself goes on)."""
        before, self._commands = len(self.text), self._commands + 1
        prompt = re.compile(rf"^ended {self._commands}: (\d+)$", re.MULTILINE)
        assert self._process.stdin is not None
        await self._process.stdin.send_all(f'{line}\necho "ended {self._commands}: $?"\n'.encode())

        async def ended() -> bool:
            return prompt.search(self.text[before:]) is not None

        await wait_until(ended, f"{line} ends: {self.text[before:]}")
        printed = self.text[before:]
        match = prompt.search(printed)
        assert match is not None
        assert match.group(1) == "0", (line, printed)
        return printed[: match.start()]

    async def leave(self) -> None:
        """Close the terminal once what it started has ended."""
        await self.type("wait")
        assert self._process.stdin is not None
        await self._process.stdin.aclose()
        with trio.fail_after(WAIT_SECONDS):
            await self._process.wait()


@asynccontextmanager
async def open_terminal(folder: Path, name: str) -> AsyncIterator[Terminal]:
    """A shell in `folder` that finds `peers`. It and what it started are gone after the block."""
    screen = folder / f"{name}.screen"
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    with screen.open("wb") as output:
        process = await trio.lowlevel.open_process(
            ["bash"], stdin=subprocess.PIPE, stdout=output, stderr=output, cwd=folder,
            env=environment(PATH=path), start_new_session=True,
        )  # fmt: skip
    try:
        yield Terminal(process, screen)
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)  # its own session: the shell and its devices
            with trio.CancelScope(shield=True):
                await process.wait()


def install(folder: Path) -> None:
    """The command `peers` of this checkout, by this interpreter."""
    script = folder / "bin" / "peers"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m peers "$@"\n')
    script.chmod(0o755)


async def copied(line: str, terminals: dict[str, Terminal]) -> str:
    """The line with what a person puts in: the last that the terminal in question shows."""
    for name in set(PLACEHOLDER.findall(line)):
        owner, shape = COPIED[name]

        async def shown(owner: str = owner, shape: re.Pattern[str] = shape) -> bool:
            return shape.search(terminals[owner].text) is not None

        await wait_until(shown, f"{owner}'s terminal shows {name}")
        line = re.sub(rf"\b{name}\b", shape.findall(terminals[owner].text)[-1], line)
    return line


def blocks() -> list[tuple[str, list[str]]]:
    """(whose terminal, lines) in the page's order; '' for output that the page shows."""
    return [(who, text.strip("\n").splitlines()) for who, text in BLOCK.findall(PAGE.read_text("utf-8"))]


def test_the_page_counts_right() -> None:
    """Six numbered commands after the two `init`."""
    text = PAGE.read_text("utf-8")
    numbered = re.findall(r"^\*\*(\d)\.\*\*.*?^```sh \w+\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert [number for number, _ in numbered] == list("123456")
    assert [command.split()[1] for _, command in numbered] == ["up", "up", "connect", "group", "group", "sql"]
    assert all(command.count("\n") == 1 for _, command in numbered)


async def test_every_line_of_the_page(tmp_path: Path) -> None:
    install(tmp_path)
    async with open_terminal(tmp_path, "alice") as alice, open_terminal(tmp_path, "bob") as bob:
        terminals = {"alice": alice, "bob": bob}
        typed, asked = "", (bob, "")
        for who, lines in blocks():
            if not who:
                await shows("\n".join(lines), *asked)
            for line in lines if who else ():
                typed = await copied(line, terminals)
                assert not PLACEHOLDER.search(typed)
                await terminals[who].type(typed)
                asked = (terminals[who], typed)
        for terminal in terminals.values():
            await terminal.leave()
            assert "peers: " not in terminal.text, terminal.text
            assert terminal.text.count("stopped\n") == 1, terminal.text


async def shows(output: str, terminal: Terminal, question: str) -> None:
    """The terminal answers the question as the page says, when the change has arrived."""

    async def same() -> bool:
        answer = await terminal.type(question)
        return sorted(answer.strip().splitlines()) == sorted(output.splitlines())

    await wait_until(same, f"{question} answers:\n{output}")
