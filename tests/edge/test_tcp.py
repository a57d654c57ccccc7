"""A connection's way: to a server that takes it, past those that do not, and to its end on both sides."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from supervisor.plane.layout import Kind, Listener, Server
from tests.edge.house import House

THREE = """
[pools.a]
servers = ["127.0.0.1:8001", "127.0.0.1:8002", "127.0.0.1:8003"]
outlier = { consecutive_failures = 100 }
"""


@pytest.fixture
def house() -> Iterator[House]:
    house = House('pool = "a"\nconnect_timeout = "2s"', THREE)
    yield house
    house.close()


def test_the_next_server_takes_what_one_refuses(house: House) -> None:
    house.refuse(8001)
    house.refuse(8002)
    clients = [house.connect() for _ in range(3)]
    for client in clients:
        house.send(client, b"hello")
    assert house.connections() == {8003: 3}
    assert house.received(8003) == b"hello"
    assert house.count(Listener.CONNECT_FAILURES) >= 3
    assert house.count(Listener.REFUSED) == 0


def test_a_server_that_does_not_answer_costs_connect_timeout(house: House) -> None:
    house.silence(8001)
    for _ in range(3):
        house.connect()
    assert len(house.connections()) == 2
    house.lane.advance(2.2)
    assert sum(house.connections().values()) == 3
    assert house.count(Listener.CONNECT_FAILURES) == 1


def test_no_more_servers_are_tried_than_it_says() -> None:
    house = House('pool = "a"\nretries = 1', THREE)
    for port in (8001, 8002, 8003):
        house.refuse(port)
    client = house.connect()
    with pytest.raises(ConnectionResetError):
        client.recv_nowait()
    assert (house.count(Listener.CONNECT_FAILURES), house.count(Listener.REFUSED)) == (2, 1)
    house.close()


def test_a_clients_reset_reaches_its_server(house: House) -> None:
    client = house.connect()
    house.send(client, b"half a ques")
    client.abort()
    house.lane.run()
    (port,) = house.connections()
    end = house.servers[port][0]
    assert end.recv_nowait() == b"half a ques"
    with pytest.raises(ConnectionResetError):
        end.recv_nowait()
    assert house.count(Listener.RESETS) == 1


def test_what_goes_through_is_counted_while_it_goes(house: House) -> None:
    client = house.connect()
    house.send(client, b"question")
    (port,) = house.connections()
    house.answer(b"the answer", port)
    row = house.plane.row(Kind.SERVER, f"a/127.0.0.1:{port}")
    counted = [house.plane.total(Kind.SERVER, row, field) for field in (Server.BYTES_OUT, Server.BYTES_IN)]
    assert counted == [8, 10]
    assert (house.count(Listener.BYTES_IN), house.count(Listener.BYTES_OUT)) == (8, 10)
    assert house.plane.total(Kind.SERVER, row, Server.IN_FLIGHT) == 1
    (held,) = house.edge.holding()
    assert held == f"tcp l 192.0.2.1:1234 on a/127.0.0.1:{port} for 0s, 8 bytes in, 10 out"
    assert client.take() == b"the answer"


def test_one_that_has_no_server_yet_holds_a_drain_up(house: House) -> None:
    for port in (8001, 8002, 8003):
        house.silence(port)
    house.connect()
    assert house.edge.holding() == ["tcp l connecting"]


def test_a_drain_closes_the_silent_and_leaves_those_at_work(house: House) -> None:
    busy, silent = house.connect(), house.connect()
    house.edge.drain()
    for _ in range(59):
        house.lane.advance(1)
        house.send(busy, b"x")
    assert silent.at_end
    assert not busy.at_end
    assert house.log.lines[-1]["reason"] == "drained"


def test_a_listener_that_a_reload_removes_drains_its_connections(house: House) -> None:
    busy, silent = house.connect(), house.connect()
    house.remove_listener()
    assert len(house.edge.holding()) == 2
    for _ in range(58):
        house.lane.advance(1)
        house.send(busy, b"x")
    assert silent.at_end
    assert len(house.edge.holding()) == 1
    house.lane.advance(3)
    assert busy.at_end
    assert house.edge.holding() == []
