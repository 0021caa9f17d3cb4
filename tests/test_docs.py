"""The documentation tells the truth where a program can tell: links, limits, names, files, named tests, the example.

What a page says in prose is for its reader to check against the code; whatever is a name or a number is checked here.
"""

import dataclasses
import importlib
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import trio

from peers import config
from peers.config import NetConfig, SyncConfig
from peers.errors import EntryFault, WireFault
from peers.model.operations import Kind
from peers.wire import messages, rpc

ROOT = Path(__file__).resolve().parent.parent
PROTOCOL = ROOT / "docs" / "PROTOCOL.md"
ARCHITECTURE = ROOT / "docs" / "ARCHITECTURE.md"
INVARIANTS = ROOT / "docs" / "INVARIANTS.md"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)
LIMITS = re.compile(r"<!-- limits -->(.*)<!-- /limits -->", re.DOTALL)
LIMIT = re.compile(r"^\| `([\w.]+)` \| ([\d,.]+) \|", re.MULTILINE)
FOLDER = re.compile(r"^### `([\w/]+)/`$")
FILE = re.compile(r"^\| `([\w./]+)` \|")
CODE = re.compile(r"`([^`\n]+)`")


def prose(page: Path) -> str:
    """The page without its blocks of code."""
    return FENCED.sub("", page.read_text("utf-8"))


def anchors(page: Path) -> set[str]:
    """The names by which GitHub lets others link to the page's headings."""
    found = set()
    for heading in HEADING.findall(prose(page)):
        kept = "".join(char for char in heading.lower() if char.isalnum() or char in " -_")
        found.add(kept.replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_internal_links_resolve(page: Path) -> None:
    broken = []
    for target in LINK.findall(prose(page)):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or not there.is_relative_to(ROOT) or (anchor and anchor not in anchors(there)):
            broken.append(target)
    assert not broken


def limits_of_the_page() -> dict[str, str]:
    (table,) = LIMITS.findall(PROTOCOL.read_text("utf-8"))
    rows = LIMIT.findall(table)
    assert len(rows) == len(dict(rows)), "a limit is listed twice"
    return dict(rows)


def value_of(name: str) -> Any:
    """`config.NetConfig.port` and `wire.rpc.SLOT_MAX` as the code has them, below `peers`."""
    parts = ["peers", *name.split(".")]
    for size in range(len(parts) - 1, 1, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:size]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[size:]:
            found = getattr(found, attribute)
        return found
    raise AssertionError(f"{name} is not in peers")


def test_limits_agree_with_the_code() -> None:
    wrong = {
        name: (shown, value_of(name))
        for name, shown in limits_of_the_page().items()
        if Decimal(shown.replace(",", "")) != Decimal(str(value_of(name)))
    }
    assert not wrong


def test_every_limit_of_the_protocol_is_listed() -> None:
    listed = set(limits_of_the_page())
    constants = {f"config.{name}" for name in vars(config) if name.isupper() and name not in ("KIB", "MIB")}
    settings = {
        f"config.{kind.__name__}.{field.name}"
        for kind in (NetConfig, SyncConfig)
        for field in dataclasses.fields(kind)
        if isinstance(field.default, int | float)
    }
    missing = (constants | settings) - listed
    assert not missing


def protocol_names() -> Iterator[str]:
    for name, value in vars(messages).items():
        if isinstance(value, str) and name == value.upper():
            yield value  # a method
    yield from (kind.value for kind in Kind)
    yield from (fault.value for fault in (*EntryFault, *WireFault))


def test_every_method_operation_and_fault_is_in_the_protocol() -> None:
    named = set(CODE.findall(prose(PROTOCOL)))
    names = set(protocol_names())
    assert {"list_changes", "grant", "missing_control", "clock_skew"} <= names
    missing = names - named
    assert not missing


def test_every_kind_of_frame_is_in_the_protocol() -> None:
    text = PROTOCOL.read_text("utf-8")
    assert not [kind.name for kind in rpc.Kind if f"\n| {kind.value} | {kind.name.lower()} |" not in text]


def files_of_the_page() -> set[str]:
    found, folder = set(), ""
    for line in ARCHITECTURE.read_text("utf-8").splitlines():
        heading, row = FOLDER.match(line), FILE.match(line)
        if heading is not None:
            folder = heading[1]
        elif line.startswith("#"):
            folder = ""
        elif row is not None and folder:
            found.add(f"{folder}/{row[1]}")
    return found


def test_every_file_is_in_the_architecture_and_every_named_file_exists() -> None:
    """The line of a folder stands for its `__init__.py`, that of a package for its `py.typed`."""
    silent = ("__init__.py", "py.typed")
    existing = {
        path.relative_to(ROOT).as_posix()
        for package in ("actors", "peers")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.name not in silent
    }
    named = files_of_the_page()
    missing, gone = existing - named, named - existing
    assert not missing
    assert not gone


def test_every_test_that_a_promise_names_exists() -> None:
    missing, source, named = [], "", 0
    for token in CODE.findall(prose(INVARIANTS)):
        if token.endswith(".py"):
            path = ROOT / token
            source = path.read_text("utf-8") if path.exists() else ""
            if not source:
                missing.append(token)
        elif token.startswith("test_"):
            named += 1
            if f"def {token}(" not in source:
                missing.append(token)
    assert not missing
    assert named > 8
    text = INVARIANTS.read_text("utf-8")
    assert all(f"## P{number} " in text for number in range(1, 9))


async def test_the_example_of_the_readme_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL | re.MULTILINE)
    program: dict[str, Any] = {"__name__": "example"}
    exec(compile(code, "README.md", "exec"), program)
    with trio.fail_after(30):
        await program["main"](tmp_path)
    shown = capsys.readouterr().out
    assert "listening on ws://127.0.0.1:" in shown
    assert "[('ACME', 101), ('INIT', 20)]" in shown
