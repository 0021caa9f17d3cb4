"""CSV files of numbered rows, as many as a test needs: what is cut short must be long enough, on any machine.

A test that interrupts something cannot be sure to come in time. It looks afterwards; where all was over already, that
round does not count, and the next file gives more to do.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from tests.processes.device_process import DeviceProcess

PARTS_MAX = 12
"""Files until a test gives up to interrupt anything."""


class RowFiles:
    """`current` has `rows` rows: `n`, which goes on from file to file, and a text that hardly compresses."""

    def __init__(self, folder: Path, *, rows: int, text_bytes: int) -> None:
        self._folder = folder
        self._rows = rows
        self._text_bytes = text_bytes
        self.total = 0
        """Rows of all files so far."""
        self.current = folder
        self.grow()

    def grow(self) -> Path:
        """One more file."""
        assert self.total < PARTS_MAX * self._rows, "everything was over before it could be interrupted"
        self.current = self._folder / f"rows-{self.total}.csv"
        with self.current.open("w") as file:
            file.write("n,text\n")
            file.writelines(self._lines())
        self.total += self._rows
        return self.current

    def _lines(self) -> Iterator[str]:
        for n in range(self.total, self.total + self._rows):
            yield f"{n},{hashlib.shake_128(b'%d' % n).hexdigest(self._text_bytes)}\n"

    def assert_complete(self, device: DeviceProcess, group: str, table: str = "rows") -> None:
        """The device holds the rows of all files, each once."""
        assert_first(device, group, self.total, table)


def assert_first(device: DeviceProcess, group: str, count: int, table: str = "rows") -> None:
    """The device holds the rows 0, 1, … count − 1, each once, and its file is sound."""
    sql = f"SELECT count(*), count(DISTINCT n), count(DISTINCT id), max(n) FROM {table}"
    assert device.read_file(group, sql) == [(count, count, count, count - 1)]
    assert device.read_file(group, "PRAGMA integrity_check") == [("ok",)]
