"""[edge]: the layer 4 listeners."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import attrs

from supervisor.ground.config import Between, Bind, Duration, Problem, Workers, unknown_name


@attrs.frozen(kw_only=True)
class ListenerTable:
    """[edge.listeners.NAME]: one port, spread over the servers of a pool."""

    bind: Bind
    protocol: Literal["tcp", "udp"] = "tcp"
    pool: str
    send_proxy_protocol: Literal["off", "v1", "v2"] = "off"
    connect_timeout: Duration = Duration(5)
    retries: Annotated[int, Between(0, 10)] = 2  # other servers tried after the first
    idle_timeout: Duration = Duration(3600)  # tcp: neither side said anything
    session_timeout: Duration = Duration(60)  # udp: neither side said anything
    max_connections: Annotated[int, Between(1, 1_000_000)] = 100_000  # of one worker
    max_sessions: Annotated[int, Between(1, 60_000)] = 8192  # udp, of one worker: each takes a descriptor and a port

    def problems(self, config: Any) -> Iterable[Problem]:
        if self.pool not in config.pools:
            yield Problem(("pool",), unknown_name("pool", self.pool, config.pools))
        if self.protocol == "udp" and self.send_proxy_protocol == "v1":
            yield Problem(("send_proxy_protocol",), 'version 1 is for streams only; did you mean "v2"?')


@attrs.frozen(kw_only=True)
class EdgeTable:
    """[edge]"""

    workers: Workers | None = None
    listeners: Mapping[str, ListenerTable] = attrs.Factory(dict)
