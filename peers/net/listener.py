"""Who may open a socket: the limits for strangers of a listener, before a byte of theirs is read. Pure.

A socket counts from its acceptance until its peer is authenticated or it is closed. Over a limit the socket is closed
without work: no answer, no task, no memory.

* `unauthenticated_max` sockets at once, and `accepts_per_second` new ones, in bursts of `unauthenticated_max`.
* `unauthenticated_per_subnet` at once from one /24 (IPv4) or /64 (IPv6).
* Loopback is exempt from the last two: whoever opens sockets from this machine can exhaust it in simpler ways, a web
  page is turned away by its Origin header, and many devices on one machine (tests, the demo) are legitimate. The
  first limit holds for it too.
* Hosts from which a peer was authenticated before have `unauthenticated_known` places of their own, outside of all
  limits above: a flood of strangers does not keep members out.

`now` is any clock in seconds. Will not touch sockets; the transport does as it is told.
"""

from collections import Counter, OrderedDict
from ipaddress import IPv4Address

from peers.config import NetConfig
from peers.net.address import IpAddress, parse_ip


class Admission:
    """One accepted socket that counts as unauthenticated until `release`."""

    __slots__ = ("_gate", "_host", "_known", "_open", "_subnet")

    def __init__(self, gate: "Gate", host: str, subnet: str | None, *, known: bool) -> None:
        self._gate = gate
        self._host = host
        self._subnet = subnet
        self._known = known
        self._open = True

    def release(self, *, authenticated: bool = False) -> None:
        """The socket is closed, or its peer is authenticated. Idempotent."""
        if self._open:
            self._open = False
            self._gate._release(self._subnet, known=self._known)
        if authenticated:
            self._gate._remember(self._host)


class Gate:
    """The limits of one device, shared by its listeners."""

    def __init__(self, config: NetConfig) -> None:
        self._config = config
        self._strangers = 0
        self._known = 0
        self._subnets: Counter[str] = Counter()
        self._hosts: OrderedDict[str, None] = OrderedDict()
        self._tokens = float(config.unauthenticated_max)
        self._filled_at: float | None = None
        self.refused = 0

    @property
    def unauthenticated(self) -> int:
        return self._strangers + self._known

    def admit(self, host: str, now: float) -> Admission | None:
        """Count a new socket from `host` (an IP address as text); None where it must be closed at once."""
        ip = parse_ip(host)
        if host in self._hosts and self._known < self._config.unauthenticated_known:
            self._known += 1
            return Admission(self, host, None, known=True)
        subnet = None if ip is None or ip.is_loopback else subnet_of(ip)
        if (
            self._strangers >= self._config.unauthenticated_max
            or (subnet is not None and self._subnets[subnet] >= self._config.unauthenticated_per_subnet)
            or (subnet is not None and not self._take_token(now))
        ):
            self.refused += 1
            return None
        self._strangers += 1
        if subnet is not None:
            self._subnets[subnet] += 1
        return Admission(self, host, subnet, known=False)

    def _take_token(self, now: float) -> bool:
        most = float(self._config.unauthenticated_max)
        if self._filled_at is not None:
            self._tokens = min(most, self._tokens + (now - self._filled_at) * self._config.accepts_per_second)
        self._filled_at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def _release(self, subnet: str | None, *, known: bool) -> None:
        if known:
            self._known -= 1
            return
        self._strangers -= 1
        if subnet is not None:
            self._subnets[subnet] -= 1
            if not self._subnets[subnet]:
                del self._subnets[subnet]

    def _remember(self, host: str) -> None:
        self._hosts[host] = None
        self._hosts.move_to_end(host)
        if len(self._hosts) > self._config.known_hosts_max:
            self._hosts.popitem(last=False)


def subnet_of(ip: IpAddress) -> str:
    """The network that one household or hoster's customer has: /24 of IPv4, /64 of IPv6."""
    if isinstance(ip, IPv4Address):
        return ip.packed[:3].hex()
    return ip.packed[:8].hex()
