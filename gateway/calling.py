"""From a route to a call: which server, on which connection, in which version of HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gateway.call import Call, Http1Call
from gateway.errors import PeerError
from gateway.fields import TRAILERS, WEBSOCKET
from gateway.framing import Body
from gateway.grpc import with_deadline
from gateway.http2.socket import SocketCall
from gateway.http2.trunk import Http2Call, Trunk
from supervisor.ground.lane import Overdue
from supervisor.ground.pools import Server

if TYPE_CHECKING:
    from gateway.plan import Route
    from gateway.shared import Shared

_NOT_TRIED: Final[tuple[Server, ...]] = ()


class Calling:
    """Makes the calls of one request: the same `payload` for each. `flags` are the request's."""

    __slots__ = ("_body", "_flags", "_head_request", "_route", "_shared", "by", "payload")

    def __init__(
        self, shared: Shared, route: Route, payload: bytes, body: Body, flags: int, head_request: bool
    ) -> None:
        self._shared = shared
        self._route = route
        self.payload = payload
        self._body = body
        self._flags = flags
        self._head_request = head_request
        self.by = 0.0  # the client's deadline, of which each server is told what is left; 0: none

    async def call(
        self, key: str | bytes, within: float, first: Server | None = None, *, fresh: bool = False,
        exclude: tuple[Server, ...] = _NOT_TRIED,
    ) -> Call:  # fmt: skip
        """A call to a server of the route's pool, counted as in flight there. On a connection that is open already,
        unless `fresh`; else on a new one, within so many seconds. Raises PeerError."""
        shared, route = self._shared, self._route
        upstreams, transport = shared.upstreams, route.transport
        # Whoever speaks both versions gets a WebSocket by HTTP/1.1: all know that way.
        multiplexes = transport.multiplexes and not (self._flags & WEBSOCKET and transport.may_be_old)
        server, counted = first, False
        if server is None and route.pool.table.max_queued:
            queue = shared.queues.of(route.pool)
            if not route.pool.is_full(exclude):  # better the same again than none
                exclude = _NOT_TRIED
            server = await queue.take(key, exclude)
            if server is None:
                raise PeerError("no_server", "no server has a place", fields=(b"Retry-After: 1",))
            counted = True
        elif server is None:
            server = route.pool.pick(key, exclude)
            if server is None and exclude:  # better the same again than none
                server, exclude = route.pool.pick(key), _NOT_TRIED
        try:
            call, failure = await self._open_already(server, within, fresh, multiplexes)
        except BaseException:
            if counted and server is not None:
                server.ended()
            raise
        if call is not None:
            if not counted:
                call.server.started()
            return call
        if failure and server is not None:
            if counted:
                server.ended()
            exclude, counted = (*exclude, server), False
            server = route.pool.pick(key, exclude)
            if server is None:
                raise PeerError(failure, "no server of the pool takes the request")
        server, conn, http2 = await upstreams.open(
            route.pool, transport, key, server, within, exclude, http2=multiplexes, counted=counted
        )
        if not http2:
            return self._http1(server, conn, False)
        trunk = shared.trunks.add(server, conn)
        if self._flags & WEBSOCKET:
            try:
                await self._taken(trunk, within)
            except BaseException:
                server.ended()
                raise
        return self._http2(trunk)

    async def _open_already(
        self, server: Server | None, within: float, fresh: bool, multiplexes: bool
    ) -> tuple[Call | None, str]:
        """A call on a connection to the server that is there, or about to be; else why that has failed, if it has."""
        if server is None:
            return None, ""
        stack = None if fresh else self._shared.upstreams.idle.get(server)
        if stack:
            return self._http1(server, stack.pop()[0], True), ""
        if not multiplexes:
            return None, ""
        trunk, failure = await self._shared_trunk(server, within)
        if trunk is None:
            return None, failure
        if self._flags & WEBSOCKET:
            await self._taken(trunk, within)
        return self._http2(trunk), ""

    async def _shared_trunk(self, server: Server, within: float) -> tuple[Trunk | None, str]:
        """A connection by HTTP/2 that has room; one that others are opening just now is waited for, and with them goes
        the reason if it failed."""
        shared = self._shared
        trunk = shared.trunks.find(server)
        by = shared.lane.now + within
        while trunk is None and (opening := shared.upstreams.opening.get(server)) is not None:
            shared.lane.current.expire_in(max(0.0, by - shared.lane.now))
            try:
                await opening.wait()
            except Overdue:
                return None, "connect_timeout"
            if opening.failure:
                return None, opening.failure
            trunk = shared.trunks.find(server)
        return trunk, ""

    @property
    def whole(self) -> bool:
        """Whether the payload has the whole body."""
        return self._body.done

    def give_back(self, server: Server) -> None:
        """A call to this server has ended: its place is for who waits for one."""
        pool = self._route.pool
        if pool.table.max_queued:
            self._shared.queues.of(pool).ended(server)
        else:
            server.ended()

    def _told(self) -> bytes:
        """The payload for a server that is asked now."""
        if not self.by:
            return self.payload
        return with_deadline(self.payload, self.by - self._shared.lane.now)

    def take_over(self, server: Server, conn: Any) -> Http1Call:
        """A call that was begun elsewhere, with the payload as it is."""
        return Http1Call(self._shared, server, conn, True, self.payload, self._body, self._head_request)

    def _http1(self, server: Server, conn: Any, kept: bool) -> Http1Call:
        return Http1Call(self._shared, server, conn, kept, self._told(), self._body, self._head_request)

    def _http2(self, trunk: Trunk) -> Http2Call:
        kind = SocketCall if self._flags & WEBSOCKET else Http2Call
        return kind(
            trunk, self._route.transport.scheme, self._told(), self._body, head_request=self._head_request,
            trailers=bool(self._flags & TRAILERS),
        )  # fmt: skip

    async def _taken(self, trunk: Trunk, within: float) -> None:
        """Wait until the server has said that it takes WebSockets. Raises PeerError if it doesn't."""
        self._shared.lane.current.expire_in(max(0.0, within))
        try:
            await trunk.greeted.wait()
        except Overdue:
            raise PeerError("connect_timeout", "the server does not say what it takes") from None
        if trunk.room <= 0:
            raise PeerError("connect_failed", "the server's connection ended, or is full")
        if not trunk.core.takes_sockets:
            raise PeerError("upgrade_unknown", "the server takes no WebSockets by HTTP/2", close=False)
