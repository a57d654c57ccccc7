"""The plane: one shared memory under all processes, its rows by name, its columns by process.

This is the door: create it before the first fork (or attach to an inherited descriptor after an upgrade), allocate
rows by name, claim a column per process, then count with plain adds to the process's own cells:
`plane.cells[base + FIELD] += 1` with `base = plane.counters(kind, row, column)`.
Limits, leases and flows stand in `quotas`, `leases` and `flows`; they take a Plane.
"""

from __future__ import annotations

from typing import Self

import attrs

from supervisor.plane import counters, flows, layout, locks, region
from supervisor.plane.layout import Header, Kind, ListenerState, Process, ProcessState
from supervisor.plane.leases import orphan_all
from supervisor.plane.names import Names
from supervisor.plane.processes import Processes, ProcessInfo, stamp
from supervisor.plane.region import PlaneError, Region

__all__ = ["Kind", "Plane", "PlaneError"]


@attrs.define(eq=False)
class Plane(Region):
    _names: Names = attrs.field(init=False)
    processes: Processes = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._names = Names(self)
        self.processes = Processes(self, self._names)

    @classmethod
    def create(cls, columns: int = layout.COLUMNS) -> Self:
        """A new, empty plane."""
        if columns != layout.COLUMNS:
            raise PlaneError(f"a plane of this layout has {layout.COLUMNS} columns")
        fd = region.make_memory()
        mapping, cells, address, anchor = region.map_region(fd)
        plane = cls(fd, cells, address, mapping, anchor)
        locks.make_mutexes(plane)
        region.write_identity(cells)
        return plane

    @classmethod
    def attach(cls, fd: int) -> Self:
        """The plane behind an inherited descriptor. Raises ForeignPlaneError."""
        region.check_identity(fd)
        mapping, cells, address, anchor = region.map_region(fd)
        return cls(fd, cells, address, mapping, anchor)

    # Rows

    def allocate(self, kind: Kind, name: str) -> int:
        """Supervisor only; the same name gives the same row. Raises PlaneFullError."""
        return self._names.allocate(kind, name)

    def row(self, kind: Kind, name: str) -> int:
        """Raises KeyError."""
        return self._names.row(kind, name)

    def release(self, kind: Kind, row: int) -> None:
        """Supervisor only, when the last generation that used the row is gone."""
        if kind is Kind.LISTENER:
            flows.release(self, row)
        self._names.release(kind, row)

    def names(self, kind: Kind) -> dict[str, int]:
        """A copy: name to row."""
        return dict(self._names.all(kind))

    def counters(self, kind: Kind, row: int, column: int) -> int:
        """The cell of field 0 of the row in that column."""
        return layout.COUNTERS_AT[kind] + column * layout.COLUMN_CELLS + row * layout.TABLES[kind].counter_cells

    def state(self, kind: Kind, row: int) -> int:
        """The cell of shared field 0 of the row."""
        return layout.STATE_AT[kind] + row * layout.TABLES[kind].state_cells

    def total(self, kind: Kind, row: int, field: int) -> int:
        """The sum over all columns, the retired one included."""
        return counters.total(self, kind, row, field)

    def row_totals(self, kind: Kind, row: int) -> list[int]:
        """The sums of all fields of a row."""
        return counters.row_totals(self, kind, row)

    # Generations

    @property
    def generation(self) -> int:
        return self.cells[Header.GENERATION]

    @generation.setter
    def generation(self, value: int) -> None:
        self.cells[Header.GENERATION] = value

    # Processes

    @property
    def live_epoch(self) -> int:
        """Another value whenever a process came, went or changed its state."""
        return self.cells[Header.LIVE_EPOCH]

    def claim_column(self, tier: str, number: int) -> int:
        """A free column for a process about to be forked. Supervisor only. Raises PlaneFullError."""
        return self.processes.claim(tier, number)

    def incarnation(self, column: int) -> int:
        """0 for a free column."""
        return self.cells[self.processes.base(column) + Process.INCARNATION]

    def started(self, column: int, pid: int) -> None:
        """By the supervisor, after the fork."""
        self.processes.started(column, pid)

    def set_state(self, column: int, state: int) -> None:
        """A value of ProcessState, by the process itself."""
        self.processes.set_state(column, state)

    def beat(self, column: int, now_ns: int) -> None:
        self.cells[self.processes.base(column) + Process.HEARTBEAT] = now_ns

    def acknowledge(self, column: int, generation: int) -> None:
        self.cells[self.processes.base(column) + Process.ACKNOWLEDGED] = generation

    def live(self, tier: str) -> list[int]:
        """Columns of the tier's processes that are starting, ready or draining."""
        return self.processes.live(tier)

    def process(self, column: int) -> ProcessInfo | None:
        return self.processes.info(column)

    def reap(self, column: int) -> None:
        """After the process died: its leases are orphaned, its slots unowned, its counters retired, its column freed.

        Supervisor only. Begun anew it ends the same, so a supervisor that was replaced in the middle repeats it.
        """
        self.cells[self.processes.base(column) + Process.STATE] = ProcessState.GONE
        self.cells[Header.LIVE_EPOCH] = stamp(layout.SUPERVISOR)
        orphan_all(self, column)
        for row in self._names.all(Kind.LISTENER).values():
            owners = self.state(Kind.LISTENER, row) + ListenerState.OWNER
            for slot in range(layout.MAX_SLOTS):
                if self.cells[owners + slot] == column:
                    self.cells[owners + slot] = 0
        counters.fold(self, self._names, column)
        self.processes.free(column)
