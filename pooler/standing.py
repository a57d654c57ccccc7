"""What the operator has ordered for a pool, as every worker finds it in the plane: paused, stale, killed.

An order holds for workers that start later, too, and until it is taken back. While a pool is paused no connection is
opened (`opening`), and none that becomes free is given out; who wants one waits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pooler.errors import shutting_down
from supervisor.plane.layout import LeasePoolState

if TYPE_CHECKING:
    from pooler.pool import ServerPool
    from pooler.server import ServerConnection


def paused(pool: ServerPool) -> bool:
    """Whether no server connection is given out now."""
    return pool.cells[pool.state + LeasePoolState.PAUSED] != 0


def disabled(pool: ServerPool) -> bool:
    """Whether no client may come in."""
    return pool.cells[pool.state + LeasePoolState.DISABLED] != 0


def outlived(pool: ServerPool, server: ServerConnection) -> bool:
    """Whether this connection is not to be used again."""
    return paused(pool) or pool.leases.since(server.lease) < pool.cells[pool.state + LeasePoolState.STALE]


def look(pool: ServerPool) -> None:
    """With each sweep: do what has been ordered since the last."""
    cells, state = pool.cells, pool.state
    orders = (cells[state + LeasePoolState.PAUSED], cells[state + LeasePoolState.STALE])
    killed = cells[state + LeasePoolState.KILLED]
    if killed != pool.killed:
        pool.killed = killed
        for client in list(pool.clients):
            if client.connected * 1e9 <= killed:
                client.session.throw(shutting_down())
    if orders != pool.orders:
        pool.orders = orders
        for server in pool.servers:
            if outlived(pool, server):
                server.expires = server.good_until = 0.0
