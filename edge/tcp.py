"""A TCP listener: each connection to a server of the pool, the next one where that fails.

Owns what happens to a connection between accept and close; which pool is the routes' to say (arrival.py), which server,
and what a failure means to it, the pool's (supervisor/ground/pools.py); moving the bytes is the relay's.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from edge.announcement import announcement, unique_ids
from edge.arrival import learn
from edge.bulk import Pipes
from edge.connection import Connection
from edge.endings import EXPECTED, NoServer, ending_of
from edge.limits import Crowd
from edge.plan import Plan
from edge.record import Recorder
from edge.relay import relay
from edge.transparent import from_client
from supervisor.ground.lane import Cancelled, Conn, Lane, Listening, Overdue, Session
from supervisor.ground.lane.conn import RESET_ON_CLOSE
from supervisor.ground.pools import Pool, Server
from supervisor.ground.queues import Queues
from supervisor.plane import layout

if TYPE_CHECKING:
    from OpenSSL import SSL

    from supervisor.ground.net.tls import Acceptor
    from supervisor.ground.net.tlsconn import TlsConn

_ACCEPTED, _ACTIVE, _LIMITED = layout.Listener.ACCEPTED, layout.Listener.ACTIVE, layout.Listener.LIMITED
_CONNECT_FAILURES, _BYTES_IN = layout.Listener.CONNECT_FAILURES, layout.Listener.BYTES_IN


@attrs.define(eq=False)
class TcpListener:
    """One TCP listener in one worker. A reload swaps `plan`; a connection keeps what it began with."""

    name: str
    lane: Lane
    cells: memoryview
    row: int  # of its counters in this worker's column
    crowd: Crowd
    record: Recorder
    plan: Plan
    queues: Queues
    pipes: Pipes
    base: Callable[[], SSL.Context]  # what its TLS connections begin with
    polled: dict[int, Listening] = attrs.field(factory=dict)
    live: dict[Session, Connection] = attrs.field(factory=dict)
    unique_id: Callable[[], str] = attrs.field(factory=unique_ids)

    _acceptor: Acceptor | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.take(self.plan)

    def take(self, plan: Plan) -> None:
        """Work by this plan from now on. Can't fail."""
        self.plan = plan
        if plan.certificates is None:
            self._acceptor = None
        elif self._acceptor is None:
            from supervisor.ground.net.tls import Acceptor

            self._acceptor = Acceptor(self.base(), plan.certificates)
        else:
            self._acceptor.certificates = plan.certificates

    def attach(self, slot: int, sock: socket.socket) -> None:
        self.polled[slot] = self.lane.listen(sock, self.accepted)

    def detach(self, slot: int) -> None:
        listening = self.polled.pop(slot, None)
        if listening is not None:
            listening.close()

    def opening(self) -> int:
        """Connections that have no server yet: a drain must not forget them."""
        return self.cells[self.row + _ACTIVE] - len(self.live)

    def connections(self) -> Mapping[Session, Connection]:
        """Those that have their servers."""
        return self.live

    def accepted(self, sock: socket.socket, address: Any) -> Coroutine[Any, Any, None] | None:
        cells, row = self.cells, self.row
        cells[row + _ACCEPTED] += 1
        if self.crowd.size() >= self.plan.table.max_connections:
            cells[row + _LIMITED] += 1
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            sock.close()
            return None
        cells[row + _ACTIVE] += 1
        return self.serve(sock, address)

    async def serve(self, sock: socket.socket, address: Any) -> None:
        """One connection, from accept to close."""
        lane, cells, row, plan = self.lane, self.cells, self.row, self.plan
        session = lane.current
        connection = Connection(lane.adopt(sock), address[:2], lane.now)
        reason = ""
        told = True
        try:
            if plan.announces:
                connection.local = sock.getsockname()[:2]
            if plan.announces or self.record.access.enabled:
                connection.unique_id = self.unique_id()
            if plan.asks:
                await learn(plan, self._acceptor, connection, session)
            await self._connect(plan, connection)
            await self._carry(plan, connection, session)
        except EXPECTED as error:
            ending = ending_of(error)
            cells[row + ending.counter] += 1
            reason, told = ending.reason, ending.told
            if ending.reset:
                connection.stream.abort()
                if connection.upstream is not None:
                    connection.upstream.abort()
        except Cancelled:
            reason = "drained"
            raise
        finally:
            self.live.pop(session, None)
            connection.stream.close()
            if connection.upstream is not None:
                connection.upstream.close()
            if connection.server is not None:
                self._ended(plan.pools[connection.route], connection.server)
            if plan.limits is not None:
                plan.limits.leave(connection.place)
            cells[row + _ACTIVE] -= 1
            if told:
                self.record.ended(connection, reason)

    async def _carry(self, plan: Plan, connection: Connection, session: Session) -> None:
        """Everything between the client and its server."""
        cells, row, server = self.cells, self.row, connection.server
        assert server is not None
        if connection.first:
            connection.bytes_in = len(connection.first)
            cells[row + _BYTES_IN] += connection.bytes_in
            cells[server.base + layout.Server.BYTES_OUT] += connection.bytes_in
        plain = plan.connectors[connection.route] is None
        version = plan.versions[connection.route]
        if plain and version != "off":
            connection.first = announcement(version, connection) + connection.first
        connection.idle_timeout = plan.table.idle_timeout
        session.deadline = self.lane.now + connection.idle_timeout
        self.live[session] = connection
        pipes = self.pipes if plain and connection.tls is None else None
        await relay(session, connection, cells, row, server.base, pipes)

    def _ended(self, pool: Pool, server: Server) -> None:
        """The connection's place on its server is free again."""
        if pool.table.max_queued:
            self.queues.of(pool).ended(server)
        else:
            server.ended()

    async def _secure(self, plan: Plan, connection: Connection, upstream: Conn, server: Server) -> TlsConn:
        """Begin TLS with the server. A PROXY header stands before it, as HAProxy has it. Raises OSError."""
        connector = plan.connectors[connection.route]
        assert connector is not None
        try:
            version = plan.versions[connection.route]
            if version != "off":
                await upstream.send(announcement(version, connection))
            tls = connector.wrap(upstream, server.proves)
        except BaseException:
            upstream.close()
            raise
        try:
            await tls.handshake()
        except BaseException:
            tls.close()
            raise
        return tls

    async def _connect(self, plan: Plan, connection: Connection) -> None:
        """Find a server that takes the connection; it is counted as in flight there. Raises NoServer."""
        lane, table, pool = self.lane, plan.table, plan.pools[connection.route]
        session, key = lane.current, connection.client[0]
        prepare = from_client(connection.client, table.bind.family) if table.transparent else None
        tried: tuple[Server, ...] = ()
        for _ in range(1 + table.retries):
            if pool.table.max_queued:
                server = await self.queues.of(pool).take(key, tried)
            else:
                server = pool.take(key, tried)
            if server is None:
                break
            session.expire_in(table.connect_timeout)
            try:
                upstream = await lane.connect(server.family, server.sockaddr, prepare)
                if plan.connectors[connection.route] is not None:
                    upstream = await self._secure(plan, connection, upstream, server)
            except (OSError, Overdue):
                self._ended(pool, server)
                server.failed(lane.now_ns)
                self.cells[self.row + _CONNECT_FAILURES] += 1
                tried = (*tried, server)
                continue
            except BaseException:
                self._ended(pool, server)
                raise
            server.succeeded()
            connection.server, connection.upstream = server, upstream
            return
        raise NoServer
