"""What reaches a terminal."""

import io
import json

import pytest

from peers.cli.output import (
    console,
    escape,
    print_csv_rows,
    print_json_rows,
    print_table,
    short_bytes,
    show_cell,
    to_json,
)

HOSTILE = "\x1b[31mred\r\nline\x9b2J\u202eevil\u2066\x7f\ud800"


def test_l4_control_characters_are_made_visible() -> None:
    """L4: ANSI in peer names: escaped output."""
    assert escape(HOSTILE) == r"\x1b[31mred\r\nline\x9b2J\u202eevil\u2066\x7f\ud800"
    assert escape("plain ünï 漢字 🙂 [bold]") == "plain ünï 漢字 🙂 [bold]"


def test_cells() -> None:
    assert [show_cell(v) for v in (None, "", 1, 0.1, b"\1\2", "a\tb")] == ["NULL", "", "1", "0.1", "x'0102'", r"a\tb"]


def test_tables_are_not_folded_and_interpret_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    out = io.StringIO()
    print_table(["n", "te\x1bxt"], [[1, "[red]x[/red]"], [20, "y" * 300], [None, HOSTILE[:3]]], to=console(out))
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    assert [line.split(maxsplit=1) for line in lines] == [
        ["n", r"te\x1bxt"], ["1", "[red]x[/red]"], ["20", "y" * 300], ["NULL", r"\x1b[3"],
    ]  # fmt: skip
    print_table(["n"], [[n] for n in range(1005)], to=console(io.StringIO()))
    assert "5 more rows" in capsys.readouterr().err


def test_json_is_json_and_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    print_json_rows(["a", "b"], [[HOSTILE[:-1], b"\xff"], [None, 1.5]])
    text = capsys.readouterr().out
    assert json.loads(text) == [{"a": HOSTILE[:-1], "b": "ff"}, {"a": None, "b": 1.5}]
    assert not any(character in text for character in "\x1b\x7f\x9b")
    print_json_rows(["a"], [])
    assert json.loads(capsys.readouterr().out) == []
    with pytest.raises(TypeError):
        to_json({"a": object()})


def test_csv_carries_the_values_themselves(capsys: pytest.CaptureFixture[str]) -> None:
    print_csv_rows(["a", "b"], [["x,\n\x1b", None], [1, b"\xff"]])
    assert capsys.readouterr().out == 'a,b\n"x,\n\x1b",\n1,ff\n'


def test_bytes_for_people() -> None:
    assert [short_bytes(n) for n in (0, 1023, 1536, 5 << 20, 3 << 30)] == [
        "0 B", "1023 B", "1.5 KiB", "5.0 MiB", "3.0 GiB",
    ]  # fmt: skip
