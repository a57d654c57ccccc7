"""Requests on the express lane: what servers get, what clients get, what is refused and how connections go on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from supervisor.plane.layout import Kind, Limit, Listener, Route, Server
from tests.gateway.corpus import INVALID, VALID, Invalid, Valid
from tests.gateway.house import OK, PLAIN, Build, House, answer, request, warm


def test_a_request_reaches_the_server_rebuilt_and_its_answer_the_client(house: House) -> None:
    client = house.connect()
    client.get("/a?b=c", "X-One:  1 ", "Cookie: a=b")
    got = request(house.received())
    assert (got.head.method, got.head.target) == (b"GET", b"/a?b=c")  # type: ignore[union-attr]
    assert [got.field(name) for name in ("host", "x-one", "cookie")] == ["a", "1", "a=b"]
    assert [got.field(f"x-forwarded-{name}") for name in ("for", "proto", "host")] == ["192.0.2.1", "http", "a"]
    assert got.field("forwarded") == "for=192.0.2.1;proto=http;host=a"
    assert house.rows(Kind.ROUTE, "web", Route.IN_FLIGHT) == 1
    request_id = got.field("x-request-id")
    assert str(got.field("traceparent")).startswith(f"00-{request_id}-")
    house.answer(OK)
    reply = answer(client.take())
    assert (reply.status, reply.body) == (200, b"ok")
    assert reply.field("x-request-id") == request_id
    assert reply.field("date") is not None
    assert reply.field("connection") is None
    line = house.log.lines[0]
    assert {key: value for key, value in line.items() if key not in ("ts", "us", "bytes_in", "bytes_out")} == {
        "request_id": request_id, "client": "192.0.2.1", "method": "GET", "host": "a", "path": "/a", "route": "web",
        "pool": "web", "server": "web/127.0.0.1:8001", "user": None, "status": 200, "reason": "",
    }  # fmt: skip


@pytest.mark.parametrize("piece", [1, 7, 1 << 16])
def test_segments_make_no_difference(house: House, piece: int) -> None:
    warm(house)
    client = house.connect()
    client.send(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", piece)
    got = request(house.received())
    assert got.body == b"hello"
    house.answer(b"HTTP/1.1 201 Created\r\nContent-Length: 5\r\nX-A: b\r\n\r\nworld", piece=piece)
    reply = answer(client.take())
    assert (reply.status, reply.body, reply.field("x-a")) == (201, b"world", "b")
    assert not client.closed


@pytest.mark.parametrize("case", VALID, ids=lambda case: case.name)
def test_what_the_guard_accepts_arrives_as_one_whole_request(house: House, case: Valid) -> None:
    client = house.connect()
    chunks = b"5\r\nhello\r\n0\r\n\r\n" if case.framing == "chunked" else b""
    client.send(case.head + (b"x" * case.framing if isinstance(case.framing, int) else chunks))
    got = request(house.received())
    assert got.head.method == case.method.encode()  # type: ignore[union-attr]
    assert got.rest == b""
    assert len(got.all("host")) == 1
    house.answer(OK)
    assert answer(client.take(), case.method).status == 200
    assert client.closed is not case.keep_alive


@pytest.mark.parametrize("case", INVALID, ids=lambda case: case.name)
def test_what_the_guard_refuses_is_answered_and_closed(house: House, case: Invalid) -> None:
    client = house.connect()
    client.send(case.head + b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
    reply = answer(client.take())
    assert reply.code == case.code
    assert reply.field("connection") == "close"
    assert client.closed
    assert house.servers[8001] == []
    assert house.log.lines[-1]["reason"] == case.code
    assert len(house.log.lines) == 1


def test_pipelined_requests_are_answered_in_order(house: House) -> None:
    client = house.connect()
    client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(5)))
    replies = b""
    for number in range(5):
        got = request(house.received())
        assert got.head.target == b"/%d" % number  # type: ignore[union-attr]
        house.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number)
        replies += client.take()
    for number in range(5):
        reply = answer(replies)
        assert reply.body == b"%d" % number
        replies = reply.rest
    assert replies == b""
    assert len(house.servers[8001]) == 1


def test_a_refusal_in_a_pipeline_keeps_its_place(build: Build) -> None:
    house = build(PLAIN.replace('pool = "web"', 'pool = "web"\npath = "/a/*"'))
    client = house.connect()
    client.send(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\nPOST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
                b"GET /a/c HTTP/1.1\r\nHost: a\r\n\r\n")  # fmt: skip
    house.received()
    house.answer(OK)
    assert request(house.received()).head.target == b"/a/c"  # type: ignore[union-attr]
    house.answer(OK)
    data, statuses = client.take(), []
    for _ in range(3):
        reply = answer(data)
        statuses.append(reply.status)
        data = reply.rest
    assert statuses == [200, 404, 200]


def test_connections_to_servers_are_kept_and_the_last_used_goes_first(house: House) -> None:
    warm(house, 3)
    for _ in range(4):
        client = house.connect()
        client.get()
        house.answer(OK, 2)
        assert answer(client.take()).status == 200
    assert len(house.servers[8001]) == 3
    assert house.rows(Kind.SERVER, "web/127.0.0.1:8001", Server.CONNECTIONS) == 3
    assert house.rows(Kind.SERVER, "web/127.0.0.1:8001", Server.REQUESTS) == 7


def test_kept_connections_end_when_they_are_idle_too_long(house: House) -> None:
    warm(house)
    house.lane.advance(70)
    assert house.server().at_end
    client = house.connect()
    client.get()
    house.answer(OK)
    assert answer(client.take()).status == 200
    assert len(house.servers[8001]) == 2


def test_a_kept_connection_that_the_server_closes_is_forgotten(house: House) -> None:
    warm(house)
    house.server().close()
    client = house.connect()
    client.get(method="POST", body=b"x")
    house.answer(OK)
    assert answer(client.take()).status == 200
    assert len(house.servers[8001]) == 2


def test_a_kept_connection_on_which_a_server_speaks_unasked_is_closed(house: House) -> None:
    warm(house)
    house.answer(OK)
    assert house.server().at_end


def test_an_answer_with_something_behind_it_is_delivered_but_the_connection_ends(house: House) -> None:
    warm(house)
    client = house.connect()
    client.get()
    house.received()
    house.answer(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
    reply = answer(client.take())
    assert (reply.body, reply.rest) == (b"ok", b"")
    assert house.server().at_end


def test_connection_close_is_obeyed_both_ways(house: House) -> None:
    client = house.connect()
    client.get("/", "Connection: close")
    got = request(house.received())
    assert got.field("connection") is None
    house.answer(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert answer(client.take()).field("connection") == "close"
    assert client.closed
    assert house.server().at_end


def test_a_server_that_closes_does_not_close_the_client(house: House) -> None:
    client = house.connect()
    client.get()
    house.received()
    house.answer(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert answer(client.take()).field("connection") is None
    assert not client.closed
    assert house.server().at_end


def test_head_and_304_end_with_their_head(house: House) -> None:
    warm(house)
    client = house.connect()
    for method, head in (("HEAD", b"200 OK"), ("GET", b"304 Not Modified")):
        client.get(method=method)
        house.received()
        house.answer(b"HTTP/1.1 %b\r\nContent-Length: 1000\r\nETag: x\r\n\r\n" % head)
        reply = answer(client.take(), method)
        assert (reply.body, reply.field("content-length"), reply.field("etag")) == (b"", "1000", "x")
    assert len(house.servers[8001]) == 1


def test_a_204_has_no_length(house: House) -> None:
    warm(house)
    client = house.connect()
    for head in (b"", b"Content-Length: 0\r\n"):
        client.get()
        house.answer(b"HTTP/1.1 204 No Content\r\n%b\r\n" % head)
        reply = answer(client.take())
        assert (reply.status, reply.field("content-length")) == (204, None)
    assert len(house.servers[8001]) == 1


def test_identity_headers_of_clients_never_reach_a_server(house: House) -> None:
    client = house.connect()
    client.get("/", "X-User-Id: admin", "x_user_id: admin", "X.USER.ID: admin", "Connection: X-Forwarded-For, X-Kept",
               "X-Forwarded-For: 6.6.6.6", "X_Forwarded_For: 6.6.6.6", "X-Request-Id: forged", "X-Real-IP: 6.6.6.6",
               "Forwarded: for=6.6.6.6", "traceparent: 00-11111111111111111111111111111111-2222222222222222-01",
               "X-Kept: 1", "X-Other: 2")  # fmt: skip
    data = house.received()
    got = request(data)
    assert b"admin" not in data
    assert b"6.6.6.6" not in data
    assert b"forged" not in data
    assert b"1111111" not in data
    assert got.all("x-forwarded-for") == ["192.0.2.1"]
    assert (got.field("x-kept"), got.field("x-other")) == (None, "2")


def test_a_route_without_auth_leaves_authorization_alone(house: House) -> None:
    client = house.connect()
    client.get("/", "Authorization: Basic dTpw")
    assert request(house.received()).field("authorization") == "Basic dTpw"


def test_trusted_proxies_are_believed(build: Build) -> None:
    house = build(PLAIN.replace('80"', '80"\ntrusted_proxies = ["10.0.0.0/8"]'))
    client = house.connect("10.0.0.1")
    client.get("/", "X-Forwarded-For: 192.0.2.9", "X-Forwarded-Proto: https", "X-Request-Id: abc")
    got = request(house.received())
    assert got.field("x-forwarded-for") == "192.0.2.9, 10.0.0.1"
    assert got.field("x-forwarded-proto") == "https"
    assert got.all("x-request-id") == ["abc"]
    house.answer(OK)
    assert answer(client.take()).field("x-request-id") == "abc"
    assert (house.log.lines[0]["client"], house.log.lines[0]["request_id"]) == ("192.0.2.9", "abc")
    stranger = house.connect("192.0.2.7")
    stranger.get("/", "X-Forwarded-For: 192.0.2.9")
    assert request(house.received()).field("x-forwarded-for") == "192.0.2.7"


def test_the_path_is_normalised_before_routing_and_for_the_server(build: Build) -> None:
    house = build(PLAIN + '[gateway.routes.admin]\npath = "/admin/*"\npool = "web"\nmethods = ["POST"]\n')
    client = house.connect()
    client.get("/x/../%61dmin//y?q=/../z")
    assert request(house.received()).head.target == b"/admin/y?q=/../z"  # type: ignore[union-attr]


@pytest.mark.parametrize(("path", "code", "status"), [
    ("/a%2fb", "encoded_slash", 400), ("/../x", "bad_path", 400), ("/%zz", "bad_path", 400),
    ("http://other/", "bad_host", 400),
])  # fmt: skip
def test_ambiguous_paths_are_refused(house: House, path: str, code: str, status: int) -> None:
    client = house.connect()
    client.get(path)
    reply = answer(client.take())
    assert (reply.status, reply.code) == (status, code)
    assert client.closed


def test_connect_and_trace_are_refused(house: House) -> None:
    for method in ("CONNECT", "TRACE"):
        client = house.connect()
        client.get("/", method=method)
        reply = answer(client.take())
        assert (reply.status, reply.code) == (405, "method_refused")
        assert reply.field("allow") is not None


def test_no_route_is_a_404_and_the_connection_goes_on(build: Build) -> None:
    house = build(PLAIN.replace('pool = "web"', 'pool = "web"\nhosts = ["b"]'))
    client = house.connect()
    client.get()
    reply = answer(client.take())
    assert (reply.status, reply.code) == (404, "no_route")
    client.get(host="b")
    house.answer(OK)
    assert answer(client.take()).status == 200
    assert [line["route"] for line in house.log.lines] == [None, "web"]
    assert house.log.lines[0]["path"] == "/"
    assert house.rows(Kind.ROUTE, "-", Route.RESPONSES_4XX) == 1
    assert house.rows(Kind.ROUTE, "web", Route.RESPONSES_2XX) == 1


def test_a_refusal_of_head_has_no_body(build: Build) -> None:
    house = build(PLAIN.replace('pool = "web"', 'pool = "web"\nhosts = ["b"]'))
    client = house.connect()
    client.get(method="HEAD")
    client.get(host="b")
    house.received()
    house.answer(OK)
    first = answer(client.take(), "HEAD")
    assert (first.status, first.body) == (404, b"")
    assert answer(first.rest).status == 200


def test_a_connection_at_rest_holds_nothing_of_its_last_request(house: House) -> None:
    client = house.connect()
    for _ in range(2):
        client.get("/", "X-Filler: " + "f" * 20_000)
        house.received()
        house.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 30000\r\n\r\n" + b"y" * 30_000)
        assert answer(client.take()).status == 200
    (session,) = house.gateway._live()
    frame: Any = session.coro.cr_await.cr_frame
    sizes = [len(value) for value in frame.f_locals.values() if isinstance(value, bytes | list)]
    assert sum(sizes) < 1000


def test_routes_by_header(build: Build) -> None:
    house = build(PLAIN + '[gateway.routes.beta]\npool = "beta"\nheaders = { X-Beta = "1" }\n'
                  '[pools.beta]\nservers = ["127.0.0.1:8002"]\n')  # fmt: skip
    house.listen(8002)
    client = house.connect()
    for fields, port in (((), 8001), (("X-Beta: 1",), 8002), (("X-Beta: 2",), 8001), (("x-beta: 1",), 8002)):
        client.get("/", *fields)
        assert request(house.received(port=port)).head.target == b"/"  # type: ignore[union-attr]
        house.answer(OK, port=port)
        assert answer(client.take()).status == 200


def test_the_access_log_survives_whatever_a_client_sends(house: House) -> None:
    client = house.connect()
    client.get('/a"b%0A%22?token=secret', host="A.Example:80")
    house.answer(OK)
    line = house.log.lines[0]
    assert (line["path"], line["host"]) == ('/a"b%0A%22', "a.example")
    assert "secret" not in json.dumps(line)


def test_served_by_tells_the_pop(build: Build) -> None:
    house = build('[supervisor]\npop = "fra1"\n' + PLAIN)
    client = house.connect()
    client.get()
    house.answer(OK.replace(b"\r\n\r\n", b"\r\nX-Served-By: server\r\n\r\n"))
    assert answer(client.take()).all("x-served-by") == ["fra1"]
    client.get("/..")
    assert answer(client.take()).field("x-served-by") == "fra1"


def test_counters_add_up(house: House) -> None:
    client = house.connect()
    for status in (200, 200, 301, 404, 500):
        client.get()
        house.answer(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status)
        assert answer(client.take()).status == status
    counts = [house.rows(Kind.ROUTE, "web", field) for field in range(6)]
    assert counts == [5, 0, 2, 1, 1, 1]
    latencies = [house.rows(Kind.ROUTE, "web", Route.LATENCY + bucket) for bucket in range(Route.LATENCY_BUCKETS)]
    assert sum(latencies) == 5
    assert house.rows(Kind.LISTENER, "gateway/web", Listener.ACCEPTED) == 1
    for kind, name, came, went in (
        (Kind.ROUTE, "web", Route.BYTES_IN, Route.BYTES_OUT),
        (Kind.LISTENER, "gateway/web", Listener.BYTES_IN, Listener.BYTES_OUT),
    ):
        assert house.rows(kind, name, came) == sum(line["bytes_in"] for line in house.log.lines)
        assert house.rows(kind, name, went) == sum(line["bytes_out"] for line in house.log.lines)
    server = "web/127.0.0.1:8001"
    assert house.rows(Kind.SERVER, server, Server.BYTES_OUT) == len(house.received())
    assert house.rows(Kind.SERVER, server, Server.BYTES_IN) == 5 * len(b"HTTP/1.1 200 X\r\nContent-Length: 0\r\n\r\n")


def test_an_answer_that_the_client_takes_in_parts(house: House) -> None:
    warm(house)
    client = house.connect(capacity=1000)
    client.get()
    house.received()
    house.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + b"y" * 5000)
    data = b""
    for _ in range(8):
        data += client.take()
    assert answer(data).body == b"y" * 5000
    assert house.log.lines[-1]["reason"] == ""


@pytest.mark.parametrize("how", ["leaves", "waits"])
def test_a_client_that_does_not_take_its_answer_is_logged(house: House, how: str) -> None:
    warm(house)
    client = house.connect(capacity=1000)
    client.get()
    house.received()
    if how == "leaves":
        client.end.abort()
    house.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + b"y" * 5000)
    house.lane.advance(62)
    assert house.log.lines[-1]["reason"] == "client_gone"
    assert house.gateway.holding() == []
    assert len(house.gateway._shared.upstreams._owner) <= 1


# -- slow clients


def test_a_slow_head_is_a_408(house: House) -> None:
    client = house.connect()
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n")
    house.lane.advance(9.5)
    assert client.take() == b""
    house.lane.advance(1)
    reply = answer(client.take())
    assert (reply.status, reply.code) == (408, "head_timeout")
    assert client.closed


def test_a_head_that_drips_gets_no_more_time(house: House) -> None:
    client = house.connect()
    client.send(b"GET / HTTP/1.1\r\n")
    for _ in range(9):
        house.lane.advance(1)
        client.send(b"X: y\r\n")
    house.lane.advance(1.5)
    assert answer(client.take()).status == 408


def test_an_idle_connection_ends_silently(house: House) -> None:
    client = house.connect()
    client.get()
    house.answer(OK)
    client.take()
    house.lane.advance(59)
    assert not client.closed
    house.lane.advance(2)
    assert client.closed
    assert client.take() == b""


def test_a_connection_that_never_speaks_ends_after_the_time_of_a_head(house: House) -> None:
    client = house.connect()
    house.lane.advance(11)
    assert client.closed
    assert house.log.lines == []


# -- limits

LIMITED = (
    PLAIN.replace('pool = "web"', 'pool = "web"\nlimits = ["few"]')
    + """
