"""Who keeps an exchange waiting, and how long that may go on. Times are monotonic seconds, given.

A server has the route's time for its answer, over all tries; while the client is what keeps it from going on, it has
more. Once the answer has begun, it must not stop for longer than the route's idle time. A client must send its body at
a rate, and take what it asked for. Over all of it there may be an end that nothing moves.
"""

from __future__ import annotations

import math
from typing import Final

from gateway.errors import PeerError

CLIENT_SECONDS: Final = 60.0  # without taking a byte of its answer; nginx's send_timeout
BODY_GRACE: Final = 10.0  # seconds a request body may fall behind MIN_BODY_RATE
MIN_BODY_RATE: Final = 1024.0  # bytes a second


class Patience:
    """The deadlines of one exchange that began at `began`. `timeout` is for the answer's beginning, `idle` between its
    pieces, `total` for everything."""

    __slots__ = (
        "_body_left", "_client_by", "_end", "_idle", "_server_by", "_stuck_since", "_timeout", "_waited", "answered",
        "conversing",
    )  # fmt: skip

    def __init__(self, began: float, timeout: float, idle: float, total: float = math.inf) -> None:
        self._end = began + total
        self.conversing = False  # both sides speak when they like: no rate is asked of the client's body
        self._timeout = timeout
        self._idle = idle
        self.answered = False  # the answer has begun
        self._body_left = BODY_GRACE
        self._stuck_since = 0.0  # the client has taken nothing since then
        self._server_by = began + timeout
        self._client_by = math.inf
        self._waited = False  # the last wait was for the request's body

    def left(self, now: float) -> float:
        """Seconds in which the server may still answer."""
        return max(0.0, min(self._server_by, self._end) - now)

    def converse(self, began: float, seconds: float | None) -> None:
        """It is a conversation, which ends after so many seconds, if there is a limit: then all of them are the
        server's to begin its answer, too."""
        self.conversing = True
        if seconds is not None:
            self._timeout = seconds
            self._server_by = began + seconds
            self._end = min(self._end, began + seconds)

    # -- what happened

    def body_came(self, size: int, now: float) -> None:
        """So much of the request's body: a server's time begins with the last of it."""
        self._body_left = min(BODY_GRACE, self._body_left + size / MIN_BODY_RATE)
        self.server_moved(now)

    def server_moved(self, now: float) -> None:
        """The server took a piece of the body, or gave one of the answer."""
        self._server_by = now + (self._idle if self.answered else self._timeout)

    def answer_began(self, now: float) -> None:
        self.answered = True
        self._server_by = now + self._idle

    def client_took(self, now: float) -> None:
        """Something of what it is sent."""
        self._stuck_since = 0.0
        self.server_moved(now)

    # -- waiting

    def until(self, now: float, delivering: bool, receiving: bool, blocked: bool = False) -> float:
        """When somebody will have taken too long. `delivering`: the client has something to take; `receiving`: it is
        its turn to send of its body; `blocked`: but what others send leaves it no room."""
        self._waited = receiving and not blocked
        if delivering:
            self._stuck_since = self._stuck_since or now
            self._client_by = self._stuck_since + CLIENT_SECONDS
        elif receiving:
            self._client_by = now + (self._idle if self.conversing or blocked else self._body_left)
        else:
            self._client_by = math.inf
        server_by = self._server_by
        if delivering or (receiving and not self.answered):
            server_by = math.inf  # while the client is what keeps it from going on, the server has time
        return min(self._client_by, server_by, self._end)

    def waited(self, seconds: float) -> None:
        """So long did the last wait take."""
        if self._waited:
            self._body_left = max(0.0, self._body_left - seconds)

    def verdict(self, now: float, delivering: bool) -> PeerError:
        """What to say when the time that `until` gave is over."""
        if self._end <= now + 0.001:
            return PeerError("deadline_passed", "the time for the whole exchange is over")
        if self._client_by > now + 0.001:
            if self.answered:
                return PeerError("answer_cut", "the server stopped in the middle of its answer")
            return PeerError("answer_timeout", f"no answer within {self._timeout:g} s")
        if delivering:
            return PeerError("client_timeout")
        if self.conversing or not self._waited:
            return PeerError("body_timeout", f"neither side has said anything for {self._idle:g} s")
        return PeerError("body_timeout", "the request body comes at less than 1 KiB/s")
