"""Reading CSV records: line numbers, bad lines, going on."""

from pathlib import Path

import pytest

from peers.cli.csv_file import LINE_CHARS_MAX, CsvFile
from peers.cli.csv_types import BadLine
from peers.errors import UsageError


def read(path: Path, data: bytes) -> tuple[list[str], list[object]]:
    path.write_bytes(data)
    with CsvFile(path) as file:
        return file.header, list(file)


def test_records_have_the_number_of_their_first_line(tmp_path: Path) -> None:
    header, items = read(tmp_path / "f", b'\xef\xbb\xbfa,b\r\n1,"x\ny"\r\n\r\n2,"say ""hi"", so"\r\n3,z')
    assert header == ["a", "b"]
    assert items == [(2, ["1", "x\ny"]), (5, ["2", 'say "hi", so']), (6, ["3", "z"])]


def test_bad_lines_are_named_and_the_rest_is_read(tmp_path: Path) -> None:
    data = b'a,b\n1\n1,2,3\n1,\xff\n1,ok\n1,"x"y\n1,' + b"z" * 300_000 + b"\n1,last\n"
    _, items = read(tmp_path / "f", data)
    assert items == [
        BadLine(2, "1 fields, but the header has 2"),
        BadLine(3, "3 fields, but the header has 2"),
        BadLine(4, "bytes that are not UTF-8"),
        (5, ["1", "ok"]),
        BadLine(6, "',' expected after '\"'"),
        BadLine(7, "a field longer than 256 KiB"),
        (8, ["1", "last"]),
    ]


@pytest.mark.parametrize("lines", [3, 30_000])
def test_a_quote_that_is_never_closed_costs_one_line(tmp_path: Path, lines: int) -> None:
    _, items = read(tmp_path / "f", b'a,b\n1,"open\n' + b"1,something\n" * lines)
    assert items[0] == BadLine(2, "a quote that is never closed")
    assert items[1:] == [(number, ["1", "something"]) for number in range(3, lines + 3)]


def test_a_line_without_end_is_one_bad_line(tmp_path: Path) -> None:
    _, items = read(tmp_path / "f", b"a,b\n" + b"x" * (2 * LINE_CHARS_MAX + 5) + b"\n1,2\n")
    assert items == [BadLine(2, "longer than 4 MiB"), (3, ["1", "2"])]


def test_reading_continues_at_a_line(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b'a,b\n1,"x\ny"\n2,z\n3,w\n')
    with CsvFile(path) as file:
        items = iter(file)
        assert next(items) == (2, ["1", "x\ny"])
        position = file.next_line
    with CsvFile(path) as file:
        file.skip_to(position)
        assert list(file) == [(4, ["2", "z"]), (5, ["3", "w"])]
    with CsvFile(path) as file:
        file.skip_to(100)
        assert list(file) == []


@pytest.mark.parametrize(("data", "reason"), [(b"", "is empty"), (b"\n\n", "is empty"), (b'"a\n', "cannot be read")])
def test_a_file_without_header_is_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        read(tmp_path / "f", data)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere: cannot be read: No such file"):
        CsvFile(tmp_path / "nowhere")
