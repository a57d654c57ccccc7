"""How many connections a client has, exact over all workers: a count for each in every column, found by its digest.

Each worker counts its own connections in its own column, so that what a dead worker held is gone with it; whoever lets
one more in sums the columns behind the lock of the client's stripe, which the quotas share. A column counts while its
first cell is the incarnation of its process. As limits do everywhere, this one admits where it can't count: when a
bucket is full, or a stopped process holds the lock.
"""

from __future__ import annotations

import struct

from supervisor.plane import layout
from supervisor.plane.layout import Header
from supervisor.plane.locks import Lock, LockResult, lock
from supervisor.plane.memory import Plane

REFUSED = -2
UNCOUNTED = -1

_WORDS = struct.Struct("=QQ").unpack
_ROWS = layout.BUCKET_ROWS
_COUNT = 2 * _ROWS  # offset of the counts within a bucket, behind both words of the digests


class Guests:
    """Those of one process. Digests come from `Quotas.digests`."""

    __slots__ = ("_cells", "_column", "_columns", "_live", "_locks", "_plane", "_tier")

    def __init__(self, plane: Plane, tier: str, column: int) -> None:
        self._plane = plane
        self._cells = plane.cells
        self._tier = tier
        self._column = column
        self._columns: list[int] = []  # of processes that may have guests
        self._live = -1
        self._locks: list[Lock] = [lock(plane, index) for index in range(layout.QUOTA_LOCKS)]
        self._claim()

    def enter(self, digest: bytes, most: int) -> int:
        """One more connection of this client, unless it has `most`: the place to give to `leave`, or REFUSED."""
        cells = self._cells
        high, low = _WORDS(digest)
        high |= 1  # 0 marks a row never used
        bucket = low % layout.GUEST_BUCKETS
        if cells[Header.LIVE_EPOCH] != self._live:
            self._look()
        guard = self._locks[bucket % layout.QUOTA_LOCKS]
        if guard.acquire() is LockResult.TIMED_OUT:
            return UNCOUNTED
        try:
            # After a death in here nothing needs repair: a count of the dead is looked at by nobody.
            total = 0
            for column in self._columns:
                at = self._find(column, bucket, high, low)
                if at >= 0:
                    total += cells[at + _COUNT]
            if total >= most:
                return REFUSED
            at = self._find(self._column, bucket, high, low)
            if at < 0:
                at = self._free(bucket)
                if at < 0:
                    return UNCOUNTED
                cells[at] = high
                cells[at + _ROWS] = low
            cells[at + _COUNT] += 1
            return at
        finally:
            guard.release()

    def leave(self, place: int) -> None:
        """A connection that `enter` let in has ended."""
        if place >= 0:
            self._cells[place + _COUNT] -= 1

    def _claim(self) -> None:
        """Let this process's column count from now on, from zero."""
        cells = self._cells
        own = layout.GUESTS_AT + self._column * layout.GUESTS_CELLS
        incarnation = self._plane.incarnation(self._column)
        if cells[own] not in (0, incarnation):  # 0: nobody was ever here, and to touch it would make it memory
            rows = own + layout.PAGE_CELLS
            size = layout.GUESTS_CELLS - layout.PAGE_CELLS
            cells[rows : rows + size] = memoryview(bytes(size * layout.CELL)).cast("Q")
        cells[own] = incarnation

    def _look(self) -> None:
        cells, plane = self._cells, self._plane
        live = cells[Header.LIVE_EPOCH]
        processes = plane.live(self._tier)
        self._columns = [
            column
            for column in processes
            if cells[layout.GUESTS_AT + column * layout.GUESTS_CELLS] == plane.incarnation(column)
        ]
        # One that is only about to count changes no state when it begins: look again until all do.
        self._live = live if len(self._columns) == len(processes) else -1

    def _find(self, column: int, bucket: int, high: int, low: int) -> int:
        """The client's row in a column, -1 without one."""
        cells, base = self._cells, _base(column, bucket)
        highs = cells[base : base + _ROWS].tolist()
        if high in highs:
            for index, word in enumerate(highs):
                if word == high and cells[base + index + _ROWS] == low:
                    return base + index
        return -1

    def _free(self, bucket: int) -> int:
        """A row of our own that counts nothing, -1 if all do."""
        base = _base(self._column, bucket)
        counts = self._cells[base + _COUNT : base + _COUNT + _ROWS].tolist()
        return base + counts.index(0) if 0 in counts else -1


def _base(column: int, bucket: int) -> int:
    return layout.GUESTS_AT + column * layout.GUESTS_CELLS + layout.PAGE_CELLS + bucket * layout.BUCKET_CELLS
