"""Who polls a slot next: a byte for each slot."""

from supervisor.plane.heirs import heir_of, name_heirs
from supervisor.plane.layout import COLUMNS, MAX_SLOTS, TABLES, Kind, ListenerState
from supervisor.plane.memory import Plane


def test_every_slot_has_its_own(plane: Plane) -> None:
    row = plane.allocate(Kind.LISTENER, "edge/a")
    columns = [slot * 5 % COLUMNS for slot in range(MAX_SLOTS)]
    name_heirs(plane, row, columns)
    assert [heir_of(plane, row, slot) for slot in range(MAX_SLOTS)] == columns
    name_heirs(plane, row, [9] * 11)
    assert [heir_of(plane, row, slot) for slot in range(12)] == [9] * 11 + [0]


def test_they_fit_beside_the_owners() -> None:
    assert ListenerState.OWNER + MAX_SLOTS <= ListenerState.HEIRS
    assert TABLES[Kind.LISTENER].state_cells >= ListenerState.HEIRS + MAX_SLOTS // 8


def test_owners_are_left_alone(plane: Plane) -> None:
    row = plane.allocate(Kind.LISTENER, "edge/a")
    at = plane.state(Kind.LISTENER, row)
    plane.cells[at : at + MAX_SLOTS] = memoryview(bytes(8 * MAX_SLOTS)).cast("Q")
    name_heirs(plane, row, [63] * MAX_SLOTS)
    assert not any(plane.cells[at : at + MAX_SLOTS].tolist())
