import itertools
import math
from dataclasses import replace
from typing import Any

import pytest

from peers.config import COLUMNS_MAX, VALUE_BYTES_MAX
from peers.errors import BadValue, SchemaRefused
from peers.model import codec, schema
from peers.model.schema import Column, ColumnType, Declaration, Table, declare_column, declare_table, schema_of

ID = Column("id", ColumnType.TEXT, not_null=True, key=1)


def table(name: str = "trades", *columns: Column, **more: Any) -> Table:
    return declare_table(name, [ID, *columns], **more)


def column(kind: ColumnType, **more: Any) -> Column:
    return Column("c", kind, **more)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", [ColumnType.REAL, ColumnType.ANY])
def test_c9_nan_and_infinities_are_bad_values(value: float, kind: ColumnType) -> None:
    """C9: NaN, ±inf → `bad_value`, at write and at receive."""
    for validate in (schema.check_values, schema.normalize_values):
        with pytest.raises(BadValue, match="column c"):
            validate(column(kind), [1.0, value])


def test_c9_minus_zero_is_normalised_before_signing() -> None:
    """C9: −0.0 normalised before signing; refused where it was not."""
    (value,) = schema.normalize_values(column(ColumnType.REAL), [-0.0])
    assert math.copysign(1.0, value) == 1.0  # type: ignore[arg-type]
    with pytest.raises(BadValue):
        schema.check_values(column(ColumnType.REAL), [-0.0])


@pytest.mark.parametrize("value", [1 << 63, -(1 << 63) - 1])
def test_c9_integers_beyond_64_bits_are_bad_values(value: int) -> None:
    """C9: 2^63 → `bad_value`."""
    with pytest.raises(BadValue, match="64 bits"):
        schema.check_values(column(ColumnType.INTEGER), [value])
    schema.check_values(column(ColumnType.INTEGER), [(1 << 63) - 1, -(1 << 63)])


def test_c9_lone_surrogates_and_300_kib_are_bad_values() -> None:
    """C9: lone surrogate, 300 KiB text → `bad_value`; NUL in text allowed."""
    text, blob = column(ColumnType.TEXT), column(ColumnType.BLOB)
    umlauts = "ä" * (VALUE_BYTES_MAX // 2)
    for value in ("\ud800", "x" * 300 * 1024, umlauts + "x"):
        with pytest.raises(BadValue):
            schema.check_values(text, [value])
    with pytest.raises(BadValue):
        schema.check_values(blob, [bytes(300 * 1024)])
    schema.check_values(text, ["a\0b", "", "x" * VALUE_BYTES_MAX, umlauts])
    schema.check_values(blob, [bytes(VALUE_BYTES_MAX)])


@pytest.mark.parametrize("value", [1.0, True, None, b"x"])
def test_c9_keys_have_their_declared_type(value: Any) -> None:
    """C9: PK as float/bool → `bad_value`."""
    with pytest.raises(BadValue):
        schema.check_values(ID, [value])
    if value is not None:
        with pytest.raises(BadValue):
            schema.check_values(Column("n", ColumnType.INTEGER, not_null=True, key=1), [value])


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (ColumnType.INTEGER, [1], [1.0, "1", b"1", True, [1], {}]),
        (ColumnType.REAL, [1.5], [1, "1", b"1", True]),
        (ColumnType.TEXT, ["a"], [1, 1.0, b"a", False]),
        (ColumnType.BLOB, [b"a"], [1, "a", bytearray(b"a")]),
        (ColumnType.ANY, [1, 1.5, "a", b"a"], [True, [1], object()]),
    ],
)
def test_a_column_holds_its_type_and_null(kind: ColumnType, good: list[Any], bad: list[Any]) -> None:
    schema.check_values(column(kind), [*good, None])
    for value in bad:
        with pytest.raises(BadValue, match=type(value).__name__):
            schema.check_values(column(kind), [*good, value])
    with pytest.raises(BadValue, match="NULL"):
        schema.check_values(column(kind, not_null=True), [None])


def test_values_are_normalised_as_sqlite_would_store_them() -> None:
    normal = schema.normalize_values
    assert normal(column(ColumnType.INTEGER), [True, 2, None]) == [1, 2, None]
    assert normal(column(ColumnType.REAL), [True, 2, 0.5]) == [1.0, 2.0, 0.5]
    assert {type(value) for value in normal(column(ColumnType.REAL), [True, 2])} == {float}
    assert normal(column(ColumnType.BLOB), [bytearray(b"a"), memoryview(b"b")]) == [b"a", b"b"]
    with pytest.raises(BadValue, match="REAL"):
        normal(column(ColumnType.REAL), [10**400])
    with pytest.raises(BadValue):
        normal(column(ColumnType.TEXT), [True])


