"""Bytes of control operations. The golden bytes are part of the protocol: they never change."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peers.errors import EntryFault, OperationRefused
from peers.model import codec, schema
from peers.model.ids import blake2b_256
from peers.model.keys import SigningKey
from peers.model.operation_graph import Operations
from peers.model.operations import (
    SIGNATURE_PREFIX,
    Kind,
    Operation,
    Role,
    consent,
    decode_operation,
    is_consent,
    sign_operation,
)
from peers.model.personal import GROUPS_TABLE
from peers.testing.people import act, found_group, grant, person, personal_grant

VECTORS = Path(__file__).parent / "vectors" / "operations.json"
ALICE, BOB = person("alice"), person("bob")
GROUP = found_group(ALICE)


def golden_operations() -> dict[str, Operation]:
    """One operation of each kind, from fixed seeds."""
    group = Operations([GROUP])
    trades = schema.declare_table(
        "trades",
        [
            schema.Column("id", schema.ColumnType.TEXT, not_null=True, key=1),
            schema.Column("price", schema.ColumnType.REAL, default=1.5),
        ],
        default_id=True,
    )
    phone = schema.Column("note", schema.ColumnType.TEXT)
    return {
        "user": ALICE.genesis,
        "personal grant": ALICE.grant,
        "group": GROUP,
        "grant": grant(ALICE, group, BOB.user, Role.WRITER),
        "device_added": act(BOB, group, Kind.DEVICE_ADDED, [BOB.user]),
        "table": act(ALICE, group, Kind.TABLE, schema.table_to_fields(trades)),
        "column": act(ALICE, group, Kind.COLUMN, schema.column_to_fields(trades.id, phone)),
        "personal table": sign_operation(
            ALICE.device_key,
            group=ALICE.user,
            kind=Kind.TABLE,
            parents=[ALICE.grant.id],
            hlc=9,
            fields=schema.table_to_fields(GROUPS_TABLE),
        ),
    }


@pytest.mark.parametrize("name", golden_operations())
def test_golden_bytes(name: str) -> None:
    golden = json.loads(VECTORS.read_text())[name]
    made = golden_operations()[name]
    assert made.raw.hex() == golden["op"]
    assert made.signature.hex() == golden["signature"]
    assert made.id.hex() == golden["id"] == blake2b_256(made.raw).hex()
    assert decode_operation(bytes.fromhex(golden["op"]), bytes.fromhex(golden["signature"])) == made


def test_the_users_id_follows_from_the_root_key_alone() -> None:
    again = sign_operation(SigningKey(ALICE.root.seed), group=b"", kind=Kind.USER, parents=(), hlc=0)
    assert again.group == again.id == ALICE.user
    assert codec.loads(again.raw) == [1, b"", "user", ALICE.root.public, [], 0, []]


def test_an_operation_tells_what_it_holds() -> None:
    made = golden_operations()["grant"]
    assert (made.group, made.kind, made.author) == (GROUP.id, Kind.GRANT, ALICE.device)
    assert made.parents == (GROUP.id,) and made.fields == (BOB.user, 2, None)
    assert made.enclosed == (ALICE.genesis, ALICE.grant)
    assert made.signed == (made.raw, made.signature)


def test_consent_is_the_devices_own_and_for_one_user() -> None:
    agreed = consent(BOB.device_key, ALICE.user)
    assert is_consent(BOB.device, ALICE.user, agreed)
    assert not is_consent(BOB.device, BOB.user, agreed)
    assert not is_consent(ALICE.device, ALICE.user, agreed)


def signed(items: Any, key: SigningKey = ALICE.device_key) -> tuple[bytes, bytes]:
    raw = codec.dumps(items)
    return raw, key.sign(SIGNATURE_PREFIX, raw)


def fault(raw: bytes, signature: bytes) -> EntryFault:
    with pytest.raises(OperationRefused) as caught:
        decode_operation(raw, signature)
    assert caught.value.code == caught.value.fault.value
    return caught.value.fault


A = ALICE.device
SELF = [list(operation.signed) for operation in ALICE.certification]
GRANT = [1, GROUP.id, "grant", A, [GROUP.id], 5, [], BOB.user, 2, None]
GENESIS = [1, b"", "group", A, [], 5, SELF, ALICE.user, "trades", "admins", bytes(16)]
USER = [1, b"", "user", A, [], 0, []]
ADDED = [1, GROUP.id, "device_added", A, [GROUP.id], 5, [], BOB.user]


def changed(items: list[Any], place: int, value: Any) -> list[Any]:
    return [*items[:place], value, *items[place + 1 :]]


MALFORMED: list[Any] = [
    None,
    {},
    [],
    GRANT[:6],
    changed(GRANT, 0, 2),
    changed(GRANT, 0, True),
    changed(GRANT, 1, b""),
    changed(GRANT, 1, "g" * 32),
    changed(GRANT, 2, "promote"),
    changed(GRANT, 2, "x" * 1000),
    changed(GRANT, 2, 7),
    changed(GRANT, 2, []),
    changed(GRANT, 3, A[:31]),
    changed(GRANT, 4, []),
    changed(GRANT, 4, None),
    changed(GRANT, 4, [b"z" * 32, b"a" * 32]),
    changed(GRANT, 4, [GROUP.id, GROUP.id]),
    changed(GRANT, 4, [b"short"]),
    changed(GRANT, 4, [bytes([n]) * 32 for n in range(65)]),
    changed(GRANT, 5, -1),
    changed(GRANT, 5, 1.0),
    changed(GRANT, 6, None),
    changed(GRANT, 6, [b"op"]),
    changed(GRANT, 6, [[b"op"]]),
    changed(GRANT, 6, [["op", b"sig"]]),
    changed(GRANT, 6, [[GROUP.raw, GROUP.signature]]),
    changed(GRANT, 6, [[golden_operations()["grant"].raw, golden_operations()["grant"].signature]]),
    GRANT[:9],
    [*GRANT, 1],
    changed(GRANT, 7, b"short"),
    changed(GRANT, 8, 0),
    changed(GRANT, 8, 4),
    changed(GRANT, 8, True),
    changed(GRANT, 8, "writer"),
    changed(GRANT, 9, b"short"),
    changed(GENESIS, 1, GROUP.id),
    changed(GENESIS, 4, [GROUP.id]),
    GENESIS[:10],
    changed(GENESIS, 7, b"short"),
    changed(GENESIS, 8, ""),
    changed(GENESIS, 8, "x" * 65),
    changed(GENESIS, 8, b"name"),
    changed(GENESIS, 9, "anybody"),
    changed(GENESIS, 9, []),
    changed(GENESIS, 10, bytes(15)),
    changed(USER, 5, 1),
    changed(USER, 6, SELF),
    [*USER, "random"],
    ADDED[:7],
    changed(ADDED, 7, b"short"),
]


@pytest.mark.parametrize("items", MALFORMED, ids=range(len(MALFORMED)))
def test_a_malformed_operation_is_bad_encoding(items: Any) -> None:
    assert fault(*signed(items)) is EntryFault.BAD_ENCODING


def test_the_owners_role_is_not_given_by_a_grant() -> None:
    with pytest.raises(OperationRefused, match="reader, writer or admin"):
        sign_operation(
            ALICE.device_key, group=GROUP.id, kind=Kind.GRANT, parents=[GROUP.id], hlc=1, fields=[BOB.user, 4, None]
        )


@given(st.binary(max_size=100), st.binary(max_size=70))
@settings(max_examples=100)
def test_any_bytes_are_an_operation_or_refused(raw: bytes, signature: bytes) -> None:
    assert fault(raw, signature) is EntryFault.BAD_ENCODING


def test_bytes_after_the_end_are_bad_encoding() -> None:
    assert fault(GROUP.raw + b"\0", GROUP.signature) is EntryFault.BAD_ENCODING


def test_a_schema_that_replication_cannot_carry_is_a_bad_value() -> None:
    head = [1, GROUP.id, "table", A, [GROUP.id], 5, []]
    assert (
        fault(*signed([*head, "sqlite_master", 0, False, False, [["id", "TEXT", True, None, 1]]]))
        is EntryFault.BAD_VALUE
    )
    head[2] = "column"
    assert fault(*signed([*head, bytes(8), 0, ["rowid", "TEXT", False, None, 0]])) is EntryFault.BAD_VALUE


def test_an_operation_over_64_kib_is_too_large() -> None:
    assert fault(bytes(64 * 1024 + 1), bytes(64)) is EntryFault.TOO_LARGE


@pytest.mark.parametrize("place", [0, 40, 63])
def test_c1_a_wrong_signature_is_refused(place: int) -> None:
    """C1: bad signature → `bad_signature`; also that of another device, and of what is enclosed."""
    flipped = bytearray(GROUP.signature)
    flipped[place] ^= 1
    assert fault(GROUP.raw, bytes(flipped)) is EntryFault.BAD_SIGNATURE
    assert fault(*signed(GRANT, BOB.device_key)) is EntryFault.BAD_SIGNATURE
    forged = [[ALICE.grant.raw, bytes(flipped)]]
    assert fault(*signed(changed(GRANT, 6, forged))) is EntryFault.BAD_SIGNATURE


def test_what_is_enclosed_encloses_nothing_itself() -> None:
    nested = sign_operation(
        ALICE.device_key, group=ALICE.user, kind=Kind.DEVICE_ADDED, parents=[ALICE.grant.id], hlc=1,
        enclosed=ALICE.certification, fields=[ALICE.user],
    )  # fmt: skip
    assert fault(*signed(changed(GRANT, 6, [list(nested.signed)]))) is EntryFault.BAD_ENCODING
    bare = signed(changed(GENESIS, 6, []))
    assert decode_operation(*bare).kind is Kind.GROUP
    assert fault(*signed(changed(GRANT, 6, [list(bare)]))) is EntryFault.BAD_ENCODING


def test_a_personal_grant_carries_the_devices_consent() -> None:
    phone = SigningKey(b"p" * 32)
    made = personal_grant(ALICE.device_key, ALICE.user, phone, Role.WRITER, [ALICE.grant.id])
    assert made.fields == (phone.public, 2, consent(phone, ALICE.user))
