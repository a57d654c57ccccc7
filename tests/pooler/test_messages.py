"""Framing: whole, byte by byte, with something behind it."""

from __future__ import annotations

import pytest

from pooler import messages
from pooler.errors import PeerError, ServerError
from pooler.messages import message, take_from_client, take_from_server

SAMPLE = message(b"p", b"secret\0")


def test_a_message_counts_its_own_length() -> None:
    assert SAMPLE == b"p\0\0\0\x0bsecret\0"
    assert messages.query("SELECT 1") == b"Q\0\0\0\x0dSELECT 1\0"


@pytest.mark.parametrize("behind", [b"", b"p", b"p\0\0\0\x04"])
def test_a_whole_message_is_taken_and_no_more(behind: bytes) -> None:
    buffer = bytearray(SAMPLE + behind)
    assert take_from_client(buffer, 100) == (ord("p"), b"secret\0")
    assert buffer == behind


def test_byte_by_byte_nothing_is_taken_before_the_last() -> None:
    buffer = bytearray()
    for byte in SAMPLE[:-1]:
        buffer.append(byte)
        assert take_from_client(buffer, 100) is None
    buffer.append(SAMPLE[-1])
    assert take_from_client(buffer, 100) == (ord("p"), b"secret\0")
    assert not buffer


@pytest.mark.parametrize("length", [0, 3, 101, 0xFFFFFFFF])
def test_an_impossible_length_is_refused_at_once(length: int) -> None:
    with pytest.raises(PeerError, match="invalid message length"):
        take_from_client(bytearray(b"p" + length.to_bytes(4, "big")), 100)


def test_a_server_with_an_impossible_length_is_no_postgres() -> None:
    with pytest.raises(ServerError, match="does not speak the PostgreSQL protocol"):
        take_from_server(bytearray(b"HTTP/1.1 400"))


def test_a_string_needs_its_zero_and_must_be_text() -> None:
    assert messages.text(b"ab\0c\0", 3) == ("c", 5)
    for payload in (b"ab", b"\xff\0"):
        with pytest.raises(PeerError):
            messages.text(payload)


def test_parameter_status_keeps_bytes_that_are_no_text() -> None:
    name, value = messages.parse_parameter_status(b"application_name\0\xff\0")
    assert messages.parameter_status(name, value) == message(b"S", b"application_name\0\xff\0")
    with pytest.raises(ServerError):
        messages.parse_parameter_status(b"half")


def test_negotiation_names_the_version_and_the_unknown_options() -> None:
    said = messages.negotiate_protocol_version(3 << 16 | 2, ["_pq_.x"])
    assert said == b"v\0\0\0\x13\0\x03\0\x02\0\0\0\x01_pq_.x\0"
