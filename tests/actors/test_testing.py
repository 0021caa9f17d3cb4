"""The checks that tests of actors stand on can fail."""

import pytest
import trio

from actors.testing import no_task_left


async def test_a_left_task_is_found(nursery: trio.Nursery) -> None:
    with pytest.raises(AssertionError, match="1 tasks more than before"):
        async with no_task_left():
            nursery.start_soon(trio.sleep_forever)
    nursery.cancel_scope.cancel()
