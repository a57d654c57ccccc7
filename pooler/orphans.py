"""Leases that nobody has a connection for: whoever finds one ends what its server may still be doing, then gives the
place back.

A dead worker's connection is closed, but PostgreSQL notices only when it reads or writes: a query that runs goes on.
So it is cancelled with the key that the lease kept, and gets a moment to end, before anybody may open a connection in
its place. A connection that was lost on its way from one worker to another (the sender died between the lease's move
and the message) leaves its lease with the receiver, who knows nothing of it: what it has held for a while without a
connection, it makes an orphan, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from pooler.encryption import encryption
from pooler.server import send_cancel
from supervisor.plane.layout import Kind, LeaseState

if TYPE_CHECKING:
    from pooler.runtime import PoolerRuntime
    from supervisor.plane.leases import Held

LOOK_SECONDS = 10.0  # between looks, beside those at each death: a look takes about 0.5 ms a pool
STRAY_SECONDS = 2.0  # that a lease of ours may be without its connection: a message takes less than a millisecond
LAST_MOMENT = 0.2  # seconds from the cancel to the server process's end; nobody tells us, for its connection is gone


@attrs.define(eq=False)
class Orphans:
    """One worker's look for them."""

    runtime: PoolerRuntime
    _strays: dict[int, float] = attrs.field(factory=dict)  # leases of ours without a connection, and since when
    _next: float = 0.0

    def sweep(self, died: bool) -> None:
        """With each sweep; `died`: a process came, went or changed its state."""
        runtime, now = self.runtime, self.runtime.lane.now
        if died or now >= self._next:
            runtime.leases.settle()
            self._look()
            self._next = now + (STRAY_SECONDS if self._strays else LOOK_SECONDS)

    def _look(self) -> None:
        """Each lease goes to one worker."""
        runtime, worker, leases, now = self.runtime, self.runtime.worker, self.runtime.leases, self.runtime.lane.now
        known = {server.lease for pool in runtime.pools.values() for server in pool.servers}
        before, self._strays = self._strays, {}
        for name, row in worker.plane.names(Kind.LEASEPOOL).items():
            for held in leases.held(row) if leases.open(row) else ():
                orphaned = held.state == LeaseState.ORPHANED
                if held.state == LeaseState.BOUND and held.column == worker.column and held.lease not in known:
                    since = self._strays[held.lease] = before.get(held.lease, now)
                    orphaned = now - since >= STRAY_SECONDS and leases.disown(held.lease, worker.column)
                if orphaned and leases.adopt(held.lease, worker.column):
                    self._strays.pop(held.lease, None)
                    runtime.lane.spawn(_end(runtime, held, name), "orphan")


async def _end(runtime: PoolerRuntime, held: Held, name: str) -> None:
    lane, worker = runtime.lane, runtime.worker
    server = next((one for pool in worker.pools.values() if (one := pool.by_row(held.server_row)) is not None), None)
    try:
        if server is not None and held.pid:
            table = runtime.table.databases.get(name.partition("/")[0])
            await send_cancel(lane, server, held.pid, held.secret, encryption(table.tls) if table is not None else None)
        await lane.sleep(LAST_MOMENT)
    finally:
        runtime.leases.free(held.lease)
    worker.log.info("lease without a connection freed", server=None if server is None else server.name, pid=held.pid)
