"""One request carried to a server and its answer carried back, in whatever pieces they come.

The session's express lane handles what fits into one read each way; everything else comes here, at whichever point it
stops fitting: bodies of any size in both directions at once, chunks, 100-continue and other interim answers, early
answers, Upgrade, a stale connection tried again. One loop moves what can be moved and then waits for either side, so a
side is read only as fast as the other takes it: at most one read is held in each direction.
"""

from __future__ import annotations

import math
from typing import Any, Final

from gateway.answers import find_answer_end, has_no_body
from gateway.connection import Connection
from gateway.decisions import Decision
from gateway.errors import PeerError
from gateway.fields import CHUNKED, CLOSE, CONTINUE, KEEP_ALIVE, OLD, WEBSOCKET
from gateway.framing import AnswerBody, Body, ChunkedAnswer, LengthBody, UnboundedAnswer
from gateway.plan import Route
from gateway.shared import Shared
from gateway.tunnel import tunnel
from supervisor.ground.lane import Overdue, park
from supervisor.ground.pools import Server

CLIENT_SECONDS: Final = 60.0  # without taking a byte of its answer; nginx's send_timeout
BODY_GRACE: Final = 10.0  # seconds a request body may fall behind MIN_BODY_RATE
MIN_BODY_RATE: Final = 1024.0  # bytes a second
_END: Final = b"\r\n\r\n"
MAX_INTERIM: Final = 16  # 1xx answers before the final one; more is no HTTP


class _Again(Exception):
    """The kept connection was stale: the same on a fresh one."""


