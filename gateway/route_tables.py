"""[gateway.routes.NAME]: what a route asks of requests, and what it does with them.

A route forwards to `pool`, divides between the pools of `split`, answers by itself (`redirect`, `respond`). Everything
that could fail at work is tried out here, so that a worker can compile what it gets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal

import attrs

from gateway import patterns
from gateway.fields import canonical, is_field_name, is_reserved
from gateway.targets import Redirect, Rewrite, replacement
from supervisor.ground.config import Between, Duration, Percent, Problem, Size, unknown_name
from supervisor.ground.net.peernames import is_pattern

REDIRECTS = (301, 302, 303, 307, 308)
MAX_RESPONSE = 64 * 1024  # bytes of a fixed response; more is a file's, and a server's work

_METHOD = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Z]{1,24}").fullmatch
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+").fullmatch
_VALUE = re.compile(r"[\x21-\x7e\x80-\U0010ffff](?:[\x20-\x7e\x80-\U0010ffff]*[\x21-\x7e\x80-\U0010ffff])?").fullmatch


@attrs.frozen(kw_only=True)
class RewriteTable:
    """[gateway.routes.NAME] rewrite: another path, and another Host, for the server."""

    path: str | None = None  # instead of the whole path
    prefix: str | None = None  # instead of what `path = "/x/*"` matched
    regex: str | None = None  # RE2: what it finds is replaced by `to`
    to: str | None = None
    host: str | None = None

    def problems(self, config: Any) -> Iterable[Problem]:
        ways = [name for name in ("path", "prefix", "regex") if getattr(self, name) is not None]
        if len(ways) > 1:
            yield Problem((ways[1],), f"either {ways[0]} or {ways[1]}")
        if not ways and self.host is None:
            yield Problem((), "one of path, prefix, regex and host is needed")
        yield from path_problems(self.path, self.prefix)
        if (self.regex is None) != (self.to is None):
            yield Problem(("regex" if self.to is None else "to",), "regex and to belong together")
        elif self.regex is not None and self.to is not None:
            try:
                patterns.compiled(self.regex)
            except ValueError as error:
                yield Problem(("regex",), str(error))
                return
            try:
                replacement(self.to, self.regex)
            except ValueError as error:
                yield Problem(("to",), str(error))
        yield from host_problems(self.host)

    def compiled(self) -> Rewrite:
        return Rewrite(
            path=None if self.path is None else self.path.encode("ascii"),
            prefix=None if self.prefix is None else self.prefix.encode("ascii"),
            expression=None if self.regex is None else patterns.compiled(self.regex),
            replacement=b"" if self.to is None or self.regex is None else replacement(self.to, self.regex),
        )


@attrs.frozen(kw_only=True)
class RedirectTable:
    """[gateway.routes.NAME] redirect: where the client is to go; what is not named stays as it was."""

    scheme: Literal["http", "https"] | None = None
    host: str | None = None
    port: Annotated[int, Between(1, 65535)] | None = None
    path: str | None = None
    prefix: str | None = None
    keep_query: bool = True
    status: Annotated[int, Between(301, 308)] = 308  # keeps the method, as 301 and 302 do not (RFC 9110 §15.4)

    def problems(self, config: Any) -> Iterable[Problem]:
        if self.status not in REDIRECTS:
            yield Problem(("status",), f"must be one of {', '.join(map(str, REDIRECTS))}")
        if self.path is not None and self.prefix is not None:
            yield Problem(("prefix",), "either path or prefix")
        if (self.scheme, self.host, self.port, self.path, self.prefix) == (None,) * 5:
            yield Problem((), "one of scheme, host, port, path and prefix is needed")
        yield from path_problems(self.path, self.prefix)
        yield from host_problems(self.host)

    def compiled(self) -> Redirect:
        rewrite = RewriteTable(path=self.path, prefix=self.prefix).compiled()
        return Redirect(self.scheme, self.host, self.port, rewrite, self.keep_query)


@attrs.frozen(kw_only=True)
class RespondTable:
    """[gateway.routes.NAME] respond: a fixed answer, without a server."""

    status: Annotated[int, Between(200, 599)] = 200
    body: str = ""
    content_type: str = "text/plain; charset=utf-8"

    def problems(self, config: Any) -> Iterable[Problem]:
        if len(self.body.encode()) > MAX_RESPONSE:
            yield Problem(("body",), f"more than {MAX_RESPONSE // 1024} KiB")
        if self.body and self.status in (204, 205, 304):
            yield Problem(("body",), f"an answer with {self.status} has no body")
        if not _VALUE(self.content_type):
            yield Problem(("content_type",), "not the value of a header")


@attrs.frozen(kw_only=True)
class HeadersTable:
    """[gateway.routes.NAME] request_headers, response_headers: removed first, then set, then added."""

    set_: Mapping[str, str] = attrs.field(factory=dict)  # instead of all fields of that name
    add: Mapping[str, str] = attrs.field(factory=dict)  # beside them
    remove: tuple[str, ...] = ()

    def problems(self, config: Any) -> Iterable[Problem]:
        for key, values in (("set", self.set_), ("add", self.add)):
            for name, value in values.items():
                yield from _name_problems(name, (key, name))
                if not _VALUE(value):
                    yield Problem((key, name), "not the value of a header")
        for number, name in enumerate(self.remove):
            yield from _name_problems(name, ("remove", number))


@attrs.frozen(kw_only=True)
class SplitTable:
    """[gateway.routes.NAME] split: one pool's share of the requests."""

    pool: str
    weight: Annotated[int, Between(0, 1_000_000)] = 1

    def problems(self, config: Any) -> Iterable[Problem]:
        if self.pool not in config.pools:
            yield Problem(("pool",), unknown_name("pool", self.pool, config.pools))


