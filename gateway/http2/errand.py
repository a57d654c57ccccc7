"""One request of an HTTP/2 connection on its way: decided, forwarded, answered, accounted for.

As with HTTP/1.1 there is an express lane: a request that is whole when it is read goes out at once on an idle
connection, and no session waits for the answer; the lane calls `answered` when it is there. Whatever does not fit is an
Exchange in a session of its own.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from gateway import grpc
from gateway.admission import Admission
from gateway.decisions import undecided_words
from gateway.errors import PeerError
from gateway.fields import CHUNKED, CLOSE, CONTINUE, OLD, TRAILERS, WANTS_UPGRADE, WEBSOCKET
from gateway.forwarded import BEFORE_ID, BEFORE_SPAN, BEFORE_TRACE, BEHIND_SPAN
from gateway.framing import Body, LengthBody, StreamedRequest
from gateway.http2.blocks import encode_field
from gateway.http2.errors import CANCEL
from gateway.http2.exchange import StreamExchange
from gateway.http2.heads import Outline
from gateway.http2.streams import HALF_CLOSED_REMOTE, Stream
from gateway.plan import Plan
from gateway.problems import answer as problem
from gateway.tunnel import Farewell
from gateway.upstreams import MAX_IDLE, drained
from gateway.websocket import new_key
from supervisor.ground.lane import Overdue, Session
from supervisor.ground.pools import Server
from supervisor.plane.layout import Route as RouteCells
from supervisor.plane.layout import Server as ServerCells

if TYPE_CHECKING:
    from gateway.http2.session import Link

_UPGRADE: Final = WEBSOCKET | WANTS_UPGRADE
_END: Final = b"\r\n\r\n"
_LAST: Final = BEHIND_SPAN + b"\r\n\r\n"
_ID_SIZE: Final = 32  # of a request id that is ours
_ID_NAME: Final = encode_field(b"x-request-id", b" " * _ID_SIZE)[:-_ID_SIZE]
_SLOW_ANSWER: Final = CHUNKED | CLOSE | OLD
_IN_FLIGHT, _REQUESTS, _STREAK = ServerCells.IN_FLIGHT, ServerCells.REQUESTS, ServerCells.STREAK
_FLYING: Final = RouteCells.IN_FLIGHT
_WITH_BODY: Final = (b"POST ", b"PUT ", b"PATCH ")  # RFC 9110 §8.6: without a body they say so


class Errand(Admission):
    """One request. `child` is the session that carries it, if it has one; `upstream` the connection on which it waits
    for an answer, if it has none."""

    __slots__ = (
        "began", "by", "bytes_in", "child", "farewell", "flying", "link", "plan", "request", "server", "stream",
        "upstream", "waiter",
    )  # fmt: skip

    def __init__(self, link: Link, stream: Stream) -> None:
        self.link = link
        self.stream = stream
        self.plan: Plan = link.connection.listener.plan
        self.began = link.lane.now_ns
        self.by = 0.0  # when the answer has to be there
        self.bytes_in = stream.head.size + len(stream.line)
        self.child: Session | None = None
        self.server: Server | None = None
        self.upstream: Any = None
        self.request = b""
        self.flying = 0  # the cell that counts it as in flight on its route
        self.farewell: Farewell | None = None  # of a WebSocket
        self.waiter: Session | None = None  # an Exchange sets it; whoever waits is `child`
        self.begin(link.shared, link.connection.client)

    def start(self) -> None:
        """Decide, and forward or refuse."""
        request = self._outlined()
        if not request:
            try:
                request = self._decided()
            except PeerError as error:
                self.refuse(error)
                return
            if not request:
                return
        self.request = request
        route, link = self.route, self.link
        assert route is not None
        server = route.pick(self.ip)
        stack = None if server is None else link.shared.upstreams.idle.get(server)
        if server is None or not stack:
            stream = self.stream
            flags = stream.head.judge(self.plan.guard, stream.line)[2]
            self._carry(request, LengthBody(0), flags & TRAILERS, server)
            return
        self.server = server
        self.upstream = upstream = stack.pop()[0]
        upstream.on_idle = self.answered
        cells, base = link.shared.cells, server.base
        cells[base + _IN_FLIGHT] += 1
        cells[base + _REQUESTS] += 1
        self.by = link.lane.now + route.timeout
        if route.timeout < 1.0:
            link.session.expire_in(route.timeout)
        try:
            sent = upstream.send_nowait(request)
        except OSError:
            sent = 0  # the Exchange will find out what this means
        if sent < len(request):
            self._go_on(sent, b"")

    def _outlined(self) -> bytes:
        """The request for the server if everything about it is known: a head that was met before, without a body, to a
        route that asks nothing; b"" if not."""
        stream = self.stream
        outline = stream.head.outline
        if outline is None or stream.state != HALF_CLOSED_REMOTE or stream.body or stream.trailers:
            return b""
        here, host, head = outline
        link = self.link
        if here is not link.connection.listener.here:
            return b""
        lines = here.decisions.by_host.get(host)
        decision = None if lines is None else lines.get(stream.line)
        if decision is None:
            return b""
        route = decision.route
        if route is None or not route.unconditional:
            return b""
        self.route, self.decision, self.asked = route, decision, decision.log
        self.flying = route.counters + _FLYING
        link.shared.cells[self.flying] += 1
        name = self.request_id
        return b"".join((decision.line, head, name, BEFORE_TRACE, name, BEFORE_SPAN, self.span, _LAST))

    def _decided(self) -> bytes:
        """The request for the server, whole; b"" if it is on its way already. Raises PeerError."""
        link, stream, head = self.link, self.stream, self.stream.head
        connection = link.connection
        here = connection.listener.here
        if head.refusal:
            self.asked = undecided_words(stream.line, None)
            raise PeerError(head.refusal, "the request has more or larger header fields than are taken here")
        judged = head.judge(self.plan.guard, stream.line)
        out = self.admit(link.shared, connection, here, judged)
        route, decision = self.route, self.decision
        assert route is not None
        assert decision is not None
        self.flying = route.counters + _FLYING
        link.shared.cells[self.flying] += 1
        if stream.state != HALF_CLOSED_REMOTE or stream.trailers:
            self._stream(out, judged[2], judged[3], route.max_body)
            return b""
        body = link.core.read_body(stream) if stream.body else b""
        if head.length < 0 and (body or decision.line.startswith(_WITH_BODY)):
            if route.max_body is not None and len(body) > route.max_body:
                raise PeerError("body_too_large", f"the body exceeds {route.max_body} bytes")
            out.append(b"Content-Length: %d" % len(body))
        elif route.unconditional and not connection.client.proxy:
            # The last of the lines, with the names, is this request's own.
            head.outline = Outline(here, judged[4], b"\r\n".join((b"", *out[1:-1], BEFORE_ID)))
        self.bytes_in += len(body)
        out += (b"", body)
        return b"\r\n".join(out)

    def answered(self, upstream: Any) -> None:
        """Something came from the server, or its connection ended."""
        link, server, route, decision = self.link, self.server, self.route, self.decision
        assert server is not None
        assert route is not None
        assert decision is not None
        shared = link.shared
        try:
            answer = upstream.recv_nowait()
        except OSError:
            answer = b""
        if answer is None:
            if upstream.fd < 0:
                self._blame(drained())  # closed here
            return
        at = answer.find(_END)
        if at <= 0:
            self._go_on(len(self.request), answer)
            return
        try:
            status, head, kind, size, dated = route.recall(answer[:at])
        except PeerError as error:
            self._blame(error)
            return
        if decision.head or status == 304:
            size = 0
        stack = shared.upstreams.idle.get(server)
        if (
            at + 4 + size != len(answer)
            or status < 200
            or status == 204
            or kind & _SLOW_ANSWER
            or upstream.readable
            or stack is None
            or len(stack) >= MAX_IDLE
        ):
            self._go_on(len(self.request), answer)
            return
        lane, cells, base, flying = link.lane, shared.cells, server.base, self.flying
        upstream.on_idle = shared.upstreams.ended
        stack.append((upstream, lane.now))
        self.server = self.upstream = None
        if count := cells[base + _IN_FLIGHT]:
            cells[base + _IN_FLIGHT] = count - 1
        if count := cells[flying]:
            cells[flying] = count - 1
        self.flying = 0
        if cells[base + _STREAK]:
            server.succeeded()
        if not server.bytes_out:
            lane.at_round_end.append(server.settle)
        server.bytes_out += len(self.request)
        server.bytes_in += len(answer)
        self.request = b""
        name = self.request_id
        if dated and len(name) == _ID_SIZE and not self.plan.served_by:
            block = shared.blocks.heads[head] + _ID_NAME + name
        else:
            block = shared.blocks.heads[head] + self.tail(dated)
        link.core.answer(self.stream, block, answer[at + 4 :])
        if not link.session.queued:
            lane.wake(link.session)
        del self.stream  # see `_account`
        shared.account(link.connection.listener.counters, route, self.asked, self.shown, self.user, server.name,
                       status, "", name, self.bytes_in, len(block) + size, self.began)  # fmt: skip

    def tail(self, dated: bool = True) -> bytes:
        """The end of an answer's block: what the gateway itself says."""
        shared, name = self.link.shared, self.request_id
        block = _ID_NAME + name if len(name) == _ID_SIZE else shared.blocks.encode((b"x-request-id: " + name,))
        if self.plan.served_by:
            block = shared.blocks.lines[self.plan.served_by] + block
        return block if dated else shared.blocks.lines[shared.date_line()] + block

    # -- what is not express

    def _go_on(self, sent: int, answer: bytes) -> None:
        """Leave the express lane: `sent` bytes went out, `answer` came back."""
        server, upstream = self.server, self.upstream
        upstream.on_idle = self.link.shared.upstreams.ended
        self.server = self.upstream = None
        self._carry(self.request, LengthBody(0), 0, server, upstream, sent, answer)

    def _stream(self, out: list[bytes], flags: int, length: int, limit: int | None) -> None:
        """Forward a request whose body is still to come, or has trailers."""
        body: Body
        if flags & _UPGRADE == _UPGRADE:
            key = new_key(os.urandom(16))
            lines = (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: " + key, b"", b"")
            self._carry(b"\r\n".join((*out, *lines)), LengthBody(0), WEBSOCKET)
            return
        if length >= 0:
            body = LengthBody(length)
        else:
            body = StreamedRequest(limit)
            out.append(b"Transfer-Encoding: chunked")
        if flags & CONTINUE:
            if body.done or self.stream.body or self.stream.whole:
                flags &= ~CONTINUE  # RFC 9110 §10.1.1: who sends its body does not wait
            else:
                out.append(b"Expect: 100-continue")
        out += (b"", b"")
        self._carry(b"\r\n".join(out), body, flags & (CONTINUE | TRAILERS))

    def _carry(
        self, request: bytes, body: Body, flags: int, server: Server | None = None, upstream: Any = None,
        sent: int = 0, answer: bytes = b"",
    ) -> None:  # fmt: skip
        self.request = b""
        self.child = self.link.lane.spawn(
            self._exchange(request, body, flags, server, upstream, sent, answer), "http2 stream"
        )

    async def _exchange(
        self, request: bytes, body: Body, flags: int, server: Server | None, upstream: Any, sent: int, answer: bytes
    ) -> None:
        """The session of a request that the express lane does not take."""
        link = self.link
        exchange = StreamExchange(self, request, body, flags)
        if server is not None:
            exchange.take_over(server, upstream, sent, answer)
        refused: PeerError | None = None
        reason = "client_gone"
        try:
            await exchange.run()
            reason = exchange.reason
            if not reason:
                exchange.finish()
        except PeerError as error:
            refused = error
        except (OSError, Overdue):
            reason = exchange.reason or reason
            link.core.reset(self.stream, CANCEL)
        finally:
            self.child = None
            self.bytes_in += body.received
            if refused is not None:
                self.refuse(refused, exchange.server_name)
            else:
                self._account(exchange.server_name, exchange.status or 499, reason, exchange.bytes_out)
                link.wake()

    def send_nowait(self, data: bytes | memoryview) -> int:
        """A piece of the answer's body, taken whole or not at all."""
        taken = self.link.core.send_body(self.stream, data)
        if taken:
            self.link.wake()
        return taken

    # -- endings

    def _account(self, server: str, status: int, reason: str, bytes_out: int) -> None:
        """It has ended: once for each. What is left of it is known to its stream, until that is closed as well."""
        link = self.link
        del self.stream  # holding each other, the two would be garbage that only the collector finds
        if self.flying:
            cells = link.shared.cells
            cells[self.flying] = max(1, cells[self.flying]) - 1
        link.shared.account(link.connection.listener.counters, self.route, self.asked, self.shown, self.user, server,
                            status, reason, self.request_id, self.bytes_in, bytes_out, self.began)  # fmt: skip

    def refuse(self, error: PeerError, server: str = "") -> None:
        """Answer with a problem; a gRPC call, with its own kind of one."""
        link, plan = self.link, self.plan
        shared = link.shared
        if grpc.is_call(self.stream.head.lines):
            block = shared.blocks.encode(grpc.refusal(error)) + self.tail()
            link.core.answer(self.stream, block, b"")
            link.wake()
            self._account(server, error.status, error.code, len(block))
            return
        reply = problem(
            error,
            self.request_id,
            link.lane.wall,
            close=False,
            head_request=self.stream.line.startswith(b"HEAD "),
            fields=(plan.served_by,) if plan.served_by else (),
        )
        head, _, body = reply.partition(_END)
        block = shared.blocks.encode(head.split(b"\r\n"))
        link.core.answer(self.stream, block, body)
        link.wake()
        self._account(server, error.status, error.code, len(block) + len(body))

    def _blame(self, error: PeerError) -> None:
        """The server on the express lane did not do its work."""
        server = self.server
        assert server is not None
        server.failed(self.link.lane.now_ns)
        self._let_go()
        self.refuse(error, server.name)

    def _let_go(self) -> None:
        """Give up the connection on which an answer was awaited."""
        assert self.server is not None
        self.link.shared.upstreams.close(self.upstream)
        self.server.ended()
        self.server = self.upstream = None

    def say_farewell(self) -> None:
        """The connection drains: a WebSocket's client is told to go elsewhere, for nothing else would end it."""
        if self.farewell is not None and self.child is not None:
            self.farewell.asked = True
            self.link.lane.wake(self.child)

    def overdue(self) -> None:
        """No answer came in time on the express lane."""
        assert self.route is not None
        self._blame(PeerError("answer_timeout", f"no answer within {self.route.timeout:g} s"))

    def abandon(self) -> None:
        """Nobody waits for the answer any more. Does nothing once it is complete."""
        if self.child is not None:
            self.child.cancel()
        elif self.server is not None:
            name = self.server.name
            self._let_go()
            self._account(name, 499, "client_gone", 0)
