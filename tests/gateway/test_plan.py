"""A configuration made ready to work by."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway import plan
from gateway.answers import AnswerReader
from gateway.config import GatewayTable
from gateway.limits import Key
from gateway.plan import Plan
from supervisor.ground.config import Config, load_bytes
from supervisor.plane.layout import Kind, Route
from supervisor.plane.memory import Plane
from supervisor.plane.quotas import Quotas
from tests.gateway.conftest import SECRET
from tests.gateway.house import PLAIN, House

FULL = f"""
[supervisor]
pop = "fra 1%"
drain_timeout = "7s"
[pools.web]
servers = ["127.0.0.1:8001"]
[pools.next]
servers = ["127.0.0.1:8002"]
[gateway.listeners.web]
bind = "127.0.0.1:80"
trusted_proxies = ["192.0.2.0/24"]
accept_proxy_protocol = ["2001:db8::/32"]
[gateway.auth.main]
type = "jwt"
algorithms = ["HS256"]
secret = "{SECRET}"
claims_to_headers = {{ sub = "X-User-Id", tenant = "X-Tenant" }}
[gateway.limits.everybody]
key = "header:X-Key"
rate = "5/s"
[gateway.limits.tenant]
key = "claim:tenant"
rate = "5/s"
[gateway.routes.plain]
path = "/plain"
pool = "web"
[gateway.routes.user]
pool = "web"
auth = "main"
limits = ["tenant", "everybody"]
scopes = ["read"]
claims = {{ role = "admin" }}
headers = {{ X-Beta = "1" }}
[gateway.routes.split]
path = "/split"
split = [{{ pool = "web", weight = 2 }}, {{ pool = "next", weight = 0 }}, {{ pool = "next" }}]
[gateway.routes.away]
path = "/away"
redirect = {{ path = "/" }}
response_headers = {{ add = {{ X-A = "1" }} }}
"""


@pytest.fixture(scope="module")
def made() -> Plan:
    house = House(FULL)
    [listener] = house.gateway._listeners.values()
    return listener.plan


def load(text: str) -> Config:
    return load_bytes(text.encode(), "t.toml", Path("/"), {"gateway": GatewayTable})


def test_what_only_forwards_is_not_treated(made: Plan) -> None:
    route = made.routes["plain"]
    assert (route.treatment, route.verifier, route.before, route.after, route.answer_edits) == (
        None,
        None,
        (),
        (),
        None,
    )
    assert (route.name, route.pool.name) == ("plain", "web")


def test_limits_stand_before_and_after_the_token(made: Plan) -> None:
    route = made.routes["user"]
    assert [(limit.name, limit.key) for limit in route.before] == [("everybody", Key.HEADER)]
    assert [(limit.name, limit.key, limit.claim) for limit in route.after] == [("tenant", Key.CLAIM, "tenant")]
    assert route.verifier is made.verifiers["main"]


def test_the_guard_drops_identities_and_shows_what_is_looked_at(made: Plan) -> None:
    assert {b"x-user-id", b"x-tenant"} <= made.guard.parser.identity
    assert made.guard.parser.wanted == {b"x-beta", b"x-key"}


def test_a_split_makes_a_route_of_each_share_that_gets_something(made: Plan) -> None:
    treatment = made.routes["split"].treatment
    assert treatment is not None
    assert treatment.split is not None
    assert [(route.name, route.pool.name, route.log) for route in treatment.split.routes] == [
        ("split", "web", '"route":"split","pool":"web"'), ("split", "next", '"route":"split","pool":"next"'),
    ]  # fmt: skip
    assert treatment.split.bounds == (2, 3)
    assert {route.counters for route in treatment.split.routes} == {made.routes["split"].counters}


def test_a_redirect_carries_the_edits_of_answers(made: Plan) -> None:
    treatment = made.routes["away"].treatment
    assert treatment is not None
    assert treatment.reply is not None
    assert (treatment.reply.status, treatment.reply.fields) == (308, (b"X-A: 1",))


def test_every_answer_names_the_request_and_the_site(made: Plan) -> None:
    assert made.served_by == b"X-Served-By: fra-1-"
    assert made.tail(b"id") == b"\r\nX-Request-Id: id\r\nX-Served-By: fra-1-\r\n\r\n"
    assert made.drain_timeout == 7.0


def test_networks_are_asked_by_listener(made: Plan) -> None:
    here = made.listeners["web"]
    assert (here.trusts("192.0.2.9"), here.trusts("192.0.3.9")) == (True, False)
    assert (here.must_introduce("2001:db8::1"), here.must_introduce("192.0.2.9")) == (True, False)
    assert here.fallback_host == b"127.0.0.1:80"
    assert here.certificates is None


def test_a_plane_without_rows_is_refused() -> None:
    config = load(PLAIN)
    plane = Plane.create()
    try:
        with pytest.raises(ValueError, match="no row for the route web"):
            plan.make(config, plane, plane.claim_column("gateway", 1), {"web": None}, Quotas(plane), AnswerReader())  # type: ignore[dict-item]
    finally:
        plane.close()


def test_rows_are_those_of_the_plane() -> None:
    house = House(FULL)
    [listener] = house.gateway._listeners.values()
    row = house.plane.row(Kind.ROUTE, "plain")
    assert listener.plan.routes["plain"].counters == house.plane.counters(Kind.ROUTE, row, house.column)
    assert house.rows(Kind.ROUTE, "plain", Route.REQUESTS) == 0
    house.plane.close()
