"""What a client of HTTP/1.1 or 1.0 reads: how its answer is framed, whether its connection goes on, how it is cut."""

from __future__ import annotations

import pytest

from tests.gateway.house import OK, PLAIN, Build, Client, House, answer
from tests.gateway.http2.far import FarServer

LENGTH = OK
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
NEW, OLD = b"GET / HTTP/1.1\r\nHost: a\r\n", b"GET / HTTP/1.0\r\nHost: a\r\n"
CLOSE, KEEP = b"Connection: close\r\n", b"Connection: keep-alive\r\n"


def ask(house: House, client: Client, head: bytes, reply: bytes) -> bytes:
    """What a client gets for its request, the answer coming in two pieces, so that the express lane can't take it."""
    client.send(head + b"\r\n")
    house.received()
    house.answer(reply[:20])
    house.answer(reply[20:])
    return client.take()


@pytest.mark.parametrize(
    ("head", "reply", "length", "encoding", "connection", "kept"),
    [
        (NEW, LENGTH, "2", None, None, True),
        (NEW, CHUNKED, None, "chunked", None, True),
        (NEW, EMPTY, "0", None, None, True),
        (NEW + CLOSE, LENGTH, "2", None, "close", False),
        (NEW + CLOSE, CHUNKED, None, "chunked", "close", False),
        (NEW + KEEP, LENGTH, "2", None, None, True),
        (OLD, LENGTH, "2", None, "close", False),
        (OLD, CHUNKED, None, None, "close", False),
        (OLD + KEEP, LENGTH, "2", None, "keep-alive", True),
        (OLD + KEEP, EMPTY, "0", None, "keep-alive", True),
        (OLD + KEEP, CHUNKED, None, None, "close", False),  # its end is the connection's
        (OLD + KEEP + CLOSE, LENGTH, "2", None, "close", False),
    ],
)
def test_how_an_answer_is_framed_and_whether_the_connection_goes_on(
    house: House,
    head: bytes,
    reply: bytes,
    length: str | None,
    encoding: str | None,
    connection: str | None,
    kept: bool,
) -> None:
    client = house.connect()
    got = answer(ask(house, client, head, reply), whole=bool(length or encoding))
    assert got.body == (b"" if reply is EMPTY else b"ok")
    assert (got.field("content-length"), got.field("transfer-encoding")) == (length, encoding)
    assert got.field("connection") == connection
    assert client.closed is not kept
    if kept:
        assert answer(ask(house, client, NEW, LENGTH)).body == b"ok"


