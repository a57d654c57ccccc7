"""What a listener lets in: so many connections at once, in all and of one client, and so many a second of one client.

The counts are the plane's, over all workers. A client is its address; of IPv6 its /64.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from edge.config import ListenerTable
from supervisor.ground.net.addresses import address_key
from supervisor.plane import layout
from supervisor.plane.guests import REFUSED, Guests
from supervisor.plane.layout import Header, Kind
from supervisor.plane.memory import Plane
from supervisor.plane.quotas import Quotas

_ACTIVE = layout.Listener.ACTIVE


class TooMany(Exception):
    """A client's connection is over its limit."""


@attrs.define(eq=False)
class Crowd:
    """How many connections a listener has, over all workers: to within those that are let in at the same moment."""

    plane: Plane
    listener: int  # its row
    column: int
    _live: int = attrs.field(default=-1, init=False)
    _counts: memoryview[int] = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._counts = self.plane.cells[0:0]

    def size(self) -> int:
        cells = self.plane.cells
        if cells[Header.LIVE_EPOCH] != self._live:
            self._live = cells[Header.LIVE_EPOCH]
            # Not beyond the last process: reading a column that nobody uses would back it with memory.
            last = max(self.column, self.plane.processes.last())
            first = self.plane.counters(Kind.LISTENER, self.listener, 0) + _ACTIVE
            self._counts = cells[first : first + last * layout.COLUMN_CELLS + 1 : layout.COLUMN_CELLS]
        return sum(self._counts)


@attrs.frozen(eq=False)
class ClientLimits:
    """The limits of one listener on one client, where there are any."""

    guests: Guests | None  # None: how many are there is not limited
    quotas: Quotas
    presence: Callable[[bytes], bytes]  # digests of what is counted while it is there
    most: int
    arrivals: Callable[[bytes], bytes] | None  # digests of what is counted as it comes
    interval_ns: int
    burst: int

    def enter(self, ip: str, now_ns: int) -> int:
        """Let a connection of this client in: the place that it gives back by `leave`. Raises TooMany."""
        key = address_key(ip)
        if self.arrivals is not None:
            admitted, _, _ = self.quotas.admit(self.arrivals(key), self.interval_ns, self.burst, now_ns)
            if not admitted:
                raise TooMany
        if self.guests is None:
            return -1
        place = self.guests.enter(self.presence(key), self.most)
        if place == REFUSED:
            raise TooMany
        return place

    def leave(self, place: int) -> None:
        if self.guests is not None:
            self.guests.leave(place)


def client_limits(name: str, table: ListenerTable, guests: Guests | None, quotas: Quotas) -> ClientLimits | None:
    """Those of the listener `name`; None without any."""
    most, rate = table.max_connections_per_client, table.connection_rate_per_client
    if most is None and rate is None:
        return None
    return ClientLimits(
        guests=None if most is None else guests,
        quotas=quotas,
        presence=quotas.digests(f"edge/{name} connections"),
        most=most or 0,
        arrivals=None if rate is None else quotas.digests(f"edge/{name} arrivals"),
        interval_ns=0 if rate is None else rate.interval_ns,
        burst=0 if rate is None else rate.count,
    )
