"""Bodies in pieces: where they end and what follows them."""

from __future__ import annotations

import pytest

from gateway.errors import PeerError
from gateway.fields import FieldParser
from gateway.framing import ChunkedAnswer, ChunkedRequest, LengthBody, StreamedRequest, UnboundedAnswer

HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_a_length_ends_where_it_says() -> None:
    body = LengthBody(5)
    assert (body.take(b"012"), body.done) == (b"012", False)
    assert (body.take(b"34rest"), body.done, body.rest, body.received) == (b"34", True, b"rest", 5)


def test_a_length_of_nothing_is_done() -> None:
    assert LengthBody(0).done


def test_a_length_that_is_not_reached_is_a_cut() -> None:
    with pytest.raises(PeerError) as refusal:
        LengthBody(5).end()
    assert refusal.value.code == "answer_cut"


def test_a_clients_chunks_are_decoded_and_counted() -> None:
    body = ChunkedRequest(HEAD, FieldParser(), 5)
    assert body.take(b"3;x\r\nabc\r\n") == b"abc"
    assert body.take(b"2\r\nde\r\n0\r\nX: 1\r\n\r\nrest") == b"de"
    assert (body.done, body.rest, body.received, body.trailers) == (True, b"rest", 5, [b"X: 1"])


def test_a_clients_chunks_are_limited() -> None:
    body = ChunkedRequest(HEAD, FieldParser(), 5)
    with pytest.raises(PeerError) as refusal:
        body.take(b"6\r\nabcdef\r\n")
    assert refusal.value.code == "body_too_large"


def test_a_stream_ends_when_it_is_told_so() -> None:
    body = StreamedRequest(5)
    assert (body.take(b"abc"), body.done, body.length) == (b"abc", False, -1)
    body.finish([b"x: 1"])
    assert (body.done, body.trailers) == (True, [b"x: 1"])
    with pytest.raises(PeerError):
        body.take(b"def")


def test_a_servers_chunks_are_decoded() -> None:
    body = ChunkedAnswer()
    assert body.take(b"3\r\nabc\r\n0\r\nX: 1\r\n\r\nrest") == b"abc"
    assert (body.done, body.rest, body.received, body.trailers) == (True, b"rest", 3, [b"X: 1"])


def test_an_unbounded_answer_ends_with_its_stream() -> None:
    body = UnboundedAnswer()
    assert (body.take(b"abc"), body.done) == (b"abc", False)
    body.end()
    assert body.done


def test_chunks_that_stop_are_a_cut() -> None:
    with pytest.raises(PeerError) as refusal:
        ChunkedAnswer().end()
    assert refusal.value.code == "answer_cut"
