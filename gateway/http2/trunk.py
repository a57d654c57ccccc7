"""An HTTP/2 connection to a server at work, and the calls that share it.

One session per connection moves its bytes; each call belongs to the session of its exchange. The two wake each other:
the trunk for news of a stream or room to send, a call for what it has left in the core. Nobody's answer is read faster
than its client takes it, for only then is the server's window given back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from gateway.answers import has_no_body
from gateway.errors import PeerError
from gateway.framing import Body
from gateway.http2.asking import request_block
from gateway.http2.client import AskedStream, Http2Client
from gateway.http2.errors import NO_ERROR, PROTOCOL_ERROR, REFUSED_STREAM, ConnectionFault
from gateway.messages import Content, End, Head, Interim, Lost, Message
from supervisor.ground.lane import PARK, Event, Overdue, Session
from supervisor.ground.pools import Server
from supervisor.plane.layout import Server as ServerCells

if TYPE_CHECKING:
    from gateway.shared import Shared

IDLE_SECONDS: Final = 60.0  # without a request
SILENT_SECONDS: Final = 5.0  # in which a server with a request to answer says nothing at all: it may be away
WRITE_SECONDS: Final = 60.0  # in which the server must take something of what it is sent
MAX_HELD: Final = 256  # frames that wait behind a write; with more, the server must read before it is read

_END: Final = b"\r\n\r\n"
_BYTES_IN, _BYTES_OUT = ServerCells.BYTES_IN, ServerCells.BYTES_OUT


class Trunk:
    """One connection. `gone` is called once when it takes no more requests."""

    __slots__ = ("_gone", "_moved", "_rested", "_unsent", "conn", "core", "ended_by", "greeted", "heard", "lane",
                 "retired", "server", "session", "shared")  # fmt: skip

    def __init__(self, shared: Shared, server: Server, conn: Any, gone: Callable[[Trunk], None]) -> None:
        self.shared = shared
        self.lane = shared.lane
        self.server = server
        self.conn = conn
        self.greeted = Event(self.lane)  # the server's SETTINGS have come, or will not
        self.core = Http2Client(self.greeted.set)
        self.core.now = shared.lane.now
        self.retired = False  # no more requests, whatever the server says
        self.ended_by: PeerError | None = None  # what we ended it for
        self._gone = gone
        self._unsent: bytes | memoryview = b""
        self._moved = self._rested = self.heard = shared.lane.now  # when the server last said something
        self.session: Session = shared.lane.spawn(self._serve(), "http2 upstream")

    @property
    def room(self) -> int:
        return 0 if self.retired or self.session.done else self.core.room

    def wake(self) -> None:
        """There is something to write."""
        if not self.session.done:
            self.lane.wake(self.session)

    def retire(self) -> None:
        """Take no more requests, and end with the last one."""
        if not self.retired:
            self.retired = True
            self._gone(self)
            self.wake()

    async def _serve(self) -> None:
        core, conn = self.core, self.conn
        try:
            await self._move()
        except (OSError, Overdue):
            pass
        except ConnectionFault:
            self._flush()  # the GOAWAY that says why
        except PeerError as error:
            self.ended_by = error
        finally:
            core.failed = True
            for stream in list(core.streams.values()):
                core.close(stream, NO_ERROR)
                stream.owner.news()
            self.retire()
            self.greeted.set()
            self.shared.upstreams.close(conn)

    async def _move(self) -> None:
        """Until either side ends the connection."""
        lane, core, conn, session = self.lane, self.core, self.conn, self.session
        output, base, cells = core.output, self.server.base, self.shared.cells
        conn.waiter = session
        while True:
            lane.credit -= 1
            if lane.credit < 0:
                await lane.pause()
            if not self._unsent or len(output.frames) < MAX_HELD:
                data = conn.recv_nowait()
                if data is not None:
                    if not data:
                        return
                    self.heard = lane.now
                    cells[base + _BYTES_IN] += len(data)
                    for stream in core.receive_data(data, lane.now):
                        stream.owner.news()
                    continue
            if core.leaving:
                self.retire()
            if self._flush():
                continue
            if core.over or (self.retired and not core.streams):
                core.leave()
                self._flush()
                return
            if self._unsent:
                session.deadline = self._moved + WRITE_SECONDS
            elif core.streams:
                self._rested = lane.now
                session.deadline = lane.now + 2 * IDLE_SECONDS
            else:
                session.deadline = self._rested + IDLE_SECONDS
            try:
                await PARK
            except Overdue:
                if self._unsent:
                    raise
                if not core.streams:
                    self.retire()

    def _flush(self) -> bool:
        """Write what there is. True: there may be more that can be written now."""
        core = self.core
        output = core.output
        if not self._unsent:
            if not output.frames and not output.waiting:
                return False
            self._unsent = core.data_to_send(self.lane.now)
            for stream in output.drained:
                stream.owner.news()
            output.drained.clear()
            self._moved = self.lane.now
            if not self._unsent:
                return False
        try:
            sent: int = self.conn.send_nowait(self._unsent)
        except OSError:
            self.conn.readable = True  # it may have said why before
            self._unsent = b""
            self.retire()
            return False
        if not sent:
            return False
        self._moved = self.lane.now
        self.shared.cells[self.server.base + _BYTES_OUT] += sent
        self._unsent = b"" if sent == len(self._unsent) else memoryview(self._unsent)[sent:]
        return True


class Http2Call:
    """A request on a trunk that has room for it. `payload` is its head of HTTP/1.1, with as much of its body's content
    as is there; `trailers`: the client takes them."""

    __slots__ = ("_ended", "_head_request", "_session", "_stream", "_trunk", "heard", "kept", "refused", "sent",
                 "server")  # fmt: skip

    def __init__(
        self, trunk: Trunk, scheme: bytes, payload: bytes, body: Body, *, head_request: bool, trailers: bool
    ) -> None:
        core = trunk.core
        self.server = trunk.server
        self.kept = core.last_id > 0
        self.heard = False
        self.sent = 1  # whether a byte has left can't be told from here, so it has
        self.refused = False
        self._trunk = trunk
        self._head_request = head_request
        self._session: Session | None = None
        self._ended = False
        core.now = trunk.lane.now
        self._stream = self._ask(scheme, payload, body, trailers)
        self._stream.owner = self
        trunk.wake()

    def _ask(self, scheme: bytes, payload: bytes, body: Body, trailers: bool) -> AskedStream:
        """Open the stream, and send on it what is there."""
        core = self._trunk.core
        head, _, content = payload.partition(_END)
        block = request_block(head, scheme, trailers=trailers)
        ends = body.done and not content and not body.trailers
        stream = core.open(block, ends, head_request=self._head_request)
        if content:
            core.send_body(stream, content)
        if body.done:
            core.send_end(stream, self._trunk.shared.blocks.encode(body.trailers))
        return stream

    def attach(self, session: Session) -> None:
        self._session = session

    def news(self) -> None:
        """By the trunk: something happened to the stream."""
        if self._session is not None:
            self._trunk.lane.wake(self._session)

    # -- the request

    @property
    def sending(self) -> bool:
        return bool(self._stream.queued)

    def send(self, content: bytes, trailers: Sequence[bytes] | None) -> None:
        core, stream = self._trunk.core, self._stream
        core.now = self._trunk.lane.now
        if content:
            core.send_body(stream, content)
        if trailers is not None:
            core.send_end(stream, self._trunk.shared.blocks.encode(trailers))
        self._trunk.wake()

    def write(self) -> bool:
        return False  # the trunk does

    # -- the answer

    def receive(self) -> list[Message] | None:
        if self._ended:
            return None
        trunk, stream = self._trunk, self._stream
        messages: list[Message] = []
        if stream.heads:
            self.heard = True
            messages += (self._head(head.status, head.head) for head in stream.heads)
            stream.heads.clear()
        elif stream.body:
            messages.append(Content(trunk.core.read_body(stream)))
            trunk.wake()  # the server's window may be due
            return messages
        if stream.complete and not stream.body:
            self._ended = True
            messages.append(End(list(stream.trailers)))
        elif stream.reset >= 0 and not messages:
            raise self._loss(stream.reset)
        return messages or None

    def _head(self, status: int, head: bytes) -> Message:
        _, lines, _, length, dated = self._trunk.shared.answers.judge(head, len(head))
        if status < 200:
            return Interim(lines)
        bodiless = has_no_body(status, self._head_request)
        return Head(status, lines, length, dated, bodiless, bodiless or self._stream.ends_at_once)

    def _loss(self, number: int) -> PeerError:
        """What the end of the stream before the end of the answer means."""
        if number == REFUSED_STREAM:
            return Lost("the server refused the stream", unprocessed=True)
        if self._trunk.ended_by is not None:
            error = self._trunk.ended_by
            return PeerError(error.code, error.detail, fields=error.fields)
        if self._trunk.core.failed:
            return Lost("the server's connection ended")
        if number == PROTOCOL_ERROR:
            return PeerError("bad_answer", "the answer breaks the rules of HTTP/2")
        return Lost(f"the server ended the stream, with code {number}")

    # -- endings

    def release(self) -> None:
        self._leave()

    def abandon(self) -> None:
        self._leave()

    def _leave(self) -> None:
        trunk, stream = self._trunk, self._stream
        self._session = None
        if not self.heard and trunk.heard <= stream.born <= trunk.lane.now - SILENT_SECONDS:
            trunk.retire()  # others had better not wait on it as well
        trunk.core.abandon(stream)
        trunk.wake()
