"""[edge]: the layer 4 listeners."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import attrs

from edge.kernel.fit import misfits
from edge.peek.sieve import covers
from supervisor.ground.config import (
    Between,
    Bind,
    CertificateTable,
    Duration,
    Network,
    Problem,
    Rate,
    Workers,
    unknown_name,
    unusable,
)

_SERVER_NAME = re.compile(r"(?:\*\.)?[a-z0-9_](?:[a-z0-9._\-]*[a-z0-9_])?").fullmatch

_NOT_HTTP = "the edge passes bytes as they are: a pool with protocol is for the gateway"


@attrs.frozen(kw_only=True)
class RouteTable:
    """[edge.listeners.NAME] routes: connections told apart by their first bytes. Without a condition: all others."""

    sni: str | None = None  # the server's name in the ClientHello; "*.example.com" is any depth below
    alpn: str | None = None  # a protocol that the ClientHello offers
    detect: Literal["tls", "http", "postgres", "ssh", "redis", "rtmp", "amqp", "mysql", "smtp"] | None = None
    pool: str
    send_proxy_protocol: Literal["off", "v1", "v2"] | None = None  # None: as the listener says

    def problems(self, config: Any) -> Iterable[Problem]:
        if self.pool not in config.pools:
            yield Problem(("pool",), unknown_name("pool", self.pool, config.pools))
        elif config.pools[self.pool].protocol != "auto":
            yield Problem(("pool",), _NOT_HTTP)
        if self.sni is not None and not _SERVER_NAME(self.sni):
            yield Problem(("sni",), 'a name in lower case such as "db.example.com" or "*.example.com"')
        if self.alpn is not None and not 0 < len(self.alpn.encode()) < 256:
            yield Problem(("alpn",), "a protocol's name has 1 to 255 bytes")
        if self.detect not in (None, "tls") and (self.sni is not None or self.alpn is not None):
            yield Problem(("detect",), "sni and alpn are told by TLS alone")


@attrs.frozen(kw_only=True)
class TlsTable:
    """[edge.listeners.NAME] tls: TLS 1.2 and 1.3 end here; the first certificate serves clients that name no host."""

    certificates: tuple[CertificateTable, ...]
    alpn: tuple[str, ...] = ()  # protocols to offer, the preferred first; none: ALPN is not answered

    def problems(self, config: Any) -> Iterable[Problem]:
        for number, protocol in enumerate(self.alpn):
            if not 0 < len(protocol.encode()) < 256:
                yield Problem(("alpn", number), "a protocol's name has 1 to 255 bytes")
        yield from unusable(self.certificates)


@attrs.frozen(kw_only=True)
class ListenerTable:
    """[edge.listeners.NAME]: one port, spread over the servers of a pool, or of several by routes."""

    bind: Bind
    protocol: Literal["tcp", "udp"] = "tcp"
    pool: str | None = None
    routes: tuple[RouteTable, ...] = ()
    tls: TlsTable | None = None
    detect_timeout: Duration = Duration(3)  # for the first bytes; who is silent for so long awaits a server's greeting
    accept_proxy_protocol: tuple[Network, ...] = ()  # networks that must send it
    send_proxy_protocol: Literal["off", "v1", "v2"] = "off"
    transparent: bool = False  # tcp: servers see the client's own address
    connect_timeout: Duration = Duration(5)
    retries: Annotated[int, Between(0, 10)] = 2  # other servers tried after the first
    idle_timeout: Duration = Duration(3600)  # tcp: neither side said anything
    log_interval: Duration = Duration(60)  # tcp: between access lines of a connection that lives; 0: only at its end
    session_timeout: Duration = Duration(60)  # udp: neither side said anything
    max_connections: Annotated[int, Between(1, 1_000_000)] = 100_000  # over all workers, as those of one client
    max_connections_per_client: Annotated[int, Between(1, 1_000_000)] | None = None
    connection_rate_per_client: Rate | None = None
    kind: Literal["sessions", "stateless", "one_way"] = "sessions"  # udp
    send_proxy_protocol_every: bool = False  # udp: in front of every datagram of a session, not its first alone
    answer_timeout: Duration = Duration(5)  # udp, stateless: what dig and resolvers wait
    max_sessions: Annotated[int, Between(1, 60_000)] = 8192  # udp, of one worker: each takes a descriptor and a port
    datapath: Literal["proxy", "kernel", "auto"] = "proxy"
    masquerade: bool = True  # kernel: our address towards the servers; else they see the client's, and route by us
    persist: bool = False  # kernel: the rules stay while the daemon is away

    def problems(self, config: Any) -> Iterable[Problem]:
        if self.datapath == "kernel":
            yield from (Problem((key,), f"not by the kernel: {why}") for key, why in misfits(self, config.pools))
        elif self.datapath == "proxy" and (self.persist or not self.masquerade):
            yield Problem(("persist" if self.persist else "masquerade",), 'needs datapath = "kernel" or "auto"')
        if self.pool is not None and self.pool not in config.pools:
            yield Problem(("pool",), unknown_name("pool", self.pool, config.pools))
        elif self.pool is not None and config.pools[self.pool].protocol != "auto":
            yield Problem(("pool",), _NOT_HTTP)
        elif self.pool is not None and self.protocol == "udp" and config.pools[self.pool].tls is not None:
            yield Problem(("pool",), "datagrams are not encrypted here: a pool with tls is for streams")
        if (self.pool is None) is not bool(self.routes):
            yield Problem((), "exactly one of pool and routes is needed")
        if self.protocol == "udp":
            yield from self._streams_only()
        elif self.kind != "sessions":
            yield Problem(("kind",), "is for datagrams only")
        if self.transparent:
            yield from self._other_families(config)
        if self.send_proxy_protocol_every and (self.protocol, self.send_proxy_protocol) != ("udp", "v2"):
            yield Problem(("send_proxy_protocol_every",), 'is for datagrams, with send_proxy_protocol = "v2"')
        for number, route in enumerate(self.routes):
            if self.tls is not None and route.detect == "tls":
                yield Problem(("routes", number, "detect"), "TLS is ended here already; what is told is inside it")
            above = next((at for at, one in enumerate(self.routes[:number]) if covers(one, route)), None)
            if above is not None:
                yield Problem(("routes", number), f"never reached: route {above} takes all that it would take")

    def _other_families(self, config: Any) -> Iterable[Problem]:
        """Servers that a client's own address can't be shown to."""
        for name in [route.pool for route in self.routes] if self.pool is None else [self.pool]:
            for server in config.pools[name].servers if name in config.pools else ():
                if not server.address.is_name and server.address.family != self.bind.family:
                    reason = f"server {server.address} of pool {name} is of another family than the clients"
                    yield Problem(("transparent",), reason)

    def _streams_only(self) -> Iterable[Problem]:
        if self.routes:
            yield Problem(("routes",), "datagrams are not told apart by their first bytes")
        for key in (
            "accept_proxy_protocol", "tls", "transparent", "max_connections_per_client", "connection_rate_per_client"
        ):  # fmt: skip
            if getattr(self, key):
                yield Problem((key,), "is for streams only")
        if self.send_proxy_protocol == "v1":
            yield Problem(("send_proxy_protocol",), 'version 1 is for streams only; did you mean "v2"?')


@attrs.frozen(kw_only=True)
class EdgeTable:
    """[edge]"""

    workers: Workers | None = None
    listeners: Mapping[str, ListenerTable] = attrs.Factory(dict)
