"""How the daemon ends: TERM drains, a second TERM or INT or QUIT ends now; either way nobody is left behind.

A drain first lets health checks notice (`drain_delay`), then the tiers' workers come to their borders, all at once and
each in its own time (`drain_timeout`); what exists once (prober, admin) goes last, so that the drain can be watched.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Collection
from enum import Enum

import attrs
from structlog.typing import FilteringBoundLogger

from supervisor.arbiter.crew import Crew
from supervisor.arbiter.listeners import Listeners
from supervisor.arbiter.loop import Loop
from supervisor.arbiter.notify import Notifier
from supervisor.ground.config import Config
from supervisor.plane import layout
from supervisor.plane.layout import ProcessState
from supervisor.plane.memory import Plane

AT_ONCE = 3.0  # seconds for processes that were told to end now; then they are killed
LATE = 5.0  # seconds that a worker may take beyond its drain_timeout


class Stage(Enum):
    RUNNING = "running"
    ANNOUNCED = "announced"  # drain_delay
    DRAINING = "draining"  # the tiers' workers
    LAST = "last"  # prober, admin
    NOW = "now"


@attrs.define(eq=False)
class Ending:
    """The stages, one way."""

    loop: Loop
    plane: Plane
    crew: Crew
    listeners: Listeners
    log: FilteringBoundLogger
    config: Callable[[], Config]
    tiers: Collection[str]
    begun: Callable[[], None]  # once, when the end begins
    notifier: Notifier = attrs.Factory(Notifier)
    stage: Stage = attrs.field(default=Stage.RUNNING, init=False)
    code: int = attrs.field(default=0, init=False)

    def terminate(self) -> None:
        """TERM."""
        if self.stage is not Stage.RUNNING:
            self.at_once()
            return
        delay = self.config().supervisor.drain_delay
        self.log.info("draining", delay=float(delay), timeout=float(self.config().supervisor.drain_timeout))
        self.plane.set_state(layout.SUPERVISOR, ProcessState.DRAINING)
        self.stage = Stage.ANNOUNCED
        self.notifier.stopping("draining", delay + self.config().supervisor.drain_timeout + LATE + AT_ONCE)
        if delay:
            self.loop.after(delay, self._drain)
        else:
            self._drain()

    def at_once(self, code: int = 0) -> None:
        """INT, QUIT, a second TERM, or a start that failed."""
        self.code = max(self.code, code)
        if self.stage is not Stage.NOW:
            self.log.info("ending now")
            self.plane.set_state(layout.SUPERVISOR, ProcessState.DRAINING)
            self.stage = Stage.NOW
            self.notifier.stopping("ending now", AT_ONCE)
            self._close()
            self._signal(self.crew.children, signal.SIGQUIT)
            self.loop.after(AT_ONCE, lambda: self._signal(self.crew.children, signal.SIGKILL))
        self.child_ended()

    def child_ended(self) -> None:
        """After every death, to see how far we are."""
        if self.stage is Stage.DRAINING and not self._workers():
            self.stage = Stage.LAST
            self._signal(self.crew.children, signal.SIGTERM)
            self.loop.after(AT_ONCE, lambda: self._signal(self.crew.children, signal.SIGKILL))
        if self.stage in (Stage.LAST, Stage.NOW) and not self.crew.children:
            self.log.info("ended")
            self.loop.stop(self.code)

    def _drain(self) -> None:
        if self.stage is not Stage.ANNOUNCED:
            return
        self.stage = Stage.DRAINING
        self._close()
        self._signal(self._workers(), signal.SIGTERM)
        patience = self.config().supervisor.drain_timeout + LATE
        self.loop.after(patience, lambda: self._signal(self._workers(), signal.SIGKILL))
        self.child_ended()

    def _close(self) -> None:
        self.crew.close()
        self.begun()
        for child in self.crew.children.values():
            child.retiring = True
        # The workers close theirs as they begin to drain; with the last copy the port closes, and clients are refused
        # instead of waiting in a queue that nobody empties.
        self.listeners.close_all()

    def _workers(self) -> list[int]:
        return [pid for pid, child in self.crew.children.items() if child.role.name in self.tiers]

    def _signal(self, pids: Collection[int], number: signal.Signals) -> None:
        for pid in list(pids):
            self.crew.children[pid].signal(number)
