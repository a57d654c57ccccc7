"""The secret under session tickets: whole or none, and no older than half a day."""

from __future__ import annotations

from supervisor.plane import layout, tickets
from supervisor.plane.layout import Header
from supervisor.plane.memory import Plane

NOW = 1_700_000_000_000_000_000


def cells() -> list[int]:
    return [0] * layout.PAGE_CELLS


def test_there_is_none_before_the_supervisor_makes_one() -> None:
    mine = cells()
    assert tickets.secret(mine) is None
    assert tickets.keep_fresh(mine, NOW)
    assert tickets.secret(mine) is not None


def test_it_is_kept_until_it_is_too_old() -> None:
    mine = cells()
    tickets.keep_fresh(mine, NOW)
    first = tickets.secret(mine)
    assert not tickets.keep_fresh(mine, NOW + tickets.LIFETIME - 1)
    assert tickets.secret(mine) == first
    assert tickets.keep_fresh(mine, NOW + tickets.LIFETIME)
    second = tickets.secret(mine)
    assert first is not None
    assert second is not None
    assert second[0] == NOW + tickets.LIFETIME
    assert len(second[1]) == len(first[1]) == 32
    assert second[1] != first[1]


def test_a_clock_that_was_set_back_makes_another() -> None:
    mine = cells()
    tickets.keep_fresh(mine, NOW)
    assert tickets.keep_fresh(mine, NOW - 1)


def test_half_a_secret_is_none() -> None:
    """As a reader sees it between two stores of the writer."""
    mine = cells()
    tickets.keep_fresh(mine, NOW)
    mine[Header.TICKETS_SINCE] = 0
    assert tickets.secret(mine) is None


def test_it_stands_where_nothing_else_does() -> None:
    taken = {value for name, value in vars(Header).items() if name.isupper() and not name.startswith("TICKETS")}
    taken |= {Header.SECRET + cell for cell in range(4)}
    taken |= {Header.NAMES_VERSION + kind for kind in range(len(layout.Kind))}
    mine = {Header.TICKETS_SINCE, *(Header.TICKETS_SECRET + cell for cell in range(4))}
    assert not mine & taken
    plane = Plane.create()
    try:
        secret = [plane.cells[Header.SECRET + cell] for cell in range(4)]
        tickets.keep_fresh(plane.cells, NOW)
        assert [plane.cells[Header.SECRET + cell] for cell in range(4)] == secret
    finally:
        plane.close()
