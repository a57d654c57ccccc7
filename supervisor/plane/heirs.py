"""Who is to poll a slot next: named by the supervisor before the slot's owner is told to let go.

Between two living owners a slot belongs to nobody for a moment, and its owner cell can't say who comes. What the old
owner holds for the slot's clients (the sockets of UDP sessions) it sends to the heir. A column takes a byte, so eight
slots share a cell; the supervisor alone writes.
"""

from __future__ import annotations

from collections.abc import Sequence

from supervisor.plane.layout import CELL, Kind, ListenerState
from supervisor.plane.memory import Plane


def name_heirs(plane: Plane, listener_row: int, columns: Sequence[int]) -> None:
    """The column of each slot's next owner, from slot 0 on; 0 for nobody."""
    at = plane.state(Kind.LISTENER, listener_row) + ListenerState.HEIRS
    for start in range(0, len(columns), CELL):
        packed = int.from_bytes(bytes(columns[start : start + CELL]).ljust(CELL, b"\0"), "little")
        plane.cells[at + start // CELL] = packed


def heir_of(plane: Plane, listener_row: int, slot: int) -> int:
    """The column of the slot's next owner, or of the one it has; 0 for nobody."""
    at = plane.state(Kind.LISTENER, listener_row) + ListenerState.HEIRS
    return plane.cells[at + slot // CELL] >> slot % CELL * 8 & 0xFF
