"""Addresses: one text for one place, and what may be dialled."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peers.errors import UsageError
from peers.net.address import Address, is_loopback, parse, why_not_dial

HOME = "ws://192.168.1.7:3333"
WORLD = "ws://8.8.8.8:3333"


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("example.org", "ws://example.org:3333"),
        ("Example.ORG:80", "ws://example.org:80"),
        ("wss://example.org/", "wss://example.org:3333"),
        ("127.0.0.1:0", "ws://127.0.0.1:0"),
        (" ws://10.0.0.1 ", "ws://10.0.0.1:3333"),
        ("[::1]:4000", "ws://[::1]:4000"),
        ("::1", "ws://[::1]:3333"),
        ("ws://[2001:DB8:0::1]", "ws://[2001:db8::1]:3333"),
        ("[::ffff:10.0.0.1]:1", "ws://10.0.0.1:1"),
        ("sim://bob", "sim://bob"),
        ("my_box", "ws://my_box:3333"),
    ],
)
def test_texts(text: str, full: str) -> None:
    assert str(parse(text)) == full
    assert str(parse(full)) == full


@pytest.mark.parametrize(
    "text",
    [
        "",
        "http://169.254.169.254/latest",
        "ws://host:1/reboot",
        "ws://host:99999",
        "ws://host:-1",
        "ws://host:",
        "host:0x10",
        "ws://user@host:1",
        "ws://host?x",
        "ws://[::1",
        "ws://[::1]x",
        "[127.0.0.1]:1",
        "fe80::1%eth0",
        "a..b",
        "0x7f.1",
        "2130706433",
        "1.2.3.4.5",
        "host\n:1",
        "sim://",
        "x" * 300,
        "straße",
    ],
)
def test_texts_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="is not an address"):
        parse(text)


@pytest.mark.parametrize(
    ("address", "configured", "from_home", "from_world"),
    [
        ("8.8.8.8", True, True, True),
        ("[2606:4700::1]:1", True, True, True),
        ("192.168.1.1", True, True, False),
        ("10.0.0.1", True, True, False),
        ("100.64.1.1", True, True, False),
        ("[fd00::1]:1", True, True, False),
        ("127.0.0.1", True, False, False),
        ("[::1]:1", True, False, False),
        ("router.local", True, False, False),
        ("169.254.169.254", False, False, False),
        ("[fe80::1]:1", False, False, False),
        ("[::ffff:169.254.169.254]:1", False, False, False),
        ("0.0.0.0", False, False, False),
        ("255.255.255.255", False, False, False),
        ("224.0.0.1", False, False, False),
        ("8.8.8.8:0", False, False, False),
        ("sim://bob", True, True, True),
    ],
)
def test_t11_what_may_be_dialled(address: str, configured: bool, from_home: bool, from_world: bool) -> None:
    """T11: private ranges only when learned from the same network or configured; no link-local metadata ranges."""
    target = parse(address)
    assert (why_not_dial(target) is None) == configured
    assert (why_not_dial(target, learned_over=HOME) is None) == from_home
    assert (why_not_dial(target, learned_over=WORLD) is None) == from_world


def test_loopback() -> None:
    assert is_loopback("127.9.9.9") and is_loopback("::1") and is_loopback("::ffff:127.0.0.1")
    assert not is_loopback("localhost") and not is_loopback("10.0.0.1")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40) | st.from_regex(r"(wss?://)?[\[\]0-9a-fA-F:.x\-]{1,30}(:\d{1,6})?/?", fullmatch=True))
def test_any_text_is_an_address_with_one_text_or_a_usage_error(text: str) -> None:
    try:
        address = parse(text)
    except UsageError:
        return
    assert isinstance(address, Address) and parse(str(address)) == address