@pytest.mark.parametrize(
    "name",
    [
        "x; DROP TABLE y", 'x"y', "x'y", "", " ", "1x", "naïve", "x\0", "x\n", "x" * 65, "a.b", "a~b", "x--", "[x]",
        "sqlite_master", "SQLITE_sequence", "_peers_control", "_PEERS_s1", "peers_x", "GroupMembers", "groupmembers",
        "rowid", "ROWID", "oid", "_rowid_",
    ],
)  # fmt: skip
def test_t25_attacks_by_name_are_refused(name: str) -> None:
    """T25: SQL injection / structure attack through table and column names: the valid name of an internal table too."""
    with pytest.raises(SchemaRefused):
        declare_table(name, [ID])
    with pytest.raises(SchemaRefused):
        table("t", Column(name, ColumnType.TEXT))
    fields = schema.table_to_fields(table())
    with pytest.raises(SchemaRefused):
        schema.table_from_fields([name, *fields[1:]])
    with pytest.raises(SchemaRefused):
        schema.column_from_fields([bytes(8), 0, [name, "TEXT", False, None, 0]])


def test_equal_declarations_made_apart_are_one_object() -> None:
    one, other = table("t", column(ColumnType.TEXT)), table("t", column(ColumnType.TEXT))
    assert one == other and len(one.id) == 8
    different = [
        table("u"), table("t", generation=1), table("t", default_id=True, owned=True),
        declare_table("t", [Column("key", ColumnType.TEXT, True, key=1)]),
        declare_table("t", [Column("id", ColumnType.BLOB, True, key=1)]),
    ]  # fmt: skip
    assert len({item.id for item in (one, *different)}) == 6


def declared(*tables: Table) -> list[Declaration]:
    return [Declaration(hlc, bytes([hlc]) * 32, table=item) for hlc, item in enumerate(tables, 1)]


def test_differing_declarations_under_one_name_are_shown_apart_in_every_order() -> None:
    by_text = declare_table("t", [Column("id", ColumnType.TEXT, True, key=1)])
    by_number = declare_table("T", [Column("id", ColumnType.INTEGER, True, key=1)])
    added = Declaration(
        9, b"z" * 32, table_id=by_number.id, column=declare_column(by_number.id, column(ColumnType.ANY))
    )
    items = [*declared(by_text, by_number), added]
    shown = {schema_of(order) for order in itertools.permutations(items)}
    assert len(shown) == 1
    (result,) = shown
    assert [item.name for item in result.tables] == ["t", f"T~{by_number.id.hex()[:4]}"]
    assert result.by_name("T") == result.by_id(by_text.id) == result.tables[0]
    assert [item.name for item in result.tables[1].columns] == ["id", "c"]
    assert result.by_name("missing") is None and result.by_id(bytes(8)) is None


def test_columns_of_one_name_are_shown_apart() -> None:
    base = table("t", column(ColumnType.TEXT))
    other = declare_column(base.id, Column("C", ColumnType.REAL))
    same = declare_column(base.id, column(ColumnType.TEXT))
    columns = [Declaration(hlc, b"z" * 32, table_id=base.id, column=item) for hlc, item in ((2, other), (3, same))]
    (shown,) = schema_of([*columns, *declared(base)]).tables
    assert [item.name for item in shown.columns] == ["id", "c", f"C~{other.id.hex()[:4]}"]
    assert shown.column("c") == base.columns[1] and shown.column("nothing") is None


@pytest.mark.parametrize("change", [{"default": "x"}, {"not_null": True}])
def test_a_column_declared_apart_with_another_default_or_null_is_another(change: dict[str, Any]) -> None:
    """Else replicas would differ in what they refuse and show, by which declaration they learned of first."""
    base = table("t", column(ColumnType.TEXT))
    apart = declare_column(base.id, replace(column(ColumnType.TEXT), **change))
    assert apart.id != base.columns[1].id
    added = Declaration(9, b"z" * 32, table_id=base.id, column=apart)
    (shown,) = schema_of([added, *declared(base)]).tables
    assert [item.name for item in shown.columns] == ["id", "c", f"c~{apart.id.hex()[:4]}"]


def test_names_stay_apart_even_where_ids_begin_alike() -> None:
    by_generation: dict[str, list[Table]] = {}
    first = table("t")
    for generation in itertools.count(1):
        item = table("t", generation=generation)
        alike = by_generation.setdefault(item.id.hex()[:4], [])
        alike.append(item)
        if len(alike) == 2:
            break
    shown = [item.name for item in schema_of(declared(first, *alike)).tables]
    assert shown == ["t", f"t~{alike[0].id.hex()[:4]}", f"t~{alike[1].id.hex()[:6]}"]


def test_a_column_of_a_table_that_nobody_declared_waits() -> None:
    assert schema_of([Declaration(1, b"z" * 32, table_id=bytes(8), column=column(ColumnType.TEXT))]).tables == ()


