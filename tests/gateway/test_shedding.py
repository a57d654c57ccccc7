"""Overload: what is refused first, and that it is refused at once."""

from __future__ import annotations

import re

import pytest

from gateway.errors import PeerError
from gateway.shedding import SHARES, Shedding, shedding
from supervisor.plane.layout import Kind, Route
from tests.gateway.house import PLAIN, House, answer

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
ROUTE = '[gateway.routes.{name}]\npath = "/{name}"\npool = "web"\nimportance = "{name}"\n'
BOUNDED = PLAIN + "".join(ROUTE.format(name=name) for name in SHARES) + "[gateway]\nmax_requests = 10\n"


def test_the_least_important_is_refused_first() -> None:
    house = House(BOUNDED)
    house.listen()
    seen: dict[str, list[int]] = {"low": [], "normal": [], "high": []}
    waiting = []
    for number in range(11):
        for path in seen:
            client = house.connect()
            client.get(f"/{path}")
            house.lane.run()
            refused = client.take()
            if refused:
                reply = answer(refused)
                assert (reply.status, reply.code, reply.field("retry-after")) == (503, "overloaded", "1")
                seen[path].append(number)
                client.end.close()
            else:
                waiting.append(client)
                if path != "high":  # fill it with important ones, one at each look
                    house.answer(OK)
                    assert answer(client.take()).status == 200
                    waiting.pop()
    assert {path: numbers[0] for path, numbers in seen.items()} == {"low": 7, "normal": 9, "high": 10}
    for number in range(len(house.servers[8001])):
        house.server(number).close()
    house.gateway.close()
    house.lane.finish()
    assert all(house.rows(Kind.ROUTE, name, Route.IN_FLIGHT) == 0 for name in house.plane.names(Kind.ROUTE))
    house.plane.close()


def test_without_a_bound_nothing_is_counted() -> None:
    assert shedding(None, "low", [1]) is None


def test_even_the_smallest_bound_takes_one() -> None:
    one = shedding(1, "low", [0, 1])
    assert isinstance(one, Shedding)
    cells = memoryview(bytearray(16)).cast("Q")
    one.check(cells)
    cells[1] = 1
    with pytest.raises(PeerError):
        one.check(cells)


def test_importance_without_a_bound_is_said_to_do_nothing() -> None:
    with pytest.raises(Exception, match=re.escape("set gateway.max_requests")):
        House(BOUNDED.replace("max_requests = 10", ""))
