"""When a server connection leaves this worker for another, where a client waits.

First come, first served holds over all workers, but not to the millisecond: each connection that changes workers costs
both of them about 100 µs, and under load every other transaction would make one change. So short waits are left to the
worker itself, and what is longer is looked at between rounds (`look`), not with every transaction:

- a client that came TOLERANCE before the first of this worker gets this worker's next connection;
- so does one that has waited for more than twice as long as the first of this worker, if it has been so for LASTING
  without a break: then connections are where fewer clients are;
- a connection that nobody here wants goes to who has waited for PATIENCE, or in whose worker, or in this one, nothing
  happens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pooler import handover
from supervisor.plane.layout import LeasePool

if TYPE_CHECKING:
    from pooler.pool import ServerPool
    from pooler.server import ServerConnection

TOLERANCE = 10_000_000  # ns
LASTING = 10_000_000  # ns
MARGIN = 500_000  # ns: twice of next to nothing is nothing
PATIENCE = 5_000_000  # ns: most are served by their own worker sooner
# One under TLS can't change workers: it is closed, and another opened, which takes 10 ms and more.
TLS_TOLERANCE = 100_000_000  # ns that a client of another worker has waited before
FOREVER = 1 << 63


def look(pool: ServerPool, quiet: bool) -> None:
    """At a lull of the lane: compare our first client with those of the other workers. At a quiet one nothing comes
    free here soon, and nobody comes who wants what is idle."""
    now, waiters = pool.lane.now_ns, pool.waiters
    if waiters:
        first = waiters[0].ticket
        _compare(pool, first, now)
        if (quiet or now - first > PATIENCE) and pool.asked_for != first and handover.ask(pool):
            pool.asked_for = first
    elif pool.idle:
        give_idle(pool, FOREVER if quiet else now - PATIENCE)


def brisk(pool: ServerPool) -> bool:
    """Whether connections come free here, so that it is best to wait for the next."""
    return pool.lane.now_ns - pool.released < PATIENCE


def _compare(pool: ServerPool, first: int, now: int) -> None:
    """Whose are the next connections that are released here."""
    cells = pool.cells
    tickets = [cells[base + LeasePool.OLDEST_TICKET] for base in pool.others]
    oldest = min(filter(None, tickets), default=0)
    if not oldest or now - oldest <= 2 * (now - first) + MARGIN:
        pool.behind_since = 0
    elif not pool.behind_since:
        pool.behind_since = now
    elif now - pool.behind_since >= LASTING:
        pool.behind_since, pool.owes = now, True
    if pool.owes:
        pool.ours_until = 0
    else:
        # Until the next look, too: who is to come before ours by TOLERANCE has shown its ticket for as long.
        pool.ours_until = oldest + TOLERANCE if oldest else FOREVER


def give_first(pool: ServerPool, server: ServerConnection) -> bool:
    """To another worker, if a client there comes before the first of ours."""
    first = pool.waiters[0].ticket
    return give_away(pool, server, first if pool.owes else first - TOLERANCE)


def give_away(pool: ServerPool, server: ServerConnection, before: int) -> bool:
    """To the worker whose client came first, if that was before `before`."""
    pool.owes = False
    if pool.settings.encryption is not None:
        before = min(before, pool.lane.now_ns - TLS_TOLERANCE)
    cells, given = pool.cells, pool.given
    oldest, to = before, 0
    for base in pool.others:
        ticket = cells[base + LeasePool.OLDEST_TICKET]
        if ticket and ticket < oldest and given.get(base) != ticket:
            oldest, to = ticket, base
    if not to or not handover.give(pool, server, to):
        return False
    given[to] = oldest
    return True


def give_idle(pool: ServerPool, before: int = FOREVER) -> None:
    """What is idle here while clients wait elsewhere, since before `before`, goes there."""
    while pool.idle and give_away(pool, pool.idle[-1], before):
        pool.take_last()
