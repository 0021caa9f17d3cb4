"""P6: one group that keeps failing ends alone: the device, its other groups and its connections go on."""

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from actors.errors import ActorFailed
from peers.errors import PeersError
from peers.store.writer import Call
from peers.testing.cluster import open_cluster


async def test_a_group_whose_writer_keeps_crashing_ends_alone(
    tmp_path: Path, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_cluster(tmp_path, ["a"]) as cluster:
        bad, good = await cluster["a"].create_group("bad"), await cluster["a"].create_group("good")
        await good.create_table("CREATE TABLE t(n INTEGER)")

        def crash(_: object) -> None:
            raise ZeroDivisionError("a bug")

        writer = bad._context.replica.writer
        for _ in range(6):
            with pytest.raises(ActorFailed):
                await writer.ask(Call(crash))
        await trio.sleep(30)
        with pytest.raises(PeersError, match="restart the device"):
            await bad.execute("INSERT INTO nothing DEFAULT VALUES")
        await good.execute("INSERT INTO t(n) VALUES(1)")
        assert (await good.query("SELECT n FROM t")).rows == [(1,)]
        assert cluster["a"].status()["groups"]
    assert any("bad" in record.message or "writer" in record.message for record in caplog.records)
