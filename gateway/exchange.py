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
from gateway.framing import AnswerBody, Body, answer_body
from gateway.plan import Route
from gateway.shared import Shared
from gateway.tunnel import Farewell, tunnel
from supervisor.ground.lane import Overdue, park
from supervisor.ground.pools import Server
from supervisor.plane.layout import Server as ServerCells

CLIENT_SECONDS: Final = 60.0  # without taking a byte of its answer; nginx's send_timeout
BODY_GRACE: Final = 10.0  # seconds a request body may fall behind MIN_BODY_RATE
MIN_BODY_RATE: Final = 1024.0  # bytes a second
MAX_INTERIM: Final = 16  # 1xx answers before the final one; more is no HTTP

_SERVERS_FAULT: Final = frozenset({"bad_answer", "answer_cut", "answer_timeout"})
_END: Final = b"\r\n\r\n"
_BYTES_IN, _BYTES_OUT = ServerCells.BYTES_IN, ServerCells.BYTES_OUT


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
        self.route, self.decision = route, decision
        self.body, self.flags = body, flags
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
        self._stuck_since = 0.0  # the client has taken nothing since then
        self._client_by = self._server_by = math.inf

    @property
    def unsent(self) -> bytes:
        """What the client is still to get of interim answers."""
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
        self.shared.cells[server.base + _BYTES_OUT] += sent
        self.shared.cells[server.base + _BYTES_IN] += len(answer)

    async def run(self) -> None:
        """Carry it through. PeerError: no answer was begun, this is the one to give. OSError: the client is gone."""
        began = self.lane.now
        try:
            while True:
                if self.upstream is None:
                    await self._connect(began)
                try:
                    await self._pump(began)
                except _Again:
                    continue
                except PeerError as error:
                    if error.code in _SERVERS_FAULT and self.server is not None:
                        self.server.failed(self.lane.now_ns)
                    if self.status:
                        self.reason = error.code
                        return  # cut: the answer has begun, and ends short
                    raise
                break
            if self._tunnel:
                await self._join()
            elif self._keep_upstream and self.server is not None:
                upstream, self.upstream = self.upstream, None
                self.shared.upstreams.keep(self.server, upstream)
        finally:
            if self.upstream is not None:
                self.shared.upstreams.close(self.upstream)
            if self.server is not None:
                self.server.ended()

    async def _join(self) -> None:
        """The tunnel after 101."""
        assert self.server is not None
        cells, base = self.shared.cells, self.server.base

        def moved(up: int, down: int) -> None:
            cells[base + _BYTES_OUT] += up
            cells[base + _BYTES_IN] += down
            self.bytes_out += down

        farewell = self.connection.farewell = Farewell()
        await tunnel(self.session, self.stream, self.upstream, self.body.rest, self._answer, moved, farewell)

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

    async def _pump(self, began: float) -> None:
        lane = self.lane
        self.stream.waiter = self.upstream.waiter = self.session
        self._server_by = began + self.route.timeout
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
        return not self._to_client and (self._tunnel or (self._carried is not None and self._carried.done))

    async def _wait(self) -> None:
        """Until something happens on either side, or one of them is too slow."""
        lane = self.lane
        waits_for_body = self._upload and not self._to_server
        if self.flags & CONTINUE and not self._interim and not self.body.received:
            waits_for_body = False  # the client waits for the server's word, so the server's time runs
        if self._to_client:
            self._stuck_since = self._stuck_since or lane.now
            self._client_by = self._stuck_since + CLIENT_SECONDS
        elif waits_for_body:
            self._client_by = lane.now + self._patience
        else:
            self._client_by = math.inf
        # While the client is what keeps it from going on, the server has time.
        server_by = math.inf if self._to_client or (waits_for_body and not self.status) else self._server_by
        by = min(self._client_by, server_by)
        began = lane.now
        self.session.expire_in(max(0.0, by - began))
        try:
            await park()
        except Overdue:
            if lane.now < by - 0.001:
                raise
            if self._client_by > server_by and self.status:
                raise PeerError("answer_cut", "the server stopped in the middle of its answer") from None
            if self._client_by > server_by:
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
        assert self.server is not None
        self.shared.cells[self.server.base + _BYTES_OUT] += sent
        if self._payload is None:  # a body in pieces: the server's time begins with the last of them
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
            if self.server is not None:
                self.shared.cells[self.server.base + _BYTES_IN] += len(data)
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
            if self._carried.rest:
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
        if status == 204:  # RFC 9110 §8.6
            lines = [line for line in lines if not line.lower().startswith(b"content-length:")]
        carried = answer_body(0 if bodiless else length, bool(flags & CHUNKED) and not bodiless, self._plain)
        unbounded = not bodiless and length < 0
        sent_whole = self.body.done and not self._to_server and not self._refused
        self._keep_upstream = sent_whole and not flags & (CLOSE | OLD) and (not unbounded or bool(flags & CHUNKED))
        if not dated:
            lines.append(self.shared.date_line())
        self.status = status
        self._server_by = self.lane.now + self.route.timeout
        assert self.server is not None
        self.server.succeeded()
        head = self._say_head(lines, unbounded, carried.done)
        ended = carried.done
        body = carried.take(data) if data and not ended else b""
        if carried.rest or (data and ended):
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
        if not (sent := self.stream.send_nowait(self._to_client)):
            return False
        self.bytes_out += sent
        self._stuck_since = 0.0
        self._to_client = b"" if sent == len(self._to_client) else memoryview(self._to_client)[sent:]
        self._server_by = self.lane.now + self.route.timeout
        return True
