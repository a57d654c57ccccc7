"""Sticky sessions: the same server for the same client, and another one only when that is away."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.route_tables import StickyTable
from gateway.sticky import Sticky
from supervisor.ground.config import Duration
from tests.gateway.house import PLAIN, Client, House, Message, answer

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
PORTS = (8001, 8002, 8003)
SERVERS = PLAIN.replace('["127.0.0.1:8001"]', '["127.0.0.1:8001", "127.0.0.1:8002", "127.0.0.1:8003"]')
COOKIE = SERVERS.replace('pool = "web"', 'pool = "web"\nsticky = { cookie = "srv", max_age = "1h" }')
HASH = SERVERS.replace('pool = "web"', 'pool = "web"\nsticky = { hash = "header:X-Tenant" }').replace(
    "[pools.web]", '[pools.web]\nbalance = "maglev"'
)


@pytest.fixture
def build() -> Iterator[Callable[[str], House]]:
    houses: list[House] = []

    def make(text: str) -> House:
        house = House(text)
        for port in PORTS:
            house.listen(port)
        houses.append(house)
        return house

    yield make
    for house in houses:
        house.gateway.close()
        house.lane.finish()
        house.plane.close()


def ask(house: House, client: Client, *fields: str) -> tuple[int, Message]:
    """The port of the server that was asked, and the answer."""
    client.get("/", *fields)
    house.lane.run()
    for port in PORTS:
        for number, end in enumerate(house.servers[port]):
            if end.take():
                house.answer(OK, number, port)
                return port, answer(client.take())
    raise AssertionError("no server was asked")


def test_a_cookie_leads_back_to_its_server(build: Callable[[str], House]) -> None:
    house = build(COOKIE)
    client = house.connect()
    port, reply = ask(house, client)
    line = reply.field("set-cookie")
    assert line is not None
    assert re.fullmatch(r"srv=[0-9a-f]{16}; Path=/; HttpOnly; SameSite=Lax; Max-Age=3600", line)
    given = line.partition(";")[0]
    for _ in range(6):
        again, reply = ask(house, client, f"Cookie: a=b; {given}; c=d")
        assert again == port
        assert reply.field("set-cookie") is None


def test_others_are_spread_and_told(build: Callable[[str], House]) -> None:
    house = build(COOKIE)
    seen = {ask(house, house.connect()) for _ in range(3)}
    assert {port for port, _ in seen} == set(PORTS)
    assert len({reply.field("set-cookie") for _, reply in seen}) == 3


@pytest.mark.parametrize("value", ["nonsense", "", "0" * 16])
def test_a_cookie_for_nobody_is_replaced(build: Callable[[str], House], value: str) -> None:
    house = build(COOKIE)
    _, reply = ask(house, house.connect(), f"Cookie: srv={value}")
    assert reply.field("set-cookie") is not None


def test_a_server_that_is_away_gives_its_clients_to_others(build: Callable[[str], House]) -> None:
    house = build(COOKIE)
    client = house.connect()
    port, reply = ask(house, client)
    given = str(reply.field("set-cookie")).partition(";")[0]
    server = next(one for one in house.worker.pools["web"].servers if one.name.endswith(str(port)))
    for _ in range(5):
        server.failed(time.monotonic_ns())
    assert not server.usable()
    other, reply = ask(house, client, f"Cookie: {given}")
    assert other != port
    assert str(reply.field("set-cookie")).partition(";")[0] != given


def test_a_value_leads_to_one_server_always(build: Callable[[str], House]) -> None:
    house = build(HASH)
    ports = {tenant: ask(house, house.connect(), f"X-Tenant: {tenant}")[0] for tenant in range(20)}
    assert set(ports.values()) == set(PORTS)
    for tenant, port in ports.items():
        client = house.connect(f"192.0.2.{tenant}")
        again, reply = ask(house, client, f"x-tenant:  {tenant}")
        assert again == port
        assert reply.field("set-cookie") is None


def test_without_a_value_the_address_decides(build: Callable[[str], House]) -> None:
    house = build(HASH)
    assert len({ask(house, house.connect("192.0.2.9"))[0] for _ in range(5)}) == 1


def test_cookies_are_found_among_others_and_nowhere_else() -> None:
    sticky = Sticky(StickyTable(hash="cookie:id"))
    head = b"GET / HTTP/1.1\r\nCookie: id2=x; aid=y;id=7\r\nX-Cookie: id=8\r\n\r\ncookie: id=9"
    assert sticky.key(head, "ip") == b"7"
    assert sticky.key(b"GET / HTTP/1.1\r\nA: b\r\n\r\nX\r\ncookie: id=9\r\n", "ip") == "ip"


def test_over_tls_the_cookie_stays_there(build: Callable[[str], House]) -> None:
    house = build(COOKIE)
    server = house.worker.pools["web"].servers[0]
    sticky = Sticky(StickyTable(cookie="srv", max_age=Duration(60)))
    assert b"; Secure; Max-Age=60" in sticky.mark(server, b"GET / HTTP/1.1\r\nA: b\r\n\r\n", True)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("{ }", "exactly one of cookie and hash"),
        ('{ cookie = "a b" }', "not the name of a cookie"),
        ('{ cookie = "a", hash = "cookie:b" }', "exactly one"),
        ('{ hash = "path:x" }', '"header:NAME" or "cookie:NAME"'),
        ('{ hash = "cookie:b" }', 'must have balance = "maglev" or "source_hash"'),
        ('{ hash = "cookie:b", max_age = "1s" }', "is for a cookie of ours"),
    ],
)
def test_what_cannot_work_is_said(build: Callable[[str], House], table: str, said: str) -> None:
    with pytest.raises(Exception, match=re.escape(said)):
        build(SERVERS.replace('pool = "web"', f'pool = "web"\nsticky = {table}'))


@given(st.binary(max_size=80).filter(lambda text: b"\n" not in text and b"\r" not in text))
def test_property_any_cookies_have_a_value_or_none(text: bytes) -> None:
    sticky = Sticky(StickyTable(hash="cookie:id"))
    key = sticky.key(b"GET / HTTP/1.1\r\nCookie: " + text + b"\r\n\r\n", "ip")
    assert key == "ip" or (isinstance(key, bytes) and key in text)
