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
        lane.every(STEP_SECONDS, self.step)

    def step(self) -> None:
        passed = self._lane.now - self._began
        silent = [session for session, connection in self._live().items() if connection.silent(self._began)]
        for session in silent[: due(len(silent), passed, self._timeout)]:
            session.cancel()


def due(silent: int, passed: float, timeout: float, step: float = STEP_SECONDS) -> int:
    """How many of `silent` connections to end now, `passed` seconds into a drain of `timeout`, looking every `step`:
    none in the first half, and so that the last look ends the last of them."""
    if passed < timeout / 2:
        return 0
    looks_left = max(1, int((timeout - passed) / step))
    return -(-silent // looks_left)
