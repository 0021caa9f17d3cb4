"""`python -m bench [write merge sync live open] [--quick] [--rows N] [--repetitions N] [--json FILE]`.

Prints one table of ratios to limits that were measured in the same run. The exit code says whether everything ran, not
how fast: 1 where a bench failed, and its error stands in the output.
"""

import json
import os
import platform
import sys
import tempfile
import time
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

import apsw
import cbor2
import click
import nacl
import trio
import trio_websocket
import zstandard

from bench.harness import Line, Settings, as_json, as_table, console, judged, stolen
from peers.config import StoreConfig

BENCHES = ("write", "merge", "sync", "live", "open")
"""Each is a module with `run(settings) -> list[Line]`."""
QUICK_ROWS = 2000
SHARED_ABOVE = 0.05


def about(settings: Settings) -> dict[str, Any]:
    store = StoreConfig()
    return {
        "python": platform.python_version(),
        "sqlite": apsw.sqlite_lib_version(),
        "apsw": apsw.apsw_version(),
        "trio": trio.__version__,
        "trio-websocket": getattr(trio_websocket, "__version__", ""),
        "pynacl": nacl.__version__,
        "cbor2": getattr(cbor2, "__version__", ""),
        "zstandard": zstandard.__version__,
        "cpus": os.cpu_count(),
        "machine": f"{platform.system()} {platform.release()} {platform.machine()}",
        "rows": settings.rows,
        "batch": settings.batch,
        "repetitions": settings.repetitions,
        "quick": settings.quick,
        "page_size_bytes": store.page_size_bytes,
        "wal_autocheckpoint_pages": store.wal_autocheckpoint_pages,
        "cache_kib": store.cache_kib,
    }


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("benches", nargs=-1, type=click.Choice(BENCHES))
@click.option("--quick", is_flag=True, help=f"Everything small ({QUICK_ROWS} rows): shows that it works, not how fast.")
@click.option("--rows", type=click.IntRange(100), help="Rows of the bulk benches (default 100,000).")
@click.option("--repetitions", type=click.IntRange(1), help="Of every contest (default 5; 3 with --quick).")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Also write all as JSON.")
@click.option(
    "--folder", type=click.Path(file_okay=False, path_type=Path), help="Where databases go (default: TMPDIR)."
)
def main(
    benches: tuple[str, ...],
    quick: bool,
    rows: int | None,
    repetitions: int | None,
    json_path: Path | None,
    folder: Path | None,
) -> None:
    """Measure Peers against its limits. Without names: all of write, merge, sync, live, open."""
    out = console()
    failed: dict[str, str] = {}
    lines: list[Line] = []
    shares: list[float] = []
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="peers-bench-", dir=folder) as scratch:
        settings = Settings(
            folder=Path(scratch),
            rows=rows or (QUICK_ROWS if quick else 100_000),
            repetitions=repetitions or (3 if quick else 5),
            quick=quick,
        )
        facts = about(settings)
        out.print("  ".join(f"{name} {value}" for name, value in facts.items()), soft_wrap=False)
        for name in benches or BENCHES:
            shares.append(stolen())
            try:
                found = import_module(f"bench.{name}").run(settings)
            except Exception:  # noqa: BLE001 - one bench that fails must not hide the figures of the others
                failed[name] = traceback.format_exc()
                continue
            shares.append(stolen())
            lines += judged(found, shared=max(shares[-2:]) > SHARED_ABOVE)
    facts |= {"stolen": max(shares), "seconds": round(time.perf_counter() - start, 1), "failed": failed}
    out.print(as_table(lines))
    _print_notes(out.print, max(shares), settings.repetitions)
    for name, text in failed.items():
        out.print(f"bench {name} failed:\n{text}", markup=False)
    if json_path is not None:
        json_path.write_text(json.dumps(as_json(lines, facts), indent=1))
    sys.exit(1 if failed else 0)


def _print_notes(show: Any, share: float, repetitions: int) -> None:
    show(
        f"Ratios are medians of {repetitions} interleaved repetitions; 1.00 is as fast as the limit. FULL = every"
        " commit waits for the disk, NORMAL = it does not."
    )
    if share > SHARED_ABOVE:
        show(
            f"This machine was shared while it measured (a busy loop lost up to {share:.0%} of its time): wall ratios"
            " swing, so verdicts marked (CPU) follow the CPU ratio; latencies and what waits for the disk are walls."
        )
    else:
        show("This machine was quiet while it measured: verdicts follow wall time.")


if __name__ == "__main__":
    main()
