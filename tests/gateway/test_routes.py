"""Longest and most specific wins, and priority above all."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import RouteTable
from gateway.routes import Router, first_allowed, host_name


def router(**routes: dict[str, Any]) -> Router[str]:
    return Router((RouteTable(pool="p", **keys), name) for name, keys in routes.items())


def found(router: Router[str], host: str, method: str, path: bytes, **fields: bytes) -> str | None:
    given = {name.replace("_", "-").encode(): value for name, value in fields.items()}
    return first_allowed(router.find(host, method, path), given)


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


def test_what_cannot_be_reached_is_not_offered() -> None:
    routes = router(any={}, a={"path": "/a"}, b={"path": "/a", "headers": {"X": "1"}})
    assert [entry.route for entry in routes.find("h", "GET", b"/a")] == ["b", "a"]


@pytest.mark.parametrize(("host", "expected"), [
    (b"Example.COM", "example.com"), (b"example.com:8080", "example.com"), (b"example.com.", "example.com"),
    (b"[::1]:80", "[::1]"), (b"[2001:DB8::1]", "[2001:db8::1]"), (b"a.:1", "a"),
])  # fmt: skip
def test_hosts_are_compared_without_case_port_and_last_dot(host: bytes, expected: str) -> None:
    assert host_name(host) == expected


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
