"""Ending the connections that a drain finds at rest, spread over the second half of its time.

Those at work get `Connection: close` with their next answer. Closing all that are silent at once would make every
client come back in the same second, and closing early would cut those about to ask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from gateway.connection import Connection
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
        lane.every(STEP_SECONDS, self.step)

    def step(self) -> None:
        """Look once: end as many of the silent as it takes to have ended the last of them with the last look."""
        passed = self._lane.now - self._began
        if passed < self._timeout / 2:
            return
        silent = [session for session, connection in self._live().items() if connection.silent(self._began)]
        self._owed += len(silent) / max(1.0, (self._timeout - passed) / STEP_SECONDS)
        now, self._owed = int(self._owed), self._owed % 1.0
        for session in silent[:now]:
            session.cancel()
