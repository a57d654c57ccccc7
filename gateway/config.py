"""[gateway]: the tables of listeners, auth, limits and routes, and what must agree between them.

Only keys that work stand here; any other is refused as unknown. Paths, hosts and names of header fields are checked at
load, so that a worker can compile what it gets without a way to fail.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

import attrs

from gateway import overlaps
from gateway.fields import canonical, is_field_name, is_reserved
from gateway.keys import load_keys
from gateway.route_tables import RouteTable
from supervisor.ground.config import (
    Between,
    Bind,
    CertificateTable,
    File,
    Network,
    Place,
    Problem,
    Rate,
    Secret,
    Workers,
    show,
    unbelievable,
    unusable,
)
from supervisor.ground.net.peernames import is_pattern

if TYPE_CHECKING:
    from supervisor.ground.net.peers import PeerPolicy

Algorithm = Literal[
    "RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "EdDSA", "HS256", "HS384", "HS512"
]
NO_ROUTE = "-"  # the row of the plane that counts what reached no route
MAX_BURST = 1_000_000  # the plane stores burst × interval in nanoseconds, in 64 bits
MIN_SECRET = {"HS256": 32, "HS384": 48, "HS512": 64}  # bytes, RFC 7518 §3.2: at least as long as the hash

_CLAIM = re.compile(r"[^\x00-\x1f]+").fullmatch


@attrs.frozen
class KeySetFile(File):
    """A JSON Web Key Set (RFC 7517 §5): a file, or a URL that it is fetched from; `data` is then empty."""

    DESCRIPTION: ClassVar[str] = "the path of a file, or a URL"

    url: str | None = None

    @classmethod
    def from_config(cls, raw: str, place: Place) -> Self:
        if not raw.startswith(("http://", "https://")):
            return super().from_config(raw, place)
        try:
            parts = urlsplit(raw)
            fine = bool(parts.hostname) and parts.username is None and (parts.port or 1) > 0 and raw.isascii()
        except ValueError:
            fine = False
        if not fine or parts.fragment or " " in raw:
            raise ValueError(f"{show(raw)} is not a URL of a key set")
        return cls(FilePath(raw), b"", raw)

    def __str__(self) -> str:
        return self.url or str(self.path)


@attrs.frozen(kw_only=True)
class ClientCertificatesTable:
    """[gateway.listeners.NAME.tls] client_certificates: who may come, by certificate (mutual TLS)."""

    ca: File  # PEM: the authorities that vouch for clients
    mode: Literal["required", "optional"] = "required"
    names: tuple[str, ...] = ()  # alternative names that may come; none: all that the authorities vouch for
    header: str = "X-Client-Certificate"  # with the client's name, for servers; dropped from what clients send

    def policy(self) -> PeerPolicy:
        from supervisor.ground.net.peers import PeerPolicy

        return PeerPolicy(self.ca.data, self.mode == "required", self.names)

    def problems(self, config: Any) -> Iterable[Problem]:
        yield from unbelievable(self.ca, "ca")
        for number, name in enumerate(self.names):
            if not is_pattern(name):
                yield Problem(("names", number), 'a name, "*.example.com", or the beginning of a URI as "spiffe://a/*"')
        if not is_field_name(self.header):
            yield Problem(("header",), "not the name of a header")
        elif is_reserved(canonical(self.header.encode())):
            yield Problem(("header",), f"{self.header} has a meaning of its own")


@attrs.frozen(kw_only=True)
class TlsTable:
    """[gateway.listeners.NAME] tls: TLS 1.2 and 1.3; the first certificate serves clients that name no host."""

    certificates: tuple[CertificateTable, ...]
    client_certificates: ClientCertificatesTable | None = None

    def problems(self, config: Any) -> Iterable[Problem]:
        return unusable(self.certificates)


@attrs.frozen(kw_only=True)
class ListenerTable:
    """[gateway.listeners.NAME]: where requests come in."""

    bind: Bind
    tls: TlsTable | None = None
    http2: bool | None = None  # None: where there is TLS. Without TLS, to clients that begin with its preface
    accept_proxy_protocol: tuple[Network, ...] = ()  # networks that must send it; from any other it is an error
    trusted_proxies: tuple[Network, ...] = ()  # networks whose X-Forwarded-*, X-Request-Id, traceparent are believed
    allow_encoded_slash: bool = False

    @property
    def speaks_http2(self) -> bool:
        return self.tls is not None if self.http2 is None else self.http2


@attrs.frozen(kw_only=True)
class AuthTable:
    """[gateway.auth.NAME]: who may pass, by a JSON Web Token in Authorization: Bearer."""

    type: Literal["jwt"]
    algorithms: tuple[Algorithm, ...]
    issuer: str | None = None
    audience: tuple[str, ...] = ()  # any of these
    jwks: KeySetFile | None = None
    jwks_ca: File | None = None  # PEM: whom to believe where the set is fetched; None: whom the system does
    key: File | None = None
    secret: Secret | None = None
    claims_to_headers: Mapping[str, str] = attrs.field(factory=lambda: {"sub": "X-User-Id"})

    def problems(self, config: Any) -> Iterable[Problem]:
        if not self.algorithms:
            yield Problem(("algorithms",), "at least one algorithm must be listed")
        sources = [name for name in ("jwks", "key", "secret") if getattr(self, name) is not None]
        if len(sources) != 1:
            yield Problem((), "exactly one of jwks, key and secret is needed")
        shared = [name for name in self.algorithms if name.startswith("HS")]
        if shared and len(shared) != len(self.algorithms):
            # Whoever knows the public key could sign with it as if it were the secret.
            yield Problem(("algorithms",), "HS algorithms can't stand beside those with public keys")
        elif len(sources) == 1 and self.algorithms:
            yield from self._key_problems(sources[0], bool(shared))
            if bool(shared) == (sources[0] == "secret") and (self.jwks is None or self.jwks.url is None):
                try:
                    load_keys(self)
                except ValueError as error:
                    yield Problem((sources[0],), str(error))
        if self.jwks_ca is not None:
            if self.jwks is None or not (self.jwks.url or "").startswith("https://"):
                yield Problem(("jwks_ca",), "is for a set that is fetched by https")
            yield from unbelievable(self.jwks_ca, "jwks_ca")
        headers: dict[bytes, str] = {}
        for claim, header in self.claims_to_headers.items():
            path = ("claims_to_headers", claim)
            plain = canonical(header.encode())
            if not _CLAIM(claim):
                yield Problem(path, "not the name of a claim")
            if not is_field_name(header):
                yield Problem(path, "not the name of a header")
            elif is_reserved(plain):
                yield Problem(path, f"{header} has a meaning of its own")
            elif plain in headers:
                yield Problem(path, f"{header} is already filled from {headers[plain]}")
            headers.setdefault(plain, claim)

    def warnings(self, config: Any, now: datetime) -> Iterable[Problem]:
        if self.jwks is not None and (self.jwks.url or "").startswith("http://"):
            yield Problem(("jwks",), "whoever stands between can exchange keys that come by http")

    def _key_problems(self, source: str, shared: bool) -> Iterable[Problem]:
        if shared and source != "secret":
            yield Problem((source,), "HS algorithms need a secret")
        if not shared and source == "secret":
            yield Problem(("secret",), "only HS algorithms are keyed with a secret")
        if shared and self.secret is not None:
            least = max(MIN_SECRET[name] for name in self.algorithms)
            if len(self.secret.value.encode()) < least:
                yield Problem(("secret",), f"needs at least {least} bytes for {', '.join(self.algorithms)}")


@attrs.frozen(kw_only=True)
class LimitTable:
    """[gateway.limits.NAME]: how many requests a key may make, exact over all workers."""

    key: str
    rate: Rate
    burst: Annotated[int, Between(1, MAX_BURST)] | None = None  # how many may come at once; None: the rate's number
    shadow: bool = False  # count, but let pass

    @property
    def at_once(self) -> int:
        return self.rate.count if self.burst is None else self.burst

    @property
    def header(self) -> str | None:
        """The header of a key "header:NAME"."""
        return self.key.removeprefix("header:") if self.key.startswith("header:") else None

    @property
    def claim(self) -> str | None:
        """The claim of a key "claim:NAME"."""
        return self.key.removeprefix("claim:") if self.key.startswith("claim:") else None

    @property
    def needs_auth(self) -> bool:
        """Whether it counts by what a token says."""
        return self.key == "user" or self.claim is not None

    def problems(self, config: Any) -> Iterable[Problem]:
        if self.claim is not None:
            if not _CLAIM(self.claim):
                yield Problem(("key",), "claim: is followed by the name of a claim")
        elif self.header is None:
            if self.key not in ("user", "client_ip", "route"):
                yield Problem(("key",), "must be user, client_ip, route, header:NAME or claim:NAME")
        elif not is_field_name(self.header):
            yield Problem(("key",), "header: is followed by the name of a header")
        elif is_reserved(canonical(self.header.encode())):
            yield Problem(("key",), f"{self.header} can't be a key: it has a meaning of its own")
        if self.at_once > MAX_BURST:
            yield Problem(("rate",), f"more than {MAX_BURST} at once; set burst")
        elif self.at_once * self.rate.interval_ns >= 1 << 62:
            yield Problem(("burst",), "a burst that takes longer than a lifetime to come back")


@attrs.frozen(kw_only=True)
class GatewayTable:
    """[gateway]"""

    workers: Workers | None = None
    listeners: Mapping[str, ListenerTable] = attrs.field(factory=dict)
    auth: Mapping[str, AuthTable] = attrs.field(factory=dict)
    limits: Mapping[str, LimitTable] = attrs.field(factory=dict)
    routes: Mapping[str, RouteTable] = attrs.field(factory=dict)
    max_requests: Annotated[int, Between(1, 1_000_000)] | None = None  # under way in one worker

    def identity_headers(self) -> Iterator[str]:
        """Headers that say who somebody is: no client may send one, on whatever route."""
        for auth in self.auth.values():
            yield from auth.claims_to_headers.values()
        for listener in self.listeners.values():
            if listener.tls is not None and listener.tls.client_certificates is not None:
                yield listener.tls.client_certificates.header

    def problems(self, config: Any) -> Iterable[Problem]:
        if self.listeners and not self.routes:
            yield Problem(("listeners",), "listeners without any route: every request would be a 404")
        if NO_ROUTE in self.routes:
            yield Problem(("routes", NO_ROUTE), f'"{NO_ROUTE}" is not a name for a route: it counts what reaches none')
        for name, other in overlaps.twins(self.routes):
            yield Problem(("routes", name), f"takes exactly the requests of route {other}; set a priority")
        identities = {canonical(header.encode()) for header in self.identity_headers()}
        for name, route in self.routes.items():
            for header in route.headers:
                if canonical(header.encode()) in identities:
                    yield Problem(("routes", name, "headers", header), "an identity header never comes from a client")

    def warnings(self, config: Any, now: datetime) -> Iterable[Problem]:
        """What is surely not meant, and works all the same."""
        for name, other in overlaps.unreachable(self.routes):
            where = f"{config.path.name}:{config.line(('gateway', 'routes', other))}"
            yield Problem(("routes", name), f"can never match: route {other} ({where}) takes all its requests first")
        for name, other in overlaps.rivals(self.routes):
            where = f"{config.path.name}:{config.line(('gateway', 'routes', other))}"
            yield Problem(
                ("routes", name),
                f"some requests fit it as well as route {other} ({where}), which stands first; set a priority",
            )
