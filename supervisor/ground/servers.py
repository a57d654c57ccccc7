"""A server of a pool as one process sees it: where it is, what it carries, how its work went.

Its identity outlives reloads: sessions hold it, and a reload changes it in place. Its counters are cells of this
process's column in the plane; whether it may take work is its pool's to say.
"""

from __future__ import annotations

from typing import Protocol

import attrs

from supervisor.ground.config import ServerTable
from supervisor.plane import layout

_IN_FLIGHT, _REQUESTS = layout.Server.IN_FLIGHT, layout.Server.REQUESTS
_BYTES_IN, _BYTES_OUT = layout.Server.BYTES_IN, layout.Server.BYTES_OUT
_STREAK, _FAILURES = layout.Server.STREAK, layout.Server.FAILURES


def server_name(pool: str, server: ServerTable) -> str:
    """A server's name in the plane, in logs and in commands."""
    return f"{pool}/{server.address}"


class Owner(Protocol):
    """What a server needs of its pool."""

    def look(self) -> None: ...

    def failed(self, server: Server, streak: int, now_ns: int) -> None: ...


@attrs.define(eq=False)
class Server:
    """One server of one pool, in this process."""

    name: str  # "pool/host:port"
    row: int
    family: int
    sockaddr: tuple[str, int]  # of a server given by name: the last that was found
    base: int  # its counters in this process's column
    state: int  # its shared fields
    seed: int = attrs.field(repr=False)
    _pool: Owner = attrs.field(repr=False)
    _cells: memoryview[int] = attrs.field(repr=False)
    _column: int = attrs.field(repr=False)
    weight: int = 1  # as it counts now: a slow start lowers it for a while, as it does max_connections
    max_connections: int = 1024
    backup: bool = False
    zone: str = ""
    named: bool = False  # its address is looked up
    host: str = ""  # the name it is looked up by, unless that is a service's: what it must prove in TLS
    flights: memoryview[int] = attrs.field(init=False, repr=False)  # work in flight, a cell for each process
    takes: bool = attrs.field(default=True, init=False)  # as of the pool's last look
    left: bool = attrs.field(default=False, init=False)  # it was drained, and had its time: see `departures`
    bytes_in: int = attrs.field(default=0, init=False)  # of this round, here and below: `settle` adds them
    bytes_out: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self.narrow(layout.COLUMNS - 1)

    @property
    def proves(self) -> str:
        """Whose certificate it must have where nobody says otherwise: that of its name, or of its address."""
        return self.host or self.sockaddr[0]

    def started(self) -> None:
        """A request, connection or UDP session begins on this server. Connections opened are the caller's to count."""
        cells, base = self._cells, self.base
        cells[base + _IN_FLIGHT] += 1
        cells[base + _REQUESTS] += 1

    def ended(self) -> None:
        cells, at = self._cells, self.base + _IN_FLIGHT
        count = cells[at]
        if count:  # 0 if the row was given to another server while this one's last work ended
            cells[at] = count - 1

    def failed(self, now_ns: int) -> None:
        """It did not do its work: no connection, no answer, a broken one. May eject it from the pool."""
        cells, base = self._cells, self.base
        cells[base + _FAILURES] += 1
        streak = cells[base + _STREAK] + 1
        cells[base + _STREAK] = streak
        self._pool.failed(self, streak, now_ns)

    def succeeded(self) -> None:
        cells, at = self._cells, self.base + _STREAK
        if cells[at]:
            cells[at] = 0

    def settle(self) -> None:
        """Add to the cells what was counted in `bytes_in` and `bytes_out`: once a round, not each time."""
        cells, base = self._cells, self.base
        cells[base + _BYTES_IN] += self.bytes_in
        cells[base + _BYTES_OUT] += self.bytes_out
        self.bytes_in = self.bytes_out = 0

    def usable(self) -> bool:
        """Whether work that began here may go on here: up, draining, or tried for want of better."""
        self._pool.look()
        return self.takes

    def leave(self) -> None:
        """It was drained and had its time: nothing that began here goes on here."""
        self.left, self.takes = True, False

    def in_flight(self) -> int:
        """Over all workers."""
        return sum(self.flights)

    def narrow(self, last: int) -> None:
        """Let sums of what is in flight read no columns beyond `last`, that of the last process alive."""
        first = self.base - self._column * layout.COLUMN_CELLS + _IN_FLIGHT
        self.flights = self._cells[first : first + last * layout.COLUMN_CELLS + 1 : layout.COLUMN_CELLS]
