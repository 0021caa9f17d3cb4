from hypothesis import given, settings
from hypothesis import strategies as st

from peers.model import clock
from peers.model.clock import HybridClock

NOW = 1_700_000_000_000


def test_k4_65536_events_in_one_millisecond_carry_into_the_next() -> None:
    """K4: 65,536 events in one ms → counter carries into ms; order kept."""
    hlc = HybridClock()
    stamps = [hlc.tick(NOW) for _ in range(65_537)]
    assert stamps == sorted(set(stamps))
    assert clock.unpack(stamps[65_535]) == (NOW, 65_535)
    assert clock.unpack(stamps[65_536]) == (NOW + 1, 0)


def test_k1_a_wall_clock_that_jumps_back_never_moves_it_back() -> None:
    """K1: wall clock jumps back 1 h / 1 year at run time → HLC never goes back; writes continue."""
    hlc = HybridClock()
    first = hlc.tick(NOW)
    assert hlc.tick(NOW - 3_600_000) == first + 1
    assert hlc.tick(NOW - 365 * 86_400_000) == first + 2
    assert hlc.tick(NOW + 1) == clock.pack(NOW + 1)


def test_ticks_may_reserve_several() -> None:
    hlc = HybridClock()
    first = hlc.tick(NOW, 5)
    assert first == clock.pack(NOW)
    assert hlc.tick(NOW) == first + 5


def test_receipts_observe() -> None:
    hlc = HybridClock(clock.pack(NOW))
    hlc.observe(clock.pack(NOW + 1000, 7))
    hlc.observe(clock.pack(NOW))
    assert hlc.tick(NOW) == clock.pack(NOW + 1000, 8)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, (1 << 48) - 1)), max_size=30))
@settings(max_examples=100)
def test_what_is_given_out_is_greater_than_all_before(steps: list[tuple[bool, int]]) -> None:
    hlc, greatest = HybridClock(), -1
    for is_tick, value in steps:
        if is_tick:
            stamp = hlc.tick(value)
            assert stamp > greatest
            greatest = stamp
        else:
            hlc.observe(value)
            greatest = max(greatest, value)


def test_c4_ahead_is_more_than_five_minutes() -> None:
    """C4: `hlc` = now + 5 min / + 6 min / year 9999 / 0 / 2^64−1 → accept / hold / hold / accept / hold."""
    five = 5 * 60_000
    assert not clock.is_ahead(clock.pack(NOW + five, 65_535), NOW, five)
    assert clock.is_ahead(clock.pack(NOW + five + 1), NOW, five)
    assert clock.is_ahead(clock.pack(253_402_300_799_000), NOW, five)
    assert not clock.is_ahead(0, NOW, five)
    assert clock.is_ahead(clock.HLC_MAX, NOW, five)


def test_pack_and_unpack() -> None:
    assert clock.unpack(clock.pack(NOW, 9)) == (NOW, 9)
    assert clock.Timestamp(NOW, 9).pack() == clock.pack(NOW, 9)
    assert clock.unpack(clock.HLC_MAX) == ((1 << 48) - 1, 65_535)
