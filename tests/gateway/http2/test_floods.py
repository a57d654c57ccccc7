"""Each guard against its attack, and that nobody else meets it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.http2 import frames
from gateway.http2.connection import Http2Connection
from gateway.http2.errors import CANCEL, ENHANCE_YOUR_CALM, ConnectionFault
from gateway.http2.floods import (
    EARLY_RESETS,
    EMPTY_DATA_A_SECOND,
    PINGS_A_SECOND,
    SETTINGS_A_SECOND,
    TRIFLES_A_SECOND,
    UPDATES_A_FRAME,
    UPDATES_A_SECOND,
)
from gateway.http2.frames import ACK, DATA, PING, PRIORITY, SETTINGS
from gateway.http2.receiving import MAX_CONTINUATIONS
from gateway.http2.settings import INITIAL_WINDOW_SIZE
from tests.gateway.http2.wire import POST, head, ready

FLOODS = {
    "PING": (frames.frame(PING, 0, 0, b"\0" * 8), PINGS_A_SECOND),
    "PING acknowledged": (frames.frame(PING, ACK, 0, b"\0" * 8), PINGS_A_SECOND),
    "SETTINGS": (frames.settings({}), SETTINGS_A_SECOND),
    "SETTINGS acknowledged": (frames.frame(SETTINGS, ACK, 0), TRIFLES_A_SECOND),
    "PRIORITY": (frames.frame(PRIORITY, 0, 9, b"\0\0\0\0\x10"), TRIFLES_A_SECOND),
    "frames of an unknown type": (frames.frame(0xEE, 0, 0), TRIFLES_A_SECOND),
    "WINDOW_UPDATE of the connection": (frames.window_update(0, 1), UPDATES_A_SECOND),
    "WINDOW_UPDATE of a stream": (frames.window_update(1, 1), UPDATES_A_SECOND),
    "empty DATA": (frames.frame(DATA, 0, 1), EMPTY_DATA_A_SECOND),
    "padding for DATA": (frames.frame(DATA, frames.PADDED, 1, b"\x02\0\0"), EMPTY_DATA_A_SECOND),
    "GOAWAY": (frames.goaway(0, 0), TRIFLES_A_SECOND),
}


@pytest.mark.parametrize(("data", "number"), FLOODS.values(), ids=FLOODS.keys())
def test_a_flood_ends_the_connection(data: bytes, number: int) -> None:
    core = ready()
    core.receive_data(head(1, POST, end=False), 2.0)
    core.receive_data(data * number, 2.0)
    with pytest.raises(ConnectionFault) as caught:
        core.receive_data(data, 2.0)
    assert caught.value.number == ENHANCE_YOUR_CALM
    assert caught.value.code == "http2_flood"


@pytest.mark.parametrize(("data", "number"), FLOODS.values(), ids=FLOODS.keys())
def test_as_many_in_each_second_are_no_flood(data: bytes, number: int) -> None:
    core = ready()
    core.receive_data(head(1, POST, end=False), 2.0)
    for second in range(3):
        core.receive_data(data * number, 3.0 + second)
    core.data_to_send(9.0)


def test_settings_full_of_changes_count_like_many() -> None:
    core = ready()
    with pytest.raises(ConnectionFault):
        core.receive_data(frames.frame(SETTINGS, 0, 0, b"\0\1\0\0\0\0" * 2000), 2.0)


def test_a_window_that_opens_byte_by_byte_earns_no_updates() -> None:
    core = ready()
    core.receive_data(frames.settings({INITIAL_WINDOW_SIZE: 0}), 1.0)
    [stream] = core.receive_data(head(1), 2.0)
    core.answer(stream, b"\x88", b"x" * 100_000)
    for _ in range(UPDATES_A_SECOND):
        core.receive_data(frames.window_update(1, 1), 2.0)
        core.data_to_send(2.0)
    with pytest.raises(ConnectionFault, match="WINDOW_UPDATE"):
        core.receive_data(frames.window_update(1, 1), 2.0)


def test_a_head_in_too_many_pieces_is_not_gathered() -> None:
    core = ready()
    core.receive_data(frames.frame(frames.HEADERS, 0, 1, b"\x82"), 2.0)
    with pytest.raises(ConnectionFault, match="CONTINUATION") as caught:
        core.receive_data(frames.frame(frames.CONTINUATION, 0, 1) * (MAX_CONTINUATIONS + 1), 2.0)
    assert caught.value.number == ENHANCE_YOUR_CALM


def test_a_download_may_have_as_many_window_updates_as_it_needs() -> None:
    core = ready()
    core.output.window = 1 << 30
    for number in range(2 * UPDATES_A_SECOND):
        [stream] = core.receive_data(head(2 * number + 1), 2.0)
        core.answer(stream, b"\x88", b"body")
        core.data_to_send(2.0)
        core.receive_data(frames.window_update(0, 4) * UPDATES_A_FRAME, 2.0)


def reset_by_client(core: Http2Connection, stream: int) -> None:
    core.receive_data(head(stream) + frames.rst_stream(stream, CANCEL), 2.0)


def reset_for_a_fault(core: Http2Connection, stream: int) -> None:
    """CVE-2025-8671: the client makes the server reset."""
    core.receive_data(head(stream) + frames.window_update(stream, 0), 2.0)


def malformed(core: Http2Connection, stream: int) -> None:
    core.receive_data(head(stream, POST[:2]), 2.0)


@pytest.mark.parametrize("attack", [reset_by_client, reset_for_a_fault, malformed])
def test_rapid_reset_ends_the_connection(attack: Callable[[Http2Connection, int], None]) -> None:
    core = ready()
    for number in range(EARLY_RESETS):
        attack(core, 2 * number + 1)
    assert not core.streams
    with pytest.raises(ConnectionFault) as caught:
        attack(core, 2 * EARLY_RESETS + 1)
    assert caught.value.number == ENHANCE_YOUR_CALM


def test_resets_among_requests_that_are_answered_are_none() -> None:
    core = ready()
    core.output.window = 1 << 30
    for number in range(2000):
        [stream] = core.receive_data(head(4 * number + 1), 2.0)
        core.answer(stream, b"\x88", b"")
        reset_by_client(core, 4 * number + 3)


def test_resets_of_streams_that_have_lived_are_none() -> None:
    core = ready()
    for number in range(2000):
        core.receive_data(head(2 * number + 1), float(2 * number))
        core.receive_data(frames.rst_stream(2 * number + 1, CANCEL), float(2 * number + 1))
