"""Framing: whole, byte by byte, with something behind it."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pooler import messages
from pooler.errors import PeerError, ServerError, decode
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


@given(st.lists(st.binary(max_size=30), max_size=5), st.integers(0, 60))
def test_property_only_our_errors_come_of_any_bytes(pieces: list[bytes], limit: int) -> None:
    for take, expected in ((partial(take_from_client, limit=limit), PeerError), (take_from_server, ServerError)):
        buffer, taken = bytearray(), 0
        try:
            for piece in pieces:
                buffer += piece
                while (found := take(buffer)) is not None:
                    taken += len(found[1]) + 5
        except expected:
            continue
        assert taken + len(buffer) == sum(map(len, pieces))


@pytest.mark.parametrize("payload", [b"\0\1", b"\0\1\0\0\0", b"\0\1\0\0\0\2x", b"\xff\xff\xff\xff\xff\xff"])
def test_a_row_that_is_cut_short_is_malformed(payload: bytes) -> None:
    with pytest.raises(ServerError, match="malformed DataRow"):
        messages.columns(payload)


@given(st.binary(max_size=60))
def test_property_what_is_in_a_message_is_read_or_refused(payload: bytes) -> None:
    for read, expected in (
        (messages.text, PeerError),
        (messages.parse_parameter_status, ServerError),
        (messages.columns, ServerError),
        (decode, ServerError),
        (lambda data: messages.what_and_name(message(b"D", data), 0, len(data) + 5), PeerError),
    ):
        with suppress(expected):
            read(payload)
