"""Copies of requests for a second pool, whose answers nobody sees.

A copy is a session of its own, with a call of its own, so nothing of it can hold up the request it was taken from. Of
a body it gets each piece when the server does. There are only so many copies at once, and only so much is held for
all of them: what exceeds the one is not copied, and a copy whose server is too slow for the other is broken off.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from gateway.calling import Calling
from gateway.errors import PeerError
from gateway.fields import WEBSOCKET
from gateway.framing import Body
from gateway.messages import Content, End, Head
from supervisor.ground.lane import PARK, Overdue, Session

if TYPE_CHECKING:
    from gateway.call import Call
    from gateway.plan import Route
    from gateway.shared import Shared

KIB: Final = 1024
MAX_COPIES: Final = 64  # at once, for each route and worker
MAX_HELD: Final = 8 * 1024 * KIB  # bytes of bodies that wait for the copies' servers, of all copies of a route
PIECE: Final = 64 * KIB  # bytes of a body that are given to a server at once
MAX_ANSWER: Final = 1024 * KIB  # bytes read of an answer, so that its server meets no reset


class Mirror:
    """The mirror of one route. Copies go by `route`, which is the same with another pool; `share` of the requests are
    copied, from 0 to 1. `held` counts the bytes that wait."""

    __slots__ = ("_share", "copies", "held", "route")

    def __init__(self, route: Route, share: float) -> None:
        self._share = share
        self.route = route
        self.copies = 0
        self.held = 0

    def copy(self, shared: Shared, ip: str, payload: bytes, body: Body, flags: int, head_request: bool) -> Copy | None:
        """A copy of a request that is about to go out, from now on to be told of its body; None where there is to be
        none."""
        if flags & WEBSOCKET or self.copies >= MAX_COPIES or (self._share < 1.0 and random.random() >= self._share):
            return None
        return Copy(self, Calling(shared, self.route, payload, Begun(body), flags, head_request), shared, ip)


class Begun:
    """A body as it stood when the copy was made."""

    __slots__ = ("done", "length", "received", "rest", "trailers")

    def __init__(self, body: Body) -> None:
        self.length = body.length
        self.done = body.done
        self.received = body.received
        self.trailers = tuple(body.trailers)
        self.rest = b""

    def take(self, data: bytes) -> bytes:
        """Nothing is framed here."""
        return data


class Copy:
    """One copy under way. `feed` it what the original's server gets, and say when the original has `ended`."""

    __slots__ = ("_by", "_calling", "_held", "_ip", "_lane", "_mirror", "_session", "_trailers", "_whole")

    def __init__(self, mirror: Mirror, calling: Calling, shared: Shared, ip: str) -> None:
        self._mirror = mirror
        self._calling = calling
        self._ip = ip
        self._lane = lane = shared.lane
        self._held = bytearray()
        self._trailers: Sequence[bytes] | None = None
        self._whole = calling.whole
        self._by = lane.now + mirror.route.timeout
        mirror.copies += 1
        self._session = lane.spawn(self._run(), "mirror")
        self._session.when_done(self._over)  # one that is cancelled before its first step has no `finally`

    def feed(self, content: bytes, trailers: Sequence[bytes] | None) -> None:
        """A piece of the body's content; with `trailers` the last."""
        mirror = self._mirror
        if self._session.done:
            return
        if mirror.held + len(content) > MAX_HELD:
            self._session.cancel()
            return
        mirror.held += len(content)
        self._held += content
        self._trailers = trailers
        self._whole = trailers is not None
        self._by = self._lane.now + mirror.route.timeout
        self._lane.wake(self._session)

    def ended(self) -> None:
        """The original has: what its client has not sent by now will not come."""
        if not self._whole and not self._session.done:
            self._session.cancel()

    async def _run(self) -> None:
        lane = self._lane
        call: Call | None = None
        try:
            call = await self._calling.call(self._ip, self._mirror.route.timeout)
            call.attach(lane.current)
            if await self._move(call):
                done, call = call, None
                done.release()
                self._calling.give_back(done.server)
        except (PeerError, OSError, Overdue):
            # A kept connection may end without a word at any time; a copy is not worth a second one.
            if call is not None and (call.heard or not call.kept):
                call.server.failed(lane.now_ns)
        finally:
            if call is not None:
                call.abandon()
                self._calling.give_back(call.server)

    def _over(self, _: Session) -> None:
        self._mirror.copies -= 1
        self._mirror.held -= len(self._held)
        self._held.clear()

    async def _move(self, call: Call) -> bool:
        """Whether the answer came to its end. Raises PeerError, OSError, Overdue."""
        lane, sent, left = self._lane, self._calling.whole, MAX_ANSWER
        while left > 0:
            lane.credit -= 1
            if lane.credit < 0:
                await lane.pause()
            moved = False
            if not call.sending and not sent and (self._held or self._whole):
                sent = self._give(call)
                moved = True
            if call.sending:
                moved |= call.write()
            for message in call.receive() or ():
                moved = True
                if isinstance(message, Content):
                    left -= len(message.data)
                elif isinstance(message, Head):
                    call.server.succeeded()
                elif isinstance(message, End):
                    return True
            if not moved:
                lane.current.expire_in(max(0.0, self._by - lane.now))
                await PARK
        return False

    def _give(self, call: Call) -> bool:
        """The next piece for the server; whether it was the last."""
        piece = bytes(self._held[:PIECE])
        del self._held[: len(piece)]
        self._mirror.held -= len(piece)
        last = self._whole and not self._held
        if call.refused:
            return last
        call.send(piece, (self._trailers or ()) if last else None)
        return last
