"""The rows of every bench: trades from a fixed seed, about 110 bytes each with their id.

Column by column, because that is how rows travel in Peers; `as_rows` turns them for `executemany`.
"""

import random
from functools import lru_cache
from typing import Any

from peers.model.ids import row_ids

TABLE = "trade"
COLUMNS = ("symbol", "side", "qty", "price", "note", "ts")
DECLARATION = "CREATE TABLE trade(symbol TEXT, side TEXT, qty INTEGER, price REAL, note TEXT, ts INTEGER)"
PLAIN_TABLE = (
    "CREATE TABLE trade(id TEXT NOT NULL, symbol TEXT, side TEXT, qty INTEGER, price REAL, note TEXT, ts INTEGER,"
    " PRIMARY KEY(id)) STRICT, WITHOUT ROWID"
)
_SYMBOLS = ("AAPL", "AMD", "BTC-USD", "EURUSD", "MSFT", "NVDA", "SPY", "TSLA")
_WORDS = (
    "breakout", "pullback", "entered", "early", "late", "held", "plan", "news", "stopped", "scaled", "out", "trend",
    "range", "level", "second", "try", "size", "small", "bell", "gap",
)  # fmt: skip
_NOTE_CHARS = 40
_FIRST_TS = 1_700_000_000_000

Columns = dict[str, list[Any]]


@lru_cache(maxsize=4)
def trades(count: int, seed: int = 7) -> Columns:
    """`count` trades. The lists are shared: not to be changed."""
    chance = random.Random(seed)
    columns: Columns = {name: [] for name in COLUMNS}
    for number in range(count):
        columns["symbol"].append(chance.choice(_SYMBOLS))
        columns["side"].append(chance.choice(("buy", "sell")))
        columns["qty"].append(chance.randint(1, 1000))
        columns["price"].append(round(chance.uniform(1, 500), 2))
        columns["note"].append(" ".join(chance.choices(_WORDS, k=8))[:_NOTE_CHARS])
        columns["ts"].append(_FIRST_TS + number * 1000 + chance.randrange(1000))
    return columns


@lru_cache(maxsize=4)
def ids(count: int, batch: int) -> list[str]:
    """Ids as Peers would make them for batches of `batch` rows: ascending, 32 characters."""
    made: list[str] = []
    for start in range(0, count, batch):
        hlc = (_FIRST_TS + start) << 16
        made += row_ids(hlc, 0, min(batch, count - start), hlc.to_bytes(8, "little"))
    return made


def part(columns: Columns, start: int, stop: int) -> Columns:
    return {name: values[start:stop] for name, values in columns.items()}


def as_rows(keys: list[str], columns: Columns) -> list[tuple[Any, ...]]:
    """(id, symbol, …) for each row."""
    return list(zip(keys, *columns.values(), strict=True))
