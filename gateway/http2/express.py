"""The express lane of HTTP/2: a whole request that is sent at once on an idle connection, and a whole answer.

No session waits for it; the lane calls `answered` when something comes. Whatever turns out not to fit becomes an Errand
(again). Most requests need none: what their head became for a server was found out when it was met first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gateway.decisions import Decision
from gateway.errors import PeerError
from gateway.forwarded import BEFORE_SPAN, BEFORE_TRACE, BEHIND_SPAN
from gateway.http2.replies import NAME_SIZE, Reply
from gateway.http2.streams import HALF_CLOSED_REMOTE, Stream
from gateway.plan import Route
from gateway.upstreams import MAX_IDLE, drained
from supervisor.ground.pools import Server
from supervisor.plane.layout import Route as RouteCells
from supervisor.plane.layout import Server as ServerCells

if TYPE_CHECKING:
    from gateway.http2.errand import Errand
    from gateway.http2.session import Link

_END: Final = b"\r\n\r\n"
_LAST: Final = BEHIND_SPAN + _END
_IN_FLIGHT, _REQUESTS, _STREAK = ServerCells.IN_FLIGHT, ServerCells.REQUESTS, ServerCells.STREAK
_FLYING: Final = RouteCells.IN_FLIGHT


class Express:
    """One request, decided and counted as in flight on its route. `server` and `upstream` have it while they are set;
    `errand` has decided about it, if any has. What is JSON is ready for the access log."""

    __slots__ = (
        "began", "by", "bytes_in", "decision", "errand", "link", "request", "request_id", "route", "server", "shown",
        "stream", "upstream", "user",
    )  # fmt: skip

    child: Final = None  # no session carries it

    def __init__(
        self, link: Link, stream: Stream, route: Route, decision: Decision[Route], request_id: bytes, request: bytes,
        shown: str, user: str, bytes_in: int, errand: Errand | None,
    ) -> None:  # fmt: skip
        self.link = link
        self.stream = stream
        self.route = route
        self.decision = decision
        self.request_id = request_id
        self.request = request
        self.shown = shown  # the client's address
        self.user = user
        self.bytes_in = bytes_in
        self.errand = errand
        self.began = link.lane.now_ns
        self.server: Server | None = None
        self.upstream: Any = None

    def send(self, server: Server | None) -> None:
        """Send it off to this server; None: none takes it now."""
        link, request = self.link, self.request
        stack = None if server is None else link.shared.upstreams.idle.get(server)
        if server is None or not stack:
            self._leave().carry(request, server)
            return
        self.server = server
        self.upstream = upstream = stack.pop()[0]
        upstream.on_idle = self.answered
        cells, base = link.shared.cells, server.base
        cells[base + _IN_FLIGHT] += 1
        cells[base + _REQUESTS] += 1
        timeout = self.route.timeout
        self.by = link.lane.now + timeout  # when the answer has to be there
        if timeout < 1.0:
            link.session.expire_in(timeout)
        try:
            sent = upstream.send_nowait(request)
        except OSError:
            sent = 0  # the Exchange will find out what this means
        if sent < len(request):
            self._go_on(sent, b"")

    def answered(self, upstream: Any) -> None:
        """Something came from the server, or its connection ended."""
        link, server, route = self.link, self.server, self.route
        assert server is not None
        try:
            answer = upstream.recv_nowait()
        except OSError:
            answer = b""
        if answer is None:
            if upstream.fd < 0:
                self._blame(drained())  # closed here
            return
        at, name = answer.find(_END), self.request_id
        reply = route.replies.get(answer[:at])
        if at <= 0 or reply is None or at + 4 + reply[2] != len(answer) or self.decision.head or len(name) != NAME_SIZE:
            try:
                reply = self._read(answer, at)
            except PeerError as error:
                self._blame(error)
                return
        shared = link.shared
        upstreams = shared.upstreams
        stack = upstreams.idle.get(server)
        if reply is None or stack is None or len(stack) >= MAX_IDLE or upstream.readable:
            self._go_on(len(self.request), answer)
            return
        status, block, size = reply
        lane, cells, base, flying = link.lane, shared.cells, server.base, route.counters + _FLYING
        upstream.on_idle = upstreams.ended
        stack.append((upstream, lane.now))
        self.server = self.upstream = None
        if count := cells[base + _IN_FLIGHT]:
            cells[base + _IN_FLIGHT] = count - 1
        if count := cells[flying]:
            cells[flying] = count - 1
        if cells[base + _STREAK]:
            server.succeeded()
        if not server.bytes_out:
            lane.at_round_end.append(server.settle)
        server.bytes_out += len(self.request)
        server.bytes_in += len(answer)
        block += name
        link.core.answer(self.stream, block, answer[at + 4 :])
        if not link.session.queued:
            lane.wake(link.session)
        del self.stream, self.errand  # holding each other, they would be garbage that only the collector finds
        shared.account(link.connection.listener.counters, route, self.decision.log, self.shown, self.user, server.name,
                       status, "", name, self.bytes_in, len(block) + size, self.began)  # fmt: skip

    def _read(self, answer: bytes, at: int) -> Reply | None:
        """What is not known of an answer whose head ends there; None if it is not whole. Raises PeerError."""
        if at <= 0:
            return None
        reply = self.route.replies.read(answer[:at], self.link.shared, self.request_id, self.decision.head)
        return reply if reply is not None and at + 4 + reply[2] == len(answer) else None

    # -- what does not fit

    def _leave(self) -> Errand:
        """The errand that it is from now on."""
        stream = self.stream
        stream.owner = errand = self.errand or self.link.errand(self)
        del self.stream, self.errand
        return errand

    def _go_on(self, sent: int, answer: bytes) -> None:
        """Leave the express lane: `sent` bytes went out, `answer` came back."""
        server, upstream = self.server, self.upstream
        upstream.on_idle = self.link.shared.upstreams.ended
        self.server = self.upstream = None
        self._leave().carry(self.request, server, upstream, sent, answer)

    def _blame(self, error: PeerError) -> None:
        """The server did not do its work."""
        server = self.server
        assert server is not None
        server.failed(self.link.lane.now_ns)
        self._let_go(server)
        self._leave().refuse(error, server.name)

    def _let_go(self, server: Server) -> None:
        """Give up the connection on which an answer was awaited."""
        self.link.shared.upstreams.close(self.upstream)
        server.ended()
        self.server = self.upstream = None

    def overdue(self, now: float) -> None:
        """Refuse it if no answer came in time."""
        if self.server is not None and self.by <= now:
            self._blame(PeerError("answer_timeout", f"no answer within {self.route.timeout:g} s"))

    def abandon(self) -> None:
        """Nobody waits for the answer any more. Does nothing once it is complete."""
        server = self.server
        if server is not None:
            self._let_go(server)
            self._leave().account(server.name, 499, "client_gone", 0)

    def say_farewell(self) -> None:
        """The connection drains: what is under way will end by itself."""


def depart(link: Link, stream: Stream) -> bool:
    """Send a new request off if everything about it is known: a head that was met before, without a body, to a route
    that asks nothing. False: it needs an Errand."""
    outline = stream.head.outline
    if outline is None or stream.state != HALF_CLOSED_REMOTE or stream.body or stream.trailers:
        return False
    here, host, head = outline
    connection, shared = link.connection, link.shared
    if here is not connection.listener.here:
        return False
    lines = here.decisions.by_host.get(host)
    decision = None if lines is None else lines.get(stream.line)
    if decision is None:
        return False
    route = decision.route
    if route is None or not route.unconditional:
        return False
    shared.cells[route.counters + _FLYING] += 1
    client = connection.client
    name, span = (shared.identities.ready or shared.identities.more()).pop()
    request = b"".join((decision.line, head, name, BEFORE_TRACE, name, BEFORE_SPAN, span, _LAST))
    stream.owner = express = Express(link, stream, route, decision, name, request, client.json, "null",
                                     stream.head.size + len(stream.line), None)  # fmt: skip
    express.send(route.pick(client.ip))
    return True
