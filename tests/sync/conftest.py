"""Whatever peers say, no test of the exchange may leave an error in the log."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def no_error_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever a peer says, nothing here fails, restarts, or shows a traceback."""
    caplog.set_level(logging.INFO)
    yield
    loud = [record for record in caplog.get_records("call") if record.levelno >= logging.ERROR]
    assert not loud, [(record.name, record.getMessage(), record.exc_info) for record in loud]
