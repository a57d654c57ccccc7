"""Copies of requests for a second pool, whose answers nobody sees.

A copy is a session of its own with a connection of its own, so nothing of it can hold up the request it was taken from;
there are only so many at once, and what exceeds that is not copied. Only requests without a body are.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from gateway.errors import PeerError
from gateway.transport import Transport
from supervisor.ground.lane import Overdue
from supervisor.ground.pools import Pool

if TYPE_CHECKING:
    from gateway.shared import Shared

MAX_COPIES: Final = 64  # at once, for each route and worker
MAX_ANSWER: Final = 1 << 20  # bytes read of an answer, so that its server meets no reset


class Mirror:
    """The mirror of one route. `share` of the requests are copied, from 0 to 1; `timeout` in seconds bounds a copy."""

    __slots__ = ("_copies", "_pool", "_share", "_timeout", "_transport")

    def __init__(self, pool: Pool, transport: Transport, share: float, timeout: float) -> None:
        self._pool = pool
        self._transport = transport
        self._share = share
        self._timeout = timeout
        self._copies = 0

    def copy(self, shared: Shared, ip: str, out: list[bytes]) -> None:
        """Send the head whose lines these are to the pool, later and as if by itself."""
        if self._copies >= MAX_COPIES or (self._share < 1.0 and random.random() >= self._share):
            return
        self._copies += 1
        request = b"\r\n".join((*out, b"Connection: close", b"", b""))
        shared.lane.spawn(self._carry(shared, ip, request), "mirror")

    async def _carry(self, shared: Shared, ip: str, request: bytes) -> None:
        lane = shared.lane
        server, upstream = None, None
        try:
            server, upstream, _ = await shared.upstreams.open(self._pool, self._transport, ip, within=self._timeout)
            upstream.on_idle = None
            lane.current.expire_in(self._timeout)
            await upstream.send(request)
            left = MAX_ANSWER
            while left > 0 and (data := await upstream.recv()):
                left -= len(data)
            server.succeeded()
        except (PeerError, OSError, Overdue):
            if server is not None:
                server.failed(lane.now_ns)
        finally:
            self._copies -= 1
            if upstream is not None:
                shared.upstreams.close(upstream)
            if server is not None:
                server.ended()
