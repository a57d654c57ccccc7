"""What routes do beyond forwarding, in memory from end to end; HTTP/2 takes the same way."""

from __future__ import annotations

from collections import Counter

import pytest

from gateway.treatments import Split, SplitBy, Treatment
from tests.gateway.house import OK, PLAIN, Build, House, answer, request, warm

POOLS = PLAIN.replace("[gateway.listeners", '[pools.other]\nservers = ["127.0.0.1:8002"]\n[gateway.listeners', 1)


def routed(build: Build, keys: str, path: str = "/*") -> House:
    """A house whose one route has these keys; the pools are web and other."""
    house = build(POOLS.replace('pool = "web"', f'path = "{path}"\n{keys}'))
    house.listen(8002)
    return house


def test_a_rewritten_request_is_logged_as_it_came(build: Build) -> None:
    house = routed(build, 'pool = "web"\nrewrite = { prefix = "/v2", host = "inner.example" }', "/api/*")
    client = house.connect()
    client.get("/api/user?a=b", host="outer.example")
    got = request(house.received())
    assert got.head.target == b"/v2/user?a=b"  # type: ignore[union-attr]
    assert (got.all("host"), got.field("x-forwarded-host")) == (["inner.example"], "outer.example")
    house.answer(OK)
    assert answer(client.take()).status == 200
    assert (house.log.lines[0]["path"], house.log.lines[0]["host"]) == ("/api/user", "outer.example")


def test_a_redirect_needs_no_server_and_keeps_the_connection(build: Build) -> None:
    house = routed(build, 'redirect = { scheme = "https", status = 301 }\nresponse_headers = { set = { X-A = "1" } }')
    client = house.connect()
    client.get("/a?b", host="h.example:80")
    reply = answer(client.take())
    assert (reply.status, reply.field("location"), reply.field("x-a")) == (301, "https://h.example/a?b", "1")
    client.get("/a", method="POST", body=b"hello")
    assert answer(client.take(), "POST").status == 301
    assert not client.closed
    line = house.log.lines[0]
    assert (line["status"], line["reason"], line["route"], line["pool"]) == (301, "redirected", "web", None)


def test_a_fixed_answer_and_its_head(build: Build) -> None:
    house = routed(build, 'respond = { status = 503, body = "back soon", content_type = "text/html" }')
    client = house.connect()
    client.get()
    reply = answer(client.take())
    assert (reply.status, reply.body, reply.field("content-type")) == (503, b"back soon", "text/html")
    client.get(method="HEAD")
    reply = answer(client.take(), "HEAD")
    assert (reply.status, reply.body, reply.field("content-length")) == (503, b"", "9")
    assert [line["reason"] for line in house.log.lines] == ["responded", "responded"]


@pytest.mark.parametrize("express", [False, True])
def test_headers_are_edited_both_ways(build: Build, express: bool) -> None:
    house = routed(build, 'pool = "web"\n'
                   'request_headers = { set = { X-Env = "prod" }, add = { Via = "1.1 p" }, remove = ["Cookie"] }\n'
                   'response_headers = { remove = ["Server"], add = { X-Frame-Options = "DENY" } }')  # fmt: skip
    if express:
        warm(house)
    client = house.connect()
    client.get("/", "X-Env: test", "cookie: a=b", "Via: 1.0 q")
    got = request(house.received())
    assert (got.all("x-env"), got.all("cookie"), got.all("via")) == (["prod"], [], ["1.0 q", "1.1 p"])
    house.answer(b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 2\r\n\r\nok")
    reply = answer(client.take())
    assert (reply.field("server"), reply.field("x-frame-options"), reply.body) == (None, "DENY", b"ok")


def test_a_split_keeps_an_address_with_its_pool_and_follows_the_weights(build: Build) -> None:
    house = routed(build, 'split = [{ pool = "web", weight = 3 }, { pool = "other" }, { pool = "web", weight = 0 }]')
    seen: Counter[str] = Counter()
    for number in range(40):
        pools = set()
        for _ in range(2):
            client = house.connect(f"192.0.2.{number}")
            client.get()
            house.lane.run()
            for port in (8001, 8002):
                for end in house.servers[port]:
                    if end.take():
                        house.lane.feed(end, OK, 1 << 16)
            assert answer(client.take()).status == 200
            pools.add(house.log.lines[-1]["pool"])
            client.end.close()
        assert len(pools) == 1
        seen.update(pools)
    assert 20 <= seen["web"] <= 38
    assert seen["other"] >= 2


def test_a_split_gives_every_weight_its_share() -> None:
    routes = [object(), object(), object()]
    split = Split(SplitBy.USER, b"r", (90, 99, 100), routes)  # type: ignore[arg-type]  # it only hands them out
    counts = Counter(routes.index(split.choose(b"u%d" % number, "")) for number in range(5000))
    assert 4300 < counts[0] < 4700
    assert 330 < counts[1] < 570
    assert 20 < counts[2] < 90
    anyhow = Split(SplitBy.RANDOM, b"r", (1, 2, 3), routes)  # type: ignore[arg-type]
    assert {routes.index(anyhow.choose(b"u", "")) for _ in range(200)} == {0, 1, 2}


def test_bodies_are_bounded_before_anything_is_sent(build: Build) -> None:
    house = routed(build, 'pool = "web"\nmax_body = "4B"')
    client = house.connect()
    client.get(method="POST", body=b"hello")
    assert answer(client.take(), "POST").code == "body_too_large"
    assert not house.servers[8001]


def test_a_route_that_only_forwards_has_no_treatment(build: Build) -> None:
    house = build()
    [listener] = house.gateway._listeners.values()
    assert listener.plan.routes["web"].treatment is None
    assert Treatment() == Treatment()
