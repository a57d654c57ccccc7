"""When a database says that it has no room."""

from __future__ import annotations

from collections.abc import Callable

from pooler.messages import query
from supervisor.plane.layout import Database, DatabaseState, Kind
from tests.pooler.stage import Stage

Make = Callable[..., Stage]


def saturated(playing: Stage) -> bool:
    at = playing.plane.state(Kind.DATABASE, playing.plane.row(Kind.DATABASE, "app"))
    return playing.plane.cells[at + DatabaseState.SATURATED] > playing.lane.now_ns


def test_a_long_wait_is_said_and_taken_back(stage: Make) -> None:
    playing = stage(database='pool_size = 1\nsaturated_wait = "2s"')
    holder, waiter = playing.client(), playing.client()
    holder.ask("BEGIN")
    waiter.send(query("SELECT 1"))
    playing.lane.advance(1.5)
    assert not saturated(playing)
    playing.lane.advance(1.5)
    assert saturated(playing)
    holder.ask("COMMIT")
    playing.lane.advance(1)
    assert not saturated(playing)
    row = playing.plane.row(Kind.DATABASE, "app")
    assert 500 <= playing.plane.total(Kind.DATABASE, row, Database.SATURATED_MS) <= 1500


def test_a_long_queue_is_said_at_once(stage: Make) -> None:
    playing = stage(database='pool_size = 1\nsaturated_wait = "0"\nsaturated_queue = 2')
    holder, *waiters = [playing.client() for _ in range(4)]
    holder.ask("BEGIN")
    for number, waiter in enumerate(waiters):
        waiter.send(query("SELECT 1"))
        playing.lane.advance(0.2)
        assert saturated(playing) == (number == 2)
