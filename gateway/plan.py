"""A configuration made ready to work by: routes with their pools, keys and limits; listeners with their guards.

Made anew by each reload beside what runs, and swapped in by one assignment. Whatever can fail fails here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Final, cast

import attrs

from gateway.answers import AnswerReader, Known
from gateway.config import GatewayTable, ListenerTable
from gateway.decisions import Decisions, Target
from gateway.edits import EditedAnswerReader, Edits, edits
from gateway.guard import Guard
from gateway.http2.replies import Replies
from gateway.limits import Limit, bind, split
from gateway.mirror import Mirror
from gateway.permissions import SCOPES, Permissions
from gateway.replies import FixedReply
from gateway.retries import Retries
from gateway.route_tables import RouteTable
from gateway.routes import Router
from gateway.shedding import Shedding, shedding
from gateway.sticky import Sticky, nobody
from gateway.tally import Tally
from gateway.tokens import Verifier
from gateway.transport import HTTP1, HTTP2, Transport, transport
from gateway.treatments import Split, SplitBy, Treatment
from supervisor.ground.config import Config
from supervisor.ground.net.addresses import within
from supervisor.ground.net.tls import Certificates
from supervisor.ground.pools import Pool, Server
from supervisor.plane.layout import DatabaseState, Kind
from supervisor.plane.layout import Route as RouteCells
from supervisor.plane.memory import Plane
from supervisor.plane.quotas import Quotas

NAME: Final = "gateway"
ID_NAME: Final = b"\r\nX-Request-Id: "


@attrs.define(eq=False)
class Route:
    """One route at work. `recall` reads whole heads of its answers as clients see them (see AnswerReader.recall)."""

    name: str
    log: str  # members of the log line's JSON object
    pool: Pool  # of a route that answers by itself it is never looked at, nor what goes with it
    transport: Transport  # how the pool's servers are spoken to
    pick: Callable[[str], Server | None]  # the pool's; where more is to be asked than that, one that finds none
    sticky: Sticky | None
    verifier: Verifier | None
    before: tuple[Limit, ...]  # limits that need no identity
    after: tuple[Limit, ...]
    sheds_on: int  # the cell that says until when (monotonic ns) requests are refused; 0: none
    shedding: Shedding | None
    guarded: bool  # it has limits that need no identity, or sheds
    unconditional: bool  # whoever asks is forwarded, and only that
    forward_token: bool
    timeout: float  # for an answer, over all tries
    idle_timeout: float  # between the pieces of an answer
    total_timeout: float  # for everything, inf if there is none
    abort_on_close: bool
    retries: Retries
    max_body: int | None
    counters: int  # base of its cells
    tally: Tally
    treatment: Treatment | None
    recall: Callable[[bytes], Known]
    replies: Replies  # the same for HTTP/2
    answer_edits: Edits | None  # the same for heads that are read otherwise
    mirror: Mirror | None


@attrs.define(eq=False)
class ListenerPlan:
    """One listener at work."""

    name: str
    table: ListenerTable
    decisions: Decisions[Route]
    fallback_host: bytes  # for HTTP/1.0 clients that name none (RFC 9112 §3.3)
    certificates: Certificates | None

    @property
    def peer_header(self) -> str:
        """The header that tells servers the name in a client's certificate; "" where clients are not asked for one."""
        asked = None if self.table.tls is None else self.table.tls.client_certificates
        return "" if asked is None else asked.header

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
    verifiers: Mapping[str, Verifier]
    transports: Mapping[str, Transport]  # by pool
    router: Router[Route]
    listeners: Mapping[str, ListenerPlan]
    served_by: bytes  # the X-Served-By line, or b""
    end: bytes  # of every answer's head, behind the request id
    drain_timeout: float

    def tail(self, request_id: bytes) -> bytes:
        """The last lines of an answer's head, with the CRLF before them."""
        return ID_NAME + request_id + self.end


