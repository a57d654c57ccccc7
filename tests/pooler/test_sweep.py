"""What a look at a pool ends, and counts."""

from __future__ import annotations

from collections.abc import Callable

from pooler.messages import query
from supervisor.plane.layout import Kind, LeasePool
from tests.pooler.stage import Stage

Make = Callable[..., Stage]


def test_a_query_that_takes_too_long_is_cancelled(stage: Make) -> None:
    playing = stage(pooler='query_timeout = "2s"')
    client = playing.client()
    for _ in range(3):
        client.ask("SELECT 1")
        playing.lane.advance(1)
    client.send(query("SLEEP"))
    playing.lane.advance(1.5)
    assert client.kinds() == ""
    playing.lane.advance(1)
    said = client.error()
    assert (said["C"], said["S"]) == ("57014", "FATAL")
    playing.lane.advance(1)
    assert playing.postgres.backends[0].canceled == 1
    playing.settled()


def test_silence_inside_a_transaction_is_limited_and_between_them_not(stage: Make) -> None:
    playing = stage(pooler='idle_transaction_timeout = "2s"')
    client = playing.client()
    client.ask("SELECT 1")
    playing.lane.advance(5)
    client.ask("BEGIN")
    for _ in range(3):
        playing.lane.advance(1.5)
        assert client.ask("SELECT 1") == "DCT"
    playing.lane.advance(2.5)
    assert client.error()["C"] == "25P03"
    assert playing.postgres.backends[0].queries[-1] == "ROLLBACK"
    playing.settled()


def test_held_time_is_counted_as_seen(stage: Make) -> None:
    playing = stage()
    client = playing.client()
    client.ask("BEGIN")
    playing.lane.advance(2)
    client.ask("COMMIT")
    playing.lane.advance(2)
    held = playing.plane.total(Kind.LEASEPOOL, playing.pool.row, LeasePool.XACT_US)
    assert 1_800_000 <= held <= 2_300_000
    assert playing.plane.total(Kind.LEASEPOOL, playing.pool.row, LeasePool.QUERY_US) <= 200_000
