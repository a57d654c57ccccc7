"""What does not fit into one read each way: bodies in pieces, interim and early answers, failures, slowness."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.chunks import encode, encode_end
from gateway.websocket import accept_of
from supervisor.plane.layout import Kind, Server
from tests.gateway.house import OK, PLAIN, Build, House, answer, request, warm

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


# -- bodies of requests


@pytest.mark.parametrize("piece", [1, 9, 100_000])
def test_a_chunked_request_is_encoded_anew(house: House, piece: int) -> None:
    client = house.connect()
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                b"5;ext=1\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 1\r\nX-User-Id: admin\r\n\r\n"
                b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n", piece)  # fmt: skip
    data = house.received()
    got = request(data)
    assert got.body == b"hello world"
    assert got.trailers == {b"x-sum": b"1"}
    assert b"ext" not in data
    assert b"admin" not in data
    house.answer(OK)
    following = request(house.received())
    assert following.head.target == b"/next"  # type: ignore[union-attr]
    house.answer(OK)
    first = answer(client.take())
    assert (first.status, answer(first.rest).status) == (200, 200)
    assert len(house.servers[8001]) == 1
    assert [line["bytes_in"] > 0 for line in house.log.lines] == [True, True]


def test_a_body_is_passed_on_as_it_comes(house: House) -> None:
    client = house.connect()
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n01234")
    assert house.received().endswith(b"\r\n\r\n01234")
    client.send(b"567")
    assert house.received() == b"567"
    client.send(b"89GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert house.received() == b"89"
    house.answer(OK)
    assert request(house.received()).head.method == b"GET"  # type: ignore[union-attr]
    house.answer(OK)
    assert [line["bytes_in"] > 10 for line in house.log.lines] == [True, True]


def test_a_large_body_is_never_gathered(house: House) -> None:
    client = house.connect()
    total = 3_000_000
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % total)
    sent = 0
    end = client.end
    # The server reads nothing, so what the gateway takes is bounded by its buffers on the way.
    while True:
        end.writable = True
        taken = end.send_nowait(b"x" * 50_000)
        house.lane.run()
        sent += taken
        if not taken:
            break
    assert sent < 400_000
    got = 0
    while sent < total or got < total:
        got += len(house.received().rpartition(b"\r\n\r\n")[2])
        end.writable = True
        if sent < total:
            sent += end.send_nowait(b"x" * min(50_000, total - sent))
        house.lane.run()
    house.answer(OK)
    assert answer(client.take()).status == 200


def test_a_malformed_chunk_is_a_400_and_the_server_never_sees_an_end(house: House) -> None:
    client = house.connect()
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    client.send(b"zz\r\n")
    reply = answer(client.take())
    assert (reply.status, reply.code) == (400, "bad_body")
    assert client.closed
    data = house.received()
    assert b"0\r\n\r\n" not in data
    assert house.server().at_end


def test_a_body_over_the_routes_limit_is_a_413(build: Build) -> None:
    house = build(PLAIN.replace('pool = "web"', 'pool = "web"\nmax_body = "10B"'))
    client = house.connect()
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n")
    assert answer(client.take()).code == "body_too_large"
    assert house.servers[8001] == []
    client = house.connect()
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello!\r\n")
    house.received()
    client.send(b"6\r\nhello!\r\n")
    assert answer(client.take()).code == "body_too_large"
    assert client.closed


def test_a_client_that_leaves_within_its_body_takes_its_server_connection_along(house: House) -> None:
    client = house.connect()
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n01234")
    house.received()
    client.end.close()
    house.lane.run()
    assert house.server().at_end
    assert house.log.lines[0]["reason"] == "client_gone"


WAITING = {
    "on a fresh connection": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "with a whole body": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    "with another request behind it": b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
}


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("how", ["close", "shutdown_write", "abort"])
@pytest.mark.parametrize("name", WAITING)
def test_a_client_that_leaves_before_its_answer_takes_its_server_connection_along(
    house: House, name: str, how: str, kept: bool
) -> None:
    if kept:
        warm(house)
    client = house.connect()
    client.send(WAITING[name])
    assert request(house.received()).whole
    getattr(client.end, how)()
    house.lane.run()
    assert house.server().at_end
    assert (house.log.lines[-1]["status"], house.log.lines[-1]["reason"]) == (499, "client_gone")
    assert len(house.log.lines) == 1 + kept
    assert how == "abort" or client.take() == b""


@pytest.mark.parametrize("kept", [False, True])
def test_a_client_that_leaves_with_its_request_is_gone_at_once(house: House, kept: bool) -> None:
    if kept:
        warm(house)
    client = house.connect()
    client.end.send_nowait(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    client.end.shutdown_write()
    house.lane.run()
    assert house.log.lines[-1]["reason"] == "client_gone"


def test_a_client_that_leaves_within_its_answer_is_noticed_while_the_server_pauses(house: House) -> None:
    client = house.connect()
    client.get()
    house.received()
    house.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234")
    assert answer(client.take(), whole=False).status == 200
    client.end.close()
    house.lane.run()
    assert house.server().at_end
    assert (house.log.lines[0]["status"], house.log.lines[0]["reason"]) == (200, "client_gone")


@pytest.mark.parametrize("kept", [False, True])
def test_a_client_that_shuts_down_and_reads_gets_its_answer_where_a_route_says_so(build: Build, kept: bool) -> None:
    house = build(PLAIN + "abort_on_close = false\n")
    if kept:
        warm(house)
    client = house.connect()
    client.get()
    client.end.shutdown_write()
    house.received()
    house.answer(OK)
    assert answer(client.take()).status == 200
    assert client.closed


def test_nobody_is_asked_for_a_client_that_left_while_it_waited_for_a_place(build: Build) -> None:
    server = '[{ address = "127.0.0.1:8001", max_connections = 1 }]\nmax_queued = 2'
    house = build(PLAIN.replace('["127.0.0.1:8001"]', server))
    first, second = house.connect(), house.connect()
    first.get()
    house.received()
    second.get()
    second.end.close()
    house.lane.run()
    house.answer(OK)
    assert answer(first.take()).status == 200
    assert house.received() == b""
    assert [line["reason"] for line in house.log.lines] == ["", "client_gone"]


# -- answers


@pytest.mark.parametrize("piece", [1, 9, 100_000])
@pytest.mark.parametrize("kept", [False, True])
def test_a_chunked_answer_is_encoded_anew(house: House, piece: int, kept: bool) -> None:
    if kept:
        warm(house)
    client = house.connect()
    client.get()
    house.received()
    house.answer(CHUNKED + b"5;x\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 1\r\n\r\n", piece=piece)
    data = client.take()
    reply = answer(data)
    assert (reply.body, reply.trailers) == (b"hello world", {b"x-sum": b"1"})
    assert b";x" not in data
    client.get()
    house.received()
    house.answer(OK)
    assert answer(client.take()).status == 200
    assert len(house.servers[8001]) == 1


@pytest.mark.parametrize("kept", [False, True])
def test_who_takes_trailers_gets_them_announced_and_the_server_hears_of_it(house: House, kept: bool) -> None:
    if kept:
        warm(house)
    client = house.connect()
    client.get("/", "TE: gzip, trailers", "Connection: te, keep-alive")
    told = request(house.received())
    assert (told.all("te"), told.all("connection")) == (["trailers"], ["TE"])
    house.answer(CHUNKED.replace(b"OK", b"OK\r\nTrailer: X-Sum") + b"0\r\nX-Sum: 1\r\n\r\n")
    reply = answer(client.take())
    assert (reply.field("trailer"), reply.trailers) == ("X-Sum", {b"x-sum": b"1"})
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTE: gzip\r\nTrailer: X-Sum\r\n\r\n")
    client.send(b"0\r\nX-Sum: 1\r\n\r\n")
    told = request(house.received())
    assert (told.all("te"), told.field("trailer"), told.trailers) == ([], "X-Sum", {b"x-sum": b"1"})


def test_a_client_of_http_1_0_takes_no_trailers(house: House) -> None:
    client = house.connect()
    client.send(b"GET / HTTP/1.0\r\nTE: trailers\r\nConnection: TE\r\n\r\n")
    told = request(house.received())
    assert (told.all("te"), told.all("connection")) == ([], [])


def test_an_answer_without_length_ends_with_its_connection(house: House) -> None:
    client = house.connect()
    client.get()
    house.received()
    house.answer(b"HTTP/1.1 200 OK\r\n\r\nhello")
    house.answer(b" world")
    house.server().close()
    reply = answer(client.take())
    assert (reply.body, reply.field("transfer-encoding")) == (b"hello world", "chunked")
    assert not client.closed


def test_a_large_answer_is_read_as_fast_as_the_client_takes_it(house: House) -> None:
    client = house.connect()
    client.get()
    house.received()
    total, sent, got = 2_000_000, 0, 0
    server = house.server()
    house.answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
    while True:
        server.writable = True
        taken = server.send_nowait(b"y" * 50_000)
        house.lane.run()
        sent += taken
        if not taken:
            break
    assert sent < 400_000
    body = b""
    while len(body) < total and got < 1000:
        got += 1
        body += client.take()
        if got == 1:
            body = body.partition(b"\r\n\r\n")[2]
        server.writable = True
        if sent < total:
            sent += server.send_nowait(b"y" * min(50_000, total - sent))
        house.lane.run()
    assert len(body) == total
    assert house.log.lines[0]["status"] == 200


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234", CHUNKED + b"5\r\n01234\r\n"])
def test_a_cut_answer_is_cut_for_the_client_too(house: House, head: bytes) -> None:
    client = house.connect()
    client.get()
    house.received()
    house.answer(head)
    house.server().close()
    reply = answer(client.take(), whole=False)
    assert not reply.whole
    assert client.closed
    assert house.log.lines[0]["reason"] == "answer_cut"
    assert house.rows(Kind.SERVER, "web/127.0.0.1:8001", Server.FAILURES) == 1


def test_a_cut_answer_without_a_frame_is_a_reset(house: House) -> None:
    client = house.connect()
    client.send(b"GET / HTTP/1.0\r\n\r\n")
    house.received()
    house.answer(CHUNKED + b"5\r\n01234\r\n")
    house.server().close()
    house.lane.run()
    assert client.end.peer.aborted


@pytest.mark.parametrize("garbage", [
    b"hello\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", b"\x00" * 10,
    b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", b"HTTP/1.1 101 Switching\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n" * 20,
])  # fmt: skip
@pytest.mark.parametrize("kept", [False, True])
def test_a_malformed_answer_is_a_502(house: House, garbage: bytes, kept: bool) -> None:
    if kept:
        warm(house)
    client = house.connect()
    client.get()
    house.received()
    house.answer(garbage)
    data = client.take()
    while data.startswith(b"HTTP/1.1 100"):
        data = data.partition(b"\r\n\r\n")[2]
    reply = answer(data)
    assert (reply.status, reply.code) == (502, "bad_answer")
    assert house.server().at_end
    assert house.rows(Kind.SERVER, "web/127.0.0.1:8001", Server.FAILURES) == 1
    assert not client.closed


def test_an_early_answer_is_delivered_and_ends_the_connection(house: House) -> None:
    client = house.connect()
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n01234")
    house.received()
    house.answer(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
    reply = answer(client.take())
    assert (reply.status, reply.body, reply.field("connection")) == (403, b"no", "close")
    house.lane.advance(3)
    assert client.end.at_end
    assert house.server().at_end


def test_an_answer_may_begin_before_the_request_has_ended(house: House) -> None:
    client = house.connect()
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
    house.received()
    house.answer(CHUNKED + b"1\r\nA\r\n")
    first = client.take()
    assert first.endswith(b"1\r\nA\r\n")
    client.send(b"1\r\nb\r\n0\r\n\r\n")
    assert house.received() == b"1\r\nb\r\n0\r\n\r\n"
    house.answer(b"1\r\nB\r\n0\r\n\r\n")
    assert answer(first + client.take()).body == b"AB"


def test_a_server_that_stops_reading_may_have_said_why(house: House) -> None:
    client = house.connect()
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n01234")
    house.received()
    house.answer(b"")
    server = house.server()
    server.send_nowait(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    server.close()
    client.send(b"56789")
    assert answer(client.take()).status == 413


def test_what_a_server_said_before_it_stopped_reading_is_delivered(house: House) -> None:
    client = house.connect()
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n01234")
    house.received()
    # The client's next bytes and the server's end come in the same round, the client's first.
    client.end.send_nowait(b"56789")
    house.server().send_nowait(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    house.server().close()
    reply = answer(client.take())
    assert (reply.status, reply.field("connection")) == (413, "close")


def test_a_server_that_stops_reading_without_a_word_is_a_502(house: House) -> None:
    client = house.connect()
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n01234")
    house.received()
    client.end.send_nowait(b"56789")
    house.server().close()
    assert answer(client.take()).code == "answer_cut"


def test_continue_is_asked_of_the_server_and_passed_on(house: House) -> None:
    client = house.connect()
    client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
    assert b"\r\nExpect: 100-continue\r\n" in house.received()
    assert client.take() == b""
    house.answer(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert client.take() == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"hello")
    assert house.received() == b"hello"
    house.answer(OK)
    reply = answer(client.take())
    assert (reply.status, reply.field("connection")) == (200, None)


def test_a_server_that_refuses_instead_of_continuing_gets_no_body(house: House) -> None:
    client = house.connect()
    client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
    house.received()
    house.answer(b"HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n")
    reply = answer(client.take())
    assert (reply.status, reply.field("connection")) == (417, "close")
    assert house.server().at_end


def test_a_client_that_waits_for_a_silent_server_hears_504_not_408(house: House) -> None:
    client = house.connect()
    client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
    house.received()
    house.lane.advance(14)
    assert client.take() == b""
    house.lane.advance(2)
    assert answer(client.take()).code == "answer_timeout"


def test_an_expectation_with_its_body_is_no_expectation(house: House) -> None:
    client = house.connect()
    client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello")
    assert b"Expect" not in house.received()


def test_early_hints_are_passed_on(house: House) -> None:
    client = house.connect()
    client.get()
    house.received()
    house.answer(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: x\r\n\r\n" + OK)
    reply = answer(client.take())
    assert (reply.interim, reply.status, reply.body) == ([103], 200, b"ok")


# -- HTTP/1.0


def test_old_clients_get_no_chunks(house: House) -> None:
    client = house.connect()
    client.send(b"GET / HTTP/1.0\r\n\r\n")
    got = request(house.received())
    assert (got.head.http_version, got.field("host")) == (b"1.1", "127.0.0.1:80")
    house.answer(CHUNKED + b"5\r\nhello\r\n0\r\n\r\n")
    head, _, body = client.take().partition(b"\r\n\r\n")
    assert body == b"hello"
    assert b"Transfer-Encoding" not in head
    assert client.closed


def test_old_clients_may_keep_their_connection(house: House) -> None:
    client = house.connect()
    for _ in range(2):
        client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        house.received()
        house.answer(OK)
        reply = answer(client.take())
        assert (reply.body, reply.field("connection")) == (b"ok", "keep-alive")
    assert not client.closed


# -- servers that fail


def test_a_stale_connection_is_tried_once_more_on_a_fresh_one(house: House) -> None:
    warm(house)
    client = house.connect()
    client.get("/again")
    house.received()
    house.server().close()
    assert request(house.received()).head.target == b"/again"  # type: ignore[union-attr]
    house.answer(OK)
    assert answer(client.take()).status == 200
    assert len(house.servers[8001]) == 2
    assert house.rows(Kind.SERVER, "web/127.0.0.1:8001", Server.FAILURES) == 0


TWO = PLAIN.replace('["127.0.0.1:8001"]', '["127.0.0.1:8001", "127.0.0.1:8002"]')


def broken(house: House) -> list[int]:
    """Break every connection on which a request came; the ports."""
    house.lane.run()
    found = []
    for port, ends in house.servers.items():
        for end in ends:
            if end.take():
                end.close()
                found.append(port)
    return found


def test_what_a_server_does_not_answer_another_gets_after_a_moment(build: Build) -> None:
    house = build(TWO)
    house.listen(8002)
    client = house.connect()
    client.get()
    [first] = broken(house)
    assert broken(house) == []
    house.lane.advance(0.3)
    second = 8003 - first % 8001 - 1
    assert request(house.received(port=second)).head.method == b"GET"  # type: ignore[union-attr]
    house.answer(OK, port=second)
    assert answer(client.take()).status == 200
    assert house.rows(Kind.SERVER, f"web/127.0.0.1:{first}", Server.FAILURES) == 1
    assert house.log.lines[-1]["server"] == f"web/127.0.0.1:{second}"


def test_two_tries_are_all_by_default(house: House) -> None:
    client = house.connect()
    client.get()
    assert broken(house) == [8001]
    house.lane.advance(0.3)
    assert broken(house) == [8001]
    assert answer(client.take()).code == "answer_cut"
    assert len(house.servers[8001]) == 2


@pytest.mark.parametrize(("key", "tries"), [("", 1), ("retries = { all_methods = true }", 2)])
def test_a_post_is_repeated_only_where_the_route_says_so(build: Build, key: str, tries: int) -> None:
    house = build(PLAIN.replace('pool = "web"', f'pool = "web"\n{key}'))
    client = house.connect()
    client.get(method="POST", body=b"hi")
    for _ in range(tries):
        assert broken(house) == [8001]
        house.lane.advance(0.3)
    assert answer(client.take()).code == "answer_cut"
    assert len(house.servers[8001]) == tries


def test_a_body_that_was_passed_on_is_gone(house: House) -> None:
    client = house.connect()
    client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab")
    house.received()
    client.send(b"cd")
    assert broken(house) == [8001]
    house.lane.advance(0.3)
    assert answer(client.take()).code == "answer_cut"


def test_an_answer_may_count_as_a_failure(build: Build) -> None:
    house = build(TWO.replace('pool = "web"', 'pool = "web"\nretries = { statuses = [503] }'))
    house.listen(8002)
    client = house.connect()
    client.get()
    house.lane.run()
    first = next(port for port, ends in house.servers.items() if ends)
    house.received(port=first)
    house.answer(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", port=first)
    house.lane.advance(0.3)
    second = 8003 - first % 8001 - 1
    house.received(port=second)
    house.answer(b"HTTP/1.1 503 No\r\nContent-Length: 5\r\n\r\nagain", port=second)
    reply = answer(client.take())
    assert (reply.status, reply.body) == (503, b"again")


def test_a_request_that_may_have_been_done_is_not_done_twice(house: House) -> None:
    warm(house)
    client = house.connect()
    client.get(method="POST", body=b"pay")
    house.received()
    house.server().abort()
    assert answer(client.take()).code == "answer_cut"
    assert len(house.servers[8001]) == 1


def test_a_reset_counts_like_a_close(house: House) -> None:
    warm(house)
    client = house.connect()
    client.get()
    house.received()
    house.server().abort()
    house.received()
    house.answer(OK)
    assert answer(client.take()).status == 200


TWO = PLAIN.replace('["127.0.0.1:8001"]', '["127.0.0.1:8001", "127.0.0.1:8002"]')


def test_the_next_server_takes_over_when_one_refuses(build: Build) -> None:
    house = build(TWO)
    for _ in range(4):
        client = house.connect()
        client.get()
        house.received()
        house.answer(OK)
        assert answer(client.take()).status == 200
    assert house.rows(Kind.SERVER, "web/127.0.0.1:8002", Server.FAILURES) >= 1


def test_when_all_refuse_it_is_a_502(build: Build) -> None:
    house = build()
    del house.lane.servers[("127.0.0.1", 8001)]
    client = house.connect()
    client.get()
    reply = answer(client.take())
    assert (reply.status, reply.code) == (502, "connect_failed")
    assert not client.closed
    house.listen()
    client.get()
    house.received()
    house.answer(OK)
    assert answer(client.take()).status == 200


def test_a_server_that_does_not_accept_is_a_504(build: Build) -> None:
    house = build()
    house.silence()
    client = house.connect()
    client.get()
    house.lane.advance(4.5)
    assert client.take() == b""
    house.lane.advance(1)
    assert answer(client.take()).code == "connect_timeout"


def test_the_time_for_an_answer_holds_over_connecting_too(build: Build) -> None:
    house = build(TWO.replace('pool = "web"', 'pool = "web"\ntimeout = "7s"'))
    house.silence(8002)
    for _ in range(2):
        client = house.connect()
        client.get()
        house.lane.advance(6.9)
        assert client.take() == b""
        house.lane.advance(0.5)
        assert answer(client.take()).code == "answer_timeout"


def test_a_pool_without_servers_up_is_a_503(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    house = build(PLAIN.replace("8001\"]", '8001"]\non_all_down = "refuse"\noutlier = { consecutive_failures = 1, '
                                           'max_ejected = "100%" }'))  # fmt: skip
    monkeypatch.setattr("supervisor.ground.pools._monotonic_ns", lambda: house.lane.now_ns)
    del house.lane.servers[("127.0.0.1", 8001)]
    client = house.connect()
    client.get()
    assert answer(client.take()).code == "connect_failed"
    client.get()
    reply = answer(client.take())
    assert (reply.status, reply.code) == (503, "no_server")


@pytest.mark.parametrize("kept", [False, True])
def test_a_silent_server_is_a_504(house: House, kept: bool) -> None:
    if kept:
        warm(house)
    client = house.connect()
    client.get()
    house.received()
    house.lane.advance(14.5)
    assert client.take() == b""
    house.lane.advance(1)
    reply = answer(client.take())
    assert (reply.status, reply.code) == (504, "answer_timeout")
    assert house.server().at_end
    assert house.rows(Kind.SERVER, "web/127.0.0.1:8001", Server.FAILURES) == 1


@pytest.mark.parametrize("kept", [False, True])
def test_a_routes_timeout_may_be_short(build: Build, kept: bool) -> None:
    house = build(PLAIN.replace('pool = "web"', 'pool = "web"\ntimeout = "300ms"'))
    if kept:
        warm(house)
    client = house.connect()
    client.get()
    house.received()
    house.lane.advance(0.5)
    assert answer(client.take()).code == "answer_timeout"


def test_an_answer_that_stops_is_cut(build: Build) -> None:
    house = build(PLAIN.replace('pool = "web"', 'pool = "web"\nidle_timeout = "20s"'))
    client = house.connect()
    client.get()
    house.received()
    house.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234")
    house.lane.advance(18)
    house.answer(b"56")
    house.lane.advance(19)
    assert not client.closed
    house.lane.advance(2)
    client.take()
    assert client.closed
    assert house.log.lines[0]["reason"] == "answer_cut"


# -- clients that are slow


def test_a_body_below_its_rate_is_a_408(house: House) -> None:
    client = house.connect()
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
    house.received()
    for _ in range(9):
        house.lane.advance(1)
        client.send(b"x" * 100)
    assert client.take() == b""
    house.lane.advance(3)
    reply = answer(client.take())
    assert (reply.status, reply.code) == (408, "body_timeout")
    assert house.rows(Kind.SERVER, "web/127.0.0.1:8001", Server.FAILURES) == 0


def test_a_body_at_its_rate_may_take_long(house: House) -> None:
    client = house.connect()
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 66000\r\n\r\n")
    house.received()
    for _ in range(60):
        house.lane.advance(1)
        client.send(b"x" * 1100)
    house.received()
    house.answer(OK)
    assert answer(client.take()).status == 200


def test_a_short_timeout_of_the_route_is_the_servers_not_the_clients(build: Build) -> None:
    house = build(PLAIN.replace('pool = "web"', 'pool = "web"\ntimeout = "1s"'))
    client = house.connect()
    client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
    house.received()
    house.answer(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert client.take().startswith(b"HTTP/1.1 100")
    house.lane.advance(5)
    client.send(b"hello")
    house.received()
    house.answer(OK)
    assert answer(client.take()).status == 200


def test_a_client_that_only_sends_is_given_up_too(house: House) -> None:
    client = house.connect(capacity=1000)
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
    house.received()
    house.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n" + b"y" * 50000)
    for _ in range(7):
        house.lane.advance(9)
        try:
            client.send(b"x" * 20_000)
        except (OSError, AssertionError):
            break
        house.received()
    house.lane.advance(3)
    assert house.log.lines[0]["reason"] in ("client_gone", "client_timeout")


def test_a_client_that_takes_nothing_is_given_up(house: House) -> None:
    client = house.connect(capacity=1000)
    client.get()
    house.received()
    house.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n" + b"y" * 50000)
    house.lane.advance(62)
    assert house.log.lines[0]["reason"] in ("client_gone", "client_timeout")
    assert house.gateway.holding() == []


# -- WebSocket

UPGRADE = b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %b\r\n\r\n" % (
    accept_of(b"x")
)


def test_a_websocket_is_joined_after_101(house: House) -> None:
    client = house.connect()
    client.send(UPGRADE + b"early")
    data = house.received()
    assert b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" in data
    assert not data.endswith(b"early")
    house.answer(SWITCH + b"hello")
    data = client.take()
    head, _, rest = data.partition(b"\r\n\r\n")
    assert b"\r\nUpgrade: websocket" in head
    assert b"\r\nConnection: Upgrade" in head
    assert rest == b"hello"
    assert house.received() == b"early"
    client.send(b"\x81\x00")
    assert house.received() == b"\x81\x00"
    house.answer(b"\x81\x01a")
    assert client.take() == b"\x81\x01a"
    client.end.shutdown_write()
    house.lane.run()
    assert house.server().at_end
    house.answer(b"bye")
    house.server().close()
    assert client.take() == b"bye"
    assert client.closed
    assert house.log.lines[0]["status"] == 101


@pytest.mark.parametrize("accept", [b"", b"Sec-WebSocket-Accept: y\r\n", b"Sec-WebSocket-Accept: x\r\n"])
def test_a_101_that_does_not_answer_the_key_is_refused(house: House, accept: bytes) -> None:
    client = house.connect()
    client.send(UPGRADE)
    house.received()
    house.answer(b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + accept + b"\r\nhello")
    assert answer(client.take()).code == "bad_answer"


def test_a_websocket_that_the_server_declines_is_an_ordinary_request(house: House) -> None:
    client = house.connect()
    client.send(UPGRADE)
    house.received()
    house.answer(b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n")
    assert answer(client.take()).status == 426
    assert not client.closed


def test_a_silent_websocket_lives_an_hour(house: House) -> None:
    client = house.connect()
    client.send(UPGRADE)
    house.received()
    house.answer(SWITCH)
    client.take()
    house.lane.advance(3590)
    assert not client.closed
    house.lane.advance(12)
    assert client.closed


# -- everything at once

pieces = st.lists(st.binary(max_size=300), max_size=5)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(pieces, pieces, st.booleans(), st.booleans(), st.integers(1, 40), st.integers(1, 400))
def test_property_bodies_arrive_as_they_were_sent(
    build: Build, up: list[bytes], down: list[bytes], chunked_up: bool, chunked_down: bool, first: int, piece: int
) -> None:
    house = build()
    client = house.connect()
    body, reply_body = b"".join(up), b"".join(down)
    if chunked_up:
        head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        client.send(head + b"".join(map(encode, up)) + encode_end([]), first * 7)
    else:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body, first * 7)
    assert request(house.received()).body == body
    if chunked_down:
        house.answer(CHUNKED + b"".join(map(encode, down)) + encode_end([]), piece=piece)
    else:
        house.answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(reply_body) + reply_body, piece=piece)
    reply = answer(client.take())
    assert (reply.body, reply.rest) == (reply_body, b"")
    client.get()
    house.received()
    house.answer(OK)
    assert answer(client.take()).status == 200
    assert len(house.servers[8001]) == 1
