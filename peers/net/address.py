"""Addresses of devices as text, ``ws://host:port``, and which of them may be dialled. Pure.

Anybody may put any text into the list of addresses that a device advertises, so what was learned from a peer is held
to more than what this device's own user configured: a member must not be able to make others knock at services of
their home network or at a cloud's metadata address. Nothing but the first handshake frame is sent before the other
side is authenticated, to one fixed path, and redirects are not followed; that is the transport's part.

Will not resolve names and will not dial.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from peers.config import NetConfig
from peers.errors import UsageError

WS: Final = "ws"
WSS: Final = "wss"
SIM: Final = "sim"
"""Simulated networks: the host is a name of their own, and there is no port."""
HOST_CHARS_MAX: Final = 253
"""Longest name that DNS can carry."""

IpAddress = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Address:
    """`str(address)` is the one text form: lower case, port always there, IPv6 in brackets."""

    scheme: str
    host: str
    port: int

    @property
    def ip(self) -> IpAddress | None:
        """The host where it is a literal IP address."""
        return parse_ip(self.host)

    def __str__(self) -> str:
        if self.scheme == SIM:
            return f"{SIM}://{self.host}"
        return (
            f"{self.scheme}://[{self.host}]:{self.port}"
            if ":" in self.host
            else f"{self.scheme}://{self.host}:{self.port}"
        )


def parse(text: str, *, default_port: int = NetConfig.port) -> Address:
    """``host``, ``host:port`` or ``ws[s]://host[:port]``; an IPv6 host with a port stands in brackets.

    Raises:
        UsageError: for anything else, a path, a query and user names included.
    """
    scheme, separator, rest = text.strip().lower().rpartition("://")
    if not separator:
        scheme = WS
    if scheme == SIM and _is_name(rest):
        return Address(SIM, rest, 0)
    host, port_text = _split_port(rest.removesuffix("/"))
    port = default_port if port_text is None else _port(port_text)
    if scheme not in (WS, WSS) or port is None or not (parse_ip(host) is not None or _is_name(host)):
        raise UsageError(
            f"{text!r:.300} is not an address; write HOST, HOST:PORT or ws://HOST:PORT", code="bad_address"
        )
    ip = parse_ip(host)
    return Address(scheme, host if ip is None else str(ip), port)


def parse_ip(host: str) -> IpAddress | None:
    """An IP address without a zone; an IPv4 address in IPv6 clothes as IPv4, so that one host has one text."""
    try:
        ip = ip_address(host)
    except ValueError:
        return None
    if isinstance(ip, IPv6Address):
        if ip.scope_id is not None:
            return None
        return ip.ipv4_mapped or ip
    return ip


def why_not_dial(address: Address, *, learned_over: str | None = None) -> str | None:
    """Why `address` must not be dialled, or None where it may be.

    Args:
        learned_over: None for an address from this device's own configuration; otherwise the remote address of the
            connection over which a peer told it to us.
    """
    if address.scheme == SIM:
        return None
    if address.port == 0:
        return "port 0 cannot be dialled"
    ip = address.ip
    if ip is None:
        return None if learned_over is None else "names are dialled only when configured here"
    forbidden = why_not_connect(ip)
    if forbidden is not None or learned_over is None or ip.is_global:
        return forbidden
    if ip.is_loopback:
        return "a peer's loopback address is not ours"
    if not _is_near(learned_over):
        return "a private address is dialled only when configured here or learned from a private network"
    return None


def why_not_connect(ip: IpAddress) -> str | None:
    """Ranges that hold no peer, whoever named them; also asked for what a configured name resolved to."""
    if ip.is_link_local:
        return "link-local addresses are not dialled: cloud metadata lives there"
    if ip.is_multicast or ip.is_unspecified or str(ip) == "255.255.255.255":
        return "not the address of one host"
    return None


def is_loopback(host: str) -> bool:
    ip = parse_ip(host)
    return ip is not None and ip.is_loopback


def _is_near(remote: str) -> bool:
    try:
        ip = parse(remote).ip
    except UsageError:
        return False
    return ip is not None and not ip.is_global and not ip.is_loopback


def _split_port(text: str) -> tuple[str, str | None]:
    if text.startswith("["):
        host, bracket, tail = text[1:].partition("]")
        if not bracket or (tail and not tail.startswith(":")) or ":" not in host:
            return "", None
        return host, tail[1:] if tail else None
    if text.count(":") > 1:
        return text, None
    host, colon, port = text.partition(":")
    return host, port if colon else None


def _port(text: str) -> int | None:
    if not (text.isascii() and text.isdigit()) or len(text) > 5 or int(text) > 65_535:
        return None
    return int(text)


def _is_name(host: str) -> bool:
    """A DNS name, or one of a simulation: letters, digits, dots, hyphens and underscores. Not something like 0x7f.1."""
    if not 0 < len(host) <= HOST_CHARS_MAX or not host.isascii():
        return False
    labels = host.removesuffix(".").split(".")
    if not all(label and all(char.isalnum() or char in "-_" for char in label) for label in labels):
        return False
    return not labels[-1].isdigit() and not labels[-1].startswith("0x")