@pytest.mark.parametrize("head", [NEW, OLD + KEEP])
@pytest.mark.parametrize(
    ("method", "reply"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"),
        (b"GET", b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\n\r\n'),
        (b"GET", b'HTTP/1.1 204 No Content\r\nETag: "a"\r\n\r\n'),
    ],
)
def test_answers_without_content_leave_the_connection_usable(
    house: House, head: bytes, method: bytes, reply: bytes
) -> None:
    """RFC 9112 §6.3: they end with their head, whatever it says of a length."""
    client = house.connect()
    got = ask(house, client, method + head[3:], reply)
    assert got.endswith(b"\r\n\r\n")
    assert got.count(b"\r\n\r\n") == 1
    assert b"Transfer-Encoding" not in got
    assert not client.closed
    assert answer(ask(house, client, NEW, LENGTH)).body == b"ok"


@pytest.mark.parametrize("head", [NEW, OLD])
def test_interim_answers_are_for_those_who_know_them(house: House, head: bytes) -> None:
    """RFC 9110 §15.2: a client of HTTP/1.0 would take one for the answer."""
    client = house.connect()
    got = answer(ask(house, client, head, b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + LENGTH))
    assert (got.interim, got.status) == ([103] if head is NEW else [], 200)


@pytest.mark.parametrize(("head", "told"), [(NEW, {b"x-sum": b"1"}), (OLD, {})])
def test_trailers_go_where_there_are_chunks(house: House, head: bytes, told: dict[bytes, bytes]) -> None:
    client = house.connect()
    got = answer(ask(house, client, head, CHUNKED[:-2] + b"X-Sum: 1\r\nContent-Length: 5\r\n\r\n"), whole=head is NEW)
    assert (got.body, got.trailers) == (b"ok", told)


@pytest.mark.parametrize("head", [NEW, OLD + KEEP])
def test_a_drain_during_the_answer_ends_the_connection_with_it(house: House, head: bytes) -> None:
    client = house.connect()
    client.send(head + b"\r\n")
    house.received()
    house.gateway.drain()
    house.answer(LENGTH[:20])
    house.answer(LENGTH[20:])
    assert answer(client.take()).field("connection") == "close"
    assert client.closed


def test_what_is_left_of_a_body_is_no_request(house: House) -> None:
    """The server has answered before it read all of it."""
    client = house.connect()
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n" + b"x" * 50)
    house.received()
    house.answer(LENGTH)
    client.send(b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
    got = answer(client.take())
    assert (got.status, got.field("connection"), got.rest) == (200, "close", b"")
    assert client.closed
    assert [line["path"] for line in house.log.lines] == ["/"]


@pytest.mark.parametrize("end", ["close", "abort"])
def test_a_body_that_ends_early_is_the_clients_doing(house: House, end: str) -> None:
    client = house.connect()
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    assert house.received().endswith(b"5\r\nhello\r\n")
    getattr(client.end, end)()
    assert house.received() == b""  # no last chunk
    assert house.server().at_end
    assert [(line["status"], line["reason"]) for line in house.log.lines] == [(499, "client_gone")]


@pytest.mark.parametrize(("head", "reset"), [(NEW, False), (OLD, True)])
def test_an_answer_that_is_cut_does_not_look_whole(house: House, head: bytes, reset: bool) -> None:
    """One in chunks lacks its last; where the connection's end is the body's, only a reset is none."""
    client = house.connect()
    client.send(head + b"\r\n")
    house.received()
    house.answer(CHUNKED[:-5])
    house.server().close()
    house.lane.run()
    assert client.end.peer.aborted is reset
    if not reset:
        assert not answer(client.take(), whole=False).whole
        assert client.closed
    assert house.log.lines[0]["reason"] == "answer_cut"


def test_a_websocket_is_switched_to_in_the_gateways_own_words(house: House) -> None:
    client = house.connect()
    client.send(
        NEW + b"Connection: Upgrade, x-hop\r\nUpgrade: websocket\r\nX-Hop: 1\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    assert b"X-Hop" not in house.received()
    house.answer(
        b"HTTP/1.1 101 Anything\r\nUpgrade: websocket\r\nConnection: upgrade, x-far\r\nX-Far: 1\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    )
    lines = client.take().split(b"\r\n")
    assert lines[0].startswith(b"HTTP/1.1 101 ")
    assert lines.count(b"Connection: Upgrade") == lines.count(b"Upgrade: websocket") == 1
    assert b"X-Far: 1" not in lines
    house.answer(b"\x81\x02hi")
    assert client.take() == b"\x81\x02hi"
    client.end.close()
    house.server().close()
    house.lane.run()


@pytest.fixture
def far(build: Build) -> House:
    """A house whose server speaks HTTP/2."""
    return build(PLAIN.replace("[pools.web]", '[pools.web]\nprotocol = "h2c"'))


@pytest.mark.parametrize("head", [NEW, OLD + KEEP])
def test_an_answer_that_ended_with_its_head_gets_a_length(far: House, head: bytes) -> None:
    """HTTP/2 has END_STREAM for it; without a length a client of HTTP/1.1 would wait for the connection's end."""
    client = far.connect()
    client.send(head + b"\r\n")
    server = FarServer(far)
    server.answer(1, None)
    got = answer(client.take())
    assert (got.field("content-length"), got.field("transfer-encoding"), got.body) == ("0", None, b"")
    assert not client.closed
    server.h2.close_connection()
    server.go()
