"""Answers to requests that are not whole yet, and never need to be."""

from __future__ import annotations

import pytest

from gateway.http2 import frames
from gateway.http2.answering import MAX_UNTOLD
from gateway.http2.connection import Http2Connection
from gateway.http2.errors import CANCEL, NO_ERROR
from gateway.http2.frames import DATA, END_HEADERS, END_STREAM, HEADERS, MAX_FRAME, RST_STREAM
from gateway.http2.settings import CONNECTION_WINDOW, STREAM_WINDOW
from gateway.http2.streams import CLOSED, OPEN
from tests.gateway.http2.wire import POST, head, read_frames, ready, sent

STOP = [(0, 1, NO_ERROR.to_bytes(4, "big"))]


def answered_early(core: Http2Connection, number: int = 1) -> None:
    [stream] = core.receive_data(head(number, POST, end=False), 1.0)
    assert stream.state == OPEN
    core.answer(stream, b"\x88", b"body")
    assert (stream.state, stream.reset) == (CLOSED, NO_ERROR)


def send(core: Http2Connection, size: int, end: bool = False) -> None:
    for left in range(size, 0, -MAX_FRAME):
        last = end and left <= MAX_FRAME
        core.receive_data(frames.frame(DATA, END_STREAM if last else 0, 1, b"x" * min(left, MAX_FRAME)), 1.0)


def test_an_answer_before_the_end_of_the_request_is_whole() -> None:
    core = ready()
    answered_early(core)
    kinds = [(kind, flags, payload) for kind, flags, _, payload in read_frames(core.data_to_send(1.0))]
    assert kinds == [(HEADERS, END_HEADERS, b"\x88"), (DATA, END_STREAM, b"body")]
    assert not core.streams


@pytest.mark.parametrize("size", [100, STREAM_WINDOW - 1, STREAM_WINDOW])
def test_a_client_that_ends_a_request_answered_early_is_told_nothing(size: int) -> None:
    core = ready()
    answered_early(core)
    send(core, size, end=True)
    assert sent(core, RST_STREAM) == []
    assert core.recv_window + core.unacknowledged == CONNECTION_WINDOW
    assert not core.untold


def test_a_client_whose_window_is_used_up_is_told_to_stop_once() -> None:
    core = ready()
    answered_early(core)
    send(core, STREAM_WINDOW - 1)
    assert sent(core, RST_STREAM) == []
    send(core, 1)
    assert sent(core, RST_STREAM) == STOP
    send(core, 100)
    assert sent(core, RST_STREAM) == []


def test_what_came_before_the_answer_counts() -> None:
    core = ready()
    [stream] = core.receive_data(head(1, POST, end=False), 1.0)
    send(core, 1000)
    core.answer(stream, b"\x88", b"body")
    send(core, STREAM_WINDOW - 1000)
    assert sent(core, RST_STREAM) == STOP


@pytest.mark.parametrize(
    "last", [head(1, [(b"x-sum", b"1")]), frames.rst_stream(1, CANCEL)], ids=["trailers", "RST_STREAM"]
)
def test_every_end_of_a_request_answered_early_is_one(last: bytes) -> None:
    core = ready()
    answered_early(core)
    core.receive_data(last, 1.0)
    assert not core.untold
    assert sent(core, RST_STREAM) == []


def test_clients_that_end_nothing_keep_few_of_their_streams_open() -> None:
    core = ready()
    for number in range(MAX_UNTOLD + 3):
        answered_early(core, 2 * number + 1)
    assert [stream for _, stream, _ in sent(core, RST_STREAM)] == [1, 3, 5]