class Exchange:
    """One request. `run` brings it to its end and says what is left for the connection: see `reusable` and `body.rest`.

    `payload` is the request's head with as much of its body as is there; `body` knows what is still to come. If the
    express lane had begun, `server` and `upstream` are its, `sent` how much of the payload went out, and `answer` what
    came back.
    """

    def __init__(
        self, shared: Shared, connection: Connection, route: Route, decision: Decision[Route], payload: bytes,
        body: Body, flags: int, ip: str, tail: bytes,
    ) -> None:  # fmt: skip
        self.shared = shared
        self.lane = shared.lane
        self.session = shared.lane.current
        self.connection = connection
        self.stream: Any = connection.stream
        self.route = route
        self.decision = decision
        self.body = body
        self.flags = flags
        self.ip = ip  # the client's, that balancing may go by
        self.tail = tail  # the end of its answer's head
        self._picked: Server | None = None
        self.server: Server | None = None
        self.upstream: Any = None
        self.kept = False  # the connection had carried requests before
        self.status = 0  # of the answer that was begun; 0: none yet
        self.reason = ""
        self.bytes_out = 0
        self.reusable = False
        self.server_name = ""
        self._payload: bytes | None = payload  # to send again on a fresh connection; None once that can't be
        self._to_server: bytes | memoryview = payload
        self._to_client: bytes | memoryview = b""
        self._answer = b""  # of a head that is not complete
        self._heard = False  # the server has sent something
        self._carried: AnswerBody | None = None  # the answer's body
        self._upload = not body.done  # the request body goes on
        self._plain = bool(flags & OLD)  # answers' bodies go on without chunks
        self._refused = False  # the server took less than the whole request
        self._interim = 0
        self._keep_upstream = False
        self._tunnel = False
        self._patience = BODY_GRACE
        self._client_by = self._server_by = math.inf

    @property
    def unsent(self) -> bytes:
        """What the client is still to get of interim answers, before any other answer."""
        return bytes(self._to_client)

    def take_over(self, server: Server, upstream: Any, sent: int, answer: bytes) -> None:
        """Go on from where the express lane stopped: `server` was picked, and if `upstream` (a kept connection) is
        there, `sent` bytes of the payload went out on it and `answer` came back."""
        if upstream is None:
            self._picked = server
            return
        assert self._payload is not None
        self.server, self.upstream, self.kept = server, upstream, True
        self.server_name = server.name
        if not answer:
            upstream.readable = True  # an error or an end of the stream may have been met already: look again
        self._to_server = memoryview(self._payload)[sent:]
        self._answer = answer
        self._heard = bool(answer)

    async def run(self) -> None:
        """Carry it through. PeerError: no answer was begun, this is the one to give. OSError: the client is gone."""
        began = self.lane.now
        try:
            while True:
                if self.upstream is None:
                    await self._connect(began)
                try:
                    await self._pump()
                except _Again:
                    continue
                except PeerError as error:
                    self._server_is_to_blame(error)
                    if self.status:
                        self.reason = error.code
                        return  # cut: the answer has begun, and ends short
                    raise
                break
            if self._tunnel:
                self.bytes_out += await tunnel(self.session, self.stream, self.upstream, self.body.rest, self._answer)
            elif self._keep_upstream and self.server is not None:
                upstream, self.upstream = self.upstream, None
                self.shared.upstreams.keep(self.server, upstream)
        finally:
            if self.upstream is not None:
                self.shared.upstreams.close(self.upstream)
            if self.server is not None:
                self.server.ended()

    # -- connecting

    async def _connect(self, began: float) -> None:
        """A kept connection if there is one and it was not just found stale, else a fresh one."""
        upstreams = self.shared.upstreams
        server, self._picked = self._picked, None
        if server is None:
            server = self.route.pool.pick(self.ip)
        stack = upstreams.idle.get(server) if server is not None and not self.kept else None
        if server is not None and stack:
            server.started()
            self.server, self.upstream, self.kept = server, stack.pop()[0], True
        else:
            left = self.route.timeout - (self.lane.now - began)
            self.server, self.upstream = await upstreams.open(self.route.pool, self.ip, server, left)
            self.kept = False
        self.server_name = self.server.name

    def _server_failed(self, error: PeerError) -> Exception:
        """What to do about a connection that broke before its answer: the error, or once more on a fresh one."""
        untouched = self._payload is not None and len(self._to_server) == len(self._payload)
        if self.kept and not self._heard and self._payload is not None and (self.decision.idempotent or untouched):
            assert self.server is not None
            self.shared.upstreams.close(self.upstream)
            self.server.ended()
            self.server = self.upstream = None
            self._to_server = self._payload
            return _Again()
        return error

    def _server_is_to_blame(self, error: PeerError) -> None:
        """Tell the pool, if the server did not do its work."""
        if error.code in ("bad_answer", "answer_cut", "answer_timeout") and self.server is not None:
            self.server.failed(self.lane.now_ns)

    # -- the loop

    async def _pump(self) -> None:
        lane, stream, upstream = self.lane, self.stream, self.upstream
        session = self.session
        stream.waiter = upstream.waiter = session
        self._server_by = lane.now + self.route.timeout
        if self._answer:
            self._take_answer(b"")
        while not self._finished():
            moved = False
            if not self._to_client and not (self._carried is not None and self._carried.done):
                moved |= self._read_answer()
            if self._to_client:
                moved |= self._write_client()
            if self._upload and not self._to_server:
                moved |= self._read_body()
            if self._to_server:
                moved |= self._write_server()
            if moved:
                lane.credit -= 1
                if lane.credit < 0:
                    await lane.pause()
                continue
            await self._wait()

    def _finished(self) -> bool:
        carried = self._carried
        return (carried is not None and carried.done and not self._to_client) or (self._tunnel and not self._to_client)

    async def _wait(self) -> None:
        """Until something happens on either side, or one of them is too slow."""
        lane, session = self.lane, self.session
        waits_for_body = self._upload and not self._to_server
        if self.flags & CONTINUE and not self._interim and not self.body.received:
            waits_for_body = False  # the client waits for the server's word, so the server's time runs
        if self._to_client:
            self._client_by = lane.now + CLIENT_SECONDS
        elif waits_for_body:
            self._client_by = lane.now + self._patience
        else:
            self._client_by = math.inf
        # While the client is what keeps it from going on, the server has time.
        server_by = math.inf if self._to_client or (waits_for_body and not self._heard) else self._server_by
        by = min(self._client_by, server_by)
        session.expire_in(max(0.0, by - lane.now))
        began = lane.now
        try:
            await park()
        except Overdue:
            if lane.now < by - 0.001:
                raise
            if self._client_by > server_by:
                if self.status:
                    raise PeerError("answer_cut", "the server stopped in the middle of its answer") from None
                raise PeerError("answer_timeout", f"no answer within {self.route.timeout:g} s") from None
            if self._to_client:
                self.reason = "client_timeout"
                raise TimeoutError from None
            raise PeerError("body_timeout", "the request body comes at less than 1 KiB/s") from None
        if waits_for_body:
            self._patience = max(0.0, self._patience - (lane.now - began))

    # -- towards the server

    def _read_body(self) -> bool:
        data = self.stream.recv_nowait()
        if data is None:
            return False
        if not data:
            self.reason = "client_gone"
            raise ConnectionResetError("the request body ended early")
        self._take_body(data)
        return True

    def _take_body(self, data: bytes) -> None:
        self._patience = min(BODY_GRACE, self._patience + len(data) / MIN_BODY_RATE)
        self._payload = None
        self._to_server = self.body.take(data)
        self._upload = not self.body.done
        self._server_by = self.lane.now + self.route.timeout

    def _write_server(self) -> bool:
        try:
            sent = self.upstream.send_nowait(self._to_server)
        except OSError:
            # It reads no more. It may have said why before: whatever it sent is still to be read.
            self.upstream.readable = True
            again = None if self._heard else self._server_failed(PeerError("answer_cut"))
            if isinstance(again, _Again):
                raise again from None
            self._upload = False
            self._refused = True
            self._to_server = b""
            self._payload = None
            return True
        if not sent:
            return False
        self._server_by = self.lane.now + self.route.timeout
        self._to_server = b"" if sent == len(self._to_server) else memoryview(self._to_server)[sent:]
        return True

    # -- towards the client

    def _read_answer(self) -> bool:
        try:
            data = self.upstream.recv_nowait()
        except OSError:
            raise self._server_failed(PeerError("answer_cut", "the server reset its connection")) from None
        if data is None:
            return False
        if data:
            self._heard = True
            self._server_by = self.lane.now + self.route.timeout if self.status else self._server_by
            self._take_answer(data)
        elif self._carried is not None:
            self._to_client = self._carried.end()
            self._keep_upstream = False
        else:
            raise self._server_failed(PeerError("answer_cut", "the server closed without an answer"))
        return True

    def _take_answer(self, data: bytes) -> None:
        if self._carried is not None:
            self._to_client = self._carried.take(data)
            if self._carried.done and self._carried.rest:
                self._keep_upstream = False  # it speaks without being asked: nothing on it can be believed
            return
        data = self._answer + data
        while data:
            end = find_answer_end(data)
            if end < 0:
                self._answer = data
                return
            head, data = data[:end], data[end + 4 :]
            status, lines, flags, length, dated = self.shared.answers.judge(head, end)
            if status >= 200:
                self._answer = b""
                self._begin_answer(status, lines, flags, length, dated, data)
                return
            if status == 101:
                self._switch(lines, data)
                return
            self._interim += 1
            if self._interim > MAX_INTERIM:
                raise PeerError("bad_answer", "interim answers without end")
            self._say_interim(lines)
        self._answer = b""

    def _begin_answer(self, status: int, lines: list[bytes], flags: int, length: int, dated: bool, data: bytes) -> None:
        """The final answer's head, and the body that came with it."""
        bodiless = has_no_body(status, self.decision.head)
        carried: AnswerBody
        if bodiless:
            carried = LengthBody(0)
            if status == 204:  # RFC 9110 §8.6
                lines = [line for line in lines if not line.lower().startswith(b"content-length:")]
        elif flags & CHUNKED:
            carried = ChunkedAnswer(self._plain)
        elif length >= 0:
            carried = LengthBody(length)
        else:
            carried = UnboundedAnswer(self._plain)
        unbounded = not bodiless and length < 0
        sent_whole = self.body.done and not self._to_server and not self._refused
        self._keep_upstream = sent_whole and not flags & (CLOSE | OLD) and (not unbounded or bool(flags & CHUNKED))
        if not dated:
            lines.append(self.shared.date_line())
        self.status = status
        self._server_by = self.lane.now + self.route.timeout
        if self.server is not None:
            self.server.succeeded()
        head = self._say_head(lines, unbounded, carried.done)
        body = b""
        if data:
            if carried.done:
                self._keep_upstream = False
            else:
                body = carried.take(data)
                if carried.rest:
                    self._keep_upstream = False
        self._carried = carried
        self._to_client = b"".join((self._to_client, head, body))

    # -- what HTTP/1.1 says in its own way

    def _say_interim(self, lines: list[bytes]) -> None:
        if not self.flags & OLD:
            self._to_client = b"".join((self._to_client, b"\r\n".join(lines), _END))

    def _say_head(self, lines: list[bytes], unbounded: bool, ends: bool) -> bytes:
        """The head of the answer: what stands before its body. `unbounded`: it has a body of no known length; `ends`:
        it has none at all."""
        old = bool(self.flags & OLD)
        # What the client has not sent of its body can't be told from its next request, once we stop reading it.
        closing = (
            not self.body.done
            or self.connection.listener.draining
            or bool(self.flags & CLOSE)
            or (old and (unbounded or not self.flags & KEEP_ALIVE))
        )
        self.reusable = not closing
        if unbounded and not old:
            lines.append(b"Transfer-Encoding: chunked")
        if closing:
            lines.append(b"Connection: close")
        elif old:
            lines.append(b"Connection: keep-alive")
        return b"\r\n".join(lines) + self.tail

    def _switch(self, lines: list[bytes], data: bytes) -> None:
        """101: from here on the bytes are nobody's but theirs."""
        if not self.flags & WEBSOCKET:
            raise PeerError("bad_answer", "the server changes the protocol without being asked")
        self.status = 101
        self._tunnel = True
        self._answer = data
        lines += (b"Connection: Upgrade", b"Upgrade: websocket")
        self._to_client = b"".join((self._to_client, b"\r\n".join(lines), self.tail))
        if self.server is not None:
            self.server.succeeded()

    def _write_client(self) -> bool:
        sent: int = self.stream.send_nowait(self._to_client)
        if not sent:
            return False
        self.bytes_out += sent
        self._to_client = b"" if sent == len(self._to_client) else memoryview(self._to_client)[sent:]
        self._server_by = self.lane.now + self.route.timeout
        return True
