"""Leases of workers that died: whoever finds one ends what its server may still be doing, then gives the place back.

The dead worker's connection is closed, but PostgreSQL notices only when it reads or writes: a query that runs goes on.
So it is cancelled with the key that the lease kept, and gets a moment to end, before anybody may open a connection in
its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pooler.encryption import encryption
from pooler.server import send_cancel
from supervisor.plane.layout import Kind

if TYPE_CHECKING:
    from pooler.runtime import PoolerRuntime
    from supervisor.plane.leases import Held

LAST_MOMENT = 0.2  # seconds from the cancel to the server process's end; nobody tells us, for its connection is gone


def adopt(runtime: PoolerRuntime) -> None:
    """Take over what is orphaned. Each lease goes to one worker."""
    leases, worker = runtime.leases, runtime.worker
    for name, row in worker.plane.names(Kind.LEASEPOOL).items():
        if leases.open(row):
            for held in leases.orphans(row):
                if leases.adopt(held.lease, worker.column):
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
    worker.log.info("lease of a dead worker freed", server=None if server is None else server.name, pid=held.pid)