@attrs.frozen(kw_only=True)
class MirrorTable:
    """[gateway.routes.NAME] mirror: a copy of requests, whose answer nobody sees."""

    pool: str
    percent: Percent = Percent(1.0)  # of the requests

    def problems(self, config: Any) -> Iterable[Problem]:
        if self.pool not in config.pools:
            yield Problem(("pool",), unknown_name("pool", self.pool, config.pools))


@attrs.frozen(kw_only=True)
class StickyTable:
    """[gateway.routes.NAME] sticky: requests that belong together go to one server."""

    cookie: str | None = None  # one of ours, that names the server
    max_age: Duration | None = None  # of that cookie; None: until the browser is closed
    hash: str | None = None  # "header:NAME" or "cookie:NAME", by the hash of its value

    def problems(self, config: Any) -> Iterable[Problem]:
        if (self.cookie is None) == (self.hash is None):
            yield Problem((), "exactly one of cookie and hash is needed")
        if self.cookie is not None and not is_field_name(self.cookie):
            yield Problem(("cookie",), "not the name of a cookie")
        if self.max_age is not None and self.cookie is None:
            yield Problem(("max_age",), "is for a cookie of ours")
        if self.hash is not None:
            kind, _, name = self.hash.partition(":")
            if kind not in ("header", "cookie") or not is_field_name(name):
                yield Problem(("hash",), 'must be "header:NAME" or "cookie:NAME"')


@attrs.frozen(kw_only=True)
class RetryTable:
    """[gateway.routes.NAME] retries: requests that a server has failed to answer, tried on another."""

    attempts: Annotated[int, Between(0, 10)] = 1  # after the first
    backoff: Duration = Duration(0.025)  # before the first of them; doubled each time, with jitter
    budget: Percent = Percent(0.2)  # of the route's requests, in one worker
    statuses: tuple[Annotated[int, Between(400, 599)], ...] = ()  # answers that count as failures
    all_methods: bool = False  # requests of this route may be repeated whatever their method


