"""Answers that a route gives by itself."""

from __future__ import annotations

import pytest

from gateway.problems import answer
from gateway.replies import FixedReply


def test_a_redirect_has_its_place_in_front() -> None:
    reply = FixedReply("redirected", 301, (b"X-A: 1",)).to(b"https://h/")
    assert (reply.code, reply.status, reply.close) == ("redirected", 301, False)
    head, _, body = answer(reply, b"id", 0.0, close=False).partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 301 Moved Permanently", b"Date: Thu, 01 Jan 1970 00:00:00 GMT", b"Content-Length: 0",
        b"X-Request-Id: id", b"Location: https://h/", b"X-A: 1",
    ]  # fmt: skip
    assert body == b""


@pytest.mark.parametrize("status", [204, 304])
def test_what_has_no_body_has_no_length(status: int) -> None:
    reply = FixedReply("responded", status, ()).to(b"")
    assert b"Content-Length" not in answer(reply, b"id", 0.0, close=False)


def test_a_fixed_answer_goes_out_as_it_is_written() -> None:
    reply = FixedReply("responded", 599, (b"Content-Type: text/plain",), b"away").to(b"")
    whole = answer(reply, b"id", 0.0, close=True, fields=(b"X-Served-By: p",))
    assert whole.startswith(b"HTTP/1.1 599 \r\n")
    assert whole.endswith(
        b"X-Request-Id: id\r\nContent-Type: text/plain\r\nX-Served-By: p\r\nConnection: close\r\n\r\naway"
    )
    assert answer(reply, b"id", 0.0, close=False, head_request=True).endswith(b"\r\n\r\n")