[gateway.limits.few]
key = "client_ip"
rate = "1/m"
burst = 2
"""
)


def statuses(house: House, *requests: tuple[str, tuple[str, ...]]) -> list[int]:
    found = []
    for ip, fields in requests:
        client = house.connect(ip)
        before = len(house.servers[8001]) and len(house.log.lines)
        client.get("/", *fields)
        house.lane.run()
        if len(house.log.lines) == before:
            house.answer(OK)
        found.append(answer(client.take()).status)
        client.end.close()
        house.lane.run()
    return found


def test_a_limit_admits_its_burst_and_then_refuses(build: Build) -> None:
    house = build(LIMITED)
    one = ("192.0.2.1", ())
    assert statuses(house, one, one, one, ("192.0.2.2", ()), one) == [200, 200, 429, 200, 429]
    assert house.rows(Kind.LIMIT, "few", Limit.ADMITTED) == 3
    assert house.rows(Kind.LIMIT, "few", Limit.REFUSED) == 2
    assert house.log.lines[-1]["reason"] == "limited"


def test_a_refusal_says_when_to_come_back(build: Build) -> None:
    house = build(LIMITED)
    one = ("192.0.2.1", ())
    statuses(house, one, one)
    client = house.connect("192.0.2.1")
    client.get()
    reply = answer(client.take())
    assert reply.code == "limited"
    assert reply.field("retry-after") == "60"
    assert reply.field("ratelimit-policy") == '"few";q=2;w=120'
    assert reply.field("ratelimit") == '"few";r=0;t=60'
    assert not client.closed


def test_a_shadow_limit_counts_and_lets_pass(build: Build) -> None:
    house = build(LIMITED + "shadow = true\n")
    assert statuses(house, *[("192.0.2.1", ())] * 4) == [200] * 4
    assert house.rows(Kind.LIMIT, "few", Limit.REFUSED) == 2


def test_a_limit_by_header_counts_each_value_and_those_without(build: Build) -> None:
    house = build(LIMITED.replace('"client_ip"', '"header:X-Api-Key"').replace("burst = 2", "burst = 1"))
    asked = [("192.0.2.1", (f"X-Api-Key: {key}",)) for key in "abab"]
    assert statuses(house, *asked) == [200, 200, 429, 429]
    assert statuses(house, ("192.0.2.1", ()), ("192.0.2.2", ())) == [200, 429]


def test_a_limit_by_route_counts_everybody(build: Build) -> None:
    house = build(LIMITED.replace('"client_ip"', '"route"'))
    assert statuses(house, *[(f"192.0.2.{number}", ()) for number in range(1, 5)]) == [200, 200, 429, 429]


def test_a_limit_by_address_sees_through_trusted_proxies(build: Build) -> None:
    house = build(LIMITED.replace('80"', '80"\ntrusted_proxies = ["10.0.0.0/8"]'))
    asked = [("10.0.0.1", (f"X-Forwarded-For: 192.0.2.{number}",)) for number in (1, 1, 1, 2)]
    assert statuses(house, *asked) == [200, 200, 429, 200]


# -- reload


def test_a_reload_swaps_routes_under_a_live_connection(house: House) -> None:
    client = house.connect()
    client.get()
    house.answer(OK)
    assert answer(client.take()).status == 200
    house.reload(PLAIN.replace('pool = "web"', 'pool = "web"\npath = "/new/*"'))
    client.get()
    assert answer(client.take()).status == 404
    client.get("/new/x")
    house.answer(OK)
    assert answer(client.take()).status == 200


def test_a_request_under_way_keeps_its_route_through_a_reload(house: House) -> None:
    client = house.connect()
    client.get()
    house.lane.run()
    house.reload(PLAIN.replace("8001", "8002"))
    house.answer(OK)
    assert answer(client.take()).status == 200


def test_a_reload_that_removes_a_server_closes_its_kept_connections(house: House) -> None:
    warm(house)
    house.reload(PLAIN.replace("8001", "8002"))
    assert house.server().at_end


def test_a_removed_listener_lets_its_connections_finish(house: House) -> None:
    client = house.connect()
    client.get()
    house.reload(PLAIN.replace("listeners.web", "listeners.other"))
    assert len(house.gateway.holding()) == 1
    house.answer(OK)
    assert answer(client.take()).field("connection") == "close"
    assert client.closed
    assert house.gateway.holding() == []


# -- drain


def test_a_drain_ends_connections_with_their_next_answer(house: House) -> None:
    client = house.connect()
    client.get()
    house.gateway.drain()
    assert house.gateway.holding() == ["http web 192.0.2.1 at work"]
    house.answer(OK)
    assert answer(client.take()).field("connection") == "close"
    assert client.closed
    assert house.gateway.holding() == []


def test_a_drain_ends_silent_connections_spread_over_its_second_half(build: Build) -> None:
    house = build('[supervisor]\ndrain_timeout = "10s"\n' + PLAIN)
    clients = [house.connect() for _ in range(10)]
    for client in clients:
        client.get()
        house.answer(OK)
        client.take()
    house.gateway.drain()
    house.lane.advance(4.9)
    assert not any(client.closed for client in clients)
    house.lane.advance(2.5)
    assert 3 <= sum(client.closed for client in clients) <= 7
    house.lane.advance(2.8)
    assert all(client.closed for client in clients)
