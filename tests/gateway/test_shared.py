"""The account of a request: cells, and the line in the access log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gateway.errors import REASONS
from gateway.shared import REASON_NUMBERS, Shared
from supervisor.plane import layout
from supervisor.plane.layout import Kind, Listener, Route
from tests.gateway.house import House

Account = Callable[..., None]


@pytest.fixture
def shared(house: House) -> Shared:
    return house.gateway._shared


@pytest.fixture
def account(house: House, shared: Shared) -> Account:
    """One request of the route web; `took` in seconds."""
    [listener] = house.gateway._listeners.values()

    def account(status: int = 200, reason: str = "", routed: bool = True, took: float = 0.0, settled: bool = True,
                **changed: Any) -> None:  # fmt: skip
        given: dict[str, Any] = {
            "listener": listener.counters, "route": listener.plan.routes["web"] if routed else None,
            "asked": '"method":"GET","host":"a","path":"/"', "client": '"192.0.2.1"', "user": "null", "server": "web/s",
            "status": status, "reason": reason, "request_id": b"r1", "bytes_in": 10, "bytes_out": 20,
            "began_ns": shared.lane.now_ns - int(took * 1e9), **changed,
        }  # fmt: skip
        shared.account(*given.values())
        if settled:
            shared.lane.finish_round()

    return account


def test_a_request_is_counted_by_its_status_and_its_bytes(house: House, account: Account) -> None:
    for status in (101, 200, 204, 308, 404, 499, 503):
        account(status)
    fields = ("RESPONSES_1XX", "RESPONSES_2XX", "RESPONSES_3XX", "RESPONSES_4XX", "RESPONSES_5XX")
    assert [house.rows(Kind.ROUTE, "web", getattr(Route, name)) for name in fields] == [1, 2, 1, 2, 1]
    assert house.rows(Kind.ROUTE, "web", Route.REQUESTS) == 7
    assert house.rows(Kind.ROUTE, "web", Route.BYTES_IN) == house.rows(Kind.LISTENER, "gateway/web", Listener.BYTES_IN)
    assert house.rows(Kind.ROUTE, "web", Route.BYTES_OUT) == 140


def test_what_a_round_did_is_in_the_plane_at_its_end(house: House, account: Account) -> None:
    for status in (200, 404, 200):
        account(status, settled=False)
    house.lane.finish_round()
    fields = (Route.REQUESTS, Route.RESPONSES_2XX, Route.RESPONSES_4XX, Route.BYTES_IN)
    assert [house.rows(Kind.ROUTE, "web", field) for field in fields] == [3, 2, 1, 30]
    house.lane.finish_round()
    assert [house.rows(Kind.ROUTE, "web", field) for field in fields] == [3, 2, 1, 30], "and only once"


def test_two_listeners_of_one_route_are_counted_apart(house: House, account: Account) -> None:
    other = house.plane.allocate(Kind.LISTENER, "gateway/other")
    account(settled=False)
    account(listener=house.plane.counters(Kind.LISTENER, other, house.column), bytes_in=7, settled=False)
    account()
    assert house.rows(Kind.LISTENER, "gateway/web", Listener.BYTES_IN) == 20
    assert house.rows(Kind.LISTENER, "gateway/other", Listener.BYTES_IN) == 7
    assert house.rows(Kind.ROUTE, "web", Route.BYTES_IN) == 27


@pytest.mark.parametrize(
    ("took", "bucket"), [(0.0, 0), (1e-6, 1), (0.001, 10), (1.0, 20), (1e6, Route.LATENCY_BUCKETS - 1)]
)
def test_times_fall_into_buckets_of_powers_of_two(house: House, account: Account, took: float, bucket: int) -> None:
    account(took=took)
    counts = [house.rows(Kind.ROUTE, "web", Route.LATENCY + at) for at in range(Route.LATENCY_BUCKETS)]
    assert counts == [int(at == bucket) for at in range(Route.LATENCY_BUCKETS)]
    assert house.rows(Kind.ROUTE, "web", Route.LATENCY_SUM) == int(took * 1e6)


def test_reasons_have_cells_of_their_own_that_fit(house: House, account: Account) -> None:
    assert len(REASONS) <= layout.Route.MAX_REASONS
    for reason in REASONS:
        account(400, reason)
    cells = [house.rows(Kind.ROUTE, "web", Route.REASONS + number) for number in REASON_NUMBERS.values()]
    assert cells == [1] * len(REASONS)


def test_what_reached_no_route_has_a_row_too(house: House, account: Account) -> None:
    account(404, "no_route", routed=False)
    assert house.rows(Kind.ROUTE, "-", Route.REQUESTS) == 1
    assert house.rows(Kind.ROUTE, "web", Route.REQUESTS) == 0
    assert (house.log.lines[0]["route"], house.log.lines[0]["pool"]) == (None, None)


def test_the_log_has_a_line_of_json_for_each(house: House, account: Account) -> None:
    account(502, "bad_answer", took=0.25, user='"\\"ä"')
    [line] = house.log.lines
    assert line.pop("ts") == pytest.approx(house.lane.wall, abs=0.001)
    assert line == {
        "request_id": "r1", "client": "192.0.2.1", "method": "GET", "host": "a", "path": "/", "route": "web",
        "pool": "web", "server": "web/s", "user": '"ä', "status": 502, "reason": "bad_answer", "bytes_in": 10,
        "bytes_out": 20, "us": 250_000,
    }  # fmt: skip


def test_a_log_that_is_off_is_not_written(house: House, account: Account) -> None:
    house.log.enabled = False
    account()
    assert house.log.lines == []
    assert house.rows(Kind.ROUTE, "web", Route.REQUESTS) == 1


def test_the_date_is_made_once_a_second(house: House, shared: Shared) -> None:
    first = shared.date_line()
    assert first.startswith(b"Date: ")
    assert shared.date_line() is first
    house.lane.advance(2.0)
    assert shared.date_line() != first
