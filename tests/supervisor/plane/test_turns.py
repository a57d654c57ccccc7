from __future__ import annotations

import pytest

from supervisor.plane import layout
from supervisor.plane.layout import Kind
from supervisor.plane.memory import Plane
from supervisor.plane.turns import Turns


@pytest.fixture
def two(plane: Plane) -> tuple[Turns, Turns]:
    row = plane.allocate(Kind.POOL, "user")
    columns = [plane.claim_column("edge", number) for number in (1, 2)]
    return Turns(plane, row, columns[0]), Turns(plane, row, columns[1])


def test_no_more_wait_than_may_over_all_workers(two: tuple[Turns, Turns]) -> None:
    mine, other = two
    assert mine.join(3)
    assert other.join(3)
    assert mine.join(3)
    assert not other.join(3)
    mine.leave()
    assert other.join(3)


def test_the_first_is_whoever_came_first(two: tuple[Turns, Turns]) -> None:
    mine, other = two
    assert mine.first() == 0
    mine.show(200)
    other.show(100)
    assert mine.first() == other.first() == other.column
    other.show(300)
    assert mine.first() == mine.column


def test_what_a_dead_worker_held_is_gone(plane: Plane, two: tuple[Turns, Turns]) -> None:
    mine, other = two
    assert other.join(1)
    other.show(100)
    plane.reap(other.column)
    assert mine.first() == 0
    assert mine.join(1)
    assert plane.total(Kind.POOL, mine.row, layout.Pool.WAITING) == 1
