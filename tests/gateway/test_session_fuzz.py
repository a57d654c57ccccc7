"""Whatever clients and servers send, in whatever pieces: no crash, nothing in flight left, no request smuggled."""

from __future__ import annotations

import json
from typing import Any

import h11
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.chunks import encode, encode_end
from supervisor.plane.layout import Kind, Listener, Route, Server
from tests.gateway.house import PLAIN, House
from tests.gateway.test_guard import heads

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

requests = st.one_of(
    heads(),
    st.binary(max_size=60),
    st.sampled_from([
        b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
        b"HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        b"POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + encode(b"hi") + encode_end([]),
        b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"GET /a HTTP/1.0\r\n\r\n",
    ]),
)  # fmt: skip
answers = st.one_of(
    st.binary(max_size=60),
    st.sampled_from([
        OK, OK, OK, OK + OK, b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + encode(b"hello") + encode_end([]),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + encode(b"hello") + b"zz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nhello", b"HTTP/1.0 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    ]),
)  # fmt: skip
steps = st.lists(
    st.one_of(
        st.tuples(st.just("client"), requests, st.integers(1, 80)),
        st.tuples(st.just("server"), answers, st.integers(1, 80)),
        st.tuples(st.sampled_from(["client ends", "client resets", "server ends", "server resets", "time"])),
        st.tuples(st.just("connect")),
    ),
    max_size=14,
)


def play(house: House, script: list[Any]) -> None:
    clients = [house.connect()]
    for what, *how in script:
        client = clients[-1]
        ends = house.servers[8001]
        try:
            if what == "connect":
                clients.append(house.connect())
            elif what == "client":
                client.send(*how)
            elif what == "server" and ends:
                house.answer(*how[:1], piece=how[1])
            elif what == "client ends":
                client.end.close()
            elif what == "client resets":
                client.end.abort()
            elif what == "server ends" and ends:
                ends[-1].close()
            elif what == "server resets" and ends:
                ends[-1].abort()
            elif what == "time":
                house.lane.advance(6)
        except (OSError, AssertionError):
            continue  # that end is gone, or its peer reads no more
        house.lane.run()


@settings(deadline=None, max_examples=80)
@given(steps)
def test_property_nothing_that_happens_outside_breaks_anything_inside(script: list[Any]) -> None:
    house = House(PLAIN)
    house.listen()
    play(house, script)
    for line in house.log.lines:
        json.dumps(line)
    house.gateway.close()
    house.lane.finish()
    assert house.rows(Kind.LISTENER, "gateway/web", Listener.ACTIVE) == 0
    assert house.rows(Kind.ROUTE, "web", Route.IN_FLIGHT) == 0
    assert house.rows(Kind.SERVER, "web/127.0.0.1:8001", Server.IN_FLIGHT) == 0
    assert not house.gateway._shared.upstreams._owner
    house.plane.close()


@settings(deadline=None, max_examples=80)
@given(st.lists(requests, max_size=4).map(b"".join), st.integers(1, 200))
def test_property_servers_see_only_requests_that_h11_reads_too(data: bytes, piece: int) -> None:
    house = House(PLAIN)
    house.listen()
    client = house.connect()
    try:
        client.send(data, piece)
    except (OSError, AssertionError):
        pass
    house.lane.run()
    for end in house.servers[8001]:
        received = end.take()
        while received:
            parser = h11.Connection(h11.SERVER)
            parser.receive_data(received)
            head = parser.next_event()
            assert isinstance(head, h11.Request), received
            event = parser.next_event()
            while isinstance(event, h11.Data):
                event = parser.next_event()
            if not isinstance(event, h11.EndOfMessage):
                break  # its body is still to come
            received = bytes(parser.trailing_data[0])
    house.gateway.close()
    house.lane.finish()
    house.plane.close()
