"""Writes the tables of the documentation that the code knows best: `python docs/tables.py`, after any change to either.

The limits of PROTOCOL.md come from `peers.config` and the constants named below, the files of ARCHITECTURE.md from the
first paragraphs of their docstrings. `tests/test_docs.py` says when a table is out of date.
"""

import ast
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

CONSTANTS = {
    "model.codec.DEPTH_MAX": "Nesting of CBOR.",
    "model.version_vector.SEQ_MAX": "Entries of a log: exact also where numbers are floats.",
    "model.version_vector.LOGS_MAX": "Logs of a vector.",
    "model.ids.ORDINAL_MAX": "Ordinal of a default row id: 30 bits.",
    "model.entries.CONTROL_HEADS_MAX": "Control heads of an entry.",
    "model.operations.PARENTS_MAX": "Parents of an operation.",
    "model.trust.INFO_BYTES_MAX": "A DeviceInfo.",
    "model.trust.ADDRESS_CHARS_MAX": "An address, as advertised or dialled.",
    "model.trust.CAPABILITIES_MAX": "Capabilities of a DeviceInfo.",
    "wire.handshake_messages.VERSION": "The version byte of message 1.",
    "wire.rpc.METHOD_CHARS_MAX": "Name of a method.",
    "wire.rpc.CODE_CHARS_MAX": "Code of an error or close frame.",
    "wire.rpc.DETAIL_CHARS_MAX": "Detail of an error or close frame.",
    "wire.rpc.SLOT_MAX": "Number of a slot.",
    "wire.rpc.ID_MAX": "Number of a call, ping or assembly.",
    "wire.chunks.CHUNK_BYTES_MIN": "Bytes of a chunk that is not the last.",
    "wire.messages.GROUPS_MAX": "Groups in `offers`, digests in `compare_digests`.",
    "wire.messages.HEADS_MAX": "Control heads in a message.",
    "wire.messages.DEVICES_MAX": "Devices named in a NetworkInfo.",
    "wire.messages.PAGE_BYTES_MAX": "Limit that `list_changes` may name.",
    "sync.slots.ROUTES_MAX": "Routes that a peer may open in one connection.",
}
"""Limits that stand beside what they bound."""
STORE_SETTINGS = ("transactions_per_entry", "ingest_entries", "parked_after_seconds")
"""The settings of a group's file that others can notice."""
FOLDERS = {
    "actors": "A small supervised actor runtime on trio; knows nothing of peers. [Its own page](actors.md).",
    "peers": "The front door (`__init__`: what programs import), the composition root and what every layer may use.",
    "peers/model": "Pure. What things are: identifiers, clocks, vectors, schemas, entries, merge, membership, down to "
    "their bytes.",
    "peers/wire": "Pure, sans-IO. How bytes travel: bytes in, events out.",
    "peers/store": "One group on disk: one SQLite file, its change log, the merge, the doors in and out.",
    "peers/net": "Transports, and connections between devices. Knows no group and no right.",
    "peers/sync": "Where store and net meet: which groups are shared, what to exchange, with whom.",
    "peers/cli": "The `peers` command; one file per command group.",
    "peers/cli/data": "Package data.",
    "peers/testing": "Shipped test instruments: simulated clocks and network, clusters, histories, lying devices.",
}
DATA = {
    "bip39_english.txt": "The 2,048 published English words of BIP-39.",
    "trades.csv": "The sample of `peers demo`; made by `bench/make_trades.py`.",
}
"""What files without a docstring are for."""


def reasons(body: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    """(name, the text that stands below it) of each assignment."""
    for statement, following in zip(body, [*body[1:], ast.Pass()], strict=True):
        text = ""
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            text = " ".join(str(following.value.value).split())
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            yield statement.target.id, text


def limits_table() -> str:
    config = importlib.import_module("peers.config")
    tree = ast.parse((ROOT / "peers" / "config.py").read_text("utf-8")).body
    classes = {node.name: node.body for node in tree if isinstance(node, ast.ClassDef)}
    rows: list[tuple[str, Any, str, str]] = [
        (f"config.{name}", getattr(config, name), "Format", text)
        for name, text in reasons(tree)
        if name.isupper() and name not in ("KIB", "MIB")
    ]
    for name, text in CONSTANTS.items():
        module, _, constant = name.rpartition(".")
        value = getattr(importlib.import_module(f"peers.{module}"), constant)
        rows.append((name, value, "Own" if name.startswith("sync.") else "Format", text))
    for kind in ("NetConfig", "SyncConfig", "StoreConfig"):
        for name, text in reasons(classes[kind]):
            value = getattr(getattr(config, kind), name)
            if isinstance(value, int | float) and (kind != "StoreConfig" or name in STORE_SETTINGS):
                rows.append((f"config.{kind}.{name}", value, "Own", text))
    lines = [f"| `{name}` | {shown(value)} | {kind} | {text} |" for name, value, kind, text in rows]
    return "\n".join(["| limit | value | kind | what, and why |", "|---|---|---|---|", *lines])


def shown(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,g}"


def files_tables() -> str:
    parts = []
    for folder, what in FOLDERS.items():
        files = sorted(path for path in (ROOT / folder).iterdir() if path.is_file())
        lines = [
            f"| `{path.name}` | {purpose(path)} |" for path in files if path.name not in ("__init__.py", "py.typed")
        ]
        parts.append("\n".join([f"### `{folder}/`", "", what, "", "| file | for |", "|---|---|", *lines, ""]))
    return "\n" + "\n".join(parts)


def purpose(path: Path) -> str:
    """The first paragraph of a file's docstring."""
    if path.name in DATA:
        return DATA[path.name]
    docstring = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return " ".join(docstring.split("\n\n")[0].split()).rstrip(":").replace("|", "\\|")


def put(page: str, name: str, table: str) -> None:
    """Replace what stands between the two marks."""
    path = ROOT / "docs" / page
    before, opening, rest = path.read_text("utf-8").partition(f"<!-- {name} -->")
    _, closing, after = rest.partition(f"<!-- /{name} -->")
    path.write_text(f"{before}{opening}\n{table}\n{closing}{after}", "utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    put("PROTOCOL.md", "limits", limits_table())
    put("ARCHITECTURE.md", "files", files_tables())
