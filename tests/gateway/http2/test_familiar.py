"""A block that was met before means what it would mean if it were read again; so does one that differs in its path."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http2.blocks import BlockDecoder, encode_field, encode_integer
from gateway.http2.errors import ConnectionFault, StreamFault
from gateway.http2.familiar import MAX_BLOCK, MAX_FAMILIAR, Familiar
from gateway.http2.heads import Head, request_head

GET, POST, ROOT, HTTP, HTTPS = b"\x82", b"\x83", b"\x84", b"\x86", b"\x87"
HOST = encode_field(b":authority", b"a")
CONNECT = b"\x02\x07CONNECT"


def path(text: bytes, first: bytes = b"\x04") -> bytes:
    """The path as a literal, by default as nghttp2 writes it, but for Huffman's code."""
    return first + encode_integer(len(text), 7) + text


def huffman(code: bytes) -> bytes:
    return b"\x04" + bytes([0x80 | len(code)]) + code


LITERALS = [
    path(b"/"), path(b"/a"), path(b"/b?c=d"), path(b"/" + b"e" * 125), path(b"/" + b"e" * 126), path(b"/" + b"e" * 900),
    path(b""), path(b"a"), path(b"*"), path(b"/a b"), path(b"/\r\nX: y"), path(b"/x", b"\x05"), path(b"/n", b"\x14"),
    path(b"/i", b"\x44"), huffman(b"\x60\x7f"), huffman(b"\x60\xff\xff\xff\xff"), huffman(b"\x00"), b"\x04\x05/cut",
    b"\x04", b"\x00\x05:path\x02/z", ROOT, b"",
]  # fmt: skip
OTHERS = [
    GET, POST, HTTP, HTTPS, HOST, CONNECT, b"\x02\x03PUT", b"\x02\x03ODD", b"\x90", b"\x80", b"\xbe", b"\xff\x00",
    encode_field(b"accept", b"*/*"), encode_field(b"content-length", b"3"), encode_field(b"x", b"y" * 2000),
    b"\x40\x01a\x01b", b"\x20",
]  # fmt: skip
USUAL = st.sampled_from([[GET, HTTPS, HOST], [POST, HTTPS, HOST], [HTTPS, HOST, GET], [HOST, b"\x02\x03PUT", HTTP]])


class Reader:
    """What a connection does with a block."""

    def __init__(self) -> None:
        self.decoder = BlockDecoder()
        self.familiar = Familiar()
        self.found = 0

    def read(self, block: bytes) -> tuple[bytes, Head]:
        known = self.familiar.find(block)
        if known is not None:
            self.found += 1
            return known
        before = self.decoder.changed
        entries = self.decoder.decode(block)
        if self.decoder.changed != before:
            self.familiar.forget()
            return request_head(entries)
        known = request_head(entries)
        self.familiar.keep(block, *known)
        return known


@given(st.lists(st.one_of(
    st.tuples(USUAL, st.sampled_from(LITERALS), st.lists(st.sampled_from(OTHERS), max_size=2)),
    st.tuples(st.lists(st.sampled_from(OTHERS)), st.sampled_from(LITERALS), st.lists(st.sampled_from(OTHERS))),
), max_size=20))  # fmt: skip
def test_property_what_was_met_before_does_not_change_a_request(
    some: list[tuple[list[bytes], bytes, list[bytes]]],
) -> None:
    reader, plain = Reader(), BlockDecoder()
    for before, literal, after in some:
        block = b"".join((*before, literal, *after))
        outcomes: list[object] = []
        for way in (reader.read, lambda block: request_head(plain.decode(block))):
            try:
                line, head = way(block)
                outcomes.append((line, head.lines, head.length, head.size, head.refusal))
            except StreamFault as fault:
                outcomes.append(str(fault))
            except ConnectionFault as fault:
                outcomes.append(fault.number)
        assert outcomes[0] == outcomes[1], block
        if isinstance(outcomes[1], int):
            return  # nothing on the connection can be read after that


@pytest.mark.parametrize("first", [b"\x04", b"\x05"])
def test_requests_that_differ_in_their_path_share_a_head(first: bytes) -> None:
    reader = Reader()
    heads = [reader.read(HTTPS + path(b"/%d" % number, first) + GET + HOST) for number in range(300)]
    assert [line for line, _ in heads] == [b"GET /%d HTTP/1.1" % number for number in range(300)]
    assert len({id(head) for _, head in heads}) == 1
    assert reader.found == 299


def test_what_a_connection_remembers_is_bounded() -> None:
    familiar = Familiar()
    for number in range(1000):
        for literal in (path(b"/"), ROOT):
            block = GET + literal + encode_field(b"a", b"%d" % number)
            familiar.keep(block, b"GET / HTTP/1.1", Head([]))
            assert familiar.find(block) is not None
    assert len(familiar._same) <= MAX_FAMILIAR
    assert len(familiar._alike) <= MAX_FAMILIAR
    large = GET + ROOT + encode_field(b"a", b"b" * MAX_BLOCK)
    familiar.keep(large, b"GET / HTTP/1.1", Head([]))
    assert familiar.find(large) is None


def test_a_head_that_a_longer_path_would_make_too_large_is_read_each_time() -> None:
    familiar = Familiar()
    familiar.keep(GET + path(b"/"), b"GET / HTTP/1.1", Head([], size=32_600))
    assert familiar.find(GET + path(b"/")) is None


def test_methods_of_ones_own_fill_nothing() -> None:
    familiar = Familiar()
    familiar.keep(path(b"/") + b"\x02\x03ODD", b"ODD / HTTP/1.1", Head([]))
    assert familiar.find(path(b"/") + b"\x02\x03ODD") is None
