"""The other process of a bench: `python -m bench.child PART ARGUMENT…`, which talks with its parent in lines of JSON.

A part is an async function `part(arguments, line)` of a bench file. It says what it has to say with `line.tell`, and
waits for the parent with `await line.ask()`; the parent drives it with `Child.ask`. A part ends when it returns.
"""

import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import trio

Part = Callable[[Sequence[str], "ParentLine"], Awaitable[None]]
ROOT = Path(__file__).resolve().parent.parent


class ChildFailed(Exception):
    """A child process ended early; its last lines are the message."""


class ParentLine:
    """The child's end."""

    def tell(self, **values: Any) -> None:
        sys.stdout.write(json.dumps(values) + "\n")
        sys.stdout.flush()

    async def ask(self) -> dict[str, Any]:
        """The parent's next line; an empty dict when the parent wants an end."""
        text = await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
        values: dict[str, Any] = json.loads(text) if text.strip() else {}
        return values


class Child:
    """The parent's end: a context manager that ends the process with the block."""

    def __init__(self, part: str, *arguments: object) -> None:
        self._part = part
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.child", part, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def hear(self) -> dict[str, Any]:
        """The child's next line. Raises ChildFailed where it ended instead."""
        assert self._process.stdout is not None
        text = self._process.stdout.readline()
        if not text:
            assert self._process.stderr is not None
            said = self._process.stderr.read().strip()
            raise ChildFailed(f"bench.child {self._part} ended with {self._process.wait()}: {said[-2000:]}")
        values: dict[str, Any] = json.loads(text)
        return values

    def tell(self, **values: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(values) + "\n")
        self._process.stdin.flush()

    def ask(self, **values: Any) -> dict[str, Any]:
        self.tell(**values)
        return self.hear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._process.communicate(timeout=10)  # closes its stdin: its part returns
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()


def main(arguments: Sequence[str]) -> None:
    module, _, name = arguments[0].partition(":")
    part: Part = getattr(import_module(f"bench.{module}"), name)
    trio.run(part, arguments[1:], ParentLine())


if __name__ == "__main__":
    main(sys.argv[1:])
