"""What happened in the last period: the totals of every pool, kept from one period to the next.

PgBouncer's `stats_period` is 60 s, and its averages are over the last whole one; so are these. Every worker keeps its
own copy of the same totals, so that any of them can answer.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from supervisor.plane.layout import Kind
from supervisor.plane.memory import Plane

PERIOD = 60.0  # seconds; PgBouncer's default

Totals = Mapping[str, list[int]]


@attrs.define(eq=False)
class Averages:
    """The totals at the beginning of the last period and of this one."""

    plane: Plane
    older: Totals = attrs.field(factory=dict)
    newer: Totals = attrs.field(factory=dict)
    older_at: float = 0.0  # the lane's clock, seconds
    newer_at: float = 0.0

    def start(self, now: float) -> None:
        """The first period has no predecessor: it is averaged while it runs."""
        self.older_at = self.newer_at = now

    def look(self, now: float) -> None:
        """A period is over."""
        self.older, self.older_at = self.newer, self.newer_at
        self.newer, self.newer_at = self.totals(), now

    def totals(self) -> Totals:
        """Of all pools, by name."""
        return {
            name: self.plane.row_totals(Kind.LEASEPOOL, row) for name, row in self.plane.names(Kind.LEASEPOOL).items()
        }

    def last(self, now: float) -> tuple[Totals, Totals, float]:
        """Totals before and after, and the seconds between: the last whole period, or what there is of the first."""
        if self.newer_at > self.older_at:
            return self.older, self.newer, self.newer_at - self.older_at
        return self.older, self.totals(), max(now - self.older_at, 1.0)