def make(
    config: Config, plane: Plane, column: int, pools: Mapping[str, Pool], quotas: Quotas, answers: AnswerReader
) -> Plan:
    """`answers` reads for all routes that change nothing of answers. Raises ValueError if the plane has no rows."""
    table: GatewayTable = config.tier(NAME)
    verifiers = {name: Verifier(name, auth, _claims(table, name)) for name, auth in table.auth.items()}

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

    pop = config.supervisor.pop
    served_by = b"X-Served-By: " + _header_safe(pop) if pop else b""
    replies = Replies(answers, served_by)
    transports = {name: transport(one) for name, one in config.pools.items()}
    most = table.max_requests
    flying = [cells(Kind.ROUTE, name)[1] + RouteCells.IN_FLIGHT for name in table.routes]

    def route(name: str, table: RouteTable) -> Route:
        before, after = limits(name, table.limits)
        counters = cells(Kind.ROUTE, name)[1]
        headers = table.response_headers
        changes = None if headers is None else edits(headers.set_, headers.add, headers.remove)
        reader = answers if changes is None else EditedAnswerReader(changes)
        plain = Route(
            name=name,
            log=_log(name, table.pool),
            pool=cast("Pool", None) if table.pool is None else pools[table.pool],
            transport=cast("Transport", None) if table.pool is None else transports[table.pool],
            verifier=None if table.auth is None else verifiers[table.auth],
            before=before,
            after=after,
            sheds_on=_pressure(plane, table.sheds_on),
            shedding=shedding(most, table.importance, flying),
            guarded=bool(before) or table.sheds_on is not None or most is not None,
            unconditional=False,
            forward_token=table.forward_token,
            timeout=float(table.timeout),
            idle_timeout=float(table.idle_timeout),
            total_timeout=math.inf if table.total_timeout is None else float(table.total_timeout),
            abort_on_close=table.abort_on_close,
            pick=_pick(table, pools, table.pool),
            sticky=None if table.sticky is None else Sticky(table.sticky),
            retries=Retries(table.retries, lambda: plane.cells[counters]),
            max_body=None if table.max_body is None else int(table.max_body),
            counters=counters,
            tally=Tally(plane.cells, counters),
            treatment=None,
            recall=reader.recall,
            replies=replies if changes is None else Replies(reader, served_by),
            answer_edits=changes,
            mirror=None,
        )
        plain.mirror = _mirror(plain, table, pools, transports)
        plain.treatment = _treatment(plain, table, pools, transports)
        plain.unconditional = not plain.guarded and plain.verifier is None and plain.treatment is None
        return plain

    routes = {name: route(name, one) for name, one in table.routes.items()}
    router = Router((table.routes[name], one) for name, one in routes.items())
    targets = _targets(table, routes)
    return Plan(
        guard=Guard(_identity(table), _wanted(table)),
        routes=routes,
        verifiers=verifiers,
        transports=transports,
        router=router,
        listeners={name: _listener(name, listener, router, targets) for name, listener in table.listeners.items()},
        served_by=served_by,
        end=b"\r\n" + (served_by + b"\r\n\r\n" if served_by else b"\r\n"),
        drain_timeout=config.supervisor.drain_timeout,
    )


def _pressure(plane: Plane, sheds_on: str | None) -> int:
    """The cell of a database that says until when it is saturated."""
    if sheds_on is None:
        return 0
    row = plane.row(Kind.DATABASE, sheds_on.removeprefix("pooler.databases."))
    return plane.state(Kind.DATABASE, row) + DatabaseState.SATURATED


def _log(route: str, pool: str | None) -> str:
    return f'"route":{json.dumps(route)},"pool":{json.dumps(pool)}'


def _pick(table: RouteTable, pools: Mapping[str, Pool], name: str | None) -> Callable[[str], Server | None]:
    """How the express lane finds a server."""
    if name is None or table.sticky is not None or table.mirror is not None or pools[name].table.max_queued:
        return nobody
    return pools[name].pick


def _treatment(
    route: Route, table: RouteTable, pools: Mapping[str, Pool], transports: Mapping[str, Transport]
) -> Treatment | None:  # fmt: skip
    """None for a route that only forwards."""
    headers = table.request_headers
    host = table.rewrite.host if table.rewrite is not None else None
    treatment = Treatment(
        permissions=_permissions(table),
        max_body=route.max_body,
        reply=_reply(table),
        split=_split(route, table, pools, transports),
        host=b"" if host is None else b"Host: " + host.encode("ascii"),
        edits=None if headers is None else edits(headers.set_, headers.add, headers.remove),
    )
    return None if treatment == Treatment() else treatment


