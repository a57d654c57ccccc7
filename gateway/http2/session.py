"""An HTTP/2 connection at work: frames are read, requests go off on their errands, answers leave in one write a round.

One session per connection; a request has one of its own only where the express lane does not take it. The session wakes
for what the client sends and for what the errands have left in the core, and looks after deadlines once a second while
there is work: overdue answers, streams that their client does not read, a connection that takes nothing at all.
"""

from __future__ import annotations

from typing import Any, Final

from gateway.admission import UNREAD
from gateway.connection import Connection
from gateway.http2.connection import Http2Connection
from gateway.http2.errand import Errand
from gateway.http2.errors import CANCEL, ConnectionFault
from gateway.http2.express import Express, depart
from gateway.http2.frames import PREFACE
from gateway.http2.streams import CLOSED, Stream
from gateway.patience import CLIENT_SECONDS
from gateway.refusal import SEND_SECONDS, linger
from gateway.session import HEAD_SECONDS, NEXT_SECONDS
from gateway.shared import Shared
from supervisor.ground.lane import PARK, Overdue
from supervisor.plane.layout import Listener

LOOK_SECONDS: Final = 1.0  # between looks at the deadlines of a connection at work
MAX_HELD: Final = 256  # frames that wait behind a write; with more, the client must read before it is read


async def spoken_http2(connection: Connection, data: bytes) -> tuple[bool, bytes]:
    """Whether the client begins with HTTP/2's preface (RFC 9113 §3.3), and what was read. Raises OSError, Overdue."""
    while len(data) < len(PREFACE) and PREFACE.startswith(data):
        more = await connection.stream.recv()
        if not more:
            return False, data
        data += more
    return data.startswith(PREFACE), data


async def serve(shared: Shared, connection: Connection, data: bytes) -> None:
    """Serve the streams of a connection until either side ends it. `data` was read already.

    Raises OSError and Overdue when nothing more can be said to the client.
    """
    link = Link(shared, connection)
    try:
        await link.serve(data)
    except ConnectionFault as fault:
        shared.cells[connection.listener.counters + Listener.PROTOCOL_ERRORS] += 1
        link.abandon()
        link.account_fault(fault.status, fault.code)
        await link.say_goodbye()
    finally:
        link.abandon()


class Link:
    """One connection. `core` knows the protocol, this knows time, the socket, and who does the work."""

    __slots__ = ("_busy_at", "_moved", "_patience", "_unsent", "connection", "core", "lane", "session", "shared")

    def __init__(self, shared: Shared, connection: Connection) -> None:
        self.shared = shared
        self.connection = connection
        self.core = Http2Connection()
        self.lane = shared.lane
        self.session = shared.lane.current
        self._unsent: bytes | memoryview = b""
        self._moved = self._busy_at = shared.lane.now
        self._patience = HEAD_SECONDS

    def wake(self) -> None:
        """There is something to write."""
        if not self.session.queued:
            self.lane.wake(self.session)

    async def serve(self, data: bytes) -> None:
        lane, core, session, connection = self.lane, self.core, self.session, self.connection
        stream, listener = connection.stream, connection.listener
        recv, note, output = stream.recv_nowait, self._note, core.output
        stream.waiter = session
        while True:
            try:
                lane.credit -= 1
                if lane.credit < 0:
                    await lane.pause()
                if not data and (not self._unsent or len(output.frames) < MAX_HELD):
                    got = recv()
                    if got is not None:
                        if not got:
                            return
                        data = got
                if data:
                    got, data = data, b""
                    for one in core.receive_data(got, lane.now):
                        if one.owner is not None or one.state == CLOSED:
                            note(one)
                        elif not depart(self, one):
                            one.owner = errand = Errand(self, one)
                            errand.start()
                    while core.malformed:
                        core.malformed -= 1
                        self.account_fault(400, "http2_error")
                    continue
                if listener.draining and not core.draining:
                    core.drain()
                    for one in core.streams.values():
                        if one.owner is not None:
                            one.owner.say_farewell()
                if self._flush():
                    continue
                if core.over:
                    await linger(connection)
                    return
                if core.streams or self._unsent:
                    self._busy_at = connection.seen = lane.now
                    self._patience = NEXT_SECONDS
                    connection.busy = True
                    if session.deadline > lane.now + LOOK_SECONDS:
                        session.deadline = lane.now + LOOK_SECONDS
                else:
                    connection.busy = False
                    session.deadline = self._busy_at + self._patience
                await PARK
            except Overdue:
                self._look()

    def _flush(self) -> bool:
        """Write what there is. True: there may be more that can be written now."""
        core = self.core
        output = core.output
        if not self._unsent:
            if not output.frames and not output.waiting:
                return False
            self._unsent = core.data_to_send(self.lane.now)
            if output.drained:
                for one in output.drained:
                    if one.owner.child is not None:
                        self.lane.wake(one.owner.child)
                output.drained.clear()
            if not self._unsent:
                return False
        sent: int = self.connection.stream.send_nowait(self._unsent)
        if not sent:
            return False
        self._moved = self.lane.now
        if sent < len(self._unsent):
            self._unsent = memoryview(self._unsent)[sent:]
        else:
            self._unsent = b""
        return True

    def errand(self, express: Express) -> Errand:
        """For a request that leaves the express lane without having been one."""
        errand = Errand(self, express.stream)
        errand.resume(express)
        return errand

    def _note(self, stream: Stream) -> None:
        """There is news of a stream that is served, or of none."""
        owner: Errand | Express | None = stream.owner
        if owner is None:
            pass
        elif stream.reset >= 0:
            owner.abandon()
        elif owner.child is not None:
            self.lane.wake(owner.child)

    def _look(self) -> None:
        """See to what is overdue. Raises Overdue if the client itself is."""
        core, now = self.core, self.lane.now
        if self._unsent and now - self._moved >= CLIENT_SECONDS:
            raise Overdue
        if not core.streams and not self._unsent:
            if now - self._busy_at >= self._patience - 0.001:
                core.leave()
            return
        for stream in core.stalled(now - CLIENT_SECONDS):
            core.reset(stream, CANCEL)
            self._note(stream)
        for stream in list(core.streams.values()):
            stream.owner.overdue(now)

    def abandon(self) -> None:
        """The connection is of no use any more, so nobody waits for what is under way."""
        for stream in list(self.core.streams.values()):
            if stream.owner is not None:
                stream.owner.abandon()

    def account_fault(self, status: int, code: str) -> None:
        """Something came that was no request, and has to stand somewhere all the same."""
        shared = self.shared
        request_id, _ = (shared.identities.ready or shared.identities.more()).pop()
        shared.account(self.connection.listener.counters, None, UNREAD, self.connection.client.json, "null", "",
                       status, code, request_id, 0, 0, self.lane.now_ns)  # fmt: skip

    async def say_goodbye(self) -> None:
        """Send what is left, the GOAWAY last, and let the client read it."""
        stream: Any = self.connection.stream
        rest = bytes(self._unsent) + self.core.data_to_send(self.lane.now)
        self.session.deadline = self.lane.now + SEND_SECONDS
        await stream.send(rest)
        await linger(self.connection)
