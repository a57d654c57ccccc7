"""How many server connections there may be, over all workers: of a pool, of its reserve, of a database, of a user.

A pool's own limit is exact behind its lock in the plane (`leases`). A database or a user has several pools, each behind
a lock of its own: so a lease is taken first and all are counted then, this one among them. Two that count at once may
both step back and try again; never are there too many.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pooler import recovery
from pooler.orders import Spare
from supervisor.plane.layout import Kind, LeasePool, LeasePoolState

if TYPE_CHECKING:
    from pooler.pool import ServerPool

Fits = Callable[[str, str], bool]  # a pool's database and user


def reserve(pool: ServerPool) -> int:
    """How many more than `pool_size` there may be now: the reserve is for clients that have waited too long."""
    settings, waiters = pool.settings, pool.waiters
    if not settings.reserve or not waiters:
        return 0
    waited = (pool.lane.now_ns - waiters[0].ticket) / 1e9
    return settings.reserve if waited >= settings.reserve_timeout else 0


def room(pool: ServerPool) -> bool:
    """Whether the pool itself may have another connection."""
    cells, state = pool.cells, pool.state
    return cells[state + LeasePoolState.OPEN] < cells[state + LeasePoolState.LIMIT] + reserve(pool)


def too_many(pool: ServerPool) -> bool:
    """Whether there are more than `pool_size`."""
    cells, state = pool.cells, pool.state
    return cells[state + LeasePoolState.OPEN] > cells[state + LeasePoolState.LIMIT]


def exceeded(pool: ServerPool) -> bool:
    """With a lease just taken: whether that is one too many of the database or of the user. If so, an idle connection
    of another pool that counts to the same limit is closed, to make room for the next try."""
    settings = pool.settings
    for limit, fits in (
        (settings.database_limit, lambda database, user: database == pool.database),
        (settings.user_limit, lambda database, user: user == pool.user),
    ):
        if limit and _counted(pool, fits) > limit:
            _make_room(pool, fits)
            return True
    return False


def _counted(pool: ServerPool, fits: Fits) -> int:
    names = pool.worker.plane.names(Kind.LEASEPOOL)
    return sum(pool.leases.open(row) for name, row in names.items() if fits(*_parts(name)))


def _make_room(pool: ServerPool, fits: Fits) -> None:
    """One of this worker's if there is one, else another's."""
    worker, cells = pool.worker, pool.cells
    for name, other in pool.neighbours.items():
        if other is not pool and other.idle and fits(*_parts(name)):
            spare(other)
            return
    columns = [column for column in worker.plane.live(worker.tier) if column != worker.column]
    for name, row in worker.plane.names(Kind.LEASEPOOL).items():
        if row == pool.row or not fits(*_parts(name)):
            continue
        for column in columns:
            if cells[worker.plane.counters(Kind.LEASEPOOL, row, column) + LeasePool.IDLE]:
                worker.mailbox.send(column, Spare(name))
                return


def spare(pool: ServerPool) -> None:
    """Close the connection that has been idle for longest."""
    if pool.idle:
        server = pool.idle.pop(0)
        pool.cells[pool.base + LeasePool.IDLE] = len(pool.idle)
        recovery.retire(pool, server)


def _parts(name: str) -> tuple[str, str]:
    database, _, user = name.partition("/")
    return database, user
