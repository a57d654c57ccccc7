"""Why a request goes where it goes: the decision that the workers would make, step by step, each with its key.

The plan is made as a worker makes it, on a plane of its own that nobody else uses, and the request takes the same guard
and the same admission. So limits are as if nobody had asked before, and servers as if all were up. Nothing secret
leaves here: tokens and cookies are named, never shown.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, cast

import attrs

from gateway import plan
from gateway.admission import Admission
from gateway.answers import AnswerReader
from gateway.config import NO_ROUTE, GatewayTable
from gateway.connection import Connection
from gateway.errors import REASONS, PeerError
from gateway.forwarded import Client, Identities
from gateway.guard import Judged
from gateway.limits import Key
from gateway.objections import conditions, objections
from gateway.patterns import HostPattern
from gateway.plan import NAME, ListenerPlan, Plan, Route
from gateway.replies import Reply
from gateway.shared import Shared
from supervisor.ground import pools
from supervisor.ground.config import Config, Path
from supervisor.plane.layout import Kind
from supervisor.plane.memory import Plane
from supervisor.plane.quotas import Quotas

SECRETS: Final = frozenset({b"authorization", b"cookie", b"proxy-authorization"})

_URL = re.compile(r"(https?)://(\[[0-9A-Fa-f:.]+\]|[^/?#:@]+)(?::([0-9]{1,5}))?((?:[/?][^#]*)?)").fullmatch
_NAUGHT: Final = b"0" * 32  # the request id of a request that is only explained
_PORTS = {"http": 80, "https": 443}


@attrs.frozen
class Asked:
    """A request to explain. `client` is the address it comes from."""

    method: str
    url: str
    fields: Sequence[tuple[str, str]] = ()
    client: str = "127.0.0.1"
    listener: str | None = None


@attrs.frozen
class Step:
    """One decision: what it was about, what was chosen, why, and the key of the configuration that says so."""

    about: str
    chosen: str
    why: str
    path: Path


@attrs.frozen
class Explanation:
    """`lost` are the routes that were not chosen. `status` and `reason` are of an answer of our own; 0 and "" where the
    request goes to a server, which gets `head`."""

    steps: Sequence[Step]
    lost: Sequence[Step]
    head: Sequence[str] = ()
    status: int = 0
    reason: str = ""
    detail: str = ""


class _Still:
    """As much of a lane as an admission uses: the time. What it would start never begins."""

    def __init__(self) -> None:
        self.wall = time.time()
        self.now_ns = time.monotonic_ns()
        self.now = self.now_ns / 1e9

    def spawn(self, coro: Any, name: str = "") -> None:
        coro.close()


@attrs.define(eq=False)
class _Bench:
    """As much of what a worker's connections share."""

    lane: _Still
    cells: memoryview[int]
    admit: Any
    identities: Identities
    tier: int


def explain(config: Config, asked: Asked) -> Explanation:
    """Raises ValueError for a URL or a listener that can't be."""
    match = _URL(asked.url)
    if match is None:
        raise ValueError("a URL begins with http:// or https:// and a host")
    scheme, host, port, target = match.groups("")
    table: GatewayTable = config.tier(NAME)
    name, why = _listener(table, asked.listener, scheme, int(port or _PORTS[scheme]))
    steps = [Step("listener", name, why, ("gateway", "listeners", name, "bind"))]
    plane = Plane.create()
    try:
        made, shared = _made(config, plane)
        here = made.listeners[name]
        if here.certificates is not None:
            steps.append(_certificate(here, host))
        fields = [f"{key}: {value}" for key, value in asked.fields]
        if not any(key.lower() == "host" for key, _ in asked.fields):
            fields.insert(0, f"Host: {host}:{port}" if port else f"Host: {host}")
        if not target.startswith("/"):
            target = "/" + target
        head = "\r\n".join([f"{asked.method} {target} HTTP/1.1", *fields]).encode("utf-8", "surrogateescape")
        return _Explaining(config, made, here, shared, steps).of(head, asked.client)
    finally:
        plane.close()


def _listener(table: GatewayTable, named: str | None, scheme: str, port: int) -> tuple[str, str]:
    """Which listener takes the connection, and why."""
    if named is not None:
        if named not in table.listeners:
            raise ValueError(f"there is no listener {named}")
        return named, f"{table.listeners[named].bind}, as asked"
    fitting = [name for name, one in table.listeners.items() if (one.tls is not None) == (scheme == "https")]
    for name in fitting:
        if table.listeners[name].bind.port == port:
            return name, f"{table.listeners[name].bind}, by its port"
    if len(fitting) == 1:
        bind = table.listeners[fitting[0]].bind
        return fitting[0], f"{bind}, the only one for {scheme}; port {port} is none of the gateway's"
    names = ", ".join(table.listeners) or "none"
    raise ValueError(f"no listener of the gateway has port {port} and speaks {scheme} (there are: {names}); name one")


def _certificate(here: ListenerPlan, host: str) -> Step:
    """What a client that asks for this host is shown."""
    assert here.certificates is not None
    assert here.table.tls is not None
    number = here.certificates.number(host.encode("idna") if not host.startswith("[") else None)
    chosen = here.table.tls.certificates[number]
    names = sorted(chosen.pair().names())
    fits = any(HostPattern(name.removeprefix("*"), name.startswith("*.")).takes(host.lower()) for name in names)
    listed = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
    why = f"for {listed}" if fits else f"the first: none is for {host}"
    return Step(
        "certificate", chosen.cert.path.name, why, ("gateway", "listeners", here.name, "tls", "certificates", number)
    )


