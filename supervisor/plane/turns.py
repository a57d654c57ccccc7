"""Whose turn it is when a place on a pool's servers comes free: how many wait, and in which worker who came first.

Each worker shows one ticket, that of its own longest waiting; the order among those is the order in which they came.
The cells are gauges of the worker's own column, so what a dead worker's clients held is gone with it.
"""

from __future__ import annotations

import attrs

from supervisor.plane import layout
from supervisor.plane.layout import Kind
from supervisor.plane.locks import Lock, LockResult, pool_lock
from supervisor.plane.memory import Plane

_WAITING, _TICKET = layout.Pool.WAITING, layout.Pool.OLDEST_TICKET


@attrs.define(eq=False)
class Turns:
    """Those of one pool, as one worker writes and all read them."""

    plane: Plane
    row: int
    column: int
    _base: int = attrs.field(init=False)
    _lock: Lock = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._base = self.plane.counters(Kind.POOL, self.row, self.column)
        self._lock = pool_lock(self.plane, self.row)

    def join(self, most: int) -> bool:
        """Count one more that waits, unless `most` do already. A stopped process that holds the lock is as good as a
        full queue."""
        if self._lock.acquire() is LockResult.TIMED_OUT:
            self.count(layout.Pool.LOCK_TIMEOUTS)
            return False
        joined = sum(self._across(_WAITING)) < most
        if joined:
            self.count(_WAITING)
        self._lock.release()
        return joined

    def leave(self) -> None:
        self.plane.cells[self._base + _WAITING] -= 1

    def show(self, ticket: int) -> None:
        """When this worker's longest waiting came (monotonic ns), 0 for nobody."""
        self.plane.cells[self._base + _TICKET] = ticket

    def first(self) -> int:
        """The column of the worker whose longest waiting came before all others, 0 if nobody waits."""
        tickets = self._across(_TICKET)
        return min(((ticket, column) for column, ticket in enumerate(tickets) if ticket), default=(0, 0))[1]

    def count(self, counter: int) -> None:
        """Add one to a counter of `layout.Pool`."""
        self.plane.cells[self._base + counter] += 1

    def _across(self, field: int) -> list[int]:
        """A field in every column up to the last process alive; more would back untouched pages with memory."""
        first = layout.COUNTERS_AT[Kind.POOL] + self.row * layout.TABLES[Kind.POOL].counter_cells + field
        last = max(self.column, self.plane.processes.last())
        return self.plane.cells[first : first + last * layout.COLUMN_CELLS + 1 : layout.COLUMN_CELLS].tolist()
