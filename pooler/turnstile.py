"""How many logins are under way at each server, over all pools, and whose turn is next.

PostgreSQL forks for each connection and proves the user's password at a cost of its own, so a hundred pools that all
want connections at once (a start, a failover, RECONNECT) would keep it from its queries, or meet its `max_connections`.
Pools of a worker take turns; each worker has its share of what a server may be asked for, so none waits for another.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import attrs

from pooler import opening

if TYPE_CHECKING:
    from pooler.pool import ServerPool
    from supervisor.ground.pools import Server

LOGINS_AT_ONCE = 16  # at one server, of all workers and pools: about 10 ms each, so over 1,000 a second


@attrs.define(eq=False)
class Turnstile:
    """One worker's."""

    _under_way: dict[Server, int] = attrs.field(factory=dict)
    _turns: dict[Server, deque[ServerPool]] = attrs.field(factory=dict)  # pools that wait for theirs

    def admits(self, pool: ServerPool, server: Server) -> bool:
        """Whether this pool may log in there now; if not, it is asked again when its turn comes."""
        if self._under_way.get(server, 0) < _share(pool):
            return True
        turns = self._turns.setdefault(server, deque())
        if pool not in turns:
            turns.append(pool)
        return False

    def begin(self, server: Server) -> None:
        """A login begins."""
        self._under_way[server] = self._under_way.get(server, 0) + 1

    def end(self, server: Server) -> None:
        """It is over, however; whose turn it is may want another."""
        self._under_way[server] -= 1
        turns = self._turns.get(server)
        while turns and self._under_way[server] < _share(turns[0]):
            pool = turns.popleft()
            if pool.waiters:
                pool.demand()
            else:
                opening.keep_open(pool)
        if not (turns or self._under_way[server]):
            self._turns.pop(server, None)
            del self._under_way[server]


def _share(pool: ServerPool) -> int:
    """Of its worker."""
    return max(1, LOGINS_AT_ONCE // (1 + len(pool.others)))
