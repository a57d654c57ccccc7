"""Server connections that go from one worker to another: asked for by `Want`, sent as a descriptor with `Give`.

The lease goes first, in the plane: if either process dies, the connection's place in the pool belongs to one of them
and is found by who reaps. A connection that can't be sent now stays where it was; one that never can be (under TLS, or
with too much set) is closed, and the taker opens one in its place.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pooler import recovery
from pooler.encryption import certificate_of
from pooler.orders import Give, Want
from pooler.prepared import ServerStatements
from pooler.server import ServerConnection
from supervisor.ground.wire import close_all
from supervisor.plane import layout
from supervisor.plane.layout import Kind, LeasePool

if TYPE_CHECKING:
    from pooler.pool import ServerPool
    from supervisor.plane.leases import Leases


def ask(pool: ServerPool) -> bool:
    """Ask the first worker that has one idle; False if there is none."""
    cells = pool.cells
    for base in pool.others:
        if cells[base + LeasePool.IDLE]:
            return pool.worker.mailbox.send(_column(base), Want(pool.name))
    return False


def give(pool: ServerPool, server: ServerConnection, base: int) -> bool:
    """Send a free connection to the worker with these counters; False if it stays ours."""
    worker, column = pool.worker, _column(base)
    if pool.settings.encryption is not None and certificate_of(server.conn) is not None:
        return _make_place(pool, server)  # its keys can't go along
    if server.outstanding.doubtful:
        server.statements.doubt()
    if server.conn.readable:
        return False
    message = Give(
        pool=pool.name,
        lease=server.lease,
        server=server.server.name,
        database=server.opened_by.database,
        pid=server.pid,
        secret=server.secret,
        reported=server.reported,
        greeting=server.greeting,
        settings=server.settings,
        statements=tuple(name for name, fresh in server.statements.names.items() if fresh),
        stale=tuple(name for name, fresh in server.statements.names.items() if not fresh),
        expires_in=server.expires - pool.lane.now,
    )

    # At the last moment: whoever died between the two would leave the other worker a lease without its connection,
    # which is found only after a while (`orphans`).
    def move() -> bool:
        return pool.leases.move(server.lease, column)

    try:
        sent = worker.mailbox.send(column, message, (server.conn.sock.fileno(),), move)
    except ValueError:  # more than a message holds has been set there
        return _make_place(pool, server)
    if sent:
        pool.cells[pool.base + LeasePool.HANDED_OVER] += 1
    elif pool.leases.holds(server.lease, worker.column) or pool.leases.move(server.lease, worker.column):
        return False
    # Not moved back, because the other died meanwhile or a stopped process holds the lock: whoever finds that lease
    # without a connection cancels what runs on it, so nobody may use it.
    server.count(pool.cells, pool.base)
    server.conn.release().close()  # off this lane; the descriptor on its way keeps the connection open
    server.server.ended()
    pool.servers.discard(server)
    return True


def _make_place(pool: ServerPool, server: ServerConnection) -> bool:
    """Close one that can't be sent: it leaves its place to the other worker, if that has none."""
    if pool.leases.open(pool.row) < pool.settings.size:
        return False
    recovery.retire(pool, server)
    return True


def receive(pool: ServerPool | None, leases: Leases, column: int, order: Give, descriptors: Sequence[int]) -> None:
    """A connection from another worker. One that has no place here any more is closed, and its lease freed."""
    server = None
    if pool is not None and pool.settings.database == order.database:  # else one of us has not reloaded yet
        server = next((one for one in pool.group.servers if one.name == order.server), None)
    mine = leases.holds(order.lease, column)  # else it was orphaned on the way, and is somebody else's to end
    if pool is None or server is None or not mine or len(descriptors) != 1:
        close_all(descriptors)
        if mine:
            leases.free(order.lease)
        return
    conn = pool.lane.adopt(socket.socket(fileno=descriptors[0]))
    conn.waiter = None
    server.started()
    pool.admit(
        ServerConnection(
            conn=conn,
            server=server,
            lease=order.lease,
            pid=order.pid,
            secret=order.secret,
            reported=order.reported,
            greeting=order.greeting,
            settings=order.settings,
            opened_by=pool.settings,
            statements=ServerStatements(dict.fromkeys(order.stale, False) | dict.fromkeys(order.statements, True)),
            expires=pool.lane.now + order.expires_in,
        )
    )


def _column(base: int) -> int:
    return (base - layout.COUNTERS_AT[Kind.LEASEPOOL]) // layout.COLUMN_CELLS
