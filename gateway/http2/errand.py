"""One request of an HTTP/2 connection on its way: decided, forwarded, answered, accounted for.

As with HTTP/1.1 there is an express lane (express.py), for a request that is whole when it is read. Whatever does not
fit is an Exchange in a session of its own.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from gateway import grpc
from gateway.admission import Admission
from gateway.decisions import undecided_words
from gateway.errors import PeerError
from gateway.fields import CONTINUE, TRAILERS, WANTS_UPGRADE, WEBSOCKET
from gateway.forwarded import BEFORE_ID
from gateway.framing import Body, LengthBody, StreamedRequest
from gateway.http2.errors import CANCEL
from gateway.http2.exchange import StreamExchange
from gateway.http2.express import Express
from gateway.http2.replies import tail
from gateway.http2.streams import HALF_CLOSED_REMOTE, Stream
from gateway.plan import Plan
from gateway.problems import answer as problem
from gateway.tunnel import Farewell
from gateway.websocket import new_key
from supervisor.ground.lane import Overdue, Session
from supervisor.ground.pools import Server
from supervisor.plane.layout import Route as RouteCells

if TYPE_CHECKING:
    from gateway.http2.session import Link

_UPGRADE: Final = WEBSOCKET | WANTS_UPGRADE
_END: Final = b"\r\n\r\n"
_FLYING: Final = RouteCells.IN_FLIGHT
_WITH_BODY: Final = (b"POST ", b"PUT ", b"PATCH ")  # RFC 9110 §8.6: without a body they say so


class Errand(Admission):
    """One request. `child` is the session that carries it, if it has one."""

    __slots__ = (
        "began", "bytes_in", "child", "farewell", "flying", "link", "plan", "stream", "waiter",
    )  # fmt: skip

    def __init__(self, link: Link, stream: Stream) -> None:
        self.link = link
        self.stream = stream
        self.plan: Plan = link.connection.listener.plan
        self.began = link.lane.now_ns
        self.bytes_in = stream.head.size + len(stream.line)
        self.child: Session | None = None
        self.flying = 0  # the cell that counts it as in flight on its route
        self.farewell: Farewell | None = None  # of a WebSocket
        self.waiter: Session | None = None  # an Exchange sets it; whoever waits is `child`
        self.begin(link.shared, link.connection.client)

    def resume(self, express: Express) -> None:
        """Be what has left the express lane."""
        self.route, self.decision, self.asked = express.route, express.decision, express.decision.log
        self.request_id = express.request_id
        self.flying = express.route.counters + _FLYING
        self.began = express.began

    def start(self) -> None:
        """Decide, and forward or refuse."""
        link, stream = self.link, self.stream
        try:
            request = self._decided()
        except PeerError as error:
            self.refuse(error)
            return
        if request:
            route, decision = self.route, self.decision
            assert route is not None
            assert decision is not None
            stream.owner = express = Express(link, stream, route, decision, self.request_id, request, self.shown,
                                             self.user, self.bytes_in, self)  # fmt: skip
            express.send(route.pick(self.ip))

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
            head.outline = here, judged[4], b"\r\n".join((b"", *out[1:-1], BEFORE_ID))
        self.bytes_in += len(body)
        out += (b"", body)
        return b"\r\n".join(out)

    def tail(self) -> bytes:
        """The end of an answer's block: what the gateway itself says."""
        return tail(self.link.shared, self.plan.served_by, self.request_id, True) + self.request_id

    # -- what is not express

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

    def carry(
        self, request: bytes, server: Server | None, upstream: Any = None, sent: int = 0, answer: bytes = b""
    ) -> None:  # fmt: skip
        """Forward a whole request; the express lane may have sent so much of it, and received so much."""
        stream = self.stream
        flags = stream.head.judge(self.plan.guard, stream.line)[2] & TRAILERS
        self._carry(request, LengthBody(0), flags, server, upstream, sent, answer)

    def _carry(
        self, request: bytes, body: Body, flags: int, server: Server | None = None, upstream: Any = None,
        sent: int = 0, answer: bytes = b"",
    ) -> None:  # fmt: skip
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
                self.account(exchange.server_name, exchange.status or 499, reason, exchange.bytes_out)
                link.wake()

    def send_nowait(self, data: bytes | memoryview) -> int:
        """A piece of the answer's body, taken whole or not at all."""
        taken = self.link.core.send_body(self.stream, data)
        if taken:
            self.link.wake()
        return taken

    # -- endings

    def account(self, server: str, status: int, reason: str, bytes_out: int) -> None:
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
            self.account(server, error.status, error.code, len(block))
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
        self.account(server, error.status, error.code, len(block) + len(body))

    def say_farewell(self) -> None:
        """The connection drains: a WebSocket's client is told to go elsewhere, for nothing else would end it."""
        if self.farewell is not None and self.child is not None:
            self.farewell.asked = True
            self.link.lane.wake(self.child)

    def overdue(self, now: float) -> None:
        """Its session sees to that."""

    def abandon(self) -> None:
        """Nobody waits for the answer any more. Does nothing once it is complete."""
        if self.child is not None:
            self.child.cancel()