def _mirror(
    route: Route, table: RouteTable, pools: Mapping[str, Pool], transports: Mapping[str, Transport]
) -> Mirror | None:  # fmt: skip
    mirror = table.mirror
    if mirror is None:
        return None
    other = attrs.evolve(route, pool=pools[mirror.pool], transport=transports[mirror.pool], sticky=None)
    return Mirror(other, float(mirror.percent))


def _permissions(table: RouteTable) -> Permissions | None:
    if not table.scopes and not table.claims:
        return None
    return Permissions(table.auth or "", frozenset(table.scopes), tuple(table.claims.items()))


def _claims(table: GatewayTable, auth: str) -> set[str]:
    """What routes with this auth, and their limits, look at in a token."""
    names: set[str] = set()
    for route in table.routes.values():
        if route.auth == auth:
            names |= {*route.claims, *(SCOPES if route.scopes else ())}
            names |= {claim for name in route.limits if (claim := table.limits[name].claim) is not None}
    return names


def _reply(table: RouteTable) -> FixedReply | None:
    headers = table.response_headers
    extra = () if headers is None else edits(headers.set_, headers.add, ()).lines
    if table.redirect is not None:
        return FixedReply("redirected", table.redirect.status, extra)
    if table.respond is not None:
        body = table.respond.body.encode()
        kind = (b"Content-Type: " + table.respond.content_type.encode(),) if body else ()
        return FixedReply("responded", table.respond.status, (*kind, *extra), body)
    return None


def _split(
    route: Route, table: RouteTable, pools: Mapping[str, Pool], transports: Mapping[str, Transport]
) -> Split | None:  # fmt: skip
    shares = [share for share in table.split if share.weight]
    if not shares:
        return None
    by = SplitBy.CLIENT_IP if table.auth is None else SplitBy.USER
    return Split(
        by=by if table.split_by is None else SplitBy(table.split_by),
        salt=route.name.encode(),
        bounds=tuple(accumulate(share.weight for share in shares)),
        routes=tuple(
            attrs.evolve(
                route,
                pool=pools[share.pool],
                transport=transports[share.pool],
                log=_log(route.name, share.pool),
                pick=_pick(table, pools, share.pool),
            )
            for share in shares
        ),
    )


def _targets(table: GatewayTable, routes: Mapping[str, Route]) -> dict[Route, Target]:
    """Of the routes that send requests elsewhere than where they came."""
    targets: dict[Route, Target] = {}
    for name, route in table.routes.items():
        if route.redirect is not None:
            targets[routes[name]] = route.redirect.compiled()
        elif route.rewrite is not None:
            targets[routes[name]] = route.rewrite.compiled()
    return targets


def alpn(table: ListenerTable) -> tuple[bytes, ...]:
    """The protocols that are offered within TLS, the preferred first."""
    return (HTTP2, HTTP1) if table.speaks_http2 else (HTTP1,)


def _listener(
    name: str, table: ListenerTable, router: Router[Route], targets: Mapping[Route, Target]
) -> ListenerPlan:  # fmt: skip
    decisions = Decisions(router, table.allow_encoded_slash, targets)
    return ListenerPlan(name, table, decisions, str(table.bind).encode("ascii"), certificates(table))


def certificates(table: ListenerTable) -> Certificates | None:
    """What a listener shows; None without TLS. Raises ValueError."""
    if table.tls is None:
        return None
    asked = table.tls.client_certificates
    peers = None if asked is None else asked.policy()
    return Certificates([one.pair() for one in table.tls.certificates], alpn(table), peers)


def _identity(table: GatewayTable) -> set[bytes]:
    """Headers that say who somebody is, on whatever route: no client may send one to any."""
    return {header.encode() for header in table.identity_headers()}


def _wanted(table: GatewayTable) -> set[bytes]:
    """Headers that a route or a limit looks at."""
    names = {name.encode() for route in table.routes.values() for name in route.headers}
    return names | {limit.header.encode() for limit in table.limits.values() if limit.header is not None}


def _header_safe(text: str) -> bytes:
    return "".join(c if "!" <= c <= "~" and c != "%" else "-" for c in text).encode("ascii")
