"""A request on a server's connection: what goes out, what is understood of the answer, whether it is kept."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway.call import Http1Call
from gateway.errors import PeerError
from gateway.framing import Body, LengthBody, StreamedRequest
from gateway.messages import MAX_INTERIM, Content, End, Head, Interim, Lost, Message, Switch
from supervisor.ground.net.memory import MemoryConn
from tests.gateway.house import House

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Stage:
    """A call, and the server's end of its connection."""

    def __init__(self, house: House, payload: bytes = GET, body: Body | None = None, head: bool = False) -> None:
        self.house = house
        conn, self.far = house.lane.pair()
        shared = house.gateway._shared
        server = house.worker.pools["web"].servers[0]
        shared.upstreams._owner[conn] = server
        self.call = Http1Call(shared, server, conn, False, payload, body or LengthBody(0), head)

    def sent(self) -> bytes:
        while self.call.sending and self.call.write():
            pass
        self.house.lane.run()
        return self.far.take()

    def heard(self, data: bytes, piece: int = 1 << 16, end: bool = False) -> list[Message]:
        messages: list[Message] = []
        for at in range(0, len(data), piece):
            self.far.send_nowait(data[at : at + piece])
            self.house.lane.run()
            messages += self.call.receive() or []
        if end:
            self.far.close()
            self.house.lane.run()
            messages += self.call.receive() or []
        return messages

    def kept(self) -> bool:
        conn = self.call.conn
        assert isinstance(conn, MemoryConn)
        self.call.release()
        return conn.fd >= 0


@pytest.fixture
def house() -> Iterator[House]:
    house = House()
    yield house
    house.gateway.close()
    house.lane.finish()
    house.plane.close()


def content(messages: list[Message]) -> bytes:
    return b"".join(one.data for one in messages if isinstance(one, Content))


@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_an_answer_in_chunks_comes_out_of_them(house: House, piece: int) -> None:
    stage = Stage(house)
    assert stage.sent() == GET
    messages = stage.heard(EARLY + CHUNKED + b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n", piece)
    assert isinstance(messages[0], Interim)
    assert isinstance(messages[1], Head)
    assert (messages[1].status, messages[1].length) == (200, -1)
    assert content(messages) == b"hello"
    assert messages[-1] == End([b"X-Sum: 1"])
    assert stage.kept()


def test_a_body_of_no_known_length_leaves_in_chunks(house: House) -> None:
    body = StreamedRequest(None)
    stage = Stage(house, b"POST / HTTP/1.1\r\n\r\nabc", body)
    assert stage.sent().endswith(b"\r\n\r\n3\r\nabc\r\n")
    stage.call.send(b"de", None)
    assert stage.sent() == b"2\r\nde\r\n"
    stage.call.send(b"", [b"x-sum: 1"])
    assert stage.sent() == b"0\r\nx-sum: 1\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "end", "kept"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", False, True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more", False, False),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", False, False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", False, False),
        (b"HTTP/1.1 200 OK\r\n\r\nok", True, False),
        (b"HTTP/1.1 204 No Content\r\n\r\n", False, True),
        (CHUNKED + b"2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK", False, False),
    ],
)
def test_only_a_connection_in_step_is_kept(house: House, answer: bytes, end: bool, kept: bool) -> None:
    stage = Stage(house)
    stage.sent()
    messages = stage.heard(answer, end=end)
    assert messages[-1] == End([])
    assert content(messages) in (b"ok", b"")
    assert stage.kept() is kept


def test_a_connection_with_half_a_request_on_it_is_not_kept(house: House) -> None:
    stage = Stage(house, b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc", LengthBody(9))
    stage.sent()
    assert stage.heard(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")[-1] == End([])
    assert not stage.kept()


def test_a_head_request_has_no_content_whatever_the_length(house: House) -> None:
    stage = Stage(house, GET, head=True)
    stage.sent()
    head, end = stage.heard(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
    assert isinstance(head, Head)
    assert head.bodiless
    assert end == End([])
    assert stage.kept()


def test_an_end_without_an_answer_is_a_loss(house: House) -> None:
    stage = Stage(house)
    stage.sent()
    with pytest.raises(Lost):
        stage.heard(b"HTTP/1.1 200", end=True)
    assert stage.call.heard


def test_a_cut_body_is_no_end(house: House) -> None:
    stage = Stage(house)
    stage.sent()
    with pytest.raises(PeerError) as error:
        stage.heard(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", end=True)
    assert error.value.code == "answer_cut"


def test_interim_answers_without_end_are_no_answer(house: House) -> None:
    stage = Stage(house)
    stage.sent()
    with pytest.raises(PeerError) as error:
        stage.heard(EARLY * (MAX_INTERIM + 1))
    assert error.value.code == "bad_answer"


def test_a_switch_hands_over_what_came_after_it(house: House) -> None:
    stage = Stage(house)
    stage.sent()
    [switch] = stage.heard(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nframes")
    assert isinstance(switch, Switch)
    assert switch.data == b"frames"
