"""Refusals on the wire: after which of them a connection goes on, and how one ends whose client still sends."""

from __future__ import annotations

import pytest

from gateway.refusal import LINGER_BYTES, LINGER_SECONDS, SEND_SECONDS
from supervisor.plane.layout import Kind, Listener
from tests.gateway.house import OK, PLAIN, Build, Client, House, answer, request

NARROW = PLAIN.replace('pool = "web"', 'pool = "web"\npath = "/web/*"\nmax_body = "10B"')
LARGE = b"POST /web/ HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n"


@pytest.fixture
def house(build: Build) -> House:
    return build(NARROW)


def refused(house: House) -> Client:
    """A client with the answer to a body that nobody wants, of which nothing has come yet."""
    client = house.connect()
    client.send(LARGE)
    got = answer(client.take())
    assert (got.status, got.code, got.field("connection")) == (413, "body_too_large", "close")
    return client


def test_a_whole_request_is_refused_and_the_next_one_served(house: House) -> None:
    client = house.connect()
    client.send(b"POST /other HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello")
    got = answer(client.take())
    assert (got.status, got.code, got.field("connection")) == (404, "no_route", None)
    client.get("/web/")
    assert request(house.received()).head.target == b"/web/"  # type: ignore[union-attr]
    house.answer(OK)
    assert answer(client.take()).body == b"ok"
    assert not client.closed


def test_refusals_in_a_row_go_out_in_their_order(house: House) -> None:
    client = house.connect()
    client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(5)))
    data = client.take()
    for number in range(5):
        got = answer(data)
        assert (got.code, f"/{number}") == ("no_route", house.log.lines[number]["path"])
        data = got.rest
    assert data == b""


def test_a_refusal_is_accounted_for(house: House) -> None:
    client = house.connect()
    client.get("/other")
    data = client.take()
    [line] = house.log.lines
    assert (line["status"], line["reason"], line["route"], line["server"]) == (404, "no_route", None, "")
    assert line["bytes_out"] == len(data)
    assert answer(data).field("x-request-id") == line["request_id"]


def test_a_refusal_during_a_drain_ends_the_connection(house: House) -> None:
    client = house.connect()
    client.send(b"GET /other HTTP/1.1\r\n")
    house.gateway.drain()
    client.send(b"Host: a\r\n\r\n")
    assert answer(client.take()).field("connection") == "close"
    assert client.closed


def test_who_still_sends_is_read_for_a_while_so_that_no_reset_destroys_the_answer(house: House) -> None:
    client = refused(house)
    for _ in range(10):
        client.send(b"x" * 1000)
    assert not client.end.peer.at_end
    assert client.end.peer.fd >= 0
    client.end.shutdown_write()
    house.lane.run()
    assert client.end.peer.fd < 0


def test_what_is_read_away_is_bounded(house: House) -> None:
    client = refused(house)
    sent = 0
    while client.end.peer.fd >= 0:
        client.send(bytes(1 << 16))
        sent += 1 << 16
        assert sent <= LINGER_BYTES + (1 << 16)
    assert sent >= LINGER_BYTES


def test_who_says_nothing_more_is_let_go(house: House) -> None:
    client = refused(house)
    house.lane.advance(LINGER_SECONDS / 2)
    assert client.end.peer.fd >= 0
    house.lane.advance(LINGER_SECONDS)
    assert client.end.peer.fd < 0
    assert house.rows(Kind.LISTENER, "gateway/web", Listener.ACTIVE) == 0


def test_who_does_not_take_the_answer_is_let_go(house: House) -> None:
    client = house.connect(capacity=100)
    client.send(LARGE)
    house.lane.advance(SEND_SECONDS / 2)
    assert client.end.peer.fd >= 0
    house.lane.advance(SEND_SECONDS + LINGER_SECONDS)
    assert client.end.peer.fd < 0


def test_who_is_gone_disturbs_nobody(house: House) -> None:
    client = house.connect()
    client.send(LARGE)
    client.end.abort()
    house.lane.run()
    other = house.connect()
    other.get("/other")
    assert answer(other.take()).status == 404
