"""Ending the connections that a drain finds at rest, spread over the second half of its time.

Those at work get `Connection: close` with their next answer. Closing all that are silent at once would make every
client come back in the same second, and closing early would cut those about to ask. WebSockets don't end by themselves:
they are told to go elsewhere (1001), spread over the first half, so that the closing handshakes have the second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from gateway.connection import Connection
from gateway.shared import Shared
from supervisor.ground.departures import Departure
from supervisor.ground.lane import Lane, Session

STEP_SECONDS: Final = 0.1


class Drain:
    """The drain of one worker's connections."""

    def __init__(self, lane: Lane, timeout: float, live: Callable[[], Mapping[Session, Connection]]) -> None:
        self._lane = lane
        self._live = live
        self._began = lane.now
        self._timeout = timeout
        self._owed = 0.0  # connections to end, the parts of one that earlier looks left over
        self._owed_farewells = 0.0
        lane.every(STEP_SECONDS, self.step)

    def step(self) -> None:
        """Look once: end as many of the silent as it takes to have ended the last of them with the last look."""
        left = self._began + self._timeout - self._lane.now
        live = self._live()
        waiting = [
            (session, connection.farewell)
            for session, connection in live.items()
            if connection.farewell is not None and not connection.farewell.asked
        ]
        now, self._owed_farewells = _due(len(waiting), left - self._timeout / 2, self._owed_farewells)
        for session, farewell in waiting[:now]:
            farewell.asked = True
            self._lane.wake(session)
        if left > self._timeout / 2:
            return
        silent = [session for session, connection in live.items() if connection.silent(self._began)]
        now, self._owed = _due(len(silent), left, self._owed)
        for session in silent[:now]:
            session.cancel()


def depart(shared: Shared, departure: Departure) -> None:
    """A server that was taken out by hand: its idle connections end now, its WebSockets are told to go elsewhere in the
    first half of the time, and what goes on when that is over is cut."""
    server, lane = departure.server, shared.lane
    shared.upstreams.leave(server)
    shared.trunks.leave(server)
    if not departure.carries:
        return
    waiting = [(session, bye) for session, (where, bye) in shared.tunnels.items() if where is server and not bye.asked]
    for session, farewell in waiting[
        : departure.due(len(waiting), departure.timeout / 2 - departure.passed, STEP_SECONDS)
    ]:
        farewell.asked = True
        lane.wake(session)
    if departure.over:
        shared.upstreams.cut(server)


def _due(count: int, left: float, owed: float) -> tuple[int, float]:
    """How many of them it is time for, to be through with the last when `left` seconds are; what is still owed."""
    owed += count / max(1.0, left / STEP_SECONDS)
    return int(owed), owed % 1.0
