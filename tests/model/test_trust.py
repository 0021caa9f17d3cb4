import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peers.errors import ProtocolError, WireFault
from peers.model import codec, trust
from peers.model.keys import SigningKey
from peers.model.membership import Role
from peers.model.operation_graph import Operations
from peers.model.operations import Kind, consent, sign_operation
from peers.model.trust import Certificate, DeviceInfo, decode_device_info, encode_device_info, verify_certificate
from peers.testing.people import found_group, key_of, person, personal_grant

ALICE, BOB = person("alice"), person("bob")
CERTIFICATE = ALICE.identity().certificate
INFO = DeviceInfo(
    user=ALICE.user, device=ALICE.device, box_public=b"b" * 32, rev=3, name="Alice's laptop",
    addresses=("ws://192.168.1.2:3333",), capabilities=("zstd",),
)  # fmt: skip


def refused(fn: Any, *args: Any) -> str:
    with pytest.raises(ProtocolError) as caught:
        fn(*args)
    assert caught.value.fault is WireFault.BAD_IDENTITY
    return str(caught.value)


def test_device_info_reads_back() -> None:
    raw, signature = encode_device_info(ALICE.device_key, INFO)
    assert decode_device_info(raw, signature) == INFO
    fields = [ALICE.user, ALICE.device, b"b" * 32, 3, "Alice's laptop", ["ws://192.168.1.2:3333"], ["zstd"]]
    assert codec.loads(raw) == [1, *fields]


def test_h4_device_info_signed_by_another_key_is_a_bad_identity() -> None:
    """H4: DeviceInfo signed by another key → `bad_identity`."""
    raw, signature = encode_device_info(ALICE.device_key, INFO)
    refused(decode_device_info, raw, BOB.device_key.sign(trust.INFO_PREFIX, raw))
    refused(decode_device_info, raw, ALICE.device_key.sign(b"peers/control/1\0", raw))
    refused(decode_device_info, raw, signature[:-1])
    refused(encode_device_info, BOB.device_key, INFO)


GOOD = [1, ALICE.user, ALICE.device, b"b" * 32, 3, "name", [], []]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, 2), (0, True), (1, b"short"), (2, "text"), (3, b"b" * 33), (4, -1), (4, 1 << 63), (4, 1.0), (4, True),
        (5, ""), (5, "x" * 65), (5, b"name"), (6, None), (6, ["ws://a:1"] * 9), (6, ["ws://a\n:1"]), (6, ["ws://ä:1"]),
        (6, [""]), (6, ["x" * 256]), (6, [1]), (7, ["x"] * 17), (7, {}),
    ],
)  # fmt: skip
def test_malformed_device_info_is_a_bad_identity(place: int, value: Any) -> None:
    raw = codec.dumps([*GOOD[:place], value, *GOOD[place + 1 :]])
    refused(decode_device_info, raw, ALICE.device_key.sign(trust.INFO_PREFIX, raw))


@pytest.mark.parametrize("raw", [b"", b"\xff", codec.dumps(1), codec.dumps(GOOD[:7]), bytes(4097)])
def test_other_bytes_are_no_device_info(raw: bytes) -> None:
    refused(decode_device_info, raw, ALICE.device_key.sign(trust.INFO_PREFIX, raw))


@given(st.text(min_size=1, max_size=64))
@settings(max_examples=50)
def test_t41_names_hold_no_control_characters(name: str) -> None:
    """T41: names ≤ 64 chars, control characters replaced."""
    shown = trust.shown_name(name)
    assert len(shown) == len(name) and (shown == name or "�" in shown)
    raw, signature = encode_device_info(ALICE.device_key, dataclasses.replace(INFO, name=name))
    assert decode_device_info(raw, signature).name == shown


def test_t41_escapes_and_direction_marks_are_replaced() -> None:
    assert trust.shown_name("\x1b[31mred\n\u202egnp.exe") == "�[31mred��gnp.exe"
    assert trust.shown_name("x" * 100) == "x" * 64


