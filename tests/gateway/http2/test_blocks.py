"""HPACK against hpack: the same fields from the same bytes, and nothing but a ConnectionFault from any others."""

from __future__ import annotations

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http2.blocks import BlockDecoder, BlockEncoder, Memo, encode_integer, encode_line
from gateway.http2.errors import COMPRESSION_ERROR, ConnectionFault
from gateway.http2.fields import BAD, Entry

NAMES = st.sampled_from([b":path", b":method", b"cookie", b"accept", b"user-agent", b"x-a", b"x-" + b"n" * 130])
VALUES = st.one_of(
    st.sampled_from([b"/", b"GET", b"", b"gzip, deflate", b"v" * 300, b"w" * 4000]),
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=40).map(str.encode),
)
BLOCKS = st.lists(st.lists(st.tuples(NAMES, VALUES, st.booleans()), max_size=8), max_size=12)


def pairs(entries: list[Entry]) -> list[tuple[bytes, bytes]]:
    return [(name, line[len(name) + 2 :]) for line, _, name in entries]


@given(BLOCKS, st.booleans(), st.sampled_from([4096, 100, 0]))
def test_what_hpack_encodes_is_decoded(blocks: list[list[tuple[bytes, bytes, bool]]], huffman: bool, size: int) -> None:
    encoder, decoder = hpack.Encoder(), BlockDecoder()
    for number, fields in enumerate(blocks):
        if number == 3:
            encoder.header_table_size = size
        data = encoder.encode(fields, huffman)
        assert pairs(decoder.decode(data)) == [(name, value) for name, value, _ in fields]


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_any_bytes_are_decoded_as_hpack_does_or_refused(blocks: list[bytes]) -> None:
    ours, theirs = BlockDecoder(), hpack.Decoder()
    for data in blocks:
        try:
            expected = theirs.decode(data, raw=True)
        except (hpack.HPACKError, UnicodeDecodeError, IndexError):
            with pytest.raises(ConnectionFault) as caught:
                ours.decode(data)
            assert caught.value.number == COMPRESSION_ERROR
            return
        try:
            found = ours.decode(data)
        except ConnectionFault:
            return  # stricter: integers beyond any need, changes of the size amid fields
        assert pairs(found) == [(bytes(name), bytes(value)) for name, value in expected]


@given(BLOCKS.filter(bool), st.data())
def test_a_block_cut_short_is_refused_or_shorter(
    blocks: list[list[tuple[bytes, bytes, bool]]], data: st.DataObject
) -> None:
    encoded = hpack.Encoder().encode(blocks[0])
    cut = encoded[: data.draw(st.integers(0, len(encoded)))]
    try:
        found = BlockDecoder().decode(cut)
    except ConnectionFault:
        pass
    else:
        assert pairs(found) == [(name, value) for name, value, _ in blocks[0]][: len(found)]


@pytest.mark.parametrize("data", [
    b"\x80",  # index 0
    b"\xbe",  # the first of an empty table
    b"\xff\x80\x80\x80\x80\x80\x80\x01",  # an integer without end
    b"\x3f\xe2\x1f",  # a table of 4097 bytes
    b"\x82\x20",  # its size after a field
    b"\x00\x81\x00\x00",  # a Huffman string padded with zeros
    b"\x00\x85\xff\xff\xff\xff\xff\x00",  # the code that ends a string within one
    b"\x00\x05ab",  # a string that is cut
], ids=repr)  # fmt: skip
def test_malformed_blocks_end_the_connection(data: bytes) -> None:
    with pytest.raises(ConnectionFault) as caught:
        BlockDecoder().decode(data)
    assert caught.value.number == COMPRESSION_ERROR


def test_a_field_that_is_not_allowed_keeps_its_place_in_the_table() -> None:
    encoder, decoder = hpack.Encoder(), BlockDecoder()
    [(line, kind, _)] = decoder.decode(encoder.encode([(b"Upper", b"1")]))
    assert kind == BAD
    assert decoder.decode(encoder.encode([(b"Upper", b"1")])) == [(line, BAD, b"Upper")]


@given(
    st.lists(
        st.tuples(st.from_regex(rb"[A-Za-z][A-Za-z0-9-]{0,20}", fullmatch=True), st.from_regex(rb"[!-~]{0,200}")),
        max_size=10,
    ),
    st.sampled_from([b"200 OK", b"204 No Content", b"418 I'm a: teapot", b"999 "]),
)
def test_answers_are_what_hpack_reads(fields: list[tuple[bytes, bytes]], status: bytes) -> None:
    fields = [(name, value.strip()) for name, value in fields]
    data = BlockEncoder().encode([b"HTTP/1.1 " + status, *(name + b": " + value for name, value in fields)])
    expected = [(b":status", status[:3]), *((name.lower(), value) for name, value in fields)]
    assert [tuple(one) for one in hpack.Decoder().decode(data, raw=True)] == expected


def test_cookies_are_never_put_into_a_table() -> None:
    assert encode_line(b"Set-Cookie: a=b")[0] & 0xF0 == 0x10


@given(st.integers(0, 1 << 20), st.integers(4, 7))
def test_integers(value: int, bits: int) -> None:
    assert encode_integer(value, bits) == bytes(hpack.hpack.encode_integer(value, bits))


def test_a_whole_head_is_remembered_as_its_lines() -> None:
    encoder = BlockEncoder()
    lines = [b"HTTP/1.1 200 OK", b"Content-Type: text/plain"]
    assert encoder.heads[b"\r\n".join(lines)] == encoder.encode(lines)


def test_a_memory_is_bounded() -> None:
    memo = Memo(lambda data: data)
    for number in range(100_000):
        assert memo[b"%d" % number] == b"%d" % number
    assert len(memo) <= 4096
    assert len(memo[b"x" * 10_000]) == 10_000
    assert b"x" * 10_000 not in memo
