"""The restart policy: a pure function of the times of failures."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.restart import GiveUp, RestartAfter, RestartPolicy, decide, jittered

policies = st.builds(
    lambda count, window, first, more: RestartPolicy(
        max_restarts=count, window_seconds=window, backoff_first_seconds=first, backoff_max_seconds=first + more
    ),
    st.integers(0, 20),
    st.integers(1, 1000).map(float),
    st.floats(0, 1e3),
    st.floats(0, 1e3),
)


def test_delays_double_up_to_the_maximum_then_it_gives_up() -> None:
    policy = RestartPolicy(max_restarts=4, window_seconds=100, backoff_first_seconds=1, backoff_max_seconds=5)
    decisions = [decide(policy, tuple(range(n)), n) for n in range(1, 6)]
    assert decisions == [RestartAfter(1), RestartAfter(2), RestartAfter(4), RestartAfter(5), GiveUp()]


def test_no_restart_allowed() -> None:
    assert decide(RestartPolicy(max_restarts=0), (3.0,), 3.0) == GiveUp()


@settings(max_examples=100)
@given(policies, st.lists(st.integers(0, 2000), min_size=1, max_size=30))
def test_bounded_count_in_bounded_time(policy: RestartPolicy, times: list[int]) -> None:
    """Whatever happens, no window of the policy's length holds more than max_restarts restarts."""
    restarts: list[int] = []
    failures: tuple[float, ...] = ()
    for at in sorted(times):
        failures = (*failures, at)
        decision = decide(policy, failures, at)
        if isinstance(decision, GiveUp):
            break
        assert policy.backoff_first_seconds <= decision.delay <= policy.backoff_max_seconds
        restarts.append(at)
    for end in restarts:
        assert sum(end - policy.window_seconds < at <= end for at in restarts) <= policy.max_restarts


@settings(max_examples=100)
@given(policies, st.lists(st.floats(0, 1e6), min_size=1, max_size=30), st.floats(0, 1e6))
def test_what_left_the_window_does_not_count(policy: RestartPolicy, old: list[float], later: float) -> None:
    now = max(old) + policy.window_seconds * 2 + later
    assert decide(policy, (*old, now), now) == decide(policy, (now,), now)


@settings(max_examples=100)
@given(policies, st.integers(1, 19))
def test_delays_never_fall_within_a_window(policy: RestartPolicy, count: int) -> None:
    shorter = decide(policy, (0.0,) * count, 0.0)
    longer = decide(policy, (0.0,) * (count + 1), 0.0)
    if isinstance(shorter, RestartAfter) and isinstance(longer, RestartAfter):
        assert shorter.delay <= longer.delay
    else:
        assert isinstance(longer, GiveUp)


@given(st.floats(0, 1e6), st.floats(0, 1, exclude_max=True))
def test_jitter_takes_at_most_half(delay: float, fraction: float) -> None:
    assert delay / 2 <= jittered(delay, fraction) <= delay


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_restarts": -1},
        {"window_seconds": 0},
        {"backoff_first_seconds": -1},
        {"backoff_first_seconds": 2, "backoff_max_seconds": 1},
    ],
)
def test_a_policy_without_meaning_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="a restart policy needs"):
        RestartPolicy(**wrong)  # type: ignore[arg-type]
