"""The gateway's own answers."""

from __future__ import annotations

import json

import h11
import pytest

from gateway.errors import REASONS, PeerError
from gateway.problems import answer, http_date
from supervisor.plane.layout import Route


def parse(data: bytes, method: str = "GET") -> tuple[h11.Response, bytes]:
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    response = client.next_event()
    assert isinstance(response, h11.Response)
    body = b""
    while isinstance(event := client.next_event(), h11.Data):
        body += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage)
    return response, body


@pytest.mark.parametrize("code", REASONS)
def test_every_reason_makes_a_whole_answer(code: str) -> None:
    response, body = parse(answer(PeerError(code, "some detail"), b"id1", 0.0, close=True))
    document = json.loads(body)
    assert response.status_code == document["status"] == REASONS[code][0]
    assert document["code"] == code
    assert document["detail"] == "some detail"
    assert document["request_id"] == "id1"
    headers = dict(response.headers)
    assert headers[b"content-type"] == b"application/problem+json"
    assert headers[b"x-request-id"] == b"id1"
    assert headers[b"connection"] == b"close"


def test_fields_of_the_error_are_sent() -> None:
    error = PeerError("limited", close=False, fields=(b"Retry-After: 1",))
    response, _ = parse(answer(error, b"id1", 0.0, close=False, fields=(b"X-Served-By: fra1",)))
    headers = dict(response.headers)
    assert headers[b"retry-after"] == b"1"
    assert headers[b"x-served-by"] == b"fra1"
    assert b"connection" not in headers


def test_a_head_request_gets_the_head_alone() -> None:
    response, body = parse(answer(PeerError("no_route"), b"id1", 0.0, close=False, head_request=True), "HEAD")
    assert (response.status_code, body) == (404, b"")


def test_dates_are_http_dates() -> None:
    assert http_date(784111777) == b"Sun, 06 Nov 1994 08:49:37 GMT"


def test_every_reason_has_a_place_among_the_counters() -> None:
    assert len(REASONS) <= Route.MAX_REASONS
