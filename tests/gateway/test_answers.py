"""Heads of answers: a corpus, whole and byte by byte, and agreement with h11."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.answers import MAX_ANSWER_FIELDS, MAX_HEADS, AnswerReader, find_answer_end, has_no_body
from gateway.errors import PeerError
from gateway.fields import CHUNKED, CLOSE, KEEP_ALIVE, OLD
from tests.gateway.corpus import wire

VALID: list[tuple[str, bytes, int, int, int]] = [  # name, head, status, length, flags
    ("plain", wire("HTTP/1.1 200 OK\nContent-Length: 5"), 200, 5, 0),
    ("no reason", wire("HTTP/1.1 200\nContent-Length: 5"), 200, 5, 0),
    ("an empty reason", wire("HTTP/1.1 404 \nContent-Length: 0"), 404, 0, 0),
    ("no length", wire("HTTP/1.1 200 OK\nX: 1"), 200, -1, 0),
    ("no fields", wire("HTTP/1.1 204 No Content"), 204, -1, 0),
    ("chunked", wire("HTTP/1.1 200 OK\nTransfer-Encoding: chunked"), 200, -1, CHUNKED),
    ("closing", wire("HTTP/1.1 200 OK\nConnection: close\nContent-Length: 0"), 200, 0, CLOSE),
    ("old", wire("HTTP/1.0 200 OK"), 200, -1, OLD),
    ("continue", wire("HTTP/1.1 100 Continue"), 100, -1, 0),
    ("obs-text in the reason", wire("HTTP/1.1 200 \xc4h"), 200, -1, 0),
]
INVALID: list[tuple[str, bytes]] = [
    ("no HTTP", b"hello\r\n\r\n"),
    ("HTTP/2", wire("HTTP/2 200 OK")),
    ("HTTP/1.2", wire("HTTP/1.2 200 OK")),
    ("a status of two digits", wire("HTTP/1.1 20 OK")),
    ("a status of 600", wire("HTTP/1.1 600 What")),
    ("a status of 099", wire("HTTP/1.1 099 What")),
    ("two lengths", wire("HTTP/1.1 200 OK\nContent-Length: 5\nContent-Length: 5")),
    ("a bad length", wire("HTTP/1.1 200 OK\nContent-Length: 5x")),
    ("an endless length", wire("HTTP/1.1 200 OK\nContent-Length: 1000000000000000")),
    ("length beside chunks", wire("HTTP/1.1 200 OK\nContent-Length: 5\nTransfer-Encoding: chunked")),
    ("chunks twice", wire("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nTransfer-Encoding: chunked")),
    ("chunks on HTTP/1.0", wire("HTTP/1.0 200 OK\nTransfer-Encoding: chunked")),
    ("another coding", wire("HTTP/1.1 200 OK\nTransfer-Encoding: gzip, chunked")),
    ("a folded line", wire("HTTP/1.1 200 OK\nX: 1\n 2")),
    ("a space before the colon", wire("HTTP/1.1 200 OK\nX : 1")),
    ("no colon", wire("HTTP/1.1 200 OK\nX")),
    ("a NUL", wire("HTTP/1.1 200 OK\nX: 1\x00")),
    ("bare LF", b"HTTP/1.1 200 OK\nX: 1\r\n\r\n"),
    ("bare CR", b"HTTP/1.1 200 OK\r\nX: 1\rY: 2\r\n\r\n"),
    ("too many fields", wire("HTTP/1.1 200 OK" + "\nX: 1" * (MAX_ANSWER_FIELDS + 1))),
    ("too large", wire("HTTP/1.1 200 OK\nX: " + "a" * 65536)),
]


@pytest.mark.parametrize(("name", "head", "status", "length", "flags"), VALID, ids=[case[0] for case in VALID])
def test_valid_heads_are_read(name: str, head: bytes, status: int, length: int, flags: int) -> None:
    for data in (head, head + b"HTTP/1.1 500 Not mine\r\n\r\n"):
        end = find_answer_end(data)
        assert end == len(head) - 4
        found = AnswerReader().judge(data, end)
        assert (found[0], found[3], found[2]) == (status, length, flags)
    for cut in range(len(head)):
        assert find_answer_end(head[:cut]) == -1


@pytest.mark.parametrize(("name", "head"), INVALID, ids=[case[0] for case in INVALID])
def test_invalid_heads_are_a_bad_answer(name: str, head: bytes) -> None:
    reader = AnswerReader()
    for _ in range(2):
        with pytest.raises(PeerError) as refusal:
            reader.judge(head, find_answer_end(head))
        assert refusal.value.code == "bad_answer"
        assert refusal.value.status == 502


def test_hop_by_hop_fields_and_those_named_stay_behind() -> None:
    head = wire("HTTP/1.1 200 OK\nDate: x\nConnection: X-Hop, keep-alive\nX-Hop: 1\nKeep-Alive: 5\nX-Served-By: b\n"
                "X-Request-Id: forged\nTransfer-Encoding: chunked\nSet-Cookie: a=b\nSet-Cookie: c=d")  # fmt: skip
    status, out, _, _, dated = AnswerReader().judge(head, len(head) - 4)
    assert (status, dated) == (200, True)
    assert out == [b"HTTP/1.1 200 OK", b"Date: x", b"Set-Cookie: a=b", b"Set-Cookie: c=d"]


def test_the_framing_cannot_be_dropped_by_connection() -> None:
    head = wire("HTTP/1.1 200 OK\nConnection: content-length, date\nDate: x\nContent-Length: 5")
    _, out, _, length, _ = AnswerReader().judge(head, len(head) - 4)
    assert length == 5
    assert out == [b"HTTP/1.1 200 OK", b"Date: x", b"Content-Length: 5"]


def test_whole_heads_are_remembered_while_that_pays() -> None:
    reader = AnswerReader()
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive"
    assert reader.recall(head) == (200, b"HTTP/1.1 200 OK\r\nContent-Length: 5", KEEP_ALIVE, 5, False)
    assert reader.recall(head) is reader.recall(head)
    for number in range(10_000):
        assert reader.recall(b"%b\r\nX: %d" % (head, number))[1].endswith(b"X: %d" % number)
    assert len(reader._known) <= MAX_HEADS
    with pytest.raises(PeerError):
        reader.recall(head + b"\r\nContent-Length: 5")


@pytest.mark.parametrize(("status", "head_request", "expected"), [
    (200, False, False), (200, True, True), (204, False, True), (304, False, True), (101, False, True),
])  # fmt: skip
def test_what_ends_with_its_head(status: int, head_request: bool, expected: bool) -> None:
    assert has_no_body(status, head_request) is expected


lines = st.lists(st.sampled_from([
    "Content-Length: 5", "Content-Length: 05", "content-length:5", "Content-Length: 5, 5", "Transfer-Encoding: chunked",
    "Transfer-Encoding: Chunked", "Connection: close", "X: \xe9", "X:", "X : 1", " X: 1", "X: 1\x01", "X: 1\x00", "X",
]), max_size=4)  # fmt: skip


status_lines = st.sampled_from([
    "HTTP/1.1 200 OK", "HTTP/1.0 200 OK", "HTTP/1.1 304", "HTTP/1.1 999 x", "HTTP/1.1 200\tOK",
])  # fmt: skip


@given(status_lines, lines)
def test_property_whatever_is_accepted_h11_accepts_with_the_same_meaning(status_line: str, fields: list[str]) -> None:
    head = wire("\n".join([status_line, *fields]))
    try:
        status, out, flags, length, _ = AnswerReader().judge(head, find_answer_end(head))
    except PeerError:
        return
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(head)
    event = client.next_event()
    assert isinstance(event, h11.Response)
    theirs = dict(event.headers)
    assert event.status_code == status
    assert (int(theirs[b"content-length"]) if b"content-length" in theirs else -1) == length
    assert (b"transfer-encoding" in theirs) == bool(flags & CHUNKED)
    for line in out[1:]:
        name, _, value = line.partition(b": ")
        assert any(name.lower() == n and (value == v or n == b"content-length") for n, v in event.headers)


@given(st.binary(max_size=300))
def test_property_only_peer_errors_escape(data: bytes) -> None:
    for piece in (data, b"HTTP/1.1 200 OK\r\n" + data + b"\r\n\r\n"):
        try:
            end = find_answer_end(piece)
            if end >= 0:
                AnswerReader().judge(piece, end)
        except PeerError:
            continue
