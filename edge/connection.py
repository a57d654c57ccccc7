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
    began: float  # lane seconds
    unique_id: str = ""  # where it is told of
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
    told: float = attrs.field(
        default=attrs.Factory(lambda self: self.began, takes_self=True)
    )  # when a line was written

    def silent(self, session: Session) -> float:
        """Seconds since a byte moved: the relay puts the deadline off at each."""
        return session.scheduler.now - (session.deadline - self.idle_timeout)

    def shown(self, now: float) -> str:
        """In words, for people who ask what is going on."""
        server = self.server.name if self.server is not None else "no server"
        return (
            f"{self.client[0]}:{self.client[1]} on {server} for {now - self.began:.0f}s, "
            f"{self.bytes_in} bytes in, {self.bytes_out} out"
        )
