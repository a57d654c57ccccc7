"""Bodies in pieces: where they end and what follows them."""

from __future__ import annotations

import pytest

from gateway.errors import PeerError
from gateway.fields import FieldParser
from gateway.framing import ChunkedAnswer, ChunkedRequest, LengthBody, UnboundedAnswer

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


def test_a_clients_chunks_are_encoded_anew_and_counted() -> None:
    body = ChunkedRequest(HEAD, FieldParser(), 5)
    assert body.take(b"3;x\r\nabc\r\n") == b"3\r\nabc\r\n"
    assert body.take(b"2\r\nde\r\n0\r\nX: 1\r\n\r\nrest") == b"2\r\nde\r\n0\r\nX: 1\r\n\r\n"
    assert (body.done, body.rest, body.received) == (True, b"rest", 5)


def test_a_clients_chunks_are_limited() -> None:
    body = ChunkedRequest(HEAD, FieldParser(), 5)
    with pytest.raises(PeerError) as refusal:
        body.take(b"6\r\nabcdef\r\n")
    assert refusal.value.code == "body_too_large"


@pytest.mark.parametrize(("plain", "expected"), [(False, b"3\r\nabc\r\n0\r\n\r\n"), (True, b"abc")])
def test_a_servers_chunks_go_on_in_chunks_or_plain(plain: bool, expected: bytes) -> None:
    body = ChunkedAnswer(plain)
    assert body.take(b"3\r\nabc\r\n0\r\n\r\nrest") == expected
    assert (body.done, body.rest, body.received) == (True, b"rest", 3)


@pytest.mark.parametrize(("plain", "piece", "end"), [(False, b"3\r\nabc\r\n", b"0\r\n\r\n"), (True, b"abc", b"")])
def test_an_unbounded_answer_ends_with_its_stream(plain: bool, piece: bytes, end: bytes) -> None:
    body = UnboundedAnswer(plain)
    assert (body.take(b"abc"), body.done) == (piece, False)
    assert (body.end(), body.done) == (end, True)


def test_chunks_that_stop_are_a_cut() -> None:
    with pytest.raises(PeerError) as refusal:
        ChunkedAnswer(False).end()
    assert refusal.value.code == "answer_cut"
