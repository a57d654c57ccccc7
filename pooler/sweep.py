"""A look at one pool, 20 times a second: what a lost message or a lost race has left behind, the limits of time, the
gauges.

What happens to a transaction costs nothing while it happens: how long a client holds a server, and how long neither
says anything, is known from one look to the next. Ages are as exact as that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pooler import acquaintance, limits, opening, recovery, roles, saturation, sharing, standing
from pooler.errors import IDLE_IN_TRANSACTION, QUERY_CANCELED, PeerError
from pooler.states import IDLE
from supervisor.plane.layout import LeasePool

if TYPE_CHECKING:
    from pooler.pool import ServerPool
    from pooler.server import ServerConnection


def sweep(pool: ServerPool) -> None:
    """Look at everything once."""
    cells, base = pool.cells, pool.base
    pool.given.clear()
    standing.look(pool)
    roles.look(pool)
    if pool.idle:
        if pool.others:
            sharing.give_idle(pool)
        _close_idle(pool)
    if pool.waiters:
        pool.demand()
        if pool.strangers:
            acquaintance.ask(pool)
    elif pool.settings.min_size or (pool.origin is not None and pool.failure is not None):
        opening.keep_open(pool)
    if pool.pressure is not None:
        saturation.look(pool, pool.lane.now - pool.looked)
    _look_at_servers(pool)
    cells[base + LeasePool.IDLE] = len(pool.idle)
    cells[base + LeasePool.BUSY] = len(pool.servers) - len(pool.idle)
    cells[base + LeasePool.WAITING] = len(pool.waiters)
    cells[base + LeasePool.CLIENTS] = len(pool.clients)
    cells[base + LeasePool.WAIT_US] += pool.waited // 1000
    pool.waited %= 1000


def _close_idle(pool: ServerPool) -> None:
    """Connections that are too old, that nobody has used for long, or that are more than there should be."""
    now, settings = pool.lane.now, pool.settings
    spare = pool.leases.open(pool.row) - settings.min_size
    for server in [one for one in pool.idle if one.expires <= now or now - one.since >= settings.server_idle_timeout]:
        if server.expires <= now or spare > 0:
            spare -= 1
            pool.idle.remove(server)
            recovery.retire(pool, server)
    if pool.idle and limits.too_many(pool):  # of the reserve, or of a larger pool before a reload
        server = pool.idle.pop(0)
        recovery.retire(pool, server)


def _look_at_servers(pool: ServerPool) -> None:
    cells, base, lane, settings = pool.cells, pool.base, pool.lane, pool.settings
    passed, pool.looked = lane.now - pool.looked, lane.now
    timed = settings.query_timeout < _NEVER or settings.idle_transaction_timeout < _NEVER
    held = worked = 0
    for server in pool.servers:
        out = server.outstanding
        if server.conn.waiter is not None:
            held += 1
            worked += bool(out.fifo)
            if out.transactions or not server.began:
                server.began = lane.wall
            if timed:
                _time(pool, server)
        else:
            server.began = server.still = 0.0
        server.count(cells, base)
    cells[base + LeasePool.XACT_US] += int(held * passed * 1e6)
    cells[base + LeasePool.QUERY_US] += int(worked * passed * 1e6)


def _time(pool: ServerPool, server: ServerConnection) -> None:
    """Whether a query, or the silence in a transaction, has lasted too long."""
    out, now, settings = server.outstanding, pool.lane.now, pool.settings
    working = bool(out.fifo)
    if out.queries or not server.still or working != server.working:
        server.still, server.working = now, working
        return
    error = None
    if working and now - server.still >= settings.query_timeout:
        error = PeerError(QUERY_CANCELED, f"query_timeout: not answered in {settings.query_timeout:g} seconds")
    elif not working and out.status != IDLE and now - server.still >= settings.idle_transaction_timeout:
        error = PeerError(
            IDLE_IN_TRANSACTION,
            f"idle_transaction_timeout: silent in a transaction for {settings.idle_transaction_timeout:g} seconds",
        )
    if error is None:
        return
    for client in (pool.origin or pool).clients:
        if client.server is server:
            server.still = now
            client.session.throw(error)
            return


_NEVER = float("inf")
