"""Opening server connections for a pool: when, how many at once, and what a failure means to those who wait.

A login belongs to the pool, not to the client that wanted it: a client that leaves takes nothing with it, and the
connection goes to whoever is first then. While a server refuses logins, one is tried each `server_login_retry`, and
clients get the reason at once instead of waiting for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pooler import limits, roles, standing
from pooler.errors import CANNOT_CONNECT, INVALID_PASSWORD, PeerError, ServerError
from pooler.refusal import NoReplica
from pooler.server import ServerConnection, log_in
from supervisor.plane import layout
from supervisor.plane.layout import LeasePool
from supervisor.plane.region import PlaneError

if TYPE_CHECKING:
    from pooler.pool import ServerPool
    from supervisor.ground.pools import Server

LOGINS_AT_ONCE = 4  # of one pool in one worker: PostgreSQL forks for each, and a storm of them starves running queries


def failing(pool: ServerPool) -> bool:
    """Whether the server refuses us, and there is no connection that a client could wait for."""
    failure = pool.failure
    if failure is None or pool.lane.now >= pool.failed_until or pool.leases.open(pool.row):
        return False
    return not roles.another_may_come(pool, failure)


def launch(pool: ServerPool) -> None:
    """Open as many connections as clients wait for and the limit lets us."""
    _launch(pool, len(pool.waiters))


def keep_open(pool: ServerPool) -> None:
    """Nobody waits: open one if there are fewer than there should always be."""
    wanted = max(pool.settings.min_size, pool.failure is not None)
    if not pool.leaving and not pool.launching and pool.leases.open(pool.row) < wanted:
        _launch(pool, 1)


def _launch(pool: ServerPool, wanted: int) -> None:
    if standing.paused(pool) or pool.closing:
        return
    at_once = min(wanted, LOGINS_AT_ONCE if pool.failure is None else 1)
    while (
        pool.launching < at_once and limits.room(pool) and (pool.failure is None or pool.lane.now >= pool.failed_until)
    ):
        server = roles.pick(pool)
        if server is None:
            _failed(pool, ServerError(f"no server of pool {pool.group.name} is up", CANNOT_CONNECT))
            return
        if not pool.turnstile.admits(pool, server):
            return
        try:
            lease = pool.leases.take(pool.row, pool.worker.column, server.row, limits.reserve(pool))
        except PlaneError as error:
            _failed(pool, ServerError(str(error), CANNOT_CONNECT))
            return
        if lease is None:
            return
        if limits.exceeded(pool):
            pool.leases.free(lease)
            return
        pool.launching += 1
        pool.turnstile.begin(server)
        server.started()
        pool.lane.spawn(_open(pool, server, lease), f"login {pool.name}")


async def _open(pool: ServerPool, server: Server, lease: int) -> None:
    try:
        await _add(pool, server, lease)
    finally:
        pool.turnstile.end(server)


async def _add(pool: ServerPool, server: Server, lease: int) -> None:
    opened: ServerConnection | None = None
    try:
        connection = await log_in(pool.lane, server, lease, pool.settings)
        try:
            roles.check(pool, server, connection.reported)
        except ServerError:
            await connection.close(pool.lane)
            raise
        opened = connection
        pool.leases.bind(lease, opened.pid, opened.secret)
    except ServerError as error:
        if error.sqlstate == CANNOT_CONNECT:
            server.failed(pool.lane.now_ns)
        pool.worker.log.warning("server login failed", pool=pool.name, server=server.name, reason=str(error))
        _failed(pool, error)
        return
    finally:
        pool.launching -= 1
        if opened is None:
            server.ended()
            pool.leases.free(lease)
    server.succeeded()
    pool.failure = None
    pool.cells[server.base + layout.Server.CONNECTIONS] += 1
    pool.cells[pool.base + LeasePool.LOGINS] += 1
    pool.admit(opened)
    if pool.waiters:
        pool.demand()


def _failed(pool: ServerPool, error: ServerError) -> None:
    """Nobody tries again for a while. Who waits is told, unless there are other connections to wait for."""
    pool.cells[pool.base + LeasePool.ERRORS] += 1
    pool.failure = error
    pool.failed_until = pool.lane.now + pool.settings.server_login_retry
    if pool.leases.open(pool.row) <= pool.launching and not roles.another_may_come(pool, error):
        pool.refuse_waiting(NoReplica() if pool.origin is not None else told(pool, error))


def told(pool: ServerPool, error: ServerError) -> PeerError:
    """What a client hears about a login that failed."""
    message = f"server login failed: {error.message}"
    if error.sqlstate == INVALID_PASSWORD:
        return PeerError(
            error.sqlstate, message, hint=f'Check the password of "{pool.settings.user.name}" in the users file.'
        )
    return PeerError(error.sqlstate, message)
