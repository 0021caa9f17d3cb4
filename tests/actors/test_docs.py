"""Every example of docs/actors.md is a program that prints what the page says."""

import re
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

PAGE = Path(__file__).parents[2] / "docs" / "actors.md"
EXAMPLE = re.compile(r"```python\n(?P<code>.*?)```.*?```text\n(?P<output>.*?)```", re.DOTALL)
examples = [match.groups() for match in EXAMPLE.finditer(PAGE.read_text())]


def test_all_blocks_are_examples() -> None:
    assert PAGE.read_text().count("```") == 4 * len(examples) > 0


@pytest.mark.parametrize(("code", "output"), examples)
def test_example(code: str, output: str, capsys: pytest.CaptureFixture[str]) -> None:
    program: dict[str, Any] = {"__name__": "example"}
    exec(compile(code, str(PAGE), "exec"), program)
    trio.run(program["main"], clock=MockClock(autojump_threshold=0))
    assert capsys.readouterr().out == output
