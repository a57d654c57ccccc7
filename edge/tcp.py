"""A TCP listener: each connection to a server of the pool, the next one where that fails.

Owns what happens to a connection between accept and close; which pool is the routes' to say (arrival.py), which server,
and what a failure means to it, the pool's (supervisor/ground/pools.py); moving the bytes is the relay's.
"""

from __future__ import annotations

import socket
from collections.abc import Coroutine
from typing import Any

import attrs

from edge.arrival import Unrouted, choose
from edge.config import ListenerTable
from edge.peek.hello import PeekError
from edge.plan import Plan
from edge.relay import relay
from supervisor.ground.lane import Conn, Lane, Listening, Overdue, Session
from supervisor.ground.net import proxy
from supervisor.ground.pools import Pool, Server
from supervisor.ground.queues import Queues
from supervisor.plane import layout

_ACCEPTED, _ACTIVE, _REFUSED = layout.Listener.ACCEPTED, layout.Listener.ACTIVE, layout.Listener.REFUSED
_CONNECT_FAILURES, _TIMEOUTS, _RESETS = (
    layout.Listener.CONNECT_FAILURES,
    layout.Listener.TIMEOUTS,
    layout.Listener.RESETS,
)
_PROTOCOL_ERRORS, _BYTES_IN = layout.Listener.PROTOCOL_ERRORS, layout.Listener.BYTES_IN


@attrs.define(eq=False)
class Connection:
    """What is known of one connection that is being carried."""

    address: Any
    server: Server
    idle_timeout: float

    def silent(self, session: Session) -> float:
        """Seconds since a byte moved: the relay puts the deadline off at each."""
        return session.scheduler.now - (session.deadline - self.idle_timeout)


@attrs.define(eq=False)
class TcpListener:
    """One TCP listener in one worker. A reload swaps `plan`; a connection keeps what it began with."""

    name: str
    lane: Lane
    cells: memoryview
    row: int  # of its counters in this worker's column
    plan: Plan
    queues: Queues
    polled: dict[int, Listening] = attrs.field(factory=dict)
    live: dict[Session, Connection] = attrs.field(factory=dict)

    def attach(self, slot: int, sock: socket.socket) -> None:
        self.polled[slot] = self.lane.listen(sock, self.accepted)

    def detach(self, slot: int) -> None:
        listening = self.polled.pop(slot, None)
        if listening is not None:
            listening.close()

    def opening(self) -> int:
        """Connections that have no server yet: a drain must not forget them."""
        return self.cells[self.row + _ACTIVE] - len(self.live)

    def accepted(self, sock: socket.socket, address: Any) -> Coroutine[Any, Any, None] | None:
        cells, row = self.cells, self.row
        cells[row + _ACCEPTED] += 1
        if cells[row + _ACTIVE] >= self.plan.table.max_connections:
            cells[row + _REFUSED] += 1
            sock.close()
            return None
        return self.serve(sock, address)

    async def serve(self, sock: socket.socket, address: Any) -> None:
        """One connection, from accept to close."""
        lane, cells, row, plan = self.lane, self.cells, self.row, self.plan
        table, pool = plan.table, plan.pools[0]
        session = lane.current
        cells[row + _ACTIVE] += 1
        client = lane.adopt(sock)
        server: Server | None = None
        upstream: Conn | None = None
        first = b""
        try:
            if plan.sieve is not None:
                route, first = await choose(session, client, plan.sieve, table.detect_timeout)
                pool = plan.pools[route]
            server, upstream = await self._connect(pool, table, address)
            if server is None or upstream is None:
                cells[row + _REFUSED] += 1
                client.abort()
                return
            if first:
                cells[row + _BYTES_IN] += len(first)
                cells[server.base + layout.Server.BYTES_OUT] += len(first)
            if table.send_proxy_protocol != "off":
                first = self._header(table, sock, address) + first
            session.deadline = lane.now + table.idle_timeout
            self.live[session] = Connection(address, server, table.idle_timeout)
            await relay(session, client, upstream, cells, row, server.base, table.idle_timeout, first)
        except Overdue:
            cells[row + _TIMEOUTS] += 1
        except Unrouted:
            cells[row + _REFUSED] += 1
            client.abort()
        except PeekError:
            cells[row + _PROTOCOL_ERRORS] += 1
            client.abort()
        except OSError:
            # A reset on one side is a reset on the other: the peer must learn that something was lost.
            cells[row + _RESETS] += 1
            client.abort()
            if upstream is not None:
                upstream.abort()
        finally:
            self.live.pop(session, None)
            client.close()
            if upstream is not None:
                upstream.close()
            if server is not None:
                self._ended(pool, server)
            cells[row + _ACTIVE] -= 1

    def _ended(self, pool: Pool, server: Server) -> None:
        """The connection's place on its server is free again."""
        if pool.table.max_queued:
            self.queues.of(pool).ended(server)
        else:
            server.ended()

    async def _connect(self, pool: Pool, table: ListenerTable, address: Any) -> tuple[Server | None, Conn | None]:
        """A server that takes the connection, counted as in flight, and the connection to it; or nothing."""
        lane = self.lane
        session = lane.current
        tried: tuple[Server, ...] = ()
        for _ in range(1 + table.retries):
            if pool.table.max_queued:
                server = await self.queues.of(pool).take(address[0], tried)
            else:
                server = pool.take(address[0], tried)
            if server is None:
                break
            session.expire_in(table.connect_timeout)
            try:
                conn = await lane.connect(server.family, server.sockaddr)
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
            return server, conn
        return None, None

    @staticmethod
    def _header(table: ListenerTable, sock: socket.socket, address: Any) -> bytes:
        local = sock.getsockname()
        if table.send_proxy_protocol == "v1":
            return proxy.encode_v1(address[:2], local[:2])
        return proxy.encode_v2(address[:2], local[:2])
