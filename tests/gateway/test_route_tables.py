"""[gateway.routes] in a file: what a route may do, and every mistake with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import GatewayTable
from supervisor.ground.config import ConfigError, load_bytes
from supervisor.ground.config.load import Config

BASE = """[pools.web]
servers = ["127.0.0.1:1"]
[gateway.listeners.web]
bind = "127.0.0.1:80"
[gateway.routes.web]
"""


def load(routes: str) -> Config:
    return load_bytes((BASE + routes).encode(), "t.toml", Path("/"), {"gateway": GatewayTable})


def problems(routes: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        load(routes)
    return [str(problem).removeprefix("t.toml:").partition(" gateway.routes.")[2] for problem in error.value.problems]


@pytest.mark.parametrize("keys", [
    'pool = "web"\npath_regex = "/a|/b"\nquery = { v = "2" }',
    'pool = "web"\nrewrite = { regex = "^/a/(.*)", to = "/\\\\1", host = "h.example:8080" }',
    'path = "/a/*"\nredirect = { prefix = "/", status = 302 }',
    'redirect = { scheme = "https", port = 8443, host = "h", path = "/x", keep_query = false }',
    'respond = { status = 204 }\nresponse_headers = { add = { X-A = "ä" } }',
    'split = [{ pool = "web", weight = 0 }, { pool = "web" }]\nsplit_by = "random"',
    'pool = "web"\nmirror = { pool = "web", percent = "0.5%" }',
    'pool = "web"\nrequest_headers = { set = { A = "1" }, add = { B = "2" }, remove = ["C"] }',
])  # fmt: skip
def test_routes_that_can_be(keys: str) -> None:
    assert load(keys).tier("gateway").routes["web"]


@pytest.mark.parametrize(("keys", "problem"), [
    ("", "web: one of pool, split, redirect and respond is needed"),
    ('pool = "web"\nredirect = { path = "/" }', "web.redirect: either pool or redirect"),
    ('pool = "wob"', 'web.pool: unknown pool "wob"; did you mean "web"?'),
    ('pool = "web"\npath = "/a"\npath_regex = "/b"', "web.path_regex: either path or path_regex"),
    ('pool = "web"\npath_regex = "/(b"', "web.path_regex: not an expression of RE2: missing ): /(b"),
    ('pool = "web"\npath_regex = "b"', 'web.path_regex: an expression takes the whole path, so it begins with "/"'),
    ('pool = "web"\nrewrite = {}', "web.rewrite: one of path, prefix, regex and host is needed"),
    ('pool = "web"\nrewrite = { path = "/a", regex = "b", to = "c" }', "web.rewrite.regex: either path or regex"),
    ('pool = "web"\nrewrite = { regex = "b" }', "web.rewrite.regex: regex and to belong together"),
    ('pool = "web"\nrewrite = { to = "b", host = "h" }', "web.rewrite.to: regex and to belong together"),
    ('pool = "web"\nrewrite = { regex = "(", to = "" }', "web.rewrite.regex: not an expression of RE2: missing ): ("),
    ('pool = "web"\nrewrite = { regex = "a", to = "\\\\1" }', "web.rewrite.to: the expression has no group 1"),
    ('pool = "web"\nrewrite = { path = "/a/*" }', 'web.rewrite.path: without "*": what follows the prefix is kept'),
    ('pool = "web"\nrewrite = { host = "*.h" }', 'web.rewrite.host: one name, such as "api.example.com"'),
    ('pool = "web"\nrewrite = { prefix = "/x" }\npath = "/a"',
     'web.rewrite.prefix: needs a path that is a prefix, such as "/api/*"'),
    ("redirect = {}", "web.redirect: one of scheme, host, port, path and prefix is needed"),
    ('redirect = { path = "/a", status = 305 }', "web.redirect.status: must be one of 301, 302, 303, 307, 308"),
    ('redirect = { path = "/a", prefix = "/b" }', "web.redirect.prefix: either path or prefix"),
    ('redirect = { path = "/a" }\nmirror = { pool = "web" }',
     "web.mirror: nothing goes to a server from this route"),
    ('respond = { status = 204, body = "x" }', "web.respond.body: an answer with 204 has no body"),
    ('respond = { body = "x", content_type = " " }', "web.respond.content_type: not the value of a header"),
    ('split = [{ pool = "web", weight = 0 }]', "web.split: every weight is 0: no request could go anywhere"),
    ('split = [{ pool = "wob" }]', 'web.split[0].pool: unknown pool "wob"; did you mean "web"?'),
    ('split = [{ pool = "web" }]\nsplit_by = "user"', "web.split_by: a split by user needs auth on the route"),
    ('pool = "web"\nsplit_by = "random"', "web.split_by: there is no split"),
    ('pool = "web"\nmirror = { pool = "wob" }', 'web.mirror.pool: unknown pool "wob"; did you mean "web"?'),
    ('pool = "web"\nrequest_headers = { set = { Host = "h" } }',
     "web.request_headers.set.Host: Host can't be edited: it has a meaning of its own"),
    ('pool = "web"\nrequest_headers = { add = { "a b" = "h" } }',
     'web.request_headers.add."a b": not the name of a header'),
    ('pool = "web"\nresponse_headers = { remove = ["Date"] }',
     "web.response_headers.remove[0]: Date can't be edited: it has a meaning of its own"),
    ('pool = "web"\nresponse_headers = { set = { A = " x" } }',
     "web.response_headers.set.A: not the value of a header"),
])  # fmt: skip
def test_mistakes_are_named(keys: str, problem: str) -> None:
    assert problems(keys) == [problem]


def test_routes_in_each_others_way_are_warned_of_with_their_lines() -> None:
    config = load(
        'pool = "web"\npath = "/a"\n[gateway.routes.first]\npool = "web"\npriority = 1\n'
        '[gateway.routes.x]\nheaders = { X = "1" }\npool = "web"\npath = "/x"\npriority = 2\n'
        '[gateway.routes.y]\nheaders = { Y = "1" }\npool = "web"\npath = "/x"\npriority = 2\n'
    )
    assert [(config.line(problem.path), problem.path[-1], problem.message) for problem in config.warnings()] == [
        (5, "web", "can never match: route first (t.toml:8) takes all its requests first"),
        (16, "y", "some requests fit it as well as route x (t.toml:11), which stands first; set a priority"),
    ]
