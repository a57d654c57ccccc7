"""What the gateway understands of gRPC: which requests are calls, their deadlines, its own errors in their terms."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import grpc
from gateway.errors import REASONS, PeerError


def payload(*lines: bytes) -> bytes:
    return b"\r\n".join((b"POST /s/m HTTP/1.1", *lines, b"", b"\0\0\0\0\5hello"))


@pytest.mark.parametrize(
    ("line", "is_call"),
    [
        (b"content-type: application/grpc", True),
        (b"content-type: application/grpc+proto", True),
        (b"content-type: application/grpc;charset=x", True),
        (b"content-type: application/grpc-web", False),
        (b"content-type: application/json", False),
        (b"x-content-type: application/grpc", False),
    ],
)
def test_a_call_is_told_by_its_type(line: bytes, is_call: bool) -> None:
    assert grpc.is_call([b"te: trailers", line]) is is_call


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(b"1H", 3600), (b"2M", 120), (b"3S", 3), (b"250m", 0.25), (b"500000u", 0.5), (b"99999999H", grpc.MAX_DEADLINE)],
)
def test_a_deadline_is_read(text: bytes, seconds: float) -> None:
    assert grpc.deadline(payload(b"grpc-timeout: " + text)) == pytest.approx(seconds)


@pytest.mark.parametrize("text", [b"", b"S", b"1s", b"-1S", b"123456789S", b"1.5S", b"1S "])
def test_what_is_no_deadline_is_none(text: bytes) -> None:
    assert grpc.deadline(payload(b"grpc-timeout: " + text)) is None
    assert grpc.deadline(payload() + b"\r\ngrpc-timeout: 1S\r\n") is None


def test_each_try_is_told_what_is_left() -> None:
    told = grpc.with_deadline(payload(b"a: b", b"grpc-timeout: 10S", b"c: d"), 1.2345)
    assert told == payload(b"a: b", b"grpc-timeout: 1234m", b"c: d")
    assert grpc.deadline(grpc.with_deadline(payload(b"grpc-timeout: 1S"), -1)) == pytest.approx(0.001)
    assert grpc.with_deadline(payload(b"a: b"), 1) == payload(b"a: b")


@pytest.mark.parametrize(
    ("code", "number"),
    [
        ("token_expired", 16),
        ("no_route", 12),
        ("limited", 8),
        ("no_server", 14),
        ("answer_timeout", 4),
        ("bad_field", 13),
    ],
)
def test_errors_of_ours_have_a_status_of_theirs(code: str, number: int) -> None:
    lines = grpc.refusal(PeerError(code, "why: 100%"))
    assert lines[:2] == [b"HTTP/1.1 200 OK", b"content-type: application/grpc"]
    assert lines[2:] == [b"grpc-status: %d" % number, b"grpc-message: %b: why: 100%%25" % code.encode()]


@given(st.sampled_from(sorted(REASONS)), st.text(max_size=50))
def test_property_a_message_is_visible_ascii(code: str, detail: str) -> None:
    message = grpc.refusal(PeerError(code, detail))[3]
    assert all(0x20 <= octet < 0x7F for octet in message)


@given(st.binary(max_size=60).filter(lambda text: b"\n" not in text and b"\r" not in text), st.floats(0, 1e6))
def test_property_any_timeout_is_a_deadline_or_none(text: bytes, left: float) -> None:
    whole = payload(b"grpc-timeout: " + text)
    seconds = grpc.deadline(whole)
    assert seconds is None or 0 <= seconds <= grpc.MAX_DEADLINE
    told = grpc.with_deadline(whole, left)
    assert told.endswith(b"\r\n\r\n\0\0\0\0\5hello")
    assert (told == whole) or seconds is not None
