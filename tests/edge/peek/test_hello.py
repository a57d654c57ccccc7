"""A ClientHello is read whole however it is cut, and only PeekError comes of one that is none."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.peek.hello import MAX_HELLO, Hello, PeekError, begins_tls, client_hello
from tests.edge.peek.hellos import alpn, extension, message, openssl, records, server_name

GREASE = extension(0x0A0A, b""), extension(0xFAFA, b"\0")
WHOLE = message(GREASE[0], server_name(b"DB.example.com"), alpn(b"\x8a\x8a", b"h2", b"http/1.1"), GREASE[1])
EXPECTED = Hello("db.example.com", (b"\x8a\x8a", b"h2", b"http/1.1"))


@pytest.mark.parametrize("size", [1 << 14, 100, 7, 5])
def test_it_is_read_over_records_and_segments_of_any_size(size: int) -> None:
    data = records(WHOLE, size)
    assert all(client_hello(data[:cut]) is None for cut in range(len(data)))
    assert client_hello(data) == EXPECTED
    assert client_hello(data + b"\x14\x03\x03\x00\x01\x01early data") == EXPECTED


@pytest.mark.parametrize("name", ["a.example", None])
def test_real_hellos_are_understood(name: str | None) -> None:
    assert client_hello(openssl(name, ["h2", "http/1.1"])) == Hello(name or "", (b"h2", b"http/1.1"))
    assert client_hello(openssl(name)) == Hello(name or "")


def test_one_without_extensions_names_nobody() -> None:
    assert client_hello(records(message(bare=True))) == Hello()
    assert client_hello(records(message())) == Hello()


def test_a_dot_at_the_end_of_a_name_is_none_of_it() -> None:
    assert client_hello(records(message(server_name(b"a.example.")))) == Hello("a.example")


def test_it_may_have_16_kib_and_no_more() -> None:
    room = MAX_HELLO - len(records(message(extension(21, b""))))
    assert client_hello(records(message(extension(21, bytes(room))))) == Hello()
    over = records(message(extension(21, bytes(room + 1))))
    for cut in (MAX_HELLO, len(over), len(over) + 50_000):
        with pytest.raises(PeekError, match="16 KiB"):
            client_hello(over.ljust(cut, b"\0")[:cut])


def test_it_may_not_come_in_endless_records() -> None:
    with pytest.raises(PeekError, match="64 records"):
        client_hello(records(WHOLE, 1))


BODY = WHOLE[4:]


@pytest.mark.parametrize(
    "data",
    [
        records(b"\x02" + WHOLE[1:]),
        records(WHOLE + b"\0"),
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\x40\x01" + bytes(1 << 14 | 1),
        records(WHOLE, 20)[:25] + b"\x15\x03\x01\x00\x02\x01\x00",
        records(message(server_name(b"a"), server_name(b"b"))),
        records(message(extension(0, b""))),
        records(message(server_name(b""))),
        records(message(server_name(b"a\0b"))),
        records(message(server_name("ä".encode()))),
        records(message(extension(0, struct.pack("!HBH", 4, 1, 1) + b"a"))),
        records(message(extension(16, b"\0\0"))),
        records(message(extension(16, b"\0\x02\x05h"))),
        records(message(alpn(b""))),
        records(message(b"\0\x10\0\x09")),
        records(b"\x01\0\0\x03abc"),
        records(b"\x01" + (len(BODY) - 1).to_bytes(3, "big") + BODY[:-1]),
    ],
)
def test_what_is_malformed_is_refused(data: bytes) -> None:
    with pytest.raises(PeekError):
        client_hello(data)


@pytest.mark.parametrize(
    ("data", "begins"),
    [(b"", None), (b"\x16", None), (b"\x16\x03\x01\x02\x00", None), (b"\x16\x03\x01\x02\x00\x01", True),
     (b"\x16\x03\x01\x02\x00\x02", False), (b"\x16\x02", False), (b"\x17", False), (b"GET", False)],
)  # fmt: skip
def test_the_first_bytes_tell_that_it_is_tls(data: bytes, begins: bool | None) -> None:
    assert begins_tls(data) is begins


def outcome(data: bytes) -> Hello | str | None:
    try:
        return client_hello(data)
    except PeekError:
        return "refused"


@given(st.binary(max_size=200), st.integers(0, 400), st.binary(max_size=12), st.integers(1, 300), st.data())
def test_property_only_peek_errors_escape_and_cuts_change_nothing(
    junk: bytes, at: int, patch: bytes, size: int, draw: st.DataObject
) -> None:
    hello = bytearray(records(WHOLE, size))
    hello[at : at + len(patch)] = patch
    data = bytes(hello) + junk
    final = outcome(data)
    cut = draw.draw(st.integers(0, len(data)))
    assert outcome(data[:cut]) in (None, final)
