import pytest

from supervisor.plane import layout
from supervisor.plane.layout import Kind, Pool, PoolState
from supervisor.plane.memory import Plane
from supervisor.plane.names import Names
from supervisor.plane.region import PlaneError, PlaneFullError


def test_a_name_keeps_its_row(plane: Plane) -> None:
    row = plane.allocate(Kind.POOL, "user")
    other = plane.allocate(Kind.POOL, "feed")
    assert plane.allocate(Kind.POOL, "user") == row != other
    assert plane.names(Kind.POOL) == {"user": row, "feed": other}


def test_kinds_do_not_share_names(plane: Plane) -> None:
    plane.allocate(Kind.POOL, "user")
    with pytest.raises(KeyError):
        plane.row(Kind.ROUTE, "user")


def test_a_process_forked_before_sees_names_added_later(plane: Plane) -> None:
    worker = Names(plane)
    assert worker.all(Kind.POOL) == {}
    row = plane.allocate(Kind.POOL, "user")
    assert worker.row(Kind.POOL, "user") == row


def test_a_released_row_is_clean_and_used_again(plane: Plane) -> None:
    row = plane.allocate(Kind.POOL, "user")
    plane.cells[plane.state(Kind.POOL, row) + PoolState.EPOCH] = 5
    plane.cells[plane.counters(Kind.POOL, row, 7) + Pool.FAIL_OPEN] = 5
    plane.release(Kind.POOL, row)
    with pytest.raises(KeyError):
        plane.row(Kind.POOL, "user")
    assert plane.allocate(Kind.POOL, "feed") == row
    assert plane.cells[plane.state(Kind.POOL, row) + PoolState.EPOCH] == 0
    assert plane.total(Kind.POOL, row, Pool.FAIL_OPEN) == 0


@pytest.mark.parametrize("name", ["a", "12345678", "Ünïcode/ñ", "x" * layout.MAX_NAME])
def test_names_of_every_length_come_back(plane: Plane, name: str) -> None:
    row = plane.allocate(Kind.LEASEPOOL, name)
    assert Names(plane).all(Kind.LEASEPOOL) == {name: row}


@pytest.mark.parametrize("name", ["", "x" * (layout.MAX_NAME + 1)])
def test_impossible_names_are_refused(plane: Plane, name: str) -> None:
    with pytest.raises(PlaneError, match="bytes"):
        plane.allocate(Kind.POOL, name)


def test_rows_run_out_with_a_clear_error(plane: Plane) -> None:
    for number in range(layout.TABLES[Kind.TIER].rows):
        plane.allocate(Kind.TIER, f"tier{number}")
    with pytest.raises(PlaneFullError, match="no row left for tier 'more'"):
        plane.allocate(Kind.TIER, "more")
