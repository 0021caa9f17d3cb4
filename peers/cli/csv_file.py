"""Reads a CSV file record by record: in bounded memory, with line numbers, going on after bad lines.

UTF-8, with or without a byte order mark; RFC 4180 quoting, strictly. A quote that is never closed costs its own line
only: the lines that it swallowed are read again. Nothing is converted here (`csv_types` does that).
"""

import csv
import io
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from peers.cli.csv_types import BadLine
from peers.config import MIB, VALUE_BYTES_MAX
from peers.errors import UsageError

LINE_CHARS_MAX = 4 * MIB
"""A longer line is one bad line: it cannot be a row of values of at most 256 KiB that anybody wants in a leaf."""


class CsvFile:
    """A context manager. `header`, then iterate: `(line number, fields)` for a record, or a `BadLine`."""

    def __init__(self, path: Path, *, delimiter: str = ",") -> None:
        self.path = path
        self._delimiter = delimiter
        self._lines = _Lines(path)
        self._start_records()
        self.header: list[str] = []
        self.header = self._read_header()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.close()

    @property
    def position_bytes(self) -> int:
        """How far the file was read, for a progress bar."""
        return self._lines.position_bytes()

    def skip_to(self, line: int) -> None:
        """Continue at a line where a record begins."""
        while self._lines.number + 1 < line and next(self._lines, None) is not None:
            self._lines.forget()
        self._start_records()

    @property
    def next_line(self) -> int:
        """The line at which the next record begins."""
        return self._lines.number + 1

    def __iter__(self) -> Iterator[tuple[int, list[str]] | BadLine]:
        while True:
            number = self._lines.number + 1
            try:
                fields = next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                reason = self._recover(str(error))
                yield BadLine(number, reason)
                continue
            too_long = self._lines.too_long
            self._lines.forget()
            if too_long:
                yield BadLine(number, f"longer than {LINE_CHARS_MAX // MIB} MiB")
            elif fields and (reason := self._misfit(fields)):
                yield BadLine(number, reason)
            elif fields:
                yield number, fields

    def _misfit(self, fields: list[str]) -> str:
        if len(fields) != len(self.header) and self.header:
            return f"{len(fields)} fields, but the header has {len(self.header)}"
        return "" if _is_text(fields) else "bytes that are not UTF-8"

    def _start_records(self) -> None:
        csv.field_size_limit(VALUE_BYTES_MAX)
        self._reader = csv.reader(self._lines, delimiter=self._delimiter, strict=True)

    def _recover(self, reason: str) -> str:
        """Give back all lines of the broken record but its first."""
        swallowed = self._lines.rewind_to_second()
        self._start_records()
        if "unexpected end of data" in reason or swallowed:
            return "a quote that is never closed"
        if "field larger" in reason:
            return f"a field longer than {VALUE_BYTES_MAX // 1024} KiB"
        return reason

    def _read_header(self) -> list[str]:
        for item in self:
            if isinstance(item, BadLine):
                self._lines.close()
                raise UsageError(f"{self.path}: the header (line {item.number}) cannot be read: {item.reason}")
            return item[1]
        self._lines.close()
        raise UsageError(f"{self.path}: the file is empty; its first line must name the columns")


class _Lines:
    """The physical lines of the file, remembered back to the start of the current record."""

    def __init__(self, path: Path) -> None:
        try:
            self._bytes = path.open("rb")
        except OSError as error:
            raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
        self._file = io.TextIOWrapper(self._bytes, encoding="utf-8-sig", errors="surrogateescape", newline="")
        self.number = 0
        self.too_long = False
        self._record: list[str] = []
        self._again: deque[str] = deque()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        if self._again:
            line = self._again.popleft()
        else:
            line = self._file.readline(LINE_CHARS_MAX)
            if len(line) == LINE_CHARS_MAX and not line.endswith("\n"):
                self._skip_rest()
                line = "\n"
        if not line:
            raise StopIteration
        self.number += 1
        self._record.append(line)
        return line

    def _skip_rest(self) -> None:
        self.too_long = True
        while (rest := self._file.readline(LINE_CHARS_MAX)) and not rest.endswith("\n"):
            pass

    def forget(self) -> None:
        """The record is complete."""
        self._record.clear()
        self.too_long = False

    def rewind_to_second(self) -> bool:
        """Forget the record's first line; its others will be read again. True if there were any."""
        rest = self._record[1:]
        self.number -= len(rest)
        self._again.extendleft(reversed(rest))
        self.forget()
        return bool(rest)

    def position_bytes(self) -> int:
        return self._bytes.tell()

    def close(self) -> None:
        self._file.close()


def _is_text(fields: list[str]) -> bool:
    text = "".join(fields)
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