@attrs.frozen(kw_only=True)
class RouteTable:
    """[gateway.routes.NAME]: which requests go to which pool, and on what conditions."""

    pool: str | None = None
    path: str = "/*"
    path_regex: str | None = None  # RE2; takes the whole path
    hosts: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    headers: Mapping[str, str] = attrs.field(factory=dict)  # name to exact value; "*": it must be there
    query: Mapping[str, str] = attrs.field(factory=dict)  # the same of parameters
    client_certificates: tuple[str, ...] = ()  # names, one of which the client's certificate must have; "*": any
    priority: Annotated[int, Between(-1_000_000, 1_000_000)] = 0
    auth: str | None = None
    scopes: tuple[str, ...] = ()  # that the token must have, all of them
    claims: Mapping[str, str] = attrs.field(factory=dict)  # that it must say; of a list, one member
    forward_token: bool = False
    limits: tuple[str, ...] = ()
    sheds_on: str | None = None  # "pooler.databases.NAME": 503 while clients wait too long for its connections
    timeout: Duration = Duration(15)  # for an answer to begin, over all tries
    idle_timeout: Duration = Duration(60)  # between two pieces of an answer
    total_timeout: Duration | None = None  # for the whole exchange, bodies included
    abort_on_close: bool = True  # a client of HTTP/1.1 that ends its side has gone; nginx, Envoy, Pingora think so, too
    retries: RetryTable = RetryTable()
    sticky: StickyTable | None = None
    importance: Literal["low", "normal", "high"] = "normal"  # under overload, the less important is refused first
    max_body: Size | None = None
    rewrite: RewriteTable | None = None
    redirect: RedirectTable | None = None
    respond: RespondTable | None = None
    split: tuple[SplitTable, ...] = ()
    split_by: Literal["user", "client_ip", "random"] | None = None  # None: the user where there is auth, else client_ip
    mirror: MirrorTable | None = None
    request_headers: HeadersTable | None = None
    response_headers: HeadersTable | None = None

    def problems(self, config: Any) -> Iterable[Problem]:
        gateway = config.tier("gateway")
        yield from self._outcome_problems(config)
        if self.auth is not None and self.auth not in gateway.auth:
            yield Problem(("auth",), unknown_name("auth", self.auth, gateway.auth))
        for number, name in enumerate(self.limits):
            if name not in gateway.limits:
                yield Problem(("limits", number), unknown_name("limit", name, gateway.limits))
            elif gateway.limits[name].needs_auth and self.auth is None:
                kind = gateway.limits[name].key.partition(":")[0]
                yield Problem(("limits", number), f"a limit by {kind} needs auth on the route")
        listeners = [one.tls for one in gateway.listeners.values() if one.tls is not None]
        if self.client_certificates and not any(tls.client_certificates for tls in listeners):
            yield Problem(("client_certificates",), "no listener asks clients for certificates")
        for number, scope in enumerate(self.scopes):
            if not _SCOPE(scope):
                yield Problem(("scopes", number), "not a scope (RFC 6749 §3.3)")
        for key in ("scopes", "claims"):
            if getattr(self, key) and self.auth is None:
                yield Problem((key,), "needs auth on the route")
        if self.sheds_on is not None:
            pooler = config.tiers.get("pooler")
            known = [f"pooler.databases.{name}" for name in (pooler.databases if pooler is not None else ())]
            if self.sheds_on not in known:
                yield Problem(("sheds_on",), unknown_name("database", self.sheds_on, known))
        yield from self._condition_problems()
        for key in ("timeout", "idle_timeout", "total_timeout"):
            value = getattr(self, key)
            if value is not None and value <= 0:
                yield Problem((key,), "must be more than 0")
        if self.importance != "normal" and gateway.max_requests is None:
            yield Problem(("importance",), "nothing is ever refused by it: set gateway.max_requests")
        if self.total_timeout is not None and self.total_timeout < self.timeout:
            yield Problem(("total_timeout",), f"must be at least timeout, {self.timeout}")

    def _outcome_problems(self, config: Any) -> Iterator[Problem]:
        """What becomes of a request: one thing."""
        ways = [name for name in ("pool", "split", "redirect", "respond") if getattr(self, name)]
        if not ways:
            yield Problem((), "one of pool, split, redirect and respond is needed")
        elif len(ways) > 1:
            yield Problem((ways[1],), f"either {ways[0]} or {ways[1]}")
        if self.pool is not None and self.pool not in config.pools:
            yield Problem(("pool",), unknown_name("pool", self.pool, config.pools))
        if self.sticky is not None and self.sticky.hash is not None:
            for name in (self.pool, *(share.pool for share in self.split)):
                pool = config.pools.get(name)
                if pool is not None and pool.balance not in ("source_hash", "maglev"):
                    yield Problem(("sticky", "hash"), f'pool {name} must have balance = "maglev" or "source_hash"')
        if self.split and not sum(share.weight for share in self.split):
            yield Problem(("split",), "every weight is 0: no request could go anywhere")
        if self.split_by is not None and not self.split:
            yield Problem(("split_by",), "there is no split")
        if self.split_by == "user" and self.auth is None:
            yield Problem(("split_by",), "a split by user needs auth on the route")
        own = self.redirect is not None or self.respond is not None
        for key in ("rewrite", "mirror", "request_headers"):
            if own and getattr(self, key) is not None:
                yield Problem((key,), "nothing goes to a server from this route")

    def _condition_problems(self) -> Iterator[Problem]:
        if self.path_regex is not None and self.path != "/*":
            yield Problem(("path_regex",), "either path or path_regex")
        try:
            pattern = patterns.path_of(self)
        except ValueError as error:
            yield Problem(("path" if self.path_regex is None else "path_regex",), str(error))
        else:
            for table in (self.rewrite, self.redirect):
                if table is not None and table.prefix is not None and not pattern.prefix:
                    key = "rewrite" if table is self.rewrite else "redirect"
                    yield Problem((key, "prefix"), 'needs a path that is a prefix, such as "/api/*"')
        for number, host in enumerate(self.hosts):
            try:
                patterns.parse_host(host)
            except ValueError as error:
                yield Problem(("hosts", number), str(error))
        for number, method in enumerate(self.methods):
            if not _METHOD(method):
                yield Problem(("methods", number), "not a method in capitals")
            elif method in ("CONNECT", "TRACE"):
                yield Problem(("methods", number), f"{method} is always refused")
        for number, name in enumerate(self.client_certificates):
            if not is_pattern(name):
                yield Problem(("client_certificates", number), 'a name, "*", "*.example.com", or "spiffe://a/*"')
        for name in self.headers:
            if not is_field_name(name):
                yield Problem(("headers", name), "not the name of a header")
            elif is_reserved(canonical(name.encode())):
                yield Problem(("headers", name), f"{name} can't be routed by: it has a meaning of its own")


def path_problems(path: str | None, prefix: str | None) -> Iterator[Problem]:
    """What is wrong with the two ways to write another path."""
    for key, text in (("path", path), ("prefix", prefix)):
        try:
            if text is not None and patterns.parse_path(text).prefix:
                yield Problem((key,), 'without "*": what follows the prefix is kept')
        except ValueError as error:
            yield Problem((key,), str(error))


def host_problems(host: str | None) -> Iterator[Problem]:
    """What is wrong with the host that a server or a client is told."""
    if host is None:
        return
    name, colon, port = host.partition(":") if not host.startswith("[") else (host, "", "")
    try:
        wildcard = patterns.parse_host(name).wildcard
    except ValueError as error:
        yield Problem(("host",), str(error))
        return
    if wildcard or (colon and not (port.isascii() and port.isdigit() and len(port) <= 5)):
        yield Problem(("host",), 'one name, such as "api.example.com"')


def _name_problems(name: str, path: tuple[str | int, ...]) -> Iterator[Problem]:
    if not is_field_name(name):
        yield Problem(path, "not the name of a header")
    elif is_reserved(canonical(name.encode())) or name.lower() in ("date", "x-served-by"):
        yield Problem(path, f"{name} can't be edited: it has a meaning of its own")
