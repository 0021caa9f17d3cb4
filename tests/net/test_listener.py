"""The gate: limits for strangers, as a machine of its own."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from peers.config import NetConfig
from peers.net.address import parse_ip
from peers.net.listener import Admission, Gate, subnet_of

CONFIG = NetConfig()


def admit_all(gate: Gate, hosts: list[str], now: float) -> list[Admission]:
    return [admission for host in hosts if (admission := gate.admit(host, now)) is not None]


def test_at_most_32_at_once_and_four_of_a_subnet() -> None:
    gate = Gate(CONFIG)
    assert len(admit_all(gate, [f"192.0.2.{n}" for n in range(10)], 0)) == 4
    assert len(admit_all(gate, [f"2001:db8::{n:x}" for n in range(10)], 0)) == 4
    assert len(admit_all(gate, [f"198.51.{n}.1" for n in range(100)], 0)) == 24
    assert (gate.unauthenticated, gate.refused) == (32, 88)


def test_a_released_place_is_free_again_once() -> None:
    gate = Gate(CONFIG)
    admissions = admit_all(gate, ["192.0.2.1"] * 5, 0)
    assert gate.admit("192.0.2.9", 0) is None
    admissions[0].release()
    admissions[0].release()
    assert gate.admit("192.0.2.9", 0) is not None
    assert gate.admit("192.0.2.9", 0) is None


def test_ten_new_sockets_a_second_after_a_burst() -> None:
    gate = Gate(CONFIG)
    taken = 0
    for tick in range(100):
        for n in range(20):
            admission = gate.admit(f"198.51.{n}.1", tick / 10)
            if admission is not None:
                taken += 1
                admission.release()
    assert taken == 32 + 99


def test_loopback_is_limited_in_number_only() -> None:
    gate = Gate(CONFIG)
    assert len(admit_all(gate, ["127.0.0.1"] * 100, 0)) == 32
    gate = Gate(CONFIG)
    for _ in range(200):
        admission = gate.admit("::1", 0)
        assert admission is not None
        admission.release()
    assert gate.refused == 0


def test_known_hosts_have_places_of_their_own() -> None:
    gate = Gate(CONFIG)
    friend = gate.admit("192.0.2.1", 0)
    assert friend is not None
    friend.release(authenticated=True)
    admit_all(gate, [f"198.51.{n}.1" for n in range(100)], 0)
    assert gate.admit("203.0.113.5", 0) is None
    assert len(admit_all(gate, ["192.0.2.1"] * 20, 0)) == CONFIG.unauthenticated_known


def test_known_hosts_are_bounded() -> None:
    gate = Gate(replace(CONFIG, known_hosts_max=3))
    for n in range(50):
        admission = gate.admit(f"198.51.{n}.1", float(n))
        assert admission is not None
        admission.release(authenticated=True)
    assert len(gate._hosts) == 3


def test_subnets() -> None:
    def subnet(host: str) -> str:
        ip = parse_ip(host)
        assert ip is not None
        return subnet_of(ip)

    assert subnet("192.0.2.1") == subnet("192.0.2.254") == subnet("::ffff:192.0.2.7") != subnet("192.0.3.1")
    assert subnet("2001:db8:0:1::1") == subnet("2001:db8:0:1:ffff::") != subnet("2001:db8:0:2::1")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.floats(0, 1)), max_size=100))
def test_counts_never_drift(steps: list[tuple[int, bool, float]]) -> None:
    gate, now = Gate(CONFIG), 0.0
    open_admissions: list[Admission] = []
    for host, release, pause in steps:
        now += pause
        if release and open_admissions:
            open_admissions.pop(0).release(authenticated=host == 0)
        elif (admission := gate.admit(f"192.0.2.{host}", now)) is not None:
            open_admissions.append(admission)
        assert gate.unauthenticated == len(open_admissions) <= 40
    for admission in open_admissions:
        admission.release()
    assert gate.unauthenticated == 0 and not gate._subnets
