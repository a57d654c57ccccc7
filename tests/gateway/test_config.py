"""[gateway] in a file: what is accepted, and every mistake with its place and what to do about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.config import GatewayTable
from supervisor.ground.config import ConfigError, load_bytes
from supervisor.ground.config.load import Config
from tests.gateway.conftest import SECRET, Keys

REFERENCE = """
[pools.user]
servers = ["127.0.0.1:8101"]
[gateway.listeners.api]
bind = "127.0.0.1:8443"
accept_proxy_protocol = ["127.0.0.0/8"]
trusted_proxies = ["10.0.0.0/8", "::1"]
http2 = false
[gateway.auth.main]
type = "jwt"
issuer = "https://issuer.example"
audience = ["api"]
algorithms = ["RS256"]
jwks = "jwks.json"
claims_to_headers = { sub = "X-User-Id" }
[gateway.limits.per_user]
key = "user"
rate = "100/s"
burst = 200
[gateway.routes.user]
path = "/api/user/*"
hosts = ["a.example", "*.b.example"]
methods = ["GET"]
headers = { X-Beta = "1" }
priority = 1
pool = "user"
auth = "main"
limits = ["per_user"]
timeout = "15s"
max_body = "1MiB"
forward_token = false
"""


@pytest.fixture
def folder(tmp_path: Path, keys: Keys) -> Path:
    (tmp_path / "jwks.json").write_bytes(keys.key_set("RS256", "ES256"))
    (tmp_path / "key.pem").write_bytes(keys.pem("RS256"))
    return tmp_path


def load(folder: Path, text: str) -> Config:
    return load_bytes(text.encode(), "t.toml", folder, {"gateway": GatewayTable})


def problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        load(folder, text)
    return [str(problem).partition(": ")[2] for problem in error.value.problems]


def test_the_reference_loads(folder: Path) -> None:
    table: Any = load(folder, REFERENCE).tier("gateway")
    assert table.limits["per_user"].at_once == 200
    assert table.routes["user"].timeout == 15.0


def test_six_lines_are_enough(folder: Path) -> None:
    text = '[pools.w]\nservers = ["127.0.0.1:1"]\n[gateway.listeners.w]\nbind = "127.0.0.1:80"\n'
    text += '[gateway.routes.w]\npool = "w"\n'
    assert load(folder, text).tier("gateway").routes["w"].path == "/*"


def test_no_gateway_is_fine(folder: Path) -> None:
    assert load(folder, "").tier("gateway").listeners == {}


@pytest.mark.parametrize(("change", "message"), [
    (('pool = "user"', 'pool = "usr"'), 'gateway.routes.user.pool: unknown pool "usr"; did you mean "user"?'),
    (('auth = "main"', 'auth = "mian"'), 'gateway.routes.user.auth: unknown auth "mian"; did you mean "main"?'),
    (('limits = ["per_user"]', 'limits = ["peruser"]'),
     'gateway.routes.user.limits[0]: unknown limit "peruser"; did you mean "per_user"?'),
    (('auth = "main"\n', ''), "gateway.routes.user.limits[0]: a limit by user needs auth on the route"),
    (('"/api/user/*"', '"/api/user*"'),
     'gateway.routes.user.path: a prefix ends on the border of a segment: "/api/user/*"'),
    (('"a.example"', '"A.example"'), "gateway.routes.user.hosts[0]: hosts are written in lower case"),
    (('["GET"]', '["get"]'), "gateway.routes.user.methods[0]: not a method in capitals"),
    (('["GET"]', '["TRACE"]'), "gateway.routes.user.methods[0]: TRACE is always refused"),
    (("X-Beta", "X-User-Id"), "gateway.routes.user.headers.X-User-Id: an identity header never comes from a client"),
    (("X-Beta", "Host"), "gateway.routes.user.headers.Host: Host can't be routed by: it has a meaning of its own"),
    (('"15s"', '"0s"'), "gateway.routes.user.timeout: must be more than 0"),
    (('key = "user"', 'key = "usr"'),
     "gateway.limits.per_user.key: must be user, client_ip, route, header:NAME or claim:NAME"),
    (('key = "user"', 'key = "header:a b"'),
     "gateway.limits.per_user.key: header: is followed by the name of a header"),
    (('key = "user"', 'key = "header:X-Forwarded-For"'),
     "gateway.limits.per_user.key: X-Forwarded-For can't be a key: it has a meaning of its own"),
    (('rate = "100/s"\nburst = 200', 'rate = "2000000/s"'),
     "gateway.limits.per_user.rate: more than 1000000 at once; set burst"),
    (('jwks = "jwks.json"', 'jwks = "https://issuer example/jwks.json"'),
     'gateway.auth.main.jwks: "https://issuer example/jwks.json" is not a URL of a key set'),
    (('jwks = "jwks.json"', 'jwks = "jwks.json"\njwks_ca = "key.pem"'),
     "gateway.auth.main.jwks_ca: is for a set that is fetched by https"),
    (('jwks = "jwks.json"', ''), "gateway.auth.main: exactly one of jwks, key and secret is needed"),
    (('jwks = "jwks.json"', 'jwks = "jwks.json"\nkey = "key.pem"'),
     "gateway.auth.main: exactly one of jwks, key and secret is needed"),
    (('["RS256"]', '["RS256", "HS256"]'),
     "gateway.auth.main.algorithms: HS algorithms can't stand beside those with public keys"),
    (('["RS256"]', '["HS256"]'), "gateway.auth.main.jwks: HS algorithms need a secret"),
    (('["RS256"]', '[]'), "gateway.auth.main.algorithms: at least one algorithm must be listed"),
    (('["RS256"]', '["none"]'), 'gateway.auth.main.algorithms[0]: "none" is not one of'),
    (('["RS256"]', '["ES512"]'), "gateway.auth.main.jwks: no key in it can verify ES512"),
    (('jwks = "jwks.json"', f'secret = "{SECRET}"'),
     "gateway.auth.main.secret: only HS algorithms are keyed with a secret"),
    (('{ sub = "X-User-Id" }', '{ sub = "X-User-Id", id = "x_user_id" }'),
     "gateway.auth.main.claims_to_headers.id: x_user_id is already filled from sub"),
    (('{ sub = "X-User-Id" }', '{ sub = "Connection" }'),
     "gateway.auth.main.claims_to_headers.sub: Connection has a meaning of its own"),
    (('{ sub = "X-User-Id" }', '{ sub = "a b" }'), "gateway.auth.main.claims_to_headers.sub: not the name of a header"),
    (("priority = 1", "prioritty = 1"), 'gateway.routes.user.prioritty: unknown key; did you mean "priority"?'),
])  # fmt: skip
def test_mistakes_are_named(folder: Path, change: tuple[str, str], message: str) -> None:
    assert change[0] in REFERENCE
    found = problems(folder, REFERENCE.replace(*change))
    assert any(problem.startswith(message) for problem in found), found


def test_short_secrets_are_refused_and_not_shown(folder: Path) -> None:
    text = REFERENCE.replace('jwks = "jwks.json"', 'secret = "hunter2"').replace("RS256", "HS512")
    found = problems(folder, text)
    assert found == ["gateway.auth.main.secret: needs at least 64 bytes for HS512"]


def test_routes_that_cannot_be_told_apart_are_refused(folder: Path) -> None:
    text = REFERENCE + '[gateway.routes.twin]\npool = "user"\npath = "/api/user/*"\nmethods = ["POST", "GET"]\n' \
        'hosts = ["a.example"]\nheaders = { x-beta = "1" }\npriority = 1\n'  # fmt: skip
    assert problems(folder, text) == [
        "gateway.routes.twin: takes exactly the requests of route user; set a priority",
    ]
    load(folder, text.replace("priority = 1\n", "priority = 2\n", 1))


def test_listeners_without_routes_are_refused(folder: Path) -> None:
    text = REFERENCE[: REFERENCE.index("[gateway.routes")]
    assert problems(folder, text) == ["gateway.listeners: listeners without any route: every request would be a 404"]


def test_a_broken_certificate_is_named(folder: Path) -> None:
    (folder / "c.pem").write_text("hello")
    text = REFERENCE.replace("http2 = false", 'tls = { certificates = [{ cert = "c.pem", key = "key.pem" }] }')
    found = problems(folder, text)
    assert found[0].startswith("gateway.listeners.api.tls.certificates[0]: not a PEM certificate")


def test_the_row_of_no_route_is_nobodys_name(folder: Path) -> None:
    assert problems(folder, REFERENCE.replace("[gateway.routes.user]", "[gateway.routes.-]")) == [
        'gateway.routes.-: "-" is not a name for a route: it counts what reaches none',
    ]
