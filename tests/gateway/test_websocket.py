"""The handshake of a WebSocket: keys, and the answers to them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import PeerError
from gateway.websocket import accept_of, as_answer, as_switch, check, key_of, new_key

# RFC 6455 §1.3
KEY, ACCEPT = b"dGhlIHNhbXBsZSBub25jZQ==", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_the_rfcs_example() -> None:
    assert accept_of(KEY) == ACCEPT
    assert new_key(b"the sample nonce") == KEY


@pytest.mark.parametrize("line", [b"Sec-WebSocket-Key: " + KEY, b"sec-websocket-key:" + KEY + b" "])
def test_the_key_is_found_however_it_is_spelled(line: bytes) -> None:
    assert key_of(b"GET / HTTP/1.1\r\nHost: a\r\n" + line + b"\r\n\r\n") == KEY
    assert key_of(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n\r\n" + line + b"\r\n") is None


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [b"Sec-WebSocket-Accept: x"],
        [b"Sec-WebSocket-Accept: " + ACCEPT, b"Sec-WebSocket-Accept: " + ACCEPT],
    ],
)
def test_only_the_answer_to_the_key_is_one(lines: list[bytes]) -> None:
    check([b"HTTP/1.1 101 X", b"SEC-WEBSOCKET-ACCEPT:" + ACCEPT + b" "], KEY)
    check([b"HTTP/1.1 101 X"], None)
    with pytest.raises(PeerError):
        check([b"HTTP/1.1 101 X", *lines], KEY)


def test_by_http_2_it_is_a_200() -> None:
    lines = [b"HTTP/1.1 101 X", b"Sec-WebSocket-Accept: " + ACCEPT, b"Sec-WebSocket-Protocol: chat"]
    assert as_answer(lines) == [b"HTTP/1.1 200 ", b"Sec-WebSocket-Protocol: chat"]


def test_by_http_1_it_is_a_101_that_answers_the_key_of_who_gave_one() -> None:
    lines = [
        b"HTTP/1.1 200 OK",
        b"Sec-WebSocket-Protocol: chat",
        b"content-length: 0",
        b"sec-websocket-accept: another",
    ]
    switch = as_switch(lines, KEY)
    check(switch, KEY)
    assert switch[2:] == [b"Sec-WebSocket-Protocol: chat"]
    assert as_switch(lines, None) == [switch[0], *switch[2:]]


@given(st.lists(st.binary(max_size=40), max_size=4))
def test_property_any_head_answers_the_key_or_not(lines: list[bytes]) -> None:
    try:
        check([b"HTTP/1.1 101 X", *lines], KEY)
    except PeerError:
        return
    assert any(line.lower().startswith(b"sec-websocket-accept:") for line in lines)
