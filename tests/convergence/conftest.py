"""Every test here runs in virtual time: sleeping costs nothing, waiting for nothing is found at once."""

import pytest
import trio.testing


@pytest.fixture
def virtual_time(autojump_clock: trio.testing.MockClock) -> trio.testing.MockClock:
    return autojump_clock
