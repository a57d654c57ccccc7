"""What routes have against requests."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import GatewayTable
from gateway.decisions import Decisions
from gateway.guard import Guard
from gateway.objections import conditions, objections
from gateway.patterns import met
from gateway.routes import Router
from supervisor.ground.config import load_bytes

CONFIG = """[pools.p]
servers = ["127.0.0.1:1"]
[gateway.routes.all]
pool = "p"
[gateway.routes.host]
pool = "p"
hosts = ["*.example", "a.test"]
[gateway.routes.path]
pool = "p"
path = "/a/*"
[gateway.routes.regex]
pool = "p"
path_regex = "/a/[0-9]+"
[gateway.routes.method]
pool = "p"
methods = ["PUT", "POST"]
path = "/a/*"
[gateway.routes.query]
pool = "p"
path = "/a/*"
query = { v = "2", w = "*" }
[gateway.routes.header]
pool = "p"
path = "/a/*"
headers = { X-A = "1" }
[gateway.routes.first]
pool = "p"
path = "/p/*"
priority = 3
"""
TABLES = load_bytes(CONFIG.encode(), "t.toml", Path("/"), {"gateway": GatewayTable}).tier("gateway").routes


class Named:
    """As much of a route at work as is asked."""

    def __init__(self, name: str) -> None:
        self.name = name


ROUTER = Router((table, Named(name)) for name, table in TABLES.items())


@pytest.mark.parametrize(("head", "chosen", "expected"), [
    (b"GET /a/x HTTP/1.1\r\nHost: h", "path", {
        "all": "fits, but path names the path more closely (/a/* against /*)",
        "host": "host: h is not a.test or *.example",
        "regex": "path: /a/x is not /a/[0-9]+",
        "method": "method: GET is not POST or PUT",
        "query": "query: it lacks v = 2, w",
        "header": "headers: it lacks x-a = 1",
        "first": "path: /a/x is not /p/*",
    }),
    (b"PUT /a/7?v=2&w HTTP/1.1\r\nHost: x.example\r\nX-A: 1", "host", {
        "all": "fits, but host names the host more closely (*.example against no host)",
        "path": "fits, but host names the host more closely (*.example against no host)",
        "regex": "fits, but host names the host more closely (*.example against no host)",
    }),
    (b"POST /a/x HTTP/1.1\r\nHost: h\r\nX-A: 1", "method", {
        "path": "fits, but method names the method",
        "header": "fits, but method names the method",
    }),
    (b"GET /a/7 HTTP/1.1\r\nHost: h", "regex", {
        "path": "fits, but regex names the path more closely (/a/[0-9]+ against /a/*)",
    }),
    (b"GET /p/1 HTTP/1.1\r\nHost: a.test", "first", {
        "host": "fits, but first has the higher priority (3 against 0)",
    }),
    (b"GET /b HTTP/1.1\r\nHost: a.test", "host", {"first": "path: /b is not /p/*"}),
])  # fmt: skip
def test_every_other_route_has_its_reason(head: bytes, chosen: str, expected: dict[str, str]) -> None:
    judged = Guard((), [b"X-A"]).judge(head, len(head))
    decisions: Decisions[Named] = Decisions(ROUTER, False)
    decision = decisions.decide(judged[0], judged[4])
    if decision.route is None:
        decision = decision.choose(judged[6])
    assert decision.route is not None
    assert decision.route.name == chosen
    found = dict(objections(ROUTER, decisions, judged, "", decision.route))  # type: ignore[arg-type]
    assert set(found) == set(TABLES) - {chosen}
    assert {name: found[name] for name in expected} == expected


def test_no_route_was_asked_about_a_line_that_is_none() -> None:
    head = b"GET /%zz HTTP/1.1\r\nHost: h"
    judged = Guard().judge(head, len(head))
    assert objections(ROUTER, Decisions(ROUTER, False), judged, "", None) == []  # type: ignore[arg-type]


def test_conditions_in_words() -> None:
    assert conditions(TABLES["first"]) == "path /p/*; priority 3"
    assert conditions(TABLES["query"]) == "path /a/*; query v = 2; query w = *"
    assert met((), {})
