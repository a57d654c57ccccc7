"""Ending the sessions that a drain finds: each between its transactions, the silent ones spread over the second half.

A client that is at work ends by itself, when its transaction does (`relay`). One that says nothing would hold the drain
to its end, and if all of those were ended at once, all would come back in the same second (envoy#44419).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from pooler.errors import ADMIN_SHUTDOWN, PeerError

if TYPE_CHECKING:
    from pooler.client import Client
    from pooler.runtime import PoolerRuntime
    from supervisor.ground.departures import Departure

STEP_SECONDS = 0.1


@attrs.define(eq=False)
class Drain:
    """The drain of one worker."""

    runtime: PoolerRuntime
    timeout: float
    began: float = attrs.field(init=False)
    owed: float = 0.0

    def __attrs_post_init__(self) -> None:
        self.began = self.runtime.lane.now
        self.runtime.lane.every(STEP_SECONDS, self._step)

    def _step(self) -> None:
        passed = self.runtime.lane.now - self.began
        idle = [client for client in self.runtime.clients if silent(client)]
        self.owed += due(len(idle), passed, self.timeout, STEP_SECONDS)
        ended = int(self.owed)
        self.owed -= ended
        for client in idle[:ended]:
            if client.pool is None:
                client.session.cancel()
            else:
                self.runtime.lane.wake(client.session)  # it sees that its pool is to be left


def depart(runtime: PoolerRuntime, departure: Departure, step: float) -> None:
    """A server that was taken out by hand: its connections are closed when they become free, one that listens at once.
    Clients that keep theirs end in the second half of the time, evenly spread, and with the time whoever still has
    one."""
    if not departure.carries:
        return
    for fanout in runtime.fanouts.values():
        fanout.depart(departure.server)
    for pool in runtime.pools.values():
        for server in pool.servers:
            if server.server is departure.server:
                server.expires = server.good_until = 0.0
    held = [one for one in runtime.clients if one.server is not None and one.server.server is departure.server]
    if departure.over:
        ended = held
    elif departure.passed >= departure.timeout / 2:
        idle = [client for client in held if silent(client)]
        ended = idle[: departure.due(len(idle), departure.timeout - departure.passed, step)]
    else:
        return
    for client in ended:
        client.session.throw(PeerError(ADMIN_SHUTDOWN, "terminating connection because its server is drained"))


def silent(client: Client) -> bool:
    """Whether it is between transactions, or not even logged in."""
    server = client.server
    if client.replicating is not None:
        return client.replicating.endless
    if server is not None:
        return server.outstanding.free
    return client.pool is None or client not in client.pool.waiters


def due(silent: int, passed: float, timeout: float, step: float) -> float:
    """How many of the silent to end now, `passed` seconds into a drain of `timeout`, looking every `step` seconds: none
    in the first half, then as many as spread them evenly up to its last look. The caller keeps the fractions."""
    if passed < timeout / 2:
        return 0.0
    return silent / max(1.0, (timeout - passed) / step)
