"""What the pooler says when it refuses."""

from __future__ import annotations

from pooler import errors
from pooler.errors import PeerError, ServerError


def test_an_error_carries_its_fields() -> None:
    encoded = PeerError("28P01", "no", detail="why", hint="how").encode()
    assert encoded[:1] == b"E"
    assert int.from_bytes(encoded[1:5], "big") == len(encoded) - 1
    assert errors.decode(encoded[5:]) == {"S": "FATAL", "V": "FATAL", "C": "28P01", "M": "no", "D": "why", "H": "how"}


def test_a_zero_byte_in_a_text_ends_no_field() -> None:
    assert errors.decode(PeerError("08P01", "a\0b").encode()[5:])["M"] == "ab"


def test_a_notice_is_no_error() -> None:
    assert errors.notice("00000", "wait")[:1] == b"N"


def test_errors_read_as_code_and_message() -> None:
    assert str(PeerError("08P01", "bad")) == "08P01: bad"
    assert str(ServerError("gone")) == "08006: gone"


def test_what_a_server_says_is_read_even_if_it_is_no_text() -> None:
    assert errors.decode(b"C42601\0M\xff\0\0") == {"C": "42601", "M": "\ufffd"}
