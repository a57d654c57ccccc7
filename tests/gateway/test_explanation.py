"""Explanations: the decision that the workers make, and nothing secret in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.config import GatewayTable
from gateway.explanation import Asked, Explanation, explain
from supervisor.ground.config import load_bytes
from tests.gateway.conftest import NOW, SECRET, Keys

CONF = Path(__file__).parents[2] / "conf"  # for its example of a certificate
CONFIG = f"""[pools.user]
servers = ["127.0.0.1:8101", "127.0.0.1:8102"]
[pools.next]
balance = "source_hash"
servers = ["127.0.0.1:8201", "127.0.0.1:8202", "127.0.0.1:8203"]
[gateway.listeners.web]
bind = "127.0.0.1:8080"
[gateway.listeners.other]
bind = "127.0.0.1:8081"
allow_encoded_slash = true
[gateway.listeners.secure]
bind = "127.0.0.1:8443"
tls = {{ certificates = [{{ cert = "cert.pem", key = "key.pem" }}], client_certificates = {{ ca = "cert.pem" }} }}
[gateway.auth.main]
type = "jwt"
algorithms = ["HS256"]
secret = "{SECRET}"
[gateway.limits.address]
key = "client_ip"
rate = "5/s"
[gateway.limits.per_user]
key = "user"
rate = "100/s"
shadow = true
[gateway.routes.user]
path = "/api/user/*"
pool = "user"
auth = "main"
limits = ["per_user", "address"]
[gateway.routes.beta]
path = "/api/user/*"
headers = {{ X-Beta = "1" }}
split = [{{ pool = "user", weight = 0 }}, {{ pool = "next", weight = 1 }}]
mirror = {{ pool = "user" }}
[gateway.routes.partner]
path = "/partner"
client_certificates = ["*.partner.example"]
pool = "user"
[gateway.routes.old]
hosts = ["old.example"]
redirect = {{ scheme = "https" }}
[gateway.routes.api]
path = "/api/*"
methods = ["GET"]
query = {{ v = "2" }}
pool = "user"
"""


def explained(
    method: str, url: str, *fields: tuple[str, str], states: dict[str, str] | None = None, **keys: Any
) -> Explanation:  # fmt: skip
    config = load_bytes(CONFIG.encode(), "t.toml", CONF, {"gateway": GatewayTable})
    return explain(config, Asked(method, url, fields, **keys), states)


def told(explanation: Explanation) -> list[tuple[str, str]]:
    return [(step.about, step.chosen) for step in explanation.steps]


def test_a_request_that_passes_is_followed_to_its_server(keys: Keys) -> None:
    token = keys.token("HS256", exp=NOW + 1e9).decode()
    found = explained("GET", "http://h:8080/api/user/./me", ("Authorization", f"Bearer {token}"), ("Cookie", "a=b"))
    assert told(found) == [
        ("listener", "web"), ("route", "user"), ("limit", "address"), ("auth", "main"), ("limit", "per_user"),
        ("pool", "user"), ("server", "127.0.0.1:8101"),
    ]  # fmt: skip
    whys = {step.chosen: step.why for step in found.steps}
    assert whys["main"] == "the user is u1"
    assert whys["per_user"].startswith("100/s, 100 at once, by the user u1, counts and lets pass")
    assert whys["address"].startswith("5/s, 5 at once, by the address 127.0.0.1")
    assert found.steps[-1].path == ("pools", "user", "servers", 0)
    assert found.head[0] == "GET /api/user/me HTTP/1.1"
    assert "X-User-Id: u1" in found.head
    assert "Cookie: (not shown)" in found.head
    assert token not in repr(found)
    assert SECRET not in repr(found)
    assert (found.status, found.reason) == (0, "")


def test_the_others_are_told_why_they_lost() -> None:
    found = explained("POST", "http://h/api/user/me", ("X-Beta", "1"), listener="web")
    assert [(step.chosen, step.why, step.path) for step in found.lost] == [
        ("user", "fits, but beta has more conditions on headers, query and certificate", ("gateway", "routes", "user")),
        ("partner", "path: /api/user/me is not /partner", ("gateway", "routes", "partner")),
        ("old", "host: h is not old.example", ("gateway", "routes", "old")),
        ("api", "method: POST is not GET", ("gateway", "routes", "api")),
    ]


def test_a_split_goes_by_the_address_and_a_mirror_does_not_begin() -> None:
    found = [explained("GET", "http://h:8080/api/user", ("X-Beta", "1"), client=f"192.0.2.{at}") for at in (1, 1, 7)]
    assert told(found[0]) == told(found[1])
    assert ("split", "next") in told(found[0])
    assert ("pool", "next") in told(found[2])


@pytest.mark.parametrize(("method", "url", "fields", "status", "reason"), [
    ("GET", "http://h:8080/api/user", [], 401, "token_missing"),
    ("GET", "http://h:8080/api/user", [("Authorization", "Bearer x")], 401, "token_invalid"),
    ("GET", "http://h:8080/nothing", [], 404, "no_route"),
    ("GET", "http://h:8080/a%2Fb", [], 400, "encoded_slash"),
    ("GET", "http://h:8081/a%2Fb", [], 404, "no_route"),
    ("TRACE", "http://h:8080/", [], 405, "method_refused"),
    ("GET", "http://h:8080/", [("Host", "a b")], 400, "bad_host"),
    ("GET", "http://old.example:8080/a?b", [], 308, "redirected"),
])  # fmt: skip
def test_what_is_answered_here_has_its_reason(
    method: str, url: str, fields: list[tuple[str, str]], status: int, reason: str
) -> None:
    found = explained(method, url, *fields)
    assert (found.status, found.reason) == (status, reason)
    assert told(found)[-1] == ("answer", f"{status} {reason}")
    assert found.head == ()


@pytest.mark.parametrize(("states", "server", "told"), [
    ({}, "127.0.0.1:8101", ""), ({"8101": "down"}, "127.0.0.1:8102", "; 127.0.0.1:8101 is down"),
    ({"8101": "up", "8102": "draining"}, "127.0.0.1:8101", "; 127.0.0.1:8102 is draining"),
    ({"8101": "ejected", "8102": "down"}, "127.0.0.1:8101", "; 127.0.0.1:8101 is ejected; 127.0.0.1:8102 is down"),
])  # fmt: skip
def test_servers_are_as_the_daemon_sees_them(states: dict[str, str], server: str, told: str) -> None:
    named = {f"user/127.0.0.1:{port}": state for port, state in states.items()}
    found = explained("GET", "http://h:8080/api/x?v=2", states=named)
    pool, picked = found.steps[-2:]
    assert (pool.why, picked.chosen) == (f"round_robin over 2{told}", server)
    assert picked.why.endswith("as the daemon sees them now")


def test_a_pool_that_nobody_is_up_in_is_a_503() -> None:
    named = {f"user/127.0.0.1:{port}": "maintenance" for port in (8101, 8102)}
    found = explained("GET", "http://h:8080/api/x?v=2", states=named)
    assert (found.status, found.reason, told(found)[-1]) == (503, "no_server", ("answer", "503 no_server"))


def test_a_clients_certificate_counts() -> None:
    found = explained("GET", "https://api.example.com/partner", peer="a.partner.example")
    assert told(found)[:3] == [("listener", "secure"), ("certificate", "cert.pem"), ("route", "partner")]
    assert "X-Client-Certificate: a.partner.example" in found.head
    found = explained("GET", "https://h/partner", listener="secure")
    assert found.reason == "no_route"
    whys = {step.chosen: step.why for step in found.lost}
    assert whys["partner"] == "client certificate: it is not for *.partner.example"


def test_a_redirect_says_where_to() -> None:
    assert explained("GET", "http://old.example:8080/a?b").detail == "Location: https://old.example/a?b"


@pytest.mark.parametrize(("url", "keys", "message"), [
    ("ftp://h/", {}, "begins with http:// or https://"), ("http://user@h/", {}, "begins with http"),
    ("http://h/", {}, "no listener of the gateway has port 80 and speaks http (there are: web, other, secure)"),
    ("http://h/", {"listener": "x"}, "no listener x"),
])  # fmt: skip
def test_questions_without_an_answer_are_refused(url: str, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as problem:
        explained("GET", url, **keys)
    assert message in str(problem.value)


STICKY = """[pools.calls]
protocol = "h2c"
balance = "maglev"
servers = ["127.0.0.1:8301", "127.0.0.1:8302"]
[gateway.listeners.web]
bind = "127.0.0.1:8080"
[gateway.routes.calls]
pool = "calls"
sticky = { hash = "header:X-Tenant" }
"""


def test_what_a_sticky_route_goes_by_is_told() -> None:
    config = load_bytes(STICKY.encode(), "t.toml", Path("/"), {"gateway": GatewayTable})

    def steps(*fields: tuple[str, str]) -> dict[str, str]:
        found = explain(config, Asked("GET", "http://a:8080/x", fields), None)
        return {step.about: f"{step.chosen}: {step.why}" for step in found.steps}

    seven = steps(("X-Tenant", "seven"))
    assert seven["pool"] == "calls: maglev over 2, by HTTP/2"
    assert "by the hash of header:X-Tenant" in seven["server"]
    assert seven == steps(("X-Tenant", "seven"))
    assert "by the address" in steps()["server"]
