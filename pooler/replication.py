"""Replication connections: each on a server connection of its own, from login to end, which nobody gets afterwards.

Such a connection is a place in its pool, so all limits hold for it, and its client waits for that place like others; it
begins with its client's own startup packet. What goes over it is not read beyond its framing (`walsender`). Physical
replication names a database, too, though the server has no use for it: here it leads to the servers. Source: PostgreSQL
55.4 "Streaming Replication Protocol".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pooler import limits, opening, recovery, roles, standing
from pooler.errors import CANNOT_CONNECT, CANNOT_CONNECT_NOW, ClientLeft, PeerError, ServerError, shutting_down
from pooler.messages import READY_IDLE, backend_key_data
from pooler.orders import Spare
from pooler.parameters import greeting
from pooler.server import log_in
from pooler.startup import PROTOCOL_3_2
from pooler.walsender import Replication, Stage, Walsender
from supervisor.ground.lane import PARK
from supervisor.plane import layout
from supervisor.plane.layout import LeasePool
from supervisor.plane.region import PlaneError

if TYPE_CHECKING:
    from pooler.client import Client
    from pooler.pool import ServerPool
    from pooler.runtime import PoolerRuntime
    from pooler.server import ServerConnection
    from pooler.startup import Startup
    from supervisor.ground.pools import Server

LOOK = 0.1  # seconds between looks for a place in the pool
MAX_EARLY = 64 * 1024  # bytes that a client may send before it is greeted
HINT = "Tools for physical replication name the database replication: [pooler.databases.replication] leads them."


async def greet(runtime: PoolerRuntime, client: Client, pool: ServerPool, wanted: Startup, before: bytes) -> None:
    """Open the connection to the server and tell the client what it says. Raises PeerError."""
    client.replicating = Walsender(wanted.replication)
    settings = {name: value for name, value in wanted.settings.items() if name.lower() not in runtime.ignored}
    word = "database" if wanted.replication is Replication.LOGICAL else "true"
    client.session.deadline = float("inf")
    server = await _open(client, pool, settings | {"replication": word})
    client.pool = client.home = pool
    client.server = server
    client.key, secret = runtime.keys.give(client, long=wanted.spoken >= PROTOCOL_3_2)
    pool.clients.add(client)
    said = greeting(server.reported) + backend_key_data(client.key, secret) + READY_IDLE
    await client.conn.send(before + said)


async def _open(client: Client, pool: ServerPool, startup: dict[str, str]) -> ServerConnection:
    server, lease = await _place(client, pool)
    opened = None
    server.started()
    pool.turnstile.begin(server)
    try:
        opened = await log_in(pool.lane, server, lease, pool.settings, startup)
        pool.leases.bind(lease, opened.pid, opened.secret)
    except ServerError as error:
        pool.cells[pool.base + LeasePool.ERRORS] += 1
        if error.sqlstate == CANNOT_CONNECT:
            server.failed(pool.lane.now_ns)
        raise opening.told(pool, error) from None
    finally:
        pool.turnstile.end(server)
        if opened is None:
            server.ended()
            pool.leases.free(lease)
    server.succeeded()
    pool.cells[server.base + layout.Server.CONNECTIONS] += 1
    pool.cells[pool.base + LeasePool.LOGINS] += 1
    opened.outstanding.free, opened.outstanding.unknown = False, True  # nobody gets it after this client
    opened.listener = client.counters
    pool.servers.add(opened)
    return opened


async def _place(client: Client, pool: ServerPool) -> tuple[Server, int]:
    """A server, and a lease for a connection to it. Raises PeerError, ClientLeft."""
    lane, timeout = pool.lane, pool.settings.query_wait_timeout
    until = lane.now + timeout
    while True:
        if not standing.paused(pool):
            server = roles.pick(pool)
            if server is None:
                raise opening.told(pool, ServerError(f"no server of pool {pool.group.name} is up", CANNOT_CONNECT))
            try:
                lease = pool.leases.take(pool.row, pool.worker.column, server.row)
            except PlaneError as error:
                raise PeerError(CANNOT_CONNECT_NOW, str(error)) from None
            if lease is not None and not limits.exceeded(pool):
                return server, lease
            if lease is not None:
                pool.leases.free(lease)
            else:
                _make_room(pool)
        if lane.now >= until:
            raise PeerError(
                CANNOT_CONNECT_NOW,
                f"query_wait_timeout: no place in the pool became free in {timeout:g} seconds",
                hint="A replication connection counts to pool_size.",
            )
        client.listen(MAX_EARLY)
        await lane.sleep(LOOK)


def _make_room(pool: ServerPool) -> None:
    """Close a connection of this pool that nobody uses, here or in another worker."""
    if pool.idle:
        limits.spare(pool)
        return
    worker = pool.worker
    for column in worker.plane.live(worker.tier):
        counters = worker.plane.counters(layout.Kind.LEASEPOOL, pool.row, column)
        if column != worker.column and pool.cells[counters + LeasePool.IDLE]:
            worker.mailbox.send(column, Spare(pool.name))
            return


async def serve(client: Client, walsender: Walsender, unsent: bytes) -> None:
    """Both directions, until one side ends it; `unsent` is what the client has sent already. Holds one read of each,
    at most."""
    pool, server = client.pool, client.server
    assert pool is not None
    assert server is not None
    try:
        await _pump(client, pool, server, walsender, unsent)
    finally:
        client.server = None
        server.conn.waiter = None
        # What is under way is cancelled. WAL that is sent ends with its connection.
        server.outstanding.unknown = walsender.stage is Stage.COMMAND
        recovery.retire(pool, server)


async def _pump(
    client: Client, pool: ServerPool, server: ServerConnection, walsender: Walsender, unsent: bytes
) -> None:
    lane, session, out = pool.lane, client.session, server.outstanding
    down, up = client.conn, server.conn
    down.waiter = up.waiter = session
    tail = b""  # of the server's: less than a header
    if unsent:
        walsender.sent()
    while True:
        if pool.leaving and walsender.endless and not (client.rest or client.midway):
            raise shutting_down()
        moved = False
        if unsent and up.writable:
            unsent = unsent[up.send_nowait(unsent) :]
            moved = up.writable
        if client.rest and down.writable:
            client.rest = client.rest[down.send_nowait(client.rest) :]
            moved |= down.writable
        if up.readable and not client.rest and (data := up.recv_nowait()) is not None:
            if not data:
                raise ServerError("" if walsender.failing else "server closed the connection unexpectedly")
            data = tail + data
            cut = walsender.received(data)
            client.rest, tail, moved = data[:cut], data[cut:], True
            client.midway = walsender.left > 0
            out.bytes_out += cut
        if down.readable and not unsent and (data := down.recv_nowait()) is not None:
            if not data:
                raise ClientLeft
            walsender.sent()
            server.asked, unsent, moved = data, data, True
            out.bytes_in += len(data)
        if moved:
            lane.credit -= 1
            if lane.credit < 0:
                await lane.pause()
        else:
            await PARK
