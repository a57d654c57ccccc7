"""Connections to servers: kept alive per worker, the last used first, and opened where none is idle.

The hot path takes from `idle` and gives back itself; what is here is the rest: connecting with the next server on
failure, dropping connections that end or stay unused, forgetting servers that a reload took away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from gateway.errors import PeerError
from gateway.transport import Transport
from supervisor.ground.lane import Conn, Event, Lane, Overdue
from supervisor.ground.pools import Pool, Server
from supervisor.plane import layout

CONNECT_SECONDS: Final = 5.0  # Envoy's default
IDLE_SECONDS: Final = 60.0  # nginx's keepalive_timeout for upstreams
SERVERS_TRIED: Final = 3  # for one request; a pool that refuses three times is down
MAX_IDLE: Final = 256  # connections kept per server and worker
SWEEP_SECONDS: Final = 5.0

_CONNECTIONS: Final = layout.Server.CONNECTIONS


class TlsRefused(OSError):
    """The connection stands, but not under TLS."""


def drained() -> PeerError:
    """For what goes on when the time of its server is over."""
    detail = "the server was taken out of its pool, and drain_timeout is over"
    return PeerError("server_drained", detail, fields=(b"Retry-After: 1",))


class Opening(Event):
    """A connection to a server that is being made: set when it is made, or has failed for the reason `failure`."""

    __slots__ = ("failure",)

    def __init__(self, lane: Lane) -> None:
        super().__init__(lane)
        self.failure = ""


class Upstreams:
    """All idle connections of a worker. `idle[server]` is a stack of (connection, monotonic seconds since idle).

    A stack is never replaced: the hot path may hold it over a wait. Stacks of servers that are gone are emptied.
    `opening` has those that are being made.
    `complain(server, why)` is called for servers with which TLS fails, once for each until the next reload.
    """

    __slots__ = ("_cells", "_complain", "_complained", "_gone", "_lane", "_owner", "idle", "opening")

    def __init__(self, lane: Lane, cells: memoryview[int], complain: Callable[[str, str], None]) -> None:
        self._lane = lane
        self._cells = cells
        self.idle: dict[Server, list[tuple[Any, float]]] = {}
        self.opening: dict[Server, Opening] = {}
        self._complain = complain
        self._complained: set[Server] = set()
        self._owner: dict[Any, Server] = {}
        self._gone: list[list[tuple[Any, float]]] = []
        lane.every(SWEEP_SECONDS, self.sweep)

    async def open(
        self, pool: Pool, transport: Transport, key: str | bytes, first: Server | None = None,
        within: float = CONNECT_SECONDS, exclude: tuple[Server, ...] = (), *, http2: bool = False,
        counted: bool = False,
    ) -> tuple[Server, Any, bool]:  # fmt: skip
        """A fresh connection to a server of the pool, counted as in flight there (the caller owes it `ended`), and
        whether it is one of HTTP/2, which is only offered if `http2`.

        `first` is tried first if given (and is counted already if `counted`), `exclude` not at all. Raises PeerError:
        no_server, connect_failed, connect_timeout, tls_failed.
        """
        lane, session = self._lane, self._lane.current
        tried = exclude
        failure = "no_server"
        server = first if first is not None else pool.pick(key, exclude)
        while server is not None:
            if not counted:
                server.started()
            counted = False
            session.expire_in(min(CONNECT_SECONDS, max(within, 0.0)))
            opening = self.opening[server] = Opening(lane)
            try:
                conn = await lane.connect(server.family, server.sockaddr)
                stream, multiplexed = await self._secure(transport, conn, server, http2)
            except Overdue:
                opening.failure = failure = "connect_timeout"
            except TlsRefused:
                opening.failure = failure = "tls_failed"
            except OSError:
                opening.failure = failure = "connect_failed"
            except BaseException:
                server.ended()
                raise
            else:
                self._cells[server.base + _CONNECTIONS] += 1
                self._owner[stream] = server
                stream.on_idle = self.ended
                return server, stream, multiplexed
            finally:
                if self.opening.get(server) is opening:
                    del self.opening[server]
                opening.set()
            server.ended()
            server.failed(lane.now_ns)
            tried = (*tried, server)
            server = pool.pick(key, tried) if len(tried) < SERVERS_TRIED else None
        raise PeerError(failure, "no server of the pool takes the request")

    async def _secure(self, transport: Transport, conn: Conn, server: Server, http2: bool) -> tuple[Any, bool]:
        """The connection as the transport wants it. Raises TlsRefused, Overdue."""
        try:
            return await transport.secure(conn, server.proves, http2)
        except OSError as error:
            if server not in self._complained:
                self._complained.add(server)
                self._complain(server.name, error.strerror or str(error))
            raise TlsRefused(str(error)) from None
        except BaseException:
            conn.close()
            raise

    def keep(self, server: Server, conn: Any) -> None:
        """Give back a connection on which nothing is outstanding."""
        stack = self.idle.get(server)
        if stack is None:
            stack = self.idle[server] = []
        if len(stack) >= MAX_IDLE or conn.readable:
            self.close(conn)
            return
        conn.waiter = None
        stack.append((conn, self._lane.now))

    def close(self, conn: Any) -> None:
        """Close a connection that was taken or opened here."""
        self._owner.pop(conn, None)
        conn.close()

    def ended(self, conn: Any) -> None:
        """Something happened to an idle connection: its server closed it, or speaks without being asked. Within TLS it
        may have spoken to OpenSSL alone (session tickets, keys)."""
        try:
            if conn.recv_nowait() is None:
                return
        except OSError:
            pass
        server = self._owner.get(conn)
        if server is not None:
            stack = self.idle.get(server, [])
            stack[:] = [entry for entry in stack if entry[0] is not conn]
        self.close(conn)

    def sweep(self) -> None:
        """Close what has been idle too long; the longest idle stands first."""
        oldest = self._lane.now - IDLE_SECONDS
        for stack in self.idle.values():
            stale = 0
            while stale < len(stack) and stack[stale][1] < oldest:
                self.close(stack[stale][0])
                stale += 1
            del stack[:stale]
        for stack in self._gone:
            self._empty(stack)

    def keep_only(self, servers: Iterable[Server]) -> None:
        """Close the idle connections of all other servers, now and as they are given back."""
        self._complained.clear()
        kept = set(servers)
        for server in [server for server in self.idle if server not in kept]:
            stack = self.idle.pop(server)
            self._gone.append(stack)
            self._empty(stack)

    def leave(self, server: Server) -> None:
        """Close the idle connections of a server that is to get no more requests."""
        self._empty(self.idle.get(server, []))

    def cut(self, server: Server) -> None:
        """End what is under way on this server: who waits for it gets the PeerError `server_drained`."""
        for conn in [conn for conn, owner in self._owner.items() if owner is server]:
            waiter, told = conn.waiter, conn.on_idle
            if waiter is not None:
                waiter.throw(drained())
                continue
            self.close(conn)
            if told is not None:
                told(conn)

    def _empty(self, stack: list[tuple[Any, float]]) -> None:
        while stack:
            self.close(stack.pop()[0])

    def close_all(self) -> None:
        self.keep_only(())
