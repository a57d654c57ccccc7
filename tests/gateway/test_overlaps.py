"""Routes in each other's way."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.overlaps import rivals, twins, unreachable
from gateway.route_tables import RouteTable


def tables(**routes: dict[str, Any]) -> dict[str, RouteTable]:
    return {name: RouteTable(pool="p", **keys) for name, keys in routes.items()}


def test_twins_share_a_request_that_nothing_tells_apart() -> None:
    found = tables(
        a={"path": "/a", "methods": ("GET", "POST")},
        b={"path": "/a", "methods": ("POST",)},
        c={"path": "/a", "methods": ("PUT",)},
        d={"path": "/a", "methods": ("PUT",), "priority": 1},
        e={"hosts": ("x.y", "z"), "path_regex": "/a+"},
        f={"hosts": ("z",), "path_regex": "/a+"},
    )
    assert twins(found) == [("b", "a"), ("f", "e")]
    assert rivals(found) == []


def test_rivals_ask_for_different_things_that_one_request_may_have() -> None:
    found = tables(
        a={"headers": {"X-A": "1"}},
        b={"headers": {"X-B": "*"}},
        c={"headers": {"X-A": "2"}, "hosts": ("h",)},
        d={"query": {"q": "1"}},
        e={"headers": {"X-A": "1", "X-B": "2"}},
    )
    assert rivals(found) == [("b", "a"), ("d", "a")]
    assert rivals(tables(a={"headers": {"X-A": "1"}}, b={"headers": {"x-a": "2"}})) == []
    assert twins(found) == []


@pytest.mark.parametrize(("first", "second"), [
    ({"priority": 1}, {"path": "/a"}),
    ({"priority": 1, "path": "/a/*"}, {"path": "/a/b/*", "hosts": ("x.y",), "methods": ("GET",)}),
    ({"priority": 1, "path": "/a/*"}, {"path_regex": "/a/b+"}),
    ({"priority": 1, "path_regex": "/a/[bc]"}, {"path": "/a/b"}),
    ({"priority": 1, "hosts": ("*.y",)}, {"hosts": ("x.y", "*.x.y")}),
    ({"priority": 1, "headers": {"X": "*"}}, {"headers": {"X": "1", "Y": "2"}}),
    ({"path": "/a", "methods": ("GET", "PUT"), "priority": 1}, {"path": "/a", "methods": ("PUT",)}),
    ({"query": {"a": "*"}, "priority": 1}, {"query": {"a": "1"}}),
])  # fmt: skip
def test_a_route_whose_requests_another_takes_first_is_never_reached(first: Any, second: Any) -> None:
    assert unreachable(tables(second=second, first=first)) == [("second", "first")]
    assert unreachable(tables(second={**second, "priority": 2}, first=first)) == []


@pytest.mark.parametrize(("first", "second"), [
    ({"priority": 1, "path": "/a/*"}, {"path_regex": "/a.*"}),
    ({"priority": 1, "methods": ("GET",)}, {"path": "/a"}),
    ({"priority": 1, "hosts": ("x.y",)}, {"hosts": ("x.y", "z")}),
    ({"priority": 1, "headers": {"X": "1"}}, {"headers": {"X": "*"}}),
    ({"path": "/*"}, {"path": "/a"}),
    ({"path": "/a/*"}, {"hosts": ("x",)}),
])  # fmt: skip
def test_a_route_that_keeps_some_requests_is_reached(first: Any, second: Any) -> None:
    assert unreachable(tables(first=first, second=second)) == []


def test_what_is_broken_is_left_to_others() -> None:
    assert unreachable(tables(a={"path": "nonsense"}, b={"path_regex": "("}, c={})) == []


def test_a_thousand_routes_take_no_time() -> None:
    found = tables(**{f"r{number}": {"path": f"/r{number}/*", "priority": number % 3} for number in range(1000)})
    assert twins(found) == rivals(found) == unreachable(found) == []
