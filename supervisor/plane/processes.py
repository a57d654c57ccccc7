"""Columns and the processes that own them: one column per incarnation, claimed before the fork, reaped after the death.

The supervisor claims and frees; the process itself writes its state, heartbeat and acknowledged generation.
`live_epoch` is a stamp that changes whenever a column comes, goes or changes state: who caches a list of live
columns compares it.
"""

from __future__ import annotations

import time

import attrs

from supervisor.plane import layout
from supervisor.plane.layout import Header, Kind, Process, ProcessState
from supervisor.plane.names import Names
from supervisor.plane.region import PlaneFullError, Region


def stamp(column: int) -> int:
    """A value no other process writes: epochs are compared for change only, so several may write one without a lock."""
    return time.monotonic_ns() & ~(layout.COLUMNS - 1) | column


@attrs.frozen
class ProcessInfo:
    """One column as status shows it."""

    column: int
    pid: int
    incarnation: int
    tier: str
    number: int
    state: int  # a value of ProcessState
    heartbeat: int  # monotonic ns
    acknowledged: int
    started: int  # wall clock, ns


@attrs.define(eq=False)
class Processes:
    _region: Region
    _names: Names

    def base(self, column: int) -> int:
        return layout.PROCESSES_AT + column * layout.PROCESS_CELLS

    def claim(self, tier: str, number: int) -> int:
        """A free column for a process about to be forked. Raises PlaneFullError."""
        cells = self._region.cells
        row = self._names.allocate(Kind.TIER, tier)
        for column in range(layout.FIRST_PROCESS, layout.COLUMNS):
            if not cells[self.base(column) + Process.INCARNATION]:
                break
        else:
            raise PlaneFullError(f"no column left for {tier} {number}; {layout.COLUMNS - 2} processes are possible")
        self._fill(column, row, number)
        return column

    def enter_supervisor(self, pid: int) -> None:
        """Fill column 0."""
        self._fill(layout.SUPERVISOR, self._names.allocate(Kind.TIER, "supervisor"), 0)
        self.started(layout.SUPERVISOR, pid)
        self.set_state(layout.SUPERVISOR, ProcessState.READY)

    def started(self, column: int, pid: int) -> None:
        self._region.cells[self.base(column) + Process.PID] = pid

    def set_state(self, column: int, state: int) -> None:
        """By the process itself: READY, then DRAINING."""
        cells = self._region.cells
        cells[self.base(column) + Process.STATE] = state
        cells[Header.LIVE_EPOCH] = stamp(column)

    def free(self, column: int) -> None:
        cells = self._region.cells
        base = self.base(column)
        for field in range(layout.PROCESS_CELLS):
            if field != Process.INCARNATION:
                cells[base + field] = 0
        cells[base + Process.INCARNATION] = 0  # last: only then may the column be claimed again
        cells[Header.LIVE_EPOCH] = stamp(layout.SUPERVISOR)

    def live(self, tier: str) -> list[int]:
        """Columns of the tier's processes that are starting, ready or draining."""
        row = self._names.all(Kind.TIER).get(tier)
        if row is None:
            return []
        cells = self._region.cells
        bases = [(column, self.base(column)) for column in range(layout.COLUMNS)]
        return [
            column
            for column, base in bases
            if cells[base + Process.STATE] and cells[base + Process.TIER] == row and column != layout.RETIRED
        ]

    def last(self) -> int:
        """The highest column in use."""
        at = self.base(0) + Process.INCARNATION
        end = at + layout.COLUMNS * layout.PROCESS_CELLS
        incarnations = self._region.cells[at : end : layout.PROCESS_CELLS].tolist()
        return max((column for column, incarnation in enumerate(incarnations) if incarnation), default=0)

    def info(self, column: int) -> ProcessInfo | None:
        """None for a free column."""
        base = self.base(column)
        values = self._region.cells[base : base + layout.PROCESS_CELLS].tolist()
        if not values[Process.INCARNATION]:
            return None
        tiers = {row: name for name, row in self._names.all(Kind.TIER).items()}
        return ProcessInfo(
            column=column,
            pid=values[Process.PID],
            incarnation=values[Process.INCARNATION],
            tier=tiers.get(values[Process.TIER], "?"),
            number=values[Process.NUMBER],
            state=values[Process.STATE],
            heartbeat=values[Process.HEARTBEAT],
            acknowledged=values[Process.ACKNOWLEDGED],
            started=values[Process.STARTED],
        )

    def _fill(self, column: int, tier_row: int, number: int) -> None:
        cells = self._region.cells
        base = self.base(column)
        incarnation = cells[Header.INCARNATIONS] + 1
        cells[Header.INCARNATIONS] = incarnation
        cells[base + Process.PID] = 0
        cells[base + Process.TIER] = tier_row
        cells[base + Process.NUMBER] = number
        cells[base + Process.HEARTBEAT] = time.monotonic_ns()
        cells[base + Process.ACKNOWLEDGED] = 0
        cells[base + Process.STARTED] = time.time_ns()
        cells[base + Process.INCARNATION] = incarnation
        self.set_state(column, ProcessState.STARTING)
