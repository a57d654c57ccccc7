"""Averages over the last whole period."""

from __future__ import annotations

from pooler.console.averages import Averages
from supervisor.plane.layout import Kind, LeasePool
from supervisor.plane.memory import Plane


def test_the_first_period_counts_while_it_runs_and_the_others_when_they_are_over() -> None:
    plane = Plane.create()
    row = plane.allocate(Kind.LEASEPOOL, "app/app")
    at = plane.counters(Kind.LEASEPOOL, row, plane.claim_column("pooler", 1)) + LeasePool.QUERIES
    averages = Averages(plane)
    averages.start(100.0)

    def news(now: float) -> tuple[int, float]:
        before, after, seconds = averages.last(now)
        then = before.get("app/app")
        return after["app/app"][LeasePool.QUERIES] - (then[LeasePool.QUERIES] if then else 0), seconds

    plane.cells[at] += 10
    assert news(120.0) == (10, 20.0)
    averages.look(160.0)
    plane.cells[at] += 5
    assert news(170.0) == (10, 60.0)
    averages.look(220.0)
    assert news(221.0) == (5, 60.0)
    plane.close()