def test_a_table_knows_its_key_and_values() -> None:
    made = declare_table(
        "t",
        [
            Column("b", ColumnType.BLOB, True, key=2),
            Column("v", ColumnType.ANY),
            Column("a", ColumnType.TEXT, True, key=1),
        ],
    )
    assert [item.name for item in made.key] == ["a", "b"]
    assert [item.name for item in made.values] == ["v"]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (Column("c", ColumnType.TEXT), None),
        (Column("c", ColumnType.TEXT, not_null=True), ""),
        (Column("c", ColumnType.REAL, not_null=True), 0.0),
        (Column("c", ColumnType.BLOB, not_null=True), b""),
        (Column("c", ColumnType.INTEGER, not_null=True, default=7), 7),
    ],
)
def test_an_unset_cell_shows_its_default_or_zero(given: Column, shown: Any) -> None:
    assert given.shown_default == shown


@pytest.mark.parametrize(
    ("columns", "more", "reason"),
    [
        ([], {}, "1 to 500 columns"),
        ([ID] + [Column(f"c{n}", ColumnType.ANY) for n in range(COLUMNS_MAX)], {}, "1 to 500 columns"),
        ([Column("a", ColumnType.TEXT)], {}, "primary key"),
        ([Column("a", ColumnType.TEXT, True, key=2)], {}, "primary key"),
        ([ID, Column("b", ColumnType.TEXT, True, key=1)], {}, "primary key"),
        ([ID, Column("ID", ColumnType.TEXT)], {}, "twice"),
        ([Column("a", ColumnType.REAL, True, key=1)], {}, "TEXT, INTEGER or BLOB"),
        ([Column("a", ColumnType.TEXT, False, key=1)], {}, "NOT NULL"),
        ([Column("a", ColumnType.TEXT, True, "x", key=1)], {}, "no default"),
        ([ID, Column("b", ColumnType.REAL, default=math.nan)], {}, "default"),
        ([ID, Column("b", ColumnType.TEXT, default=1)], {}, "default"),
        ([Column("a", ColumnType.TEXT, True, key=1)], {"default_id": True}, "default id"),
        ([Column("id", ColumnType.BLOB, True, key=1)], {"default_id": True}, "default id"),
        ([ID], {"owned": True}, "owned"),
    ],
)
def test_a_declaration_that_has_no_meaning_is_refused(columns: list[Column], more: Any, reason: str) -> None:
    with pytest.raises(SchemaRefused, match=reason):
        declare_table("t", columns, **more)


def test_fields_of_operations_read_back() -> None:
    made = table("t", column(ColumnType.REAL, not_null=True, default=1.5), default_id=True, owned=True, generation=3)
    assert schema.table_from_fields(codec.loads(codec.dumps(schema.table_to_fields(made)))) == made
    added = declare_column(made.id, Column("d", ColumnType.BLOB, default=b"x"), 2)
    assert schema.column_from_fields(schema.column_to_fields(made.id, added, 2)) == (made.id, added)
    with pytest.raises(SchemaRefused, match="key column"):
        declare_column(made.id, Column("k", ColumnType.TEXT, True, key=1))


COLUMN = ["id", "TEXT", True, None, 1]


@pytest.mark.parametrize(
    "fields",
    [
        [],
        ["t", 0, False, False],
        ["t", 0, False, False, None],
        [1, 0, False, False, [COLUMN]],
        ["t", -1, False, False, [COLUMN]],
        ["t", True, False, False, [COLUMN]],
        ["t", 1 << 32, False, False, [COLUMN]],
        ["t", 0, 0, False, [COLUMN]],
        ["t", 0, False, 0, [COLUMN]],
        ["t", 0, False, False, [None]],
        ["t", 0, False, False, [COLUMN[:4]]],
        ["t", 0, False, False, [[1, *COLUMN[1:]]]],
        ["t", 0, False, False, [["id", "NUMERIC", True, None, 1]]],
        ["t", 0, False, False, [["id", [], True, None, 1]]],
        ["t", 0, False, False, [["id", {}, True, None, 1]]],
        ["t", 0, False, False, [["id", "TEXT", 1, None, 1]]],
        ["t", 0, False, False, [["id", "TEXT", True, None, True]]],
        ["t", 0, False, False, [["id", "TEXT", True, None, -1]]],
        ["t", 0, False, False, [["id", "TEXT", True, None, 501]]],
        ["t", 0, False, False, [COLUMN, ["b", "ANY", False, [], 0]]],
        ["t", 0, False, False, [COLUMN, ["b", "ANY", False, True, 0]]],
    ],
)
def test_malformed_fields_of_a_table_are_refused(fields: list[Any]) -> None:
    with pytest.raises(SchemaRefused):
        schema.table_from_fields(fields)


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [b"short", 0, ["c", "TEXT", False, None, 0]],
        ["12345678", 0, ["c", "TEXT", False, None, 0]],
        [bytes(8), -1, ["c", "TEXT", False, None, 0]],
        [bytes(8), 0, "c"],
        [bytes(8), 0, ["c", "TEXT", True, None, 1]],
    ],
)
def test_malformed_fields_of_a_column_are_refused(fields: list[Any]) -> None:
    with pytest.raises(SchemaRefused):
        schema.column_from_fields(fields)
