"""A configuration made ready to work by: routes with their pools, keys and limits; listeners with their guards.

Made anew by each reload beside what runs, and swapped in by one assignment. Whatever can fail fails here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from gateway.config import GatewayTable, ListenerTable, RouteTable
from gateway.decisions import Decisions
from gateway.guard import Guard
from gateway.limits import Limit, bind, split
from gateway.routes import Router
from gateway.tokens import Verifier
from supervisor.ground.config import Config
from supervisor.ground.net.addresses import within
from supervisor.ground.net.tls import Certificates, KeyPair
from supervisor.ground.pools import Pool
from supervisor.plane.layout import Kind
from supervisor.plane.memory import Plane
from supervisor.plane.quotas import Quotas

NAME: Final = "gateway"
HTTP2: Final = b"h2"
HTTP1: Final = b"http/1.1"


@attrs.define(eq=False)
class Route:
    """One route at work."""

    name: str
    log: str  # members of the log line's JSON object
    pool: Pool
    verifier: Verifier | None
    before: tuple[Limit, ...]  # limits that need no identity
    after: tuple[Limit, ...]
    forward_token: bool
    timeout: float  # for an answer, over all tries
    idle_timeout: float  # between the pieces of an answer
    max_body: int | None
    counters: int  # base of its cells


@attrs.define(eq=False)
class ListenerPlan:
    """One listener at work."""

    name: str
    table: ListenerTable
    decisions: Decisions[Route]
    fallback_host: bytes  # for HTTP/1.0 clients that name none (RFC 9112 §3.3)
    certificates: Certificates | None

    def must_introduce(self, ip: str) -> bool:
        """Whether a peer with this address must send a PROXY header."""
        return within(ip, self.table.accept_proxy_protocol)

    def trusts(self, ip: str) -> bool:
        """Whether a peer with this address is believed about its client."""
        return within(ip, self.table.trusted_proxies)


@attrs.define(eq=False)
class Plan:
    """Everything of one configuration."""

    guard: Guard
    routes: Mapping[str, Route]
    listeners: Mapping[str, ListenerPlan]
    served_by: bytes  # the X-Served-By line, or b""
    tail: bytes  # the end of every answer's head, beginning with the CRLF before it: a template for the request id
    drain_timeout: float


def make(config: Config, plane: Plane, column: int, pools: Mapping[str, Pool], quotas: Quotas) -> Plan:
    """Raises ValueError if the plane has no rows for it."""
    table: GatewayTable = config.tier(NAME)
    verifiers = {name: Verifier(name, auth) for name, auth in table.auth.items()}

    def cells(kind: Kind, name: str) -> tuple[int, int]:
        try:
            row = plane.row(kind, name)
        except KeyError:
            raise ValueError(f"the plane has no row for the {kind.value} {name}") from None
        return row, plane.counters(kind, row, column)

    def limits(route: str, names: Sequence[str]) -> tuple[tuple[Limit, ...], tuple[Limit, ...]]:
        bound = [
            bind(name, table.limits[name], route, *cells(Kind.LIMIT, name), quotas.digests(name)) for name in names
        ]
        return split(bound)

    routes = {
        name: _route(name, route, pools, verifiers, limits(name, route.limits), cells(Kind.ROUTE, name)[1])
        for name, route in table.routes.items()
    }
    router = Router((table.routes[name], route) for name, route in routes.items())
    pop = config.supervisor.pop
    served_by = b"X-Served-By: " + _header_safe(pop) if pop else b""
    return Plan(
        guard=Guard(_identity(table), _wanted(table)),
        routes=routes,
        listeners={name: _listener(name, listener, router) for name, listener in table.listeners.items()},
        served_by=served_by,
        tail=b"\r\nX-Request-Id: %b\r\n" + (served_by + b"\r\n\r\n" if served_by else b"\r\n"),
        drain_timeout=config.supervisor.drain_timeout,
    )


def _route(
    name: str,
    table: RouteTable,
    pools: Mapping[str, Pool],
    verifiers: Mapping[str, Verifier],
    limits: tuple[tuple[Limit, ...], tuple[Limit, ...]],
    counters: int,
) -> Route:
    return Route(
        name=name,
        log=f'"route":{json.dumps(name)},"pool":{json.dumps(table.pool)}',
        pool=pools[table.pool],
        verifier=None if table.auth is None else verifiers[table.auth],
        before=limits[0],
        after=limits[1],
        forward_token=table.forward_token,
        timeout=float(table.timeout),
        idle_timeout=float(table.idle_timeout),
        max_body=None if table.max_body is None else int(table.max_body),
        counters=counters,
    )


def alpn(table: ListenerTable) -> tuple[bytes, ...]:
    """The protocols that are offered within TLS, the preferred first."""
    return (HTTP2, HTTP1) if table.speaks_http2 else (HTTP1,)


def _listener(name: str, table: ListenerTable, router: Router[Route]) -> ListenerPlan:
    decisions = Decisions(router, table.allow_encoded_slash)
    return ListenerPlan(name, table, decisions, str(table.bind).encode("ascii"), certificates(table))


def certificates(table: ListenerTable) -> Certificates | None:
    """What a listener shows; None without TLS. Raises ValueError."""
    if table.tls is None:
        return None
    return Certificates([KeyPair(one.cert.data, one.key.data) for one in table.tls.certificates], alpn(table))


def _identity(table: GatewayTable) -> set[bytes]:
    """Headers that say who somebody is, on whatever route: no client may send one to any."""
    return {header.encode() for auth in table.auth.values() for header in auth.claims_to_headers.values()}


def _wanted(table: GatewayTable) -> set[bytes]:
    """Headers that a route or a limit looks at."""
    names = {name.encode() for route in table.routes.values() for name in route.headers}
    return names | {limit.header.encode() for limit in table.limits.values() if limit.header is not None}


def _header_safe(text: str) -> bytes:
    return "".join(c if "!" <= c <= "~" and c != "%" else "-" for c in text).encode("ascii")
