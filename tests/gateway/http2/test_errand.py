"""One request on its way over HTTP/2: what the server is sent, how often it is counted, and every end it comes to."""

from __future__ import annotations

from typing import Any

import h2.errors
import pytest

from gateway.http2.errand import Errand
from supervisor.plane.layout import Kind, Route, Server
from tests.gateway.house import OK, Build, House, request
from tests.gateway.http2.browser import HTTP2, Browser

SERVER = "web/127.0.0.1:8001"


@pytest.fixture
def house(build: Build) -> House:
    return build(HTTP2)


@pytest.fixture
def browser(house: House) -> Browser:
    """With one idle connection to the server, so that the next request takes the express lane."""
    browser = Browser(house)
    first = browser.ask("/first")
    house.received()
    house.answer(OK)
    assert browser.status(first) == 200
    house.log.lines.clear()
    return browser


def flying(house: House) -> tuple[int, int]:
    """In flight on the route, and at the server."""
    return house.rows(Kind.ROUTE, "web", Route.IN_FLIGHT), house.rows(Kind.SERVER, SERVER, Server.IN_FLIGHT)


def log(house: House) -> list[tuple[int, str, str]]:
    return [(line["status"], line["reason"], line["server"]) for line in house.log.lines]


def test_an_answer_on_the_express_lane_is_counted_once_and_gives_the_connection_back(
    house: House, browser: Browser
) -> None:
    for _ in range(3):
        stream = browser.ask("/a")
        assert flying(house) == (1, 1)
        house.received()
        house.answer(OK)
        assert (browser.status(stream), browser.body(stream)) == (200, b"ok")
        assert flying(house) == (0, 0)
    assert len(house.servers[8001]) == 1
    assert log(house) == [(200, "", SERVER)] * 3
    assert house.rows(Kind.ROUTE, "web", Route.REQUESTS) == 4


@pytest.mark.parametrize(("method", "body", "length"), [
    ("GET", None, None), ("DELETE", None, None), ("POST", b"", "0"), ("PUT", b"", "0"), ("POST", b"hello", "5"),
])  # fmt: skip
def test_a_server_is_told_the_length_of_what_is_there(
    house: House, browser: Browser, method: str, body: bytes | None, length: str | None
) -> None:
    stream, browser.next_id = browser.next_id, browser.next_id + 2
    head = [(":method", method), (":scheme", "http"), (":authority", "a"), (":path", "/")]
    browser.h2.send_headers(stream, head, end_stream=not body)
    if body:
        browser.h2.send_data(stream, body, end_stream=True)
    browser.go()
    got = request(house.received())
    assert (got.field("content-length"), got.field("transfer-encoding")) == (length, None)
    assert got.body == (body or b"")


