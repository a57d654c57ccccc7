"""Chunked bodies both ways: whole, byte by byte, with trailing bytes, and agreement with h11."""

from __future__ import annotations

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.chunks import ChunkDecoder, RequestChunks, encode, encode_end
from gateway.errors import PeerError
from gateway.fields import FieldParser

HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"

VALID: list[tuple[str, bytes, bytes, list[bytes]]] = [
    ("nothing", b"0\r\n\r\n", b"", []),
    ("one chunk", b"5\r\nhello\r\n0\r\n\r\n", b"hello", []),
    ("two chunks", b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n", b"hello!", []),
    ("hexadecimal", b"A\r\n0123456789\r\n0b\r\nabcdefghijk\r\n000\r\n\r\n", b"0123456789abcdefghijk", []),
    ("an extension", b"5;name=value\r\nhello\r\n0;x\r\n\r\n", b"hello", []),
    ("a trailer", b"1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n", b"a", [b"X-Sum: 1"]),
    ("trailers that may not pass",
     b"0\r\nX-User-Id: 1\r\nContent-Length: 5\r\nHost: b\r\nX-Sum: 1\r\nAuthorization: x\r\n\r\n", b"", [b"X-Sum: 1"]),
    ("CRLF in the data", b"4\r\n\r\n\r\n\r\n0\r\n\r\n", b"\r\n\r\n", []),
]  # fmt: skip
INVALID: list[tuple[str, bytes]] = [
    ("no size", b"\r\nhello\r\n0\r\n\r\n"),
    ("a bad size", b"x\r\nhello\r\n0\r\n\r\n"),
    ("a signed size", b"+5\r\nhello\r\n0\r\n\r\n"),
    ("a prefixed size", b"0x5\r\nhello\r\n0\r\n\r\n"),
    ("an underscored size", b"1_0\r\nhello\r\n0\r\n\r\n"),
    ("a size too large", b"FFFFFFFFFFFFFFFFFFFFF\r\n"),
    ("a chunk longer than its size", b"4\r\nhello\r\n0\r\n\r\n"),
    ("a chunk shorter than its size", b"6\r\nhello\r\n0\r\n\r\n"),
    ("a malformed trailer", b"0\r\nX : 1\r\n\r\n"),
]


def decoder() -> ChunkDecoder:
    return ChunkDecoder()


def request() -> RequestChunks:
    return RequestChunks(HEAD, FieldParser())


def feed(chunks: ChunkDecoder | RequestChunks, pieces: list[bytes]) -> None:
    for piece in pieces:
        chunks.receive_data(piece)


makers = pytest.mark.parametrize("make", [decoder, request])


@makers
@pytest.mark.parametrize(("name", "body", "content", "trailers"), VALID, ids=[case[0] for case in VALID])
def test_valid_bodies_are_decoded_three_ways(make, name, body, content, trailers) -> None:  # type: ignore[no-untyped-def]
    whole = make()
    assert whole.receive_data(body) == content
    assert (whole.done, whole.trailers, whole.rest) == (True, trailers, b"")
    single = make()
    assert b"".join(single.receive_data(body[at : at + 1]) for at in range(len(body))) == content
    assert (single.done, single.trailers, single.rest) == (True, trailers, b"")
    trailing = make()
    assert trailing.receive_data(body + b"GET / HTTP/1.1\r\n") == content
    assert (trailing.done, trailing.rest) == (True, b"GET / HTTP/1.1\r\n")


@makers
@pytest.mark.parametrize(("name", "body"), INVALID, ids=[case[0] for case in INVALID])
def test_invalid_bodies_are_refused(make, name, body) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(PeerError):
        make().receive_data(body)
    with pytest.raises(PeerError):
        feed(make(), [body[at : at + 1] for at in range(len(body))])


@pytest.mark.parametrize(
    "body", [b"5\nhello\r\n0\r\n\r\n", b"0\r\nX: 1\nY: 2\r\n\r\n", b"5;\x00\r\nhello\r\n", b"5 ;x\r\nhello\r\n"]
)
def test_servers_get_no_leniency_about_line_ends(body: bytes) -> None:
    with pytest.raises(PeerError):
        decoder().receive_data(body)


@pytest.mark.parametrize(
    "endless", [b"1;" + b"a" * 3000, b"0\r\nX: " + b"a" * 20000, b"0\r\n" + b"X: aaaaaaaa\r\n" * 2000]
)
def test_size_lines_and_trailers_are_bounded(endless: bytes) -> None:
    with pytest.raises(PeerError):
        decoder().receive_data(endless)


def test_a_size_line_of_a_client_is_bounded() -> None:
    with pytest.raises(PeerError):
        feed(request(), [b"1;" + b"a" * 300] * 100)


def test_what_h11_alone_would_let_pass_is_refused() -> None:
    for body in (b"0\r\n\n", b"0\r\nX: 1\n\r\n"):
        with pytest.raises(PeerError):
            request().receive_data(body + b"GET / HTTP/1.1\r\n\r\n")


def test_an_upgrade_does_not_confuse_the_body() -> None:
    head = HEAD.replace(b"\r\n\r\n", b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nExpect: 100-continue\r\n\r\n")
    chunks = RequestChunks(head, FieldParser())
    assert chunks.receive_data(b"1\r\na\r\n0\r\n\r\nrest") == b"a"
    assert (chunks.done, chunks.rest) == (True, b"rest")


@given(st.lists(st.binary(max_size=40), max_size=6), st.lists(st.integers(1, 30), max_size=20))
def test_property_what_is_encoded_is_decoded_whatever_the_segments(pieces: list[bytes], sizes: list[int]) -> None:
    wire = b"".join(map(encode, pieces)) + encode_end([b"X-Sum: 1"])
    for chunks in (decoder(), request()):
        got, at = [], 0
        for size in [*sizes, len(wire)]:
            got.append(chunks.receive_data(wire[at : at + size]))
            at += size
        assert b"".join(got) == b"".join(pieces)
        assert chunks.done
        assert chunks.trailers == [b"X-Sum: 1"]


tokens = st.sampled_from([
    b"0", b"1", b"5", b"a", b"hello", b"\r\n", b"\n", b"\r", b";x", b" ", b"X: 1", b"\x00", b"-", b"FF",
])  # fmt: skip


@given(st.lists(tokens, max_size=14).map(b"".join))
@example(b"0\r\n0\n\n")
def test_property_h11_decodes_the_same_from_whatever_is_accepted(body: bytes) -> None:
    ours = decoder()
    try:
        content = ours.receive_data(body)
    except PeerError:
        return
    theirs = h11.Connection(h11.SERVER)
    theirs.receive_data(HEAD + body)
    assert isinstance(theirs.next_event(), h11.Request)
    collected, done = b"", False
    while True:
        try:
            event = theirs.next_event()
        except h11.RemoteProtocolError:
            assert not ours.done, "what waits for the end of a line has not accepted it yet"
            return
        if isinstance(event, h11.Data):
            collected += bytes(event.data)
        else:
            done = isinstance(event, h11.EndOfMessage)
            break
    assert collected == content
    assert done or not ours.done


@given(st.binary(max_size=200))
def test_property_only_peer_errors_escape(body: bytes) -> None:
    for chunks in (decoder(), request()):
        try:
            chunks.receive_data(body)
        except PeerError:
            continue
