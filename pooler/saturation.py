"""The push-back: a database whose clients wait too long says so in the plane, and a gateway route that names it sheds.

Every worker looks at its own queue with each sweep, and stamps the database's one cell with the time until which its
word holds; a stamp of a worker that dies is forgotten by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from supervisor.plane.layout import Database, DatabaseState, LeasePool

if TYPE_CHECKING:
    from pooler.pool import ServerPool

HOLDS = 500_000_000  # ns: ten sweeps


def look(pool: ServerPool, passed: float) -> None:
    """Whether who waits here waits too long, or too many wait in all workers; `passed` seconds since the last look."""
    settings, waiters, at = pool.settings, pool.waiters, pool.pressure
    if not waiters or at is None:
        return
    now_ns = pool.lane.now_ns
    waited = (now_ns - waiters[0].ticket) / 1e9
    if waited >= settings.saturated_wait or _queue(pool) > settings.saturated_queue:
        pool.cells[at.state + DatabaseState.SATURATED] = now_ns + HOLDS
        pool.cells[at.counters + Database.SATURATED_MS] += int(passed * 1000)


def _queue(pool: ServerPool) -> int:
    """How many wait in this pool, over all workers."""
    return len(pool.waiters) + sum(pool.cells[base + LeasePool.WAITING] for base in pool.others)
