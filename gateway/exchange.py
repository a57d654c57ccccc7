"""One request carried to a server and its answer carried back, in whatever pieces they come.

The session's express lane handles what fits into one read each way; everything else comes here, at whichever point it
stops fitting: bodies of any size in both directions at once, chunks, 100-continue and other interim answers, early
answers, Upgrade, a stale connection tried again. One loop moves what can be moved and then waits for either side, so a
side is read only as fast as the other takes it: at most one read is held in each direction.

What a server is told, and how, is its call's; how long anybody may take, patience's; what a client reads, and where its
body comes from, is for the subclasses, one for each version of HTTP.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Final

import attrs

from gateway.call import Call
from gateway.calling import Calling
from gateway.connection import Connection
from gateway.decisions import Decision
from gateway.errors import PeerError
from gateway.fields import CONTINUE, WEBSOCKET
from gateway.framing import Body
from gateway.messages import Content, Head, Interim, Lost, Message, Switch
from gateway.patience import Patience
from gateway.plan import Route
from gateway.retries import MAX_REFUSED
from gateway.shared import Shared
from gateway.tunnel import Farewell, tunnel
from gateway.websocket import check, key_of
from supervisor.ground.lane import PARK, Overdue
from supervisor.ground.pools import Server

_SERVERS_FAULT: Final = frozenset({"bad_answer", "answer_cut", "answer_timeout"})


class _Again(Exception):
    """The same once more, after so many seconds."""

    def __init__(self, pause: float = 0.0) -> None:
        super().__init__(pause)
        self.pause = pause


class Exchange(ABC):
    """One request. `run` brings it to its end and says what is left for the connection: see `reusable` and `body.rest`.

    `payload` is the request's head with as much of its body's content as is there; `body` knows what is still to come.
    """

    def __init__(
        self, shared: Shared, connection: Connection, route: Route, decision: Decision[Route], payload: bytes,
        body: Body, flags: int, ip: str,
    ) -> None:  # fmt: skip
        self.shared = shared
        self.lane = shared.lane
        self.session = shared.lane.current
        self.connection = connection
        self.stream: Any = connection.stream
        self.route, self.decision = route, decision
        self.body, self.flags = body, flags
        self.ip = ip  # the client's, that balancing may go by
        self.call: Call | None = None
        self.status = 0  # of the answer that was begun; 0: none yet
        self.reason = ""
        self.bytes_out = 0
        self.reusable = False
        self.server_name = ""
        self._picked: Server | None = None
        self._calling = Calling(shared, route, payload, body, flags, decision.head)
        mirror = route.mirror
        self._copy = None if mirror is None else mirror.copy(shared, ip, payload, body, flags, decision.head)
        self._replayable = True  # the request can be sent again: nothing is gone that is not in the payload
        self._to_client: bytes | memoryview = b""
        self._upload = not body.done  # the request body goes on
        self._interim = False  # the client has heard a 1xx
        self._stale = False  # the kept connection was: the next is a fresh one
        self._refusals = 0  # tries that a server did not process
        self._failed: tuple[Server, ...] = ()  # servers whose tries have failed
        self._ended = False  # the answer is complete
        self._tunnel: Switch | None = None
        self._patience = Patience(self.lane.now, route.timeout, route.idle_timeout, route.total_timeout)

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
        call = self._calling.take_over(server, upstream)
        call.take_over(sent, answer)
        self.call, self.server_name = call, server.name

    async def run(self) -> None:
        """Carry it through. PeerError: no answer was begun, this is the one to give. OSError: the client is gone."""
        try:
            while True:
                if self.call is None:
                    await self._connect()
                    if self._gone():  # meanwhile
                        raise ConnectionResetError("the client has gone")
                try:
                    await self._pump()
                except _Again as again:
                    self._let_go()
                    if again.pause:
                        self.session.expire_in(self._patience.left(self.lane.now) + again.pause)
                        await self.lane.sleep(again.pause)
                    continue
                except PeerError as error:
                    if error.code == "client_timeout":
                        self.reason = error.code
                        raise TimeoutError from None
                    if error.code in _SERVERS_FAULT and self.call is not None:
                        self.call.server.failed(self.lane.now_ns)
                    if self.status:
                        self.reason = error.code
                        self._cut(error)
                        return
                    raise
                break
            if self._tunnel is not None:
                await self._join(self._tunnel)
            elif self.call is not None:
                call, self.call = self.call, None
                call.release()
                self._calling.give_back(call.server)
        finally:
            self._let_go()
            if self._copy is not None:
                self._copy.ended()

    def _let_go(self) -> None:
        """Give up the call, if there is one."""
        call, self.call = self.call, None
        if call is not None:
            call.abandon()
            self._calling.give_back(call.server)

    async def _join(self, switch: Switch) -> None:
        """The tunnel after 101."""
        call = self.call
        assert call is not None

        def moved(up: int, down: int) -> None:
            switch.moved(up, down)
            self.bytes_out += down

        farewell = self._farewell()
        self.shared.tunnels[self.session] = call.server, farewell
        try:
            await tunnel(self.session, self._end_of_client(), switch.end, self.body.rest, switch.data, moved, farewell)
        except PeerError as error:  # no answer can be given any more
            self.reason = error.code
            raise TimeoutError from None
        finally:
            del self.shared.tunnels[self.session]

    # -- connecting

    async def _connect(self) -> None:
        """Begin a try."""
        first, self._picked = self._picked, None
        left = self._patience.left(self.lane.now)
        key: str | bytes = self.ip
        sticky = self.route.sticky
        if sticky is not None:
            key = sticky.key(self._calling.payload, self.ip)
            if not self._failed:
                first = sticky.server(self.route.pool, self._calling.payload)
        self.call = call = await self._calling.call(key, left, first, fresh=self._stale, exclude=self._failed)
        self.server_name = call.server.name

    def _try_again(self, call: Call, *, unprocessed: bool = False) -> None:
        """A try has failed: raises _Again if there is to be another."""
        if not self._replayable or self.status or self._interim:
            return
        if unprocessed:
            self._refusals += 1
            if self._refusals <= MAX_REFUSED:
                raise _Again
        idempotent = self.decision.idempotent
        if call.kept and not call.heard and not (unprocessed or self._stale) and (idempotent or not call.sent):
            self._stale = True
            raise _Again
        retries = self.route.retries
        if retries.allow(len(self._failed) + 1, idempotent, self.lane.now):
            call.server.failed(self.lane.now_ns)
            self._failed = (*self._failed, call.server)
            raise _Again(retries.pause(len(self._failed)))

    async def _pump(self) -> None:
        lane, call = self.lane, self.call
        assert call is not None
        self.stream.waiter = self.session
        call.attach(self.session)
        while not (not self._to_client and (self._ended or self._tunnel is not None)):
            moved = False
            if not self._to_client and not self._ended:
                moved |= self._read_answer(call)
            if self._to_client:
                moved |= self._write_client()
            if self._upload and not call.sending:
                moved |= self._read_body()
            if call.sending:
                moved |= self._write_server(call)
            if moved:
                lane.credit -= 1
                if lane.credit < 0:
                    await lane.pause()
                continue
            await self._wait(call)

    async def _wait(self, call: Call) -> None:
        """Until something happens on either side, or one of them is too slow."""
        if self._gone():
            raise ConnectionResetError("the client has gone")
        lane, patience = self.lane, self._patience
        receiving = self._upload and not call.sending
        if self.flags & CONTINUE and not self._interim and not self.body.received:
            receiving = False  # the client waits for the server's word, so the server's time runs
        began = lane.now
        by = patience.until(began, bool(self._to_client), receiving, self._blocked())
        self.session.expire_in(max(0.0, by - began))
        try:
            await PARK
        except Overdue:
            if lane.now < by - 0.001:
                raise
            raise patience.verdict(lane.now, bool(self._to_client)) from None
        patience.waited(lane.now - began)

    # -- towards the server

    def _blocked(self) -> bool:
        """Whether the client can't send of its body, however much it would."""
        return False

    def _gone(self) -> bool:
        """Whether the client has left without a word."""
        return False

    @abstractmethod
    def _read_body(self) -> bool:
        """Take a piece of the request's body, if there is one. Raises OSError if the client is gone."""

    def _take_body(self, data: bytes) -> None:
        """A piece of the body as the client framed it."""
        self._patience.body_came(len(data), self.lane.now)
        content = self.body.take(data)
        self._send_body(content, self.body.trailers if self.body.done else None)

    def _send_body(self, content: bytes, trailers: Sequence[bytes] | None) -> None:
        """A piece of the body's content; with trailers, the last."""
        assert self.call is not None
        self._replayable = False
        self._upload = trailers is None
        self.call.send(content, trailers)
        if self._copy is not None:
            self._copy.feed(content, trailers)

    def _write_server(self, call: Call) -> bool:
        moved = call.write()
        if call.refused:
            if not call.heard:
                self._try_again(call)
            self._upload = False
        elif moved and not self._replayable:
            self._patience.server_moved(self.lane.now)
        return moved

    # -- towards the client

    def _read_answer(self, call: Call) -> bool:
        try:
            messages = call.receive()
        except Lost as loss:
            if not call.heard:
                self._try_again(call, unprocessed=loss.unprocessed)
            raise
        if messages is None:
            return False
        for message in messages:
            self._take(call, message)
        return True

    def _take(self, call: Call, message: Message) -> None:
        if isinstance(message, Content):
            self._say(self._content(message.data))
        elif isinstance(message, Head):
            if message.status in self.route.retries.statuses:
                self._try_again(call)
            if message.status == 204:  # RFC 9110 §8.6
                message.lines[:] = [one for one in message.lines if not one.lower().startswith(b"content-length:")]
            self._mark(call, message.lines)
            if self.route.answer_edits is not None:
                message = attrs.evolve(message, lines=self.route.answer_edits.apply(message.lines))
            if not message.dated:
                message.lines.append(self.shared.date_line())
            self.status = message.status
            self._patience.answer_began(self.lane.now)
            call.server.succeeded()
            self._say(self._head(message))
        elif isinstance(message, Interim):
            self._interim = True
            self._say(self._interim_head(message.lines))
        elif isinstance(message, Switch):
            if not self.flags & WEBSOCKET:
                raise PeerError("bad_answer", "the server changes the protocol without being asked")
            check(message.lines, key_of(self._calling.payload))
            self._tunnel = message
            self._mark(call, message.lines)
            call.server.succeeded()
            self._say(self._switch(message.lines))
        else:
            self._ended = True
            self._say(self._end(message.trailers))

    def _mark(self, call: Call, lines: list[bytes]) -> None:
        """Tell the client of a sticky route where to come back."""
        if self.route.sticky is not None:
            secure = self.connection.client.scheme == "https"
            line = self.route.sticky.mark(call.server, self._calling.payload, secure)
            if line:
                lines.append(line)

    def _say(self, data: bytes) -> None:
        self._to_client = b"".join((self._to_client, data)) if self._to_client else data

    def _write_client(self) -> bool:
        if not (sent := self.stream.send_nowait(self._to_client)):
            return False
        self.bytes_out += sent
        self._to_client = b"" if sent == len(self._to_client) else memoryview(self._to_client)[sent:]
        self._patience.client_took(self.lane.now)
        return True

    # What is to be sent on the client's connection for each part of the answer.

    @abstractmethod
    def _cut(self, error: PeerError) -> None:
        """The answer has begun, and ends short: the client must be able to tell."""

    @abstractmethod
    def _interim_head(self, lines: list[bytes]) -> bytes: ...

    @abstractmethod
    def _head(self, head: Head) -> bytes: ...

    @abstractmethod
    def _content(self, data: bytes) -> bytes: ...

    @abstractmethod
    def _end(self, trailers: list[bytes]) -> bytes: ...

    def _end_of_client(self) -> Any:
        """The client's end of a tunnel."""
        return self.stream

    def _farewell(self) -> Farewell:
        """What tells a tunnel's client to go elsewhere; known to the drain from now on."""
        farewell = self.connection.farewell = Farewell()
        return farewell

    @abstractmethod
    def _switch(self, lines: list[bytes]) -> bytes: ...
