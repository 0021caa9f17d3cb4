"""Column types, names and values of a CSV file."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peers.cli.csv_types import BadLine, TypeInference, column_names, columns_of, convert_rows
from peers.errors import UsageError
from peers.model.schema import INT64_MAX, INT64_MIN, Column, ColumnType, check_name

NULLS = frozenset({"", "NA"})


def infer(*cells: str, nulls: frozenset[str] = NULLS, batch: int = 100) -> ColumnType:
    inference = TypeInference(1, nulls)
    for start in range(0, len(cells), batch):
        inference.add([[cell] for cell in cells[start : start + batch]])
    return inference.types()[0]


@pytest.mark.parametrize("batch", [1, 100])
@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["1", "-2", "0"], ColumnType.INTEGER),
        ([str(INT64_MAX), str(INT64_MIN)], ColumnType.INTEGER),
        ([str(INT64_MAX + 1)], ColumnType.TEXT),
        (["1", "", "NA"], ColumnType.INTEGER),
        (["1", "1.5"], ColumnType.REAL),
        (["1.5", "-3", ".5", "5.", "1e-7", "-0", "-.5"], ColumnType.REAL),
        (["1.5", str(2**53 + 1)], ColumnType.TEXT),
        ([str(2**53 + 1), "1.5"], ColumnType.TEXT),
        ([str(2**53 + 1)], ColumnType.INTEGER),
        (["007"], ColumnType.TEXT),
        (["1.5", "007.5"], ColumnType.TEXT),
        (["+1"], ColumnType.TEXT),
        (["+1.5"], ColumnType.TEXT),
        (["1_000"], ColumnType.TEXT),
        (["1", "2\n3"], ColumnType.TEXT),
        ([" 1"], ColumnType.TEXT),
        (["inf"], ColumnType.TEXT),
        (["nan"], ColumnType.TEXT),
        (["1e999"], ColumnType.TEXT),
        (["٣"], ColumnType.TEXT),
        ([".", "1"], ColumnType.TEXT),
        (["-"], ColumnType.TEXT),
        (["1e"], ColumnType.TEXT),
        (["", "NA"], ColumnType.TEXT),
        ([], ColumnType.TEXT),
        (["a"], ColumnType.TEXT),
        (["9" * 5000], ColumnType.TEXT),
    ],
)
def test_types_come_from_all_cells(cells: list[str], kind: ColumnType, batch: int) -> None:
    assert infer(*cells, batch=batch) is kind


@given(
    st.lists(st.one_of(st.integers(-(2**65), 2**65).map(str), st.floats().map(str), st.text("0+-.e12 ", max_size=4)))
)
@settings(max_examples=200)
def test_whatever_is_inferred_converts_and_order_is_irrelevant(cells: list[str]) -> None:
    kind = infer(*cells)
    assert infer(*reversed(cells), batch=1) is kind
    rows = [[cell] for cell in cells]
    made = convert_rows([Column("c", kind)], rows, range(2, len(rows) + 2), NULLS)
    assert made.count == len(made.columns[0]) == len(cells)
    assert not made.bad
    if kind is ColumnType.INTEGER:
        assert ["" if value is None else str(value) for value in made.columns[0]] == cells


def test_bad_cells_are_named_by_line_and_the_rest_is_converted() -> None:
    columns = [Column("n", ColumnType.INTEGER, not_null=True, key=1), Column("x", ColumnType.REAL)]
    rows = [["1", "0.5"], ["two", "1"], ["", "1"], ["4", "nan"], ["5", "NA"], ["6", "1_0"]]
    made = convert_rows(columns, rows, range(2, 8), NULLS)
    assert made.columns == [[1, 5], [0.5, None]]
    assert made.count == 2
    assert made.bad == [
        BadLine(3, "column n: 'two' is not an integer"),
        BadLine(4, "column n: NULL in a NOT NULL column"),
        BadLine(5, "column x: NaN, infinity or negative zero"),
        BadLine(7, "column x: '1_0' is not a number"),
    ]


def test_names_become_valid_and_distinct() -> None:
    header = [
        "Price (EUR)",
        "price_eur",
        "Price_EUR",
        "",
        "2nd",
        "rowid",
        "sqlite_x",
        "id",
        "ünï",
        "a" * 80,
        "_x",
        "A" * 80,
    ]
    names = column_names(header, default_id=True)
    assert names[:4] == ["Price_EUR", "price_eur_2", "Price_EUR_3", "column_4"]
    assert names[4:8] == ["c_2nd", "c_rowid", "c_sqlite_x", "source_id"]
    for name in names:
        check_name(name, "column")
    assert len({name.lower() for name in names}) == len(header)
    assert column_names(["id"], default_id=False) == ["id"]


@given(st.lists(st.text(max_size=70), max_size=20), st.booleans())
@settings(max_examples=200)
def test_any_header_gives_names_that_a_table_may_have(header: list[str], default_id: bool) -> None:
    names = column_names(header, default_id=default_id)
    for name in names:
        check_name(name, "column")
    assert len({name.lower() for name in names}) == len(header)
    assert not (default_id and "id" in {name.lower() for name in names})


def test_too_many_columns_are_refused() -> None:
    with pytest.raises(UsageError, match="at most 500"):
        column_names(["c"] * 501, default_id=False)


def test_key_columns_are_not_null_and_never_real() -> None:
    columns = columns_of(["a", "b", "c"], [ColumnType.REAL, ColumnType.INTEGER, ColumnType.REAL], ["b", "a"])
    assert [(c.type, c.not_null, c.key) for c in columns] == [
        (ColumnType.TEXT, True, 2),
        (ColumnType.INTEGER, True, 1),
        (ColumnType.REAL, False, 0),
    ]
