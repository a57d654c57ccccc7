"""The slower half of who may: each limit's key, and the count of verified signatures."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.admission import admit_anybody, verify
from gateway.errors import PeerError
from gateway.fields import Bearer, FieldParser
from supervisor.plane.layout import Kind, Tier
from tests.gateway.conftest import SECRET, Keys
from tests.gateway.house import PLAIN, House

TEXT = (
    PLAIN.replace('pool = "web"', 'pool = "web"\nauth = "main"\nlimits = ["ip", "key"]')
    + f"""
[gateway.auth.main]
type = "jwt"
algorithms = ["HS256"]
secret = "{SECRET}"
[gateway.limits.ip]
key = "client_ip"
rate = "1/m"
burst = 3
[gateway.limits.key]
key = "header:X-Key"
rate = "1/m"
burst = 2
"""
)


def test_the_first_limit_that_is_over_refuses() -> None:
    house = House(TEXT)
    house.connect("192.0.2.1")
    (connection,) = house.gateway._live().values()
    plan = house.gateway._listeners["web"].plan
    parser = FieldParser((), [b"X-Key"])

    def ask(ip: str, key: str | None = None) -> str | None:
        extras: Any = None if key is None else [parser(f"X-Key: {key}".encode())]
        try:
            admit_anybody(house.gateway._shared, connection, plan.routes["web"], ip, extras)
        except PeerError as error:
            return error.detail.split(" ")[2]
        return None

    own = connection.client.ip
    assert [ask(own, "a"), ask(own, "a"), ask(own, "a"), ask(own, "b")] == [None, None, "key", "ip"]
    assert [ask("192.0.2.9"), ask("192.0.2.9"), ask("192.0.2.8")] == [None, None, "key"]
    house.lane.finish()


def test_a_route_sheds_until_its_database_has_room() -> None:
    house = House(PLAIN)
    house.connect("192.0.2.1")
    (connection,) = house.gateway._live().values()
    shared, route = house.gateway._shared, house.gateway._listeners["web"].plan.routes["web"]
    route.sheds_on = house.plane.state(Kind.DATABASE, house.plane.allocate(Kind.DATABASE, "app"))
    admit_anybody(shared, connection, route, "192.0.2.1", None)
    shared.cells[route.sheds_on] = shared.lane.now_ns + 1
    with pytest.raises(PeerError) as caught:
        admit_anybody(shared, connection, route, "192.0.2.1", None)
    assert (caught.value.code, caught.value.status, caught.value.fields) == ("overloaded", 503, (b"Retry-After: 1",))
    shared.cells[route.sheds_on] = shared.lane.now_ns
    admit_anybody(shared, connection, route, "192.0.2.1", None)
    house.lane.finish()


def test_only_signatures_are_counted_as_verified(keys: Keys) -> None:
    house = House(TEXT)
    route = house.gateway._listeners["web"].plan.routes["web"]
    shared = house.gateway._shared
    good = Bearer(b"Bearer " + keys.token("HS256"), b"")
    # The rehearsed clock stands at the keys' own time.
    for _ in range(2):
        assert verify(shared, route, good).user == b"u1"
    with pytest.raises(PeerError):
        verify(shared, route, Bearer(b"Bearer nonsense", b""))
    assert house.rows(Kind.TIER, "gateway", Tier.TOKENS_VERIFIED) == 1
