"""Longest and most specific wins, and priority above all."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.patterns import met
from gateway.route_tables import RouteTable
from gateway.routes import Router, entries, host_name


def router(**routes: dict[str, Any]) -> Router[str]:
    return Router((RouteTable(pool="p", **keys), name) for name, keys in routes.items())


def found(router: Router[str], host: str, method: str, path: bytes, **fields: bytes) -> str | None:
    given = {name.replace("_", "-").encode(): value for name, value in fields.items()}
    return next((e.route for e in router.find(host, method, path) if met(e.headers, given)), None)


@pytest.mark.parametrize(("path", "expected"), [
    (b"/", "root"), (b"/x", "all"), (b"/api", "api"), (b"/api/", "api"), (b"/apix", "all"), (b"/api/user", "user"),
    (b"/api/user/", "user"), (b"/api/user/7/x", "user"), (b"/api/users", "api"), (b"/api/user/me", "me"),
    (b"/api/user/me/", "user"),
])  # fmt: skip
def test_the_longest_path_wins_on_the_borders_of_segments(path: bytes, expected: str) -> None:
    routes = router(
        all={}, api={"path": "/api/*"}, user={"path": "/api/user/*"}, me={"path": "/api/user/me"}, root={"path": "/"}
    )
    assert found(routes, "h", "GET", path) == expected


@pytest.mark.parametrize(("host", "expected"), [
    ("api.example.com", "exact"), ("x.example.com", "wild"), ("x.y.example.com", "wild"), ("x.api.example.com", "deep"),
    ("example.com", "any"), ("evilexample.com", "any"), ("", "any"),
])  # fmt: skip
def test_the_exact_host_goes_before_the_longest_wildcard_before_any(host: str, expected: str) -> None:
    routes = router(
        any={},
        wild={"hosts": ("*.example.com",)},
        exact={"hosts": ("api.example.com",)},
        deep={"hosts": ("*.api.example.com",)},
    )
    assert found(routes, host, "GET", b"/") == expected


def test_the_host_weighs_more_than_the_path_and_misses_fall_through() -> None:
    routes = router(a={"path": "/very/long/*"}, b={"hosts": ("h",)}, c={"hosts": ("g",), "path": "/only"})
    assert found(routes, "h", "GET", b"/very/long/path") == "b"
    assert found(routes, "g", "GET", b"/very/long/path") == "a"


def test_priority_weighs_most() -> None:
    routes = router(a={"path": "/a/b"}, b={"priority": 1}, c={"path": "/a/*", "priority": -1})
    assert found(routes, "h", "GET", b"/a/b") == "b"
    routes = router(a={"path": "/a/b"}, c={"path": "/a/*", "priority": -1})
    assert found(routes, "h", "GET", b"/a/b") == "a"


def test_methods_narrow_and_go_first() -> None:
    routes = router(any={"path": "/a"}, post={"path": "/a", "methods": ("POST", "PUT")})
    taken = [found(routes, "h", method, b"/a") for method in ("GET", "POST", "PUT", "post")]
    assert taken == ["any", "post", "post", "any"]
    assert found(router(post={"methods": ("POST",)}), "h", "GET", b"/") is None


def test_headers_narrow_and_the_more_go_first() -> None:
    routes = router(
        any={},
        one={"headers": {"X-Beta": "1"}},
        two={"headers": {"x-beta": "1", "X-Key": "*"}},
    )
    assert found(routes, "h", "GET", b"/") == "any"
    assert found(routes, "h", "GET", b"/", x_beta=b"1") == "one"
    assert found(routes, "h", "GET", b"/", x_beta=b"2") == "any"
    assert found(routes, "h", "GET", b"/", x_beta=b"1", x_key=b"anything") == "two"
    assert found(routes, "h", "GET", b"/", x_key=b"anything") == "any"


@pytest.mark.parametrize(("peer", "expected"), [
    ("", "all"), ("a.partner.example", "partner"), ("stranger", "any"), ("spiffe://site/a", "mesh"),
])  # fmt: skip
def test_certificates_narrow(peer: str, expected: str) -> None:
    routes = router(
        all={},
        any={"client_certificates": ("*",)},
        partner={"client_certificates": ("*.partner.example",), "priority": 1},
        mesh={"client_certificates": ("x", "spiffe://site/*"), "priority": 1},
    )
    found = routes.find("h", "GET", b"/")
    assert next(entry.route for entry in found if entry.admits({}, peer)) == expected


def test_what_cannot_be_reached_is_not_offered() -> None:
    routes = router(any={}, a={"path": "/a"}, b={"path": "/a", "headers": {"X": "1"}})
    assert [entry.route for entry in routes.find("h", "GET", b"/a")] == ["b", "a"]


@pytest.mark.parametrize(("host", "expected"), [
    (b"Example.COM", "example.com"), (b"example.com:8080", "example.com"), (b"example.com.", "example.com"),
    (b"[::1]:80", "[::1]"), (b"[2001:DB8::1]", "[2001:db8::1]"), (b"a.:1", "a"),
])  # fmt: skip
def test_hosts_are_compared_without_case_port_and_last_dot(host: bytes, expected: str) -> None:
    assert host_name(host) == expected


@pytest.mark.parametrize(("path", "expected"), [
    (b"/users/7", "number"), (b"/users/me", "users"), (b"/users/7/x", "users"), (b"/users/me/9", "exact"),
    (b"/use7", "any"), (b"/x", "any"),
])  # fmt: skip
def test_of_the_same_length_an_expression_goes_before_a_prefix(path: bytes, expected: str) -> None:
    routes = router(
        users={"path": "/users/*"},
        number={"path_regex": "/users/[0-9]+"},
        exact={"path": "/users/me/9"},
        any={"path_regex": "/.*"},
    )
    assert found(routes, "h", "GET", path) == expected


@pytest.mark.parametrize(("query", "expected"), [
    (b"", "any"), (b"?", "any"), (b"?v=1", "any"), (b"?v=2", "two"), (b"?a&v=2", "two"), (b"?v=%32", "two"),
    (b"?v=1&v=2", "any"), (b"?debug", "debug"), (b"?debug=x%zz&v=2", "debug"), (b"?a+b=c+d", "blank"),
])  # fmt: skip
def test_parameters_narrow(query: bytes, expected: str) -> None:
    routes = router(
        any={},
        two={"query": {"v": "2"}},
        debug={"query": {"debug": "*"}, "priority": 1},
        blank={"query": {"a b": "c d"}},
    )
    assert routes.find("h", "GET", b"/", query)[0].route == expected


segments = st.lists(st.sampled_from(["a", "b", "c"]), max_size=4)


patterns = st.tuples(segments, st.booleans())


@given(st.lists(patterns, max_size=12, unique_by=lambda route: (tuple(route[0]), route[1])), segments)
def test_property_the_dict_walk_finds_what_trying_every_route_finds(routes: list[Any], asked: list[str]) -> None:
    tables = {}
    for number, (parts, prefix) in enumerate(routes):
        path = "/" + "/".join(parts)
        tables[str(number)] = {"path": path.rstrip("/") + "/*" if prefix else path}
    path = "/" + "/".join(asked)
    best: tuple[int, str] | None = None
    for name, keys in tables.items():
        pattern = keys["path"]
        if pattern.endswith("/*"):
            base = pattern[:-2]
            if path == base or path.startswith(base + "/"):
                best = max(best or (-1, ""), (len(base), name))
        elif pattern == path:
            best = (10_000, name)
    assert found(router(**tables), "h", "GET", path.encode()) == (best[1] if best else None)


tables = st.builds(
    dict,
    path=st.sampled_from(["/", "/*", "/a", "/a/*", "/a/b", "/a/b/*"]),
    hosts=st.sampled_from([(), ("x.y",), ("*.y",), ("*.x.y", "y")]),
    methods=st.sampled_from([(), ("GET",), ("GET", "POST")]),
    query=st.sampled_from([{}, {"q": "1"}, {"q": "*"}]),
    priority=st.integers(0, 1),
) | st.builds(dict, path_regex=st.sampled_from(["/a.*", "/[ab]/?", "/a/b", "(/a|/b)/b"]), priority=st.integers(0, 1))


@given(
    st.lists(tables, max_size=8),
    st.sampled_from(["", "y", "x.y", "z.y", "a.x.y", "z"]),
    st.sampled_from(["GET", "POST", "PUT"]),
    st.sampled_from([b"/", b"/a", b"/a/", b"/a/b", b"/a/b/c", b"/b", b"/b/b", b"/c"]),
    st.sampled_from([b"", b"?q", b"?q=1", b"?p=1"]),
)
def test_property_what_is_found_is_what_does_not_object(
    routes: list[Any], host: str, method: str, path: bytes, query: bytes
) -> None:
    made: Router[int] = Router((RouteTable(pool="p", **keys), number) for number, keys in enumerate(routes))
    willing = [entry for entry in made.entries if not entry.objection(host, method, path, query)]
    assert made.find(host, method, path, query) == willing[:1]


@given(
    st.lists(tables, min_size=2, max_size=2), st.sampled_from(["", "y", "x.y", "a.x.y"]),
    st.sampled_from([b"/", b"/a", b"/a/", b"/a/b", b"/a/b/c", b"/b/b"]), st.sampled_from([b"", b"?q", b"?q=1"]),
)  # fmt: skip
def test_property_who_covers_takes_what_the_other_takes(pair: list[Any], host: str, path: bytes, query: bytes) -> None:
    one, other = (RouteTable(pool="p", **keys) for keys in pair)
    for a in entries(one, "one", 0):
        for b in entries(other, "other", 1):
            if a.covers(b) and not b.objection(host, "GET", path, query):
                assert not a.objection(host, "GET", path, query)
