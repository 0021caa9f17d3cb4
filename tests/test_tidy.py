"""The house is tidy: lint, types, layers, purity, circles and sizes, all by the one test command."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("actors", "peers")

LAYERS = {
    "actors": 0,
    "peers.errors": 0,
    "peers.config": 0,
    "peers.clocks": 0,
    "peers.private_files": 1,
    "peers.model": 1,
    "peers.home": 2,
    "peers.wire": 2,
    "peers.store": 3,
    "peers.net": 3,
    "peers.sync": 4,
    "peers.group": 5,
    "peers.device": 6,
    "peers.testing": 7,
    "peers.cli": 8,
}
"""Imports run strictly downward: a file may import its own layer's folder, and lower numbers."""

PURE = ("peers.model", "peers.wire")
PURE_MAY_NOT_IMPORT = {"trio", "apsw", "os", "time", "random", "secrets", "socket", "threading", "pathlib"}
LINES_MAX = 400
FUNCTION_LINES_MAX = 60


def modules() -> Iterator[tuple[str, Path]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(path: Path) -> Iterator[str]:
    """Absolute names of everything that a file imports, `from a import b` as a.b and as a."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer_of(module: str) -> str:
    parts = module.split(".")
    return "actors" if parts[0] == "actors" else ".".join(parts[:2])


def run(*command: str) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_lint() -> None:
    run("ruff", "check", "--no-cache", ".")


def test_ruff_format() -> None:
    run("ruff", "format", "--no-cache", "--check", ".")


def test_mypy_strict(tmp_path: Path) -> None:
    run("mypy", "--cache-dir", str(tmp_path))


def test_imports_run_strictly_downward() -> None:
    wrong = []
    for module, path in modules():
        if module in ("peers", "peers.__main__"):
            continue
        here = layer_of(module)
        assert here in LAYERS, f"{module} stands in no layer: name it in LAYERS"
        for name in imports(path):
            if name.split(".")[0] not in PACKAGES or name == "peers":
                continue
            there = layer_of(name)
            if there in LAYERS and there != here and LAYERS[there] >= LAYERS[here]:
                wrong.append(f"{module} imports {name}")
    assert not wrong


def test_only_outsiders_use_the_front_door() -> None:
    wrong = [module for module, path in modules() if module != "peers" and "peers" in imports_exactly(path)]
    assert not wrong


def imports_exactly(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "peers":
            found |= {
                "peers"
                for alias in node.names
                if not (ROOT / "peers" / alias.name).exists() and not (ROOT / "peers" / f"{alias.name}.py").exists()
            }
    return found


def test_no_import_circle() -> None:
    known = dict(modules())
    graph = {
        module: {name for name in imports(path) if name in known and name != module} for module, path in known.items()
    }
    graph["peers"] = set()  # the front door: everything that outsiders may have
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail[trail.index(module) :], module))
        if module not in done:
            for name in graph[module] - {"peers", "actors", layer_of(module)}:
                visit(name, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_model_and_wire_are_pure() -> None:
    wrong = [
        f"{module} imports {name}"
        for module, path in modules()
        if layer_of(module) in PURE
        for name in imports(path)
        if name.split(".")[0] in PURE_MAY_NOT_IMPORT
    ]
    assert not wrong


def test_the_actors_know_nothing_of_peers() -> None:
    assert not [
        module
        for module, path in modules()
        if module.startswith("actors")
        for name in imports(path)
        if name.startswith("peers")
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_files_and_functions_fit_a_reader(package: str) -> None:
    long = []
    for module, path in modules():
        if not module.startswith(package):
            continue
        text = path.read_text("utf-8")
        tree = ast.parse(text)
        if text.count("\n") > LINES_MAX:
            long.append(f"{path.relative_to(ROOT)}: {text.count(chr(10))} lines")
        assert ast.get_docstring(tree), f"{module} has no docstring"
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno
                if lines > FUNCTION_LINES_MAX:
                    long.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {lines} lines")
    assert not long


def test_nothing_left_open_or_recorded_by_accident() -> None:
    """No marks of unfinished work, no registry address, no machine path."""
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    marks = (
        "TO" + "DO",
        "FIX" + "ME",
        "Not" + "ImplementedError()",
        "/ro" + "ot/",
        "simple" + "/ ",
        "--index" + "-url",
    )
    wrong = []
    for name in files:
        path = ROOT / name
        if path.suffix in (".py", ".md", ".toml", ".txt", ".sh") and path.exists():
            text = path.read_text("utf-8")
            wrong += [f"{name}: {mark}" for mark in marks if mark in text]
    assert not wrong
