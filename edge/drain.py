"""Ending the connections that a drain finds: only the silent ones, spread over the second half of its time.

Closing all at once makes every client come back in the same second (envoy#44419); closing those that are at work loses
what they were doing. Those that go on are left to the drain's end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from edge.connection import Connection
from supervisor.ground.departures import Departure
from supervisor.ground.lane import Lane, Session

STEP_SECONDS = 0.1


class Drain:
    """The drain of one worker's TCP connections, or of one listener's. `last` ends those that still go on when its time
    is over; where the process ends then, that is not needed."""

    def __init__(
        self, lane: Lane, timeout: float, live: Callable[[], Mapping[Session, Connection]], last: bool = False
    ) -> None:
        self._lane = lane
        self._live = live
        self._began = lane.now
        self._timeout = timeout
        self._last = last
        self._stop = lane.every(STEP_SECONDS, self._step)

    def _step(self) -> None:
        passed = self._lane.now - self._began
        if self._last and passed >= self._timeout:
            self._stop()
            end(self._live())
        else:
            end_silent(self._live(), passed, self._timeout)


def depart(departure: Departure, live: Mapping[Session, Connection]) -> None:
    """A server that drains: the silent among its connections, and once its time is over, all of them."""
    there = {session: one for session, one in live.items() if one.server is departure.server}
    if departure.over:
        end(there)
    else:
        end_silent(there, departure.passed, departure.timeout)


def end(live: Iterable[Session]) -> None:
    """All of them."""
    for session in live:
        session.cancel()


def end_silent(live: Mapping[Session, Connection], passed: float, timeout: float) -> None:
    """Those for which it is time, `passed` seconds into a drain of `timeout`, of those that were silent in it."""
    silent = [session for session, connection in live.items() if connection.silent(session) >= passed]
    end(silent[: due(len(silent), passed, timeout, STEP_SECONDS)])


def due(silent: int, passed: float, timeout: float, step: float) -> int:
    """How many of `silent` connections to close now, `passed` seconds into a drain of `timeout`, looking every `step`:
    none in the first half, and so that the second half's last look closes the last."""
    if passed < timeout / 2:
        return 0
    looks_left = max(1.0, (timeout - passed) / step)
    return -(-silent // int(looks_left))