def test_a_head_that_was_met_before_is_told_as_at_first(
    house: House, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    admitted, admit = [], Errand.admit
    monkeypatch.setattr(Errand, "admit", lambda errand, *rest: admitted.append(errand) or admit(errand, *rest))
    got = []
    for path in ("/a", "/b", "/b", "/c?d"):
        stream = browser.ask(path, accept="*/*", te="trailers")
        got.append(request(house.received()))
        assert got[-1].head.target == path.encode()
        house.answer(OK)
        assert browser.fields(stream)["x-request-id"] == got[-1].field("x-request-id")
    own = ("x-request-id", "traceparent")
    assert [[field for field in one.fields if field[0] not in own] for one in got] == [got[0].fields[:-2]] * 4
    assert [name for name, _ in got[0].fields[-2:]] == list(own)
    for name in own:
        assert len({one.field(name) for one in got}) == 4
    assert len(admitted) == 3  # the first of each path, for none is known before
    assert all(one.field("traceparent").split("-")[1] == one.field("x-request-id") for one in got)  # type: ignore[union-attr]
    assert [line["path"] for line in house.log.lines] == ["/a", "/b", "/b", "/c"]
    assert [line["bytes_in"] - len(line["path"]) for line in house.log.lines[:3]] == [
        house.log.lines[0]["bytes_in"] - 2
    ] * 3


def test_what_a_head_became_under_another_configuration_counts_no_more(house: House, browser: Browser) -> None:
    def ask() -> Any:
        browser.ask("/a")
        got = request(house.received())
        house.answer(OK)
        browser.go()
        return got

    for _ in range(2):
        assert ask().field("x-a") is None
    house.reload(HTTP2.replace('pool = "web"', 'pool = "web"\nrequest_headers = { add = { X-A = "1" } }'))
    for _ in range(2):
        assert ask().field("x-a") == "1"
    house.reload(HTTP2.replace("http2 = true", 'http2 = true\ntrusted_proxies = ["192.0.2.0/24"]'))
    for _ in range(2):
        assert ask().field("x-a") is None


def test_bodies_and_trailers_do_not_go_by_what_a_head_without_them_became(house: House, browser: Browser) -> None:
    fields = {"content_length": "0"}
    for trailers in (False, False, True, False):
        stream = browser.ask("/up", b"", end=not trailers, **fields)
        if trailers:
            browser.h2.send_headers(stream, [("x-sum", "1")], end_stream=True)
            browser.go()
        got = request(house.received())
        assert (got.field("content-length"), got.body) == ("0", b"")
        house.answer(OK)
        assert browser.status(stream) == 200


@pytest.mark.parametrize("answer", [
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
])  # fmt: skip
@pytest.mark.parametrize("piece", [3, 1 << 16])
def test_what_leaves_the_express_lane_arrives_all_the_same(
    house: House, browser: Browser, answer: bytes, piece: int
) -> None:
    stream = browser.ask("/a")
    house.received()
    house.answer(answer, piece=piece)
    assert (browser.status(stream), browser.body(stream), browser.ended(stream)) == (200, b"ok", True)
    assert flying(house) == (0, 0)
    assert log(house) == [(200, "", SERVER)]


def test_a_head_request_ends_with_its_head(house: House, browser: Browser) -> None:
    stream, browser.next_id = browser.next_id, browser.next_id + 2
    head = [(":method", "HEAD"), (":scheme", "http"), (":authority", "a"), (":path", "/")]
    browser.h2.send_headers(stream, head, end_stream=True)
    browser.go()
    house.received()
    house.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")
    assert browser.fields(stream)["content-length"] == "5000"
    assert browser.ended(stream)
    assert flying(house) == (0, 0)


def test_a_reset_stream_is_abandoned_once(house: House, browser: Browser) -> None:
    stream = browser.ask("/a")
    house.received()
    browser.h2.reset_stream(stream)
    browser.go()
    assert house.server().at_end
    assert flying(house) == (0, 0)
    browser.wire.end.close()
    house.lane.run()
    assert log(house) == [(499, "client_gone", SERVER)]


def test_the_connections_end_abandons_every_errand(house: House, browser: Browser) -> None:
    for path in ("/a", "/b", "/c"):
        browser.ask(path)
    house.lane.run()
    assert flying(house) == (3, 3)
    browser.wire.end.close()
    house.lane.run()
    assert flying(house) == (0, 0)
    assert log(house) == [(499, "client_gone", SERVER)] * 3


def test_a_late_answer_is_refused_and_its_connection_given_up(house: House, browser: Browser) -> None:
    stream = browser.ask("/a")
    house.received()
    house.lane.advance(20.0)
    assert browser.status(stream) == 504
    assert house.server().at_end
    assert log(house) == [(504, "answer_timeout", SERVER)]
    assert flying(house) == (0, 0)


def test_a_broken_answer_is_the_servers_fault(house: House, browser: Browser) -> None:
    stream = browser.ask("/a")
    house.received()
    house.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok")
    assert browser.status(stream) == 502
    assert log(house) == [(502, "bad_answer", SERVER)]
    assert house.rows(Kind.SERVER, SERVER, Server.STREAK) == 1
    stream = browser.ask("/b")
    house.received()
    house.answer(OK)
    assert browser.status(stream) == 200
    assert house.rows(Kind.SERVER, SERVER, Server.STREAK) == 0


def test_a_refusal_reaches_no_server_and_is_nobodys_flight(build: Build) -> None:
    house = build(HTTP2.replace('pool = "web"', 'pool = "web"\npath = "/here"\nmax_body = "4B"'))
    browser = Browser(house)
    missing, large = browser.ask("/elsewhere"), browser.ask("/here", b"hello")
    assert (browser.status(missing), browser.status(large)) == (404, 413)
    assert not house.servers[8001]
    assert log(house) == [(404, "no_route", ""), (413, "body_too_large", "")]
    assert house.rows(Kind.ROUTE, "web", Route.IN_FLIGHT) == 0


@pytest.mark.parametrize(("keys", "status", "reason"), [
    ('redirect = { scheme = "https" }', 308, "redirected"), ('respond = { status = 204 }', 204, "responded"),
    ('respond = { body = "hello" }', 200, "responded"),
])  # fmt: skip
def test_a_route_that_answers_by_itself_does_so_here_too(build: Build, keys: str, status: int, reason: str) -> None:
    house = build(HTTP2.replace('pool = "web"', keys))
    browser = Browser(house)
    stream = browser.ask("/a?b")
    assert browser.status(stream) == status
    assert browser.ended(stream)
    if status == 308:
        assert browser.fields(stream)["location"] == "https://a/a?b"
    assert log(house) == [(status, reason, "")]
    assert browser.reset(stream) in (None, h2.errors.ErrorCodes.NO_ERROR)


def test_headers_are_edited_on_the_express_lane_and_beside_it(build: Build) -> None:
    text = HTTP2.replace(
        'pool = "web"', 'pool = "web"\nresponse_headers = { remove = ["Server"], add = { X-A = "1" } }'
    )
    house = build(text)
    browser = Browser(house)
    answers: list[Any] = []
    for _ in range(2):
        stream = browser.ask("/a")
        house.received()
        house.answer(b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 2\r\n\r\nok")
        answers.append(browser.fields(stream))
    assert [(fields.get("server"), fields["x-a"]) for fields in answers] == [(None, "1"), (None, "1")]
