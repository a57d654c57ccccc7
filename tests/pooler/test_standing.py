"""The operator's orders, found in the plane."""

from __future__ import annotations

from collections.abc import Callable

from pooler import standing
from supervisor.plane.layout import LeasePoolState
from tests.pooler.stage import Stage

Make = Callable[..., Stage]


def order(playing: Stage, field: int, value: int) -> None:
    playing.plane.cells[playing.pool.state + field] = value


def test_a_worker_that_starts_later_obeys_too(stage: Make) -> None:
    playing = stage()
    playing.client().ask("SELECT 1")
    order(playing, LeasePoolState.PAUSED, 1)
    order(playing, LeasePoolState.DISABLED, 1)
    assert standing.paused(playing.pool)
    assert standing.disabled(playing.pool)
    playing.lane.advance(0.2)
    assert playing.postgres.alive == []


def test_a_connection_that_was_logging_in_when_the_pause_came_is_not_given_out(stage: Make) -> None:
    playing = stage()
    playing.client().ask("SELECT 1")
    order(playing, LeasePoolState.STALE, 1 << 62)
    playing.lane.advance(0.2)
    order(playing, LeasePoolState.STALE, 0)
    playing.postgres.silent = True
    waiter = playing.client()
    waiter.ask("SELECT 2")
    order(playing, LeasePoolState.PAUSED, 1)
    playing.postgres.silent = False
    playing.postgres.wake()
    playing.lane.advance(1)
    assert waiter.kinds() == ""
    assert playing.postgres.alive == []
    order(playing, LeasePoolState.PAUSED, 0)
    playing.lane.advance(1)
    assert waiter.kinds() == "DCI"
