"""The plane's rows: allocated by name before anybody uses them, released when nobody can any more.

A row that a reload no longer names may still be in use by a session that began before; a late count would then land in
whatever got the row next. So a row goes only after a while in which all of its gauges stood at zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import attrs

from supervisor.ground import pools
from supervisor.ground.config import Config
from supervisor.ground.tier import Tier
from supervisor.plane import flows, layout
from supervisor.plane.layout import Kind
from supervisor.plane.memory import Plane
from supervisor.plane.region import PlaneError

# Seconds since the reload. A session picks a server and counts it in the same instant; but a process may be stopped,
# and is killed only when its heart has not beaten for `crew.HUNG_AFTER`. Whoever lives after this has swapped.
GRACE = 40.0

Row = tuple[Kind, str]

# Streaks say how something is, not that somebody uses the row.
_ON_DEMAND = {Kind.LEASEPOOL}  # pools of users whom no file names
_NOT_USE = {(Kind.SERVER, layout.Server.STREAK)}


def rows_of(config: Config, tiers: Sequence[Tier]) -> Iterator[Row]:
    """All that a configuration uses."""
    yield from pools.rows(config)
    for tier in tiers:
        for spec in tier.listeners(config):
            yield Kind.LISTENER, f"{tier.name}/{spec.name}"
        yield from tier.rows(config)


def newcomers(new: Sequence[Row]) -> Iterator[str]:
    """Of rows that are new, the servers that join a pool which was there before: those of a new pool start together."""
    pools = {name for kind, name in new if kind is Kind.POOL}
    return (name for kind, name in new if kind is Kind.SERVER and name.partition("/")[0] not in pools)


@attrs.define(eq=False)
class Rows:
    """The rows in use, and those on their way out."""

    plane: Plane
    _leaving: dict[Row, float] = attrs.field(factory=dict, init=False)  # row -> when it was last named or used

    def allocate(self, rows: Iterable[Row]) -> list[Row]:
        """Those that are new. Raises PlaneError, and then none of them is left."""
        new: list[Row] = []
        try:
            for kind, name in rows:
                known = name in self.plane.names(kind)
                self.plane.allocate(kind, name)
                if not known:
                    new.append((kind, name))
        except BaseException:
            self.release(new)
            raise
        return new

    def add(self, kind: str, name: str) -> tuple[str, ...]:
        """One that a tier has found out that it needs; the errors. It stays: no configuration will say that it may
        go."""
        found = next((one for one in _ON_DEMAND if one.value == kind), None)
        if found is None:
            return (f"no row of kind {kind} is added while the daemon runs",)
        try:
            self.plane.allocate(found, name)
        except PlaneError as error:
            return (str(error),)
        return ()

    def release(self, rows: Iterable[Row]) -> None:
        """At once: nobody has used them."""
        for kind, name in rows:
            row = self.plane.row(kind, name)
            if kind is Kind.LISTENER:
                flows.release(self.plane, row)
            self.plane.release(kind, row)

    def changed(self, old: Iterable[Row], new: Iterable[Row], now: float) -> None:
        """A reload was committed: what it no longer names leaves, what it names again stays."""
        named = set(new)
        for row in set(old) - named:
            self._leaving.setdefault(row, now)
        for row in named & self._leaving.keys():
            del self._leaving[row]

    def sweep(self, now: float) -> list[Row]:
        """Release what nobody has used for `GRACE`; those rows."""
        gone = []
        for (kind, name), since in list(self._leaving.items()):
            if self._used(kind, self.plane.row(kind, name)):
                self._leaving[kind, name] = now
            elif now - since >= GRACE:
                gone.append((kind, name))
                del self._leaving[kind, name]
        self.release(gone)
        return gone

    def _used(self, kind: Kind, row: int) -> bool:
        cells = self.plane.cells
        if kind is Kind.LEASEPOOL and cells[self.plane.state(kind, row) + layout.LeasePoolState.OPEN]:
            return True  # a lease of a dead worker has no gauge
        gauges = [field for field in layout.TABLES[kind].gauges if (kind, field) not in _NOT_USE]
        bases = [self.plane.counters(kind, row, column) for column in range(layout.COLUMNS)]
        return any(cells[base + field] for base in bases for field in gauges)
