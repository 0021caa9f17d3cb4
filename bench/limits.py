"""The limits: what the same rows cost without tracking, signing, encryption and merging.

**Plain** is SQLite through apsw with the same pragmas as a group's file, the same batches and the same durability.
**Raw copy** is the same rows over a bare TCP connection on loopback, from one process that reads them out of a plain
file into another that puts them into one with `executemany`. Both are as fast as we know how to make them.
"""

import socket
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import apsw
import msgspec

from bench.rows import PLAIN_TABLE
from peers.config import StoreConfig

_LENGTH = struct.Struct("!I")
_INSERT = "INSERT INTO trade VALUES(?,?,?,?,?,?,?)"


class Plain:
    """A plain SQLite file with the trade table."""

    def __init__(self, path: Path, *, full: bool, create: bool = True) -> None:
        config = StoreConfig()
        self.connection = apsw.Connection(str(path))
        if create:
            self.connection.execute(f"PRAGMA page_size={config.page_size_bytes}")
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute("PRAGMA synchronous=FULL" if full else "PRAGMA synchronous=NORMAL")
        self.connection.execute(f"PRAGMA wal_autocheckpoint={config.wal_autocheckpoint_pages}")
        self.connection.execute(f"PRAGMA cache_size=-{config.cache_kib}")
        if create:
            self.connection.execute(PLAIN_TABLE)

    def insert(self, rows: Sequence[Sequence[Any]], batch: int) -> None:
        for start in range(0, len(rows), batch):
            self._many(_INSERT, rows[start : start + batch])

    def update(self, values: Sequence[Sequence[Any]], batch: int) -> None:
        """`values`: (qty, price, id) for each row."""
        for start in range(0, len(values), batch):
            self._many("UPDATE trade SET qty=?, price=? WHERE id=?", values[start : start + batch])

    def insert_each(self, rows: Iterable[tuple[Any, ...]]) -> list[float]:
        """One autocommit insert after the other; the seconds of each."""
        took = []
        for row in rows:
            start = time.perf_counter()
            self.connection.execute(_INSERT, row)
            took.append(time.perf_counter() - start)
        return took

    def rows(self, batch: int) -> Iterator[list[Any]]:
        cursor = self.connection.execute("SELECT * FROM trade")
        while found := list(islice(cursor, batch)):
            yield found

    def count(self) -> int:
        return int(self.connection.execute("SELECT count(*) FROM trade").get)

    def close(self) -> None:
        self.connection.close()

    def _many(self, sql: str, values: Sequence[Sequence[Any]]) -> None:
        self.connection.execute("BEGIN IMMEDIATE")
        self.connection.executemany(sql, values)
        self.connection.execute("COMMIT")


def send_rows(path: Path, connection: socket.socket, batch: int) -> None:
    """Raw copy, the sending side: every row of a plain file, in length-prefixed batches; an empty one ends."""
    plain = Plain(path, full=False, create=False)
    encoder = msgspec.msgpack.Encoder()
    for rows in plain.rows(batch):
        data = encoder.encode(rows)
        connection.sendall(_LENGTH.pack(len(data)) + data)
    connection.sendall(_LENGTH.pack(0))
    plain.close()


def receive_rows(path: Path, connection: socket.socket) -> int:
    """Raw copy, the receiving side: each batch is one transaction of a new plain file. Returns the rows."""
    plain = Plain(path, full=False)
    decoder = msgspec.msgpack.Decoder(list[list[Any]])
    stream = connection.makefile("rb", buffering=256 * 1024)
    total = 0
    while size := _LENGTH.unpack(stream.read(_LENGTH.size))[0]:
        rows = decoder.decode(stream.read(size))
        plain.insert(rows, len(rows))
        total += len(rows)
    plain.close()
    return total
