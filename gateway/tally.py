"""What requests of one route did in one round of the lane: kept here, and added to the plane at the round's end.

A cell of the plane costs five times what an attribute does, and a busy round has many requests of a route. Others see a
request counted milliseconds after its answer, as ever; a worker that is killed takes its last round's counts along.
"""

from __future__ import annotations

from typing import Final

from supervisor.plane import layout

_R, _L = layout.Route, layout.Listener
_REQUESTS, _SUCCESSES = _R.REQUESTS, _R.RESPONSES_2XX
_CLASSES: Final = _R.RESPONSES_1XX - 1  # + the first digit of the status
_IN, _OUT, _SUM = _R.BYTES_IN, _R.BYTES_OUT, _R.LATENCY_SUM
_LISTENER_IN, _LISTENER_OUT = _L.BYTES_IN, _L.BYTES_OUT


class Tally:
    """One route's, on one listener at a time: whoever counts on another `settle`s first. `route` and `listener` are the
    bases of their cells."""

    __slots__ = ("_cells", "bytes_in", "bytes_out", "listener", "micros", "others", "requests", "route")

    def __init__(self, cells: memoryview[int], route: int) -> None:
        self._cells = cells
        self.route = route
        self.listener = -1
        self.requests = 0
        self.others = 0  # of them, those whose status was not 2xx: these are counted by their class at once
        self.bytes_in = 0
        self.bytes_out = 0
        self.micros = 0

    def other(self, status: int) -> None:
        """One of the requests had a status beside 2xx."""
        self.others += 1
        self._cells[self.route + _CLASSES + status // 100] += 1

    def settle(self) -> None:
        """Add everything to the plane."""
        if not self.requests:
            return
        cells, at, listener = self._cells, self.route, self.listener
        cells[at + _REQUESTS] += self.requests
        cells[at + _SUCCESSES] += self.requests - self.others
        cells[at + _IN] += self.bytes_in
        cells[at + _OUT] += self.bytes_out
        cells[at + _SUM] += self.micros
        cells[listener + _LISTENER_IN] += self.bytes_in
        cells[listener + _LISTENER_OUT] += self.bytes_out
        self.requests = self.others = self.bytes_in = self.bytes_out = self.micros = 0
