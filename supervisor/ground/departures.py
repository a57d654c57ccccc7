"""Servers that the operator takes out, as one worker follows them: what they carry ends within `drain_timeout`.

    for departure in departures.look():  # some times a second
        ...                              # end what is at rest, and once it is `over`, all that is left

A worker learns it from the plane and not by a message, so one that starts later goes on where its predecessor was. What
there is to end, and how, is the tier's to know. A server that is given work again departs no longer; one that a reload
takes out of the file meanwhile goes on departing until nothing of it is left here.
"""

from __future__ import annotations

from collections.abc import Collection

import attrs

from supervisor.ground.servers import Server
from supervisor.ground.tier import Worker
from supervisor.plane.layout import Server as Counter
from supervisor.plane.layout import ServerState


@attrs.define(eq=False)
class Departure:
    """One server that drains, or is in maintenance."""

    server: Server
    began: float  # lane seconds at which it was taken out
    timeout: float = 0.0  # seconds
    passed: float = 0.0  # seconds since it began, as of the last look
    carries: bool = False  # it has something in flight in this worker
    told: bool = False  # the log says that its time is over
    owed: float = 0.0  # of what is ended evenly over the time: the part of one that was not due yet

    @property
    def over(self) -> bool:
        """Whether it had all its time."""
        return self.passed >= self.timeout

    def due(self, waiting: int, left: float, step: float) -> int:
        """How many of so many to end now, looking every `step` seconds, to be through when `left` seconds are."""
        self.owed += waiting / max(1.0, left / step)
        now = int(self.owed)
        self.owed -= now
        return now


@attrs.define(eq=False)
class Departures:
    """Those of one worker's pools."""

    _worker: Worker
    _of: dict[Server, Departure] = attrs.field(factory=dict, init=False)

    def look(self) -> Collection[Departure]:
        """All of them, as they are now."""
        worker, cells = self._worker, self._worker.plane.cells
        out = [server for pool in worker.pools.values() for server in pool.out()]
        if not out and not self._of:
            return ()
        now, timeout = worker.lane.now, worker.config.supervisor.drain_timeout
        for server in out:
            if server not in self._of:
                since = cells[server.state + ServerState.ADMIN_SINCE] / 1e9
                self._of[server] = Departure(server, now - max(0.0, worker.lane.wall - since))
        for server, one in list(self._of.items()):
            one.carries = cells[server.base + Counter.IN_FLIGHT] != 0
            if server not in out and (not one.carries or self._has(server)):
                del self._of[server]
                continue
            one.timeout, one.passed = timeout, now - one.began
            if one.over:
                server.leave()
                self._tell(one)
        return self._of.values()

    def _has(self, server: Server) -> bool:
        return any(server in pool.servers for pool in self._worker.pools.values())

    def _tell(self, one: Departure) -> None:
        if one.told:
            return
        one.told = True
        if one.carries:
            left = self._worker.plane.cells[one.server.base + Counter.IN_FLIGHT]
            self._worker.log.warning("drain timeout", server=one.server.name, left=left)
