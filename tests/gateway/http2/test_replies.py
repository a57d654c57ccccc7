"""What heads of answers are to clients of HTTP/2, whether they are known or read."""

from __future__ import annotations

import pytest
from hpack import Decoder

from gateway.answers import MAX_HEADS, AnswerReader
from gateway.errors import PeerError
from gateway.http2.replies import NAME_SIZE, Replies, Reply
from gateway.shared import Shared
from tests.gateway.house import Build

DATED = b"HTTP/1.1 200 OK\r\nDate: Sun, 22 Nov 2026 11:00:00 GMT\r\nServer: a\r\nContent-Length: 5"
OURS = b"a" * NAME_SIZE


@pytest.fixture
def shared(build: Build) -> Shared:
    return build().gateway._shared


@pytest.fixture
def replies() -> Replies:
    return Replies(AnswerReader(), b"")


def fields(reply: Reply | None, name: bytes = OURS) -> list[tuple[str, str]]:
    assert reply is not None
    return [(str(field[0]), str(field[1])) for field in Decoder().decode(reply[1] + name)]


def test_a_head_is_known_once_it_has_come_again(replies: Replies, shared: Shared) -> None:
    first = replies.read(DATED, shared, OURS, False)
    assert DATED not in replies
    assert replies.read(DATED, shared, OURS, False) == first
    assert replies[DATED] == first
    assert fields(first) == [
        (":status", "200"), ("date", "Sun, 22 Nov 2026 11:00:00 GMT"), ("server", "a"), ("content-length", "5"),
        ("x-request-id", "a" * NAME_SIZE),
    ]  # fmt: skip
    assert first is not None
    assert (first[0], first[2]) == (200, 5)


def test_what_is_one_requests_own_is_not_remembered(replies: Replies, shared: Shared) -> None:
    for _ in range(3):
        reply = replies.read(DATED, shared, OURS, True)  # HEAD: the length is that of what does not come
        assert reply is not None
        assert reply[2] == 0
        for name in (b"short", b"l" * 128):
            assert fields(replies.read(DATED, shared, name, False), name)[-1] == ("x-request-id", name.decode())
        undated = DATED.replace(b"Date: ", b"X-Date: ")
        assert fields(replies.read(undated, shared, OURS, False))[0][0] == ":status"
        assert "date" in dict(fields(replies.read(undated, shared, OURS, False)))
    assert not replies


@pytest.mark.parametrize("head", [
    b"HTTP/1.1 103 Early", b"HTTP/1.1 204 No", b"HTTP/1.0 200 OK\r\nContent-Length: 5",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5",
])  # fmt: skip
def test_some_answers_are_never_whole(replies: Replies, shared: Shared, head: bytes) -> None:
    for _ in range(3):
        assert replies.read(head, shared, OURS, False) is None
    assert not replies


def test_an_answer_that_has_no_body_is_whole_without(replies: Replies, shared: Shared) -> None:
    reply = replies.read(DATED.replace(b"200 OK", b"304 Same"), shared, OURS, False)
    assert reply is not None
    assert (reply[0], reply[2]) == (304, 0)


def test_a_broken_head_is_told(replies: Replies, shared: Shared) -> None:
    with pytest.raises(PeerError):
        replies.read(DATED + b"\r\nContent-Length: 6", shared, OURS, False)


def test_the_site_tells_its_name(shared: Shared) -> None:
    replies = Replies(AnswerReader(), b"X-Served-By: fra1")
    assert fields(replies.read(DATED, shared, OURS, False))[-2:] == [
        ("x-served-by", "fra1"), ("x-request-id", "a" * NAME_SIZE),
    ]  # fmt: skip


def test_what_is_remembered_is_bounded_and_heads_that_differ_fill_nothing(replies: Replies, shared: Shared) -> None:
    for number in range(2 * MAX_HEADS):
        replies.read(b"%b\r\nETag: %d" % (DATED, number), shared, OURS, False)
    assert not replies
    for number in range(2 * MAX_HEADS):
        for _ in range(40):
            replies.read(b"%b\r\nX: %d" % (DATED, number), shared, OURS, False)
    assert 0 < len(replies) <= MAX_HEADS