def _made(config: Config, plane: Plane) -> tuple[Plan, Shared]:
    """The plan of a worker that has the plane for itself."""
    table: GatewayTable = config.tier(NAME)
    column = plane.claim_column(NAME, 1)
    rows = [(Kind.TIER, NAME), *((Kind.ROUTE, name) for name in (NO_ROUTE, *table.routes))]
    for kind, name in (*pools.rows(config), *rows, *((Kind.LIMIT, name) for name in table.limits)):
        plane.allocate(kind, name)
    quotas = Quotas(plane)
    made = plan.make(config, plane, column, pools.Pools(config, plane, column), quotas, AnswerReader())
    tier = plane.counters(Kind.TIER, plane.row(Kind.TIER, NAME), column)
    bench = _Bench(_Still(), plane.cells, quotas.admit, Identities(lambda size: bytes(size)), tier)
    return made, cast(Shared, bench)


@attrs.define
class _Explaining:
    """One request on its way; `steps` grows."""

    config: Config
    made: Plan
    here: ListenerPlan
    shared: Shared
    steps: list[Step]

    def of(self, head: bytes, ip: str) -> Explanation:
        client = Client(ip, "http" if self.here.certificates is None else "https", self.here.trusts(ip))
        connection = Connection(cast(Any, None), None, client, 0.0)
        admission = Admission()
        admission.begin(self.shared, client)
        judged: Judged | None = None
        try:
            judged = self.made.guard.judge(head, len(head))
            out = admission.admit(self.shared, connection, self.here, judged)
        except PeerError as error:
            lost = [] if judged is None else self._lost(judged, admission.route)
            self._route_steps(admission, error)
            where = ("gateway", "routes") if admission.route is None else self.steps[-1].path
            location = next((line.decode() for line in error.fields if line.startswith(b"Location: ")), "")
            detail = location if isinstance(error, Reply) else error.detail or REASONS[error.code][1]
            if error.code == "keys_missing":
                detail = "explain fetches no keys: with them, the daemon judges the token"
            self.steps.append(Step("answer", f"{error.status} {error.code}", detail, where))
            return Explanation(self.steps, lost, (), error.status, error.code, detail)
        lost = self._lost(judged, admission.route)
        self._route_steps(admission, None)
        assert admission.route is not None
        self._server_steps(admission.route, admission.ip)
        return Explanation(self.steps, lost, [*_shown(out)])

    def _lost(self, judged: Judged, route: Route | None) -> list[Step]:
        """Every other route, and why."""
        found = objections(self.made.router, self.here.decisions, judged, route)
        return [Step("not", name, why, ("gateway", "routes", name)) for name, why in found]

    def _route_steps(self, admission: Admission, error: PeerError | None) -> None:
        """The route, who asks, the limits: as far as it came."""
        route = admission.route
        if route is None:
            return
        path = ("gateway", "routes", route.name)
        table = self.config.tier(NAME).routes[route.name]
        self.steps.append(Step("route", route.name, conditions(table), path))
        limits = [*route.before, *route.after]
        refused = error is not None and error.code == "limited"
        for limit in limits[: len(route.before)]:
            self.steps.append(self._limit(limit, admission))
        if route.verifier is not None and not refused:
            known, refusal = admission.user != "null", "" if error is None else error.code
            user = f"the user is {json.loads(admission.user)}" if known else f"says no: {refusal}"
            self.steps.append(Step("auth", route.verifier.name, user, ("gateway", "auth", route.verifier.name)))
        if error is None or isinstance(error, Reply):
            for limit in limits[len(route.before) :]:
                self.steps.append(self._limit(limit, admission))

    def _limit(self, limit: Any, admission: Admission) -> Step:
        by = {
            Key.USER: f"the user {json.loads(admission.user)}",
            Key.CLIENT_IP: f"the address {admission.ip}",
            Key.ROUTE: "the route",
            Key.CLAIM: f"the claim {limit.claim}",
        }.get(limit.key, f"the header {limit.header.decode()}")
        rate = self.config.tier(NAME).limits[limit.name].rate
        shadow = ", counts and lets pass" if limit.shadow else ""
        words = f"{rate}, {limit.burst} at once, by {by}{shadow}; what others use up is not looked at"
        return Step("limit", limit.name, words, ("gateway", "limits", limit.name))

    def _server_steps(self, route: Route, ip: str) -> None:
        pool = route.pool
        path = ("pools", pool.name)
        table = self.config.tier(NAME).routes[route.name]
        if table.split:
            number = next(at for at, share in enumerate(table.split) if share.pool == pool.name)
            total = sum(share.weight for share in table.split)
            share = f"{table.split[number].weight} of {total} of the split"
            self.steps.append(Step("split", pool.name, share, ("gateway", "routes", route.name, "split", number)))
        self.steps.append(Step("pool", pool.name, f"{pool.table.balance} over {len(pool.servers)}", path))
        server = pool.pick(ip)
        if server is not None:
            keyed = pool.table.balance in ("source_hash", "maglev")
            words = f"by the address {ip}" if keyed else "the first in turn; others as the load says"
            chosen, number = server.name.partition("/")[2], pool.servers.index(server)
            self.steps.append(Step("server", chosen, f"{words}, if all are up", (*path, "servers", number)))


def _shown(out: Iterable[bytes]) -> Iterator[str]:
    """The head for the server, without what is secret in it."""
    for part in out:
        for line in part.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() in SECRETS:
                yield f"{name.decode()}: (not shown)"
            elif _NAUGHT in value:
                yield f"{name.decode()}: (another for each request)"
            else:
                yield line.decode("utf-8", "backslashreplace")
