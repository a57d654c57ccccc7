import os

from supervisor.plane import layout
from supervisor.plane.layout import ProcessState
from supervisor.plane.memory import Plane
from supervisor.plane.processes import stamp


def test_stamps_of_two_columns_are_never_equal() -> None:
    assert len({stamp(column) for column in range(layout.COLUMNS)}) == layout.COLUMNS


def test_a_column_is_claimed_once(plane: Plane) -> None:
    assert len({plane.claim_column("edge", number) for number in range(20)}) == 20


def test_a_draining_worker_and_its_successor_live_in_columns_of_their_own(plane: Plane) -> None:
    old = plane.claim_column("edge", 1)
    plane.set_state(old, ProcessState.DRAINING)
    new = plane.claim_column("edge", 1)
    assert plane.live("edge") == [old, new]
    assert plane.incarnation(old) != plane.incarnation(new)


def test_the_last_column_is_that_of_the_highest_process(plane: Plane) -> None:
    plane.processes.enter_supervisor(os.getpid())
    assert plane.processes.last() == 0
    first, second = plane.claim_column("edge", 1), plane.claim_column("edge", 2)
    assert plane.processes.last() == second
    plane.reap(second)
    assert plane.processes.last() == first


def test_a_process_of_a_tier_that_never_ran_is_not_found(plane: Plane) -> None:
    assert plane.live("pooler") == []
    assert plane.process(40) is None
    assert plane.incarnation(40) == 0
