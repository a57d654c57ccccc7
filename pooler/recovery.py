"""What becomes of a server connection when its client is gone, or when it is not to be used again.

A client may vanish at any point. If what the server still owes is known, it is brought to its end (a running query is
cancelled, a COPY failed, an extended batch synced, a transaction rolled back), and the connection is used again; else
it is closed. A place in the pool is free only when the server has closed its side, so that no more than `pool_size` are
ever seen there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pooler.errors import ServerError
from pooler.messages import SYNC, message, query
from pooler.server import ServerConnection, send_cancel
from pooler.states import IDLE
from supervisor.ground.lane import Overdue

if TYPE_CHECKING:
    from pooler.pool import ServerPool

# Seconds for a server to end what its client left: PostgreSQL looks for a cancel within milliseconds, unless it is
# stuck.
PATIENCE = 5.0
COPY_FAIL = message(b"f", b"client left\0")
# What was executed without a Sync is not committed when its client leaves: the Query takes it back, unless it failed
# and the server skips everything up to the Sync.
UNDO = query("ROLLBACK") + SYNC
DISCARD = "DISCARD ALL"


def retire(pool: ServerPool, server: ServerConnection) -> None:
    """Close a connection that nobody uses."""
    if pool.closing:
        _forget(pool, server)
    else:
        pool.lane.spawn(_dispose(pool, server), f"close {pool.name}")


def recover(pool: ServerPool, server: ServerConnection, graceful: bool) -> None:
    """Bring a connection whose client is gone back into the pool. A client that said Terminate gets its last query
    done."""
    server.conn.waiter = None
    server.outstanding.watching = pool.watching
    if pool.closing:
        _forget(pool, server)
    elif server.outstanding.free and not _to_reset(pool, server):
        pool.release(server)
    else:
        pool.lane.spawn(_recover(pool, server, graceful), f"recover {pool.name}")


def _to_reset(pool: ServerPool, server: ServerConnection) -> str:
    """What must be executed before anybody else may have it."""
    if server.spoiled:
        return DISCARD
    return pool.settings.reset_query if pool.settings.mode == "session" else ""


async def _recover(pool: ServerPool, server: ServerConnection, graceful: bool) -> None:
    lane, out = pool.lane, server.outstanding
    session = lane.current
    usable = False
    try:
        if not (out.unknown or out.client_left):
            server.conn.waiter = session
            if out.fifo and not graceful:
                session.expire_in(PATIENCE)
                await cancel(pool, server)
            if not graceful:
                session.expire_in(PATIENCE)
            await _finish(server)
            session.expire_in(PATIENCE)
            if out.status != IDLE:
                await server.command("ROLLBACK")
            reset = _to_reset(pool, server)
            if reset:
                await server.command(reset)
                if reset == DISCARD:
                    server.discarded()
            usable = out.free
    except (ServerError, OSError, Overdue) as error:
        pool.worker.log.info("server connection given up", pool=pool.name, server=server.server.name, reason=str(error))
    finally:
        session.deadline = float("inf")
        if usable:
            pool.release(server)
        else:
            retire(pool, server)


async def _finish(server: ServerConnection) -> None:
    """Read until nothing is outstanding, ending what waits for the client."""
    out, conn = server.outstanding, server.conn
    tail, watching = server.tail, out.watching
    while out.fifo or out.unsynced or out.copy_in or out.server_left or tail:
        ending = (COPY_FAIL if out.copy_in else b"") + (UNDO if out.unsynced else b"")
        if ending:
            out.watching = False
            out.sent(ending)
            out.watching = watching
            await conn.send(ending)
        data = await conn.recv()
        if not data:
            raise ServerError("server closed the connection unexpectedly")
        data = tail + data
        tail = data[out.received(data) :]
        if out.unknown:
            raise ServerError("what the server still owes can't be known")
    server.tail = b""
    if out.parameters:
        server.note(out.parameters)


async def cancel(pool: ServerPool, server: ServerConnection) -> None:
    """Cancel what runs on this connection, and keep it from everyone else until that has arrived."""
    server.cancels += 1
    server.good_until = 0.0
    try:
        await send_cancel(pool.lane, server.server, server.pid, server.secret, pool.settings.encryption)
    finally:
        server.cancels -= 1
        if not server.cancels:
            server.good_until = 0.0 if pool.leaving else server.expires
            if server.parked:
                server.parked = False
                pool.release(server)


async def _dispose(pool: ServerPool, server: ServerConnection) -> None:
    try:
        if server.outstanding.fifo or server.outstanding.unknown:
            await send_cancel(pool.lane, server.server, server.pid, server.secret, pool.settings.encryption)
        await server.close(pool.lane)
    finally:
        _forget(pool, server)
        if pool.waiters:
            pool.demand()


def _forget(pool: ServerPool, server: ServerConnection) -> None:
    server.conn.close()
    server.count(pool.cells, pool.base)
    server.server.ended()
    pool.servers.discard(server)
    pool.leases.free(server.lease)