def test_a_certificate_proves_its_device() -> None:
    personal = verify_certificate(CERTIFICATE, ALICE.user, ALICE.device)
    assert list(personal) == [ALICE.genesis, ALICE.grant]
    wire = codec.loads(codec.dumps(trust.certificate_to_wire(CERTIFICATE)))
    assert trust.certificate_from_wire(wire) == CERTIFICATE


def test_h6_anothers_user_id_with_ones_own_keys_is_a_bad_identity() -> None:
    """H6: victim's `user_id` with attacker's keys → `bad_identity` (chain does not hash to id)."""
    mallory = person("mallory")
    own = mallory.identity().certificate
    refused(verify_certificate, own, ALICE.user, mallory.device)
    refused(verify_certificate, CERTIFICATE, ALICE.user, mallory.device)
    refused(verify_certificate, (*CERTIFICATE, own[1]), ALICE.user, mallory.device)
    forged = personal_grant(mallory.root, ALICE.user, mallory.device_key, Role.ADMIN, [ALICE.genesis.id])
    refused(verify_certificate, (*CERTIFICATE, forged.signed), ALICE.user, mallory.device)


def test_a_device_is_not_adopted_without_its_consent() -> None:
    fields = (BOB.device, 3, consent(ALICE.device_key, ALICE.user))
    stolen = sign_operation(
        ALICE.root, group=ALICE.user, kind=Kind.GRANT, parents=[ALICE.genesis.id], hlc=1, fields=fields
    )
    refused(verify_certificate, (ALICE.genesis.signed, stolen.signed), ALICE.user, BOB.device)


def test_the_root_key_is_no_device() -> None:
    refused(verify_certificate, CERTIFICATE, ALICE.user, ALICE.root.public)


def test_a_certificate_of_a_group_proves_nothing() -> None:
    group = found_group(ALICE)
    refused(verify_certificate, (group.signed,), group.id, ALICE.device)


@pytest.mark.parametrize(
    "certificate",
    [
        (),
        CERTIFICATE[:1],
        CERTIFICATE[1:],
        CERTIFICATE[::-1],
        (*CERTIFICATE, CERTIFICATE[1]),
        ((CERTIFICATE[0][0], bytes(64)), CERTIFICATE[1]),
        ((b"", bytes(64)),),
    ],
)
def test_a_certificate_that_is_not_whole_is_a_bad_identity(certificate: Certificate) -> None:
    refused(verify_certificate, certificate, ALICE.user, ALICE.device)


@pytest.mark.parametrize("value", [None, {}, [1], [[b"op"]], [[b"op", "sig"]], [[b"x" * 4097, b""]]])
def test_malformed_certificates_are_bad_identities(value: Any) -> None:
    refused(trust.certificate_from_wire, value)


def test_a_certificate_holds_the_chain_of_one_device_only() -> None:
    phone, watch = key_of("phone"), key_of("watch")
    personal = Operations(ALICE.certification)
    first = personal_grant(ALICE.root, ALICE.user, phone, Role.ADMIN, [ALICE.genesis.id])
    second = personal_grant(phone, ALICE.user, watch, Role.WRITER, [first.id])
    personal.add_all([first, second])
    made = trust.certificate_of(personal, watch.public)
    assert made == (ALICE.genesis.signed, first.signed, second.signed)
    assert verify_certificate(made, ALICE.user, watch.public).heads == (second.id,)
    assert "no grant" in refused(trust.certificate_of, personal, key_of("other").public)


def test_a_chain_over_four_kib_is_refused() -> None:
    personal = Operations(ALICE.certification)
    keys: list[SigningKey] = [key_of(f"device {number}") for number in range(20)]
    for key in keys:
        personal.add(personal_grant(ALICE.root, ALICE.user, key, Role.ADMIN, personal.heads))
    assert len(trust.certificate_of(personal, keys[5].public)) == 8
    assert "4 KiB" in refused(trust.certificate_of, personal, keys[-1].public)


def test_an_identity_knows_its_device() -> None:
    identity = ALICE.identity(["ws://a:1"], rev=2)
    info = decode_device_info(identity.info_raw, identity.info_signature)
    assert identity.device == info.device == ALICE.device
    assert (info.addresses, info.rev, info.name) == (("ws://a:1",), 2, "alice")
