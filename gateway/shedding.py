"""Overload: when a worker has as many requests under way as it takes, routes that matter less are refused first.

Requests that wait cost memory and get answers nobody waits for any more; a 503 at once costs next to nothing, and a
client that is told when to come back does. What is counted is what was admitted and is not answered yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from gateway.errors import PeerError

# The share of `max_requests` from which on a route's requests are refused. The rest is kept for those above it.
SHARES: Final[Mapping[str, float]] = {"low": 0.7, "normal": 0.9, "high": 1.0}
RETRY_AFTER: Final = b"Retry-After: 1"


@attrs.frozen(eq=False)
class Shedding:
    """Of the routes of one importance. `flying` are the cells of this worker that count what is under way, by route."""

    flying: Sequence[int]
    most: int

    def check(self, cells: memoryview[int]) -> None:
        """Raises PeerError("overloaded") if no more is taken."""
        if sum(cells[at] for at in self.flying) >= self.most:
            raise PeerError("overloaded", "as many requests are under way as are taken", fields=(RETRY_AFTER,))


def shedding(max_requests: int | None, importance: str, flying: Sequence[int]) -> Shedding | None:
    """None where nothing is bounded."""
    if max_requests is None:
        return None
    return Shedding(flying, max(1, int(max_requests * SHARES[importance])))
