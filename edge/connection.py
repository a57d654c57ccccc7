"""One TCP connection as its session, the drain and the log know it."""

from __future__ import annotations

from typing import Any

import attrs

from edge.peek.hello import Hello
from supervisor.ground.lane import Session
from supervisor.ground.net.proxy import Endpoint, ProxyHeader
from supervisor.ground.pools import Server


@attrs.define(eq=False)
class Connection:
    """From accept to close. `stream` is what the client is read from and written to, `upstream` the server's end."""

    stream: Any
    client: Endpoint  # who connected: by a PROXY header, else the socket's peer
    local: Endpoint | None = None  # what it connected to, where somebody is to be told
    header: ProxyHeader | None = None  # the one that was accepted
    hello: Hello | None = None  # what its TLS asked for, where that was looked at
    tls: tuple[str, str] | None = None  # version and cipher suite, where TLS was ended
    place: int = -1  # among its client's connections, where these are counted
    route: int = 0  # number of the pool in the listener's plan
    first: bytes = b""  # read from the client before there was a server to send it to
    server: Server | None = None
    upstream: Any = None
    idle_timeout: float = 0.0
    bytes_in: int = 0  # from the client
    bytes_out: int = 0

    def silent(self, session: Session) -> float:
        """Seconds since a byte moved: the relay puts the deadline off at each."""
        return session.scheduler.now - (session.deadline - self.idle_timeout)

    def __str__(self) -> str:
        return f"{self.client[0]}:{self.client[1]} on {self.server.name if self.server is not None else 'no server'}"
