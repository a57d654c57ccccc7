"""How a connection may end other than by both sides' ends: what counts it, what the log calls it, who is reset.

A reset on one side is a reset on the other: the peer must learn that something was lost. So is a refusal: the client
must not take it for an empty answer.
"""

from __future__ import annotations

import attrs

from edge.arrival import HandshakeFailed, Unrouted
from edge.limits import TooMany
from edge.peek.hello import PeekError
from supervisor.ground.lane import Overdue
from supervisor.ground.net.proxy import ProxyError
from supervisor.plane.layout import Listener


class NoServer(Exception):
    """No server of the pool takes the connection."""


@attrs.frozen
class Ending:
    """`counter` is a field of the listener's row; `reason` stands in the access log, unless `told` is false."""

    counter: int
    reason: str
    reset: bool = True
    told: bool = True


ENDINGS: dict[type[Exception], Ending] = {
    TooMany: Ending(Listener.LIMITED, "limited", told=False),  # a flood of connections is not to be one of lines
    Unrouted: Ending(Listener.REFUSED, "no_route"),
    NoServer: Ending(Listener.REFUSED, "no_server"),
    HandshakeFailed: Ending(Listener.HANDSHAKE_FAILURES, "handshake_failed", reset=False),  # TLS has sent its alert
    PeekError: Ending(Listener.PROTOCOL_ERRORS, "malformed"),
    ProxyError: Ending(Listener.PROTOCOL_ERRORS, "no_proxy_header"),
    Overdue: Ending(Listener.TIMEOUTS, "timeout", reset=False),
    OSError: Ending(Listener.RESETS, "reset"),
}
EXPECTED = tuple(ENDINGS)


def ending_of(error: Exception) -> Ending:
    """That of an error which is one of EXPECTED."""
    return next(ending for kind, ending in ENDINGS.items() if isinstance(error, kind))
