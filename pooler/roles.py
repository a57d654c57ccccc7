"""Which servers a pool may use: the primary, replicas, or any; as the prober last saw them.

A connection is looked at again when it is opened (`in_hot_standby`, which servers report since PostgreSQL 14) and
with each sweep: one to a server that is no longer what it should be is not used for another transaction. Of two that
both say primary the one of the later timeline is it: the other has not noticed yet that it was replaced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pooler.errors import ADMIN_SHUTDOWN, CANNOT_CONNECT, CANNOT_CONNECT_NOW, CONNECTION_FAILURE, ServerError
from supervisor.plane.layout import Role, ServerState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pooler.pool import ServerPool
    from supervisor.ground.pools import Pool as ServerGroup
    from supervisor.ground.pools import Server

ANY, PRIMARY, REPLICA = "any", "primary", "standby"  # libpq's target_session_attrs
# What may pass when another server takes over: not there, starting up, ending.
_PASSING = frozenset((CANNOT_CONNECT, CANNOT_CONNECT_NOW, CONNECTION_FAILURE, ADMIN_SHUTDOWN, "57P02"))


class Unfit:
    """The servers of a group that a role excludes; what `Pool.pick` asks of each."""

    def __init__(self, cells: memoryview[int], group: ServerGroup, role: str, max_lag: float) -> None:
        self.cells, self.role, self.max_lag_ms = cells, role, max_lag * 1000
        primaries = [server for server in group.servers if cells[server.state + ServerState.ROLE] == Role.PRIMARY]
        self.timeline = max((cells[one.state + ServerState.TIMELINE] for one in primaries), default=0)

    def __contains__(self, server: object) -> bool:
        cells, state = self.cells, server.state  # type: ignore[attr-defined]  # a Server: Container takes any object
        role = cells[state + ServerState.ROLE]
        if role == Role.UNKNOWN:
            return False
        if self.role == PRIMARY:
            return bool(role != Role.PRIMARY or cells[state + ServerState.TIMELINE] < self.timeline)
        return bool(role != Role.REPLICA or cells[state + ServerState.LAG_MS] > self.max_lag_ms)


def pick(pool: ServerPool) -> Server | None:
    """A server for a new connection; None if there is none that fits."""
    settings, group = pool.settings, pool.group
    if settings.role == ANY:
        return group.pick()
    return group.pick(None, Unfit(pool.cells, group, settings.role, settings.max_lag))


def check(pool: ServerPool, server: Server, reported: Mapping[str, str]) -> None:
    """What a server has said of itself at login. Raises ServerError if it is not what it should be."""
    standby = reported.get("in_hot_standby")
    wrong = {PRIMARY: "on", REPLICA: "off"}.get(pool.settings.role)
    if standby is not None and standby == wrong:
        is_now = "a replica" if standby == "on" else "the primary"
        raise ServerError(f"{server.name} is {is_now}", CANNOT_CONNECT)


def look(pool: ServerPool) -> None:
    """With each sweep: connections that lead to the wrong server now are closed when they are free."""
    settings = pool.settings
    if settings.role == ANY:
        return
    unfit = Unfit(pool.cells, pool.group, settings.role, settings.max_lag)
    for server in pool.servers:
        if server.expires and server.server in unfit:
            server.expires = server.good_until = 0.0


def another_may_come(pool: ServerPool, error: ServerError) -> bool:
    """Whether it is worth waiting for another server to take over, instead of being told at once."""
    return pool.settings.role != ANY and len(pool.group.servers) > 1 and error.sqlstate in _PASSING
