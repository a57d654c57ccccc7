"""The express lane: requests of which everything is known, and every way in which they may turn out not to fit."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from gateway.http2.express import Express
from supervisor.plane.layout import Kind, Route, Server
from tests.gateway.house import OK, Build, House, request
from tests.gateway.http2.browser import HTTP2, Browser

SERVER = "web/127.0.0.1:8001"
DATED = b"HTTP/1.1 200 OK\r\nDate: Sun, 22 Nov 2026 11:00:00 GMT\r\nContent-Length: %d\r\n\r\n"
KNOWN = DATED % 2 + b"ok"


@pytest.fixture
def house(build: Build) -> House:
    return build(HTTP2)


@pytest.fixture
def browser(house: House) -> Browser:
    """To whom both the request's head and the answer's are known."""
    browser = Browser(house)
    for _ in range(3):
        stream = browser.ask("/a")
        house.received()
        house.answer(KNOWN)
        assert browser.status(stream) == 200
    house.log.lines.clear()
    return browser


def ended(house: House) -> list[tuple[Any, ...]]:
    """What the log says, once nothing is in flight any more."""
    assert house.rows(Kind.ROUTE, "web", Route.IN_FLIGHT) == house.rows(Kind.SERVER, SERVER, Server.IN_FLIGHT) == 0
    return [(line["status"], line["reason"], line["server"], line["path"], line["client"]) for line in house.log.lines]


def line(status: int, reason: str = "", server: str = SERVER) -> tuple[Any, ...]:
    return status, reason, server, "/a", "192.0.2.1"


def test_what_is_known_needs_no_errand(house: House, browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.http2.session.Errand", None)
    for _ in range(2):
        stream = browser.ask("/a")
        got = request(house.received())
        house.answer(KNOWN)
        assert (browser.status(stream), browser.body(stream), browser.ended(stream)) == (200, b"ok", True)
        assert browser.fields(stream)["x-request-id"] == got.field("x-request-id")
    assert ended(house) == [line(200)] * 2
    assert len(house.servers[8001]) == 1


@pytest.mark.parametrize("answer", [
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 103 Early\r\n\r\n" + KNOWN, KNOWN.replace(b"Date", b"Connection: close\r\nDate"),
])  # fmt: skip
@pytest.mark.parametrize("piece", [3, 1 << 16])
def test_an_answer_that_does_not_fit_arrives_all_the_same(
    house: House, browser: Browser, answer: bytes, piece: int
) -> None:
    stream = browser.ask("/a")
    name = request(house.received()).field("x-request-id")
    house.answer(answer, piece=piece)
    assert (browser.status(stream), browser.body(stream), browser.ended(stream)) == (200, b"ok", True)
    assert browser.fields(stream)["x-request-id"] == name
    assert ended(house) == [line(200)]
    assert [one["request_id"] for one in house.log.lines] == [name]


@pytest.mark.parametrize("beyond", [-2, -1, 0, 1])
def test_a_known_head_that_is_not_complete_is_none(house: House, browser: Browser, beyond: int) -> None:
    # With a length so that a part of the head would be of the right size for the whole answer.
    size = len(DATED % 100) - 4 + beyond
    whole = DATED % size + b"x" * size
    for _ in range(3):
        stream = browser.ask("/a")
        house.received()
        house.answer(whole)
        assert browser.body(stream) == b"x" * size
    for at in range(len(DATED % size) - 5, len(DATED % size) + 1):
        stream = browser.ask("/a")
        house.received()
        house.answer(whole[:at])
        assert not browser.ended(stream)
        house.answer(whole[at:])
        assert (browser.status(stream), browser.body(stream)) == (200, b"x" * size)


def test_a_head_request_gets_no_body_even_if_its_server_sends_one(house: House, browser: Browser) -> None:
    stream, browser.next_id = browser.next_id, browser.next_id + 2
    head = [(":method", "HEAD"), (":scheme", "http"), (":authority", "a"), (":path", "/a")]
    browser.h2.send_headers(stream, head, end_stream=True)
    browser.go()
    house.received()
    house.answer(KNOWN)
    assert (browser.status(stream), browser.body(stream), browser.ended(stream)) == (200, b"", True)
    assert browser.fields(stream)["content-length"] == "2"


def test_without_an_idle_connection_one_is_opened(house: House, browser: Browser) -> None:
    streams = [browser.ask("/a") for _ in range(3)]
    for number in range(3):
        assert request(house.received(number)).head.target == b"/a"
        house.answer(KNOWN, number)
    assert all(browser.status(stream) == 200 for stream in streams)
    assert ended(house) == [line(200)] * 3
    assert len(house.servers[8001]) == 3


def test_a_server_that_has_gone_away_is_tried_again(house: House, browser: Browser) -> None:
    stream = browser.ask("/a")
    house.received()
    house.server().close()
    house.received()
    house.answer(OK)
    assert browser.status(stream) == 200
    assert ended(house) == [line(200)]


@pytest.mark.parametrize(("answer", "status", "reason"), [
    (b"", 504, "answer_timeout"), (b"HTTP/1.1 200 OK\r\nA b\r\n\r\n", 502, "bad_answer"),
])  # fmt: skip
def test_what_the_server_does_not_do_is_its_fault(
    house: House, browser: Browser, answer: bytes, status: int, reason: str
) -> None:
    stream = browser.ask("/a")
    name = request(house.received()).field("x-request-id")
    house.answer(answer)
    house.lane.advance(0.0 if answer else 20.0)
    assert browser.status(stream) == status
    assert browser.fields(stream)["x-request-id"] == name
    assert ended(house) == [line(status, reason)]
    assert house.server().at_end
    assert house.rows(Kind.SERVER, SERVER, Server.STREAK) == 1


def test_a_client_that_loses_interest_is_accounted_for_once(house: House, browser: Browser) -> None:
    stream = browser.ask("/a")
    house.received()
    browser.h2.reset_stream(stream)
    browser.go()
    browser.wire.end.close()
    house.lane.run()
    assert house.server().at_end
    assert ended(house) == [line(499, "client_gone")]


def test_nothing_of_a_request_is_left_to_the_collector(house: House, browser: Browser) -> None:
    gc.collect()
    gc.disable()
    try:
        for answer in (KNOWN, KNOWN, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", KNOWN):
            stream = browser.ask("/a")
            house.received()
            house.answer(answer)
            assert browser.status(stream) == 200
        # The connection holds the stream that there was news of last.
        assert len([one for one in gc.get_objects() if isinstance(one, Express)]) <= 1
    finally:
        gc.enable()
