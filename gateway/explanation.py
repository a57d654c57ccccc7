"""Why a request goes where it goes: the decision that the workers would make, step by step, each with its key.

The plan is made as a worker makes it, on a plane of its own that nobody else uses, and the request takes the same guard
and the same admission. So limits are as if nobody had asked before; servers are in the states that the caller knows of.
Nothing secret leaves here: tokens and cookies are named, never shown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, cast

import attrs

from gateway.admission import Admission
from gateway.config import GatewayTable
from gateway.connection import Connection
from gateway.errors import REASONS, PeerError
from gateway.forwarded import Client
from gateway.guard import Judged
from gateway.limits import Key
from gateway.objections import conditions, objections
from gateway.patterns import HostPattern
from gateway.plan import NAME, ListenerPlan, Plan, Route
from gateway.replies import Reply
from gateway.route_tables import RouteTable
from gateway.shared import Shared
from gateway.transport import Transport
from gateway.trial import trial
from supervisor.ground.config import Config, Path
from supervisor.ground.health import Health
from supervisor.ground.pools import Server

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
    peer: str = ""  # the name in its certificate
    listener: str | None = None
    arrived: str = "as asked"  # why at this listener

    @property
    def port(self) -> int:
        """Where the URL leads. Raises ValueError where it is none."""
        match = _URL(self.url)
        if match is None:
            raise ValueError("a URL begins with http:// or https:// and a host")
        return int(match[3] or _PORTS[match[1]])


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


def explain(config: Config, asked: Asked, states: Mapping[str, str] | None = None) -> Explanation:
    """`states` are those of servers by their names ("pool/host:port"), as the status has them; None: nobody knows, and
    all count as up. Raises ValueError for a URL or a listener that can't be."""
    number = asked.port
    match = _URL(asked.url)
    assert match is not None, "or it had no port"
    scheme, host, port, target = match.groups("")
    table: GatewayTable = config.tier(NAME)
    name, why = _listener(table, asked, scheme, number)
    steps = [Step("listener", name, why, ("gateway", "listeners", name, "bind"))]
    with trial(config, states or {}) as (made, shared):
        here = made.listeners[name]
        if here.certificates is not None:
            steps.append(_certificate(here, host))
        fields = [f"{key}: {value}" for key, value in asked.fields]
        if not any(key.lower() == "host" for key, _ in asked.fields):
            fields.insert(0, f"Host: {host}:{port}" if port else f"Host: {host}")
        if not target.startswith("/"):
            target = "/" + target
        head = "\r\n".join([f"{asked.method} {target} HTTP/1.1", *fields]).encode("utf-8", "surrogateescape")
        return _Explaining(config, made, here, shared, states, steps).of(head, asked.client, asked.peer)


def _listener(table: GatewayTable, asked: Asked, scheme: str, port: int) -> tuple[str, str]:
    """Which listener takes the connection, and why."""
    named = asked.listener
    if named is not None:
        if named not in table.listeners:
            raise ValueError(f"there is no listener {named}")
        return named, f"{table.listeners[named].bind}, {asked.arrived}"
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


@attrs.define
class _Explaining:
    """One request on its way; `steps` grows."""

    config: Config
    made: Plan
    here: ListenerPlan
    shared: Shared
    states: Mapping[str, str] | None
    steps: list[Step]

    def of(self, head: bytes, ip: str, peer: str) -> Explanation:
        client = Client(ip, "http" if self.here.certificates is None else "https", self.here.trusts(ip), peer,
                        self.here.peer_header)  # fmt: skip
        connection = Connection(cast(Any, None), None, client, 0.0)
        admission = Admission()
        admission.begin(self.shared, client)
        judged: Judged | None = None
        try:
            judged = self.made.guard.judge(head, len(head))
            out = admission.admit(self.shared, connection, self.here, judged)
        except PeerError as error:
            lost = [] if judged is None else self._lost(judged, peer, admission.route)
            self._route_steps(admission, error)
            where = ("gateway", "routes") if admission.route is None else self.steps[-1].path
            location = next((line.decode() for line in error.fields if line.startswith(b"Location: ")), "")
            detail = location if isinstance(error, Reply) else error.detail or REASONS[error.code][1]
            if error.code == "keys_missing":
                detail = "explain fetches no keys: with them, the daemon judges the token"
            self.steps.append(Step("answer", f"{error.status} {error.code}", detail, where))
            return Explanation(self.steps, lost, (), error.status, error.code, detail)
        lost = self._lost(judged, peer, admission.route)
        self._route_steps(admission, None)
        assert admission.route is not None
        if self._server_steps(admission.route, out, admission.ip):
            return Explanation(self.steps, lost, [*_shown(out)])
        status, title = REASONS["no_server"]
        self.steps.append(Step("answer", f"{status} no_server", title, self.steps[-1].path))
        return Explanation(self.steps, lost, (), status, "no_server", title)

    def _lost(self, judged: Judged, peer: str, route: Route | None) -> list[Step]:
        """Every other route, and why."""
        found = objections(self.made.router, self.here.decisions, judged, peer, route)
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

    def _server_steps(self, route: Route, out: Sequence[bytes], ip: str) -> bool:
        """The pool, and the server that it picks; whether there is one."""
        pool = route.pool
        path = ("pools", pool.name)
        table = self.config.tier(NAME).routes[route.name]
        if table.split:
            number = next(at for at, share in enumerate(table.split) if share.pool == pool.name)
            total = sum(share.weight for share in table.split)
            share = f"{table.split[number].weight} of {total} of the split"
            self.steps.append(Step("split", pool.name, share, ("gateway", "routes", route.name, "split", number)))
        states = self.states or {}
        away = [(name.partition("/")[2], state) for name, state in states.items() if name.startswith(f"{pool.name}/")]
        told = "".join(f"; {name} is {state}" for name, state in away if state != Health.UP.value)
        self.steps.append(
            Step("pool", pool.name, f"{pool.table.balance} over {len(pool.servers)}{_way(route.transport)}{told}", path)
        )
        server, words = _picked(route, table, b"\r\n".join((*out, b"", b"")), ip)
        if server is None:
            return False
        seen = "if all are up" if self.states is None else "as the daemon sees them now"
        chosen, number = server.name.partition("/")[2], pool.servers.index(server)
        self.steps.append(Step("server", chosen, f"{words}, {seen}", (*path, "servers", number)))
        return True


def _way(transport: Transport) -> str:
    """How its servers are spoken to, where that is not plainly."""
    table = transport.table
    version = {"h2": "HTTP/2", "h2c": "HTTP/2", "http1": "HTTP/1.1"}.get(table.protocol, "whichever HTTP they take")
    if table.tls is not None:
        return f", by {version} over TLS"
    return f", by {version}" if table.protocol == "h2c" else ""


def _picked(route: Route, table: RouteTable, payload: bytes, ip: str) -> tuple[Server | None, str]:
    """The server for a request with this head, and why it."""
    pool, sticky = route.pool, route.sticky
    if sticky is None or table.sticky is None:
        keyed = pool.table.balance in ("source_hash", "maglev")
        return pool.pick(ip), f"by the address {ip}" if keyed else "the first in turn; others as the load says"
    named = sticky.server(pool, payload)
    if named is not None:
        return named, f"by the cookie {table.sticky.cookie}"
    key, by = sticky.key(payload, ip), table.sticky.hash or f"cookie:{table.sticky.cookie}"
    # Never the value: what a cookie holds is its client's secret.
    return pool.pick(key), f"by the address {ip}, for it has no good {by}" if key is ip else f"by the hash of {by}"


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
