"""How many connections a listener lets in: over all, of one client, and a second of one client."""

from __future__ import annotations

import pytest

from supervisor.ground.net.memory import MemoryConn
from supervisor.ground.net.proxy import encode_v1
from supervisor.plane.layout import Kind, Listener
from tests.edge.house import House


def let_in(client: MemoryConn) -> bool:
    """Whether the edge did not refuse it; a refusal shows as an end or a reset."""
    try:
        return client.recv_nowait() is None
    except ConnectionResetError:
        return False


def test_a_listener_takes_so_many_over_all_workers() -> None:
    house = House('pool = "a"\nmax_connections = 3')
    other = house.plane.claim_column("edge", 2)
    theirs = house.plane.counters(Kind.LISTENER, house.plane.row(Kind.LISTENER, "edge/l"), other) + Listener.ACTIVE
    house.plane.cells[theirs] = 1
    assert [let_in(house.connect()) for _ in range(3)] == [True, True, False]
    house.plane.cells[theirs] = 0
    assert let_in(house.connect())
    assert house.count(Listener.LIMITED) == 1
    house.close()


def test_a_client_has_so_many_and_its_port_does_not_matter() -> None:
    house = House('pool = "a"\nmax_connections_per_client = 2')
    clients = [house.connect("192.0.2.1", port) for port in (1, 2, 3)]
    assert [let_in(client) for client in clients] == [True, True, False]
    assert let_in(house.connect("192.0.2.2"))
    clients[0].close()
    house.servers[8001][0].close()
    house.lane.run()
    assert let_in(house.connect("192.0.2.1", 4))
    assert not let_in(house.connect("192.0.2.1", 5))
    assert house.count(Listener.LIMITED) == 2
    house.close()


def test_a_client_may_come_so_often() -> None:
    house = House('pool = "a"\nconnection_rate_per_client = "2/s"')

    def comes() -> bool:
        client = house.connect()
        try:
            return let_in(client)
        finally:
            client.abort()
            house.lane.run()

    assert [comes() for _ in range(3)] == [True, True, False]
    house.lane.advance(0.6)
    assert [comes() for _ in range(2)] == [True, False]
    house.close()


def test_an_ipv6_network_is_one_client() -> None:
    house = House('pool = "a"\nmax_connections_per_client = 1')
    assert let_in(house.connect("2001:db8::1"))
    assert not let_in(house.connect("2001:db8::2"))
    assert let_in(house.connect("2001:db8:0:1::1"))
    house.close()


def test_behind_a_proxy_the_client_that_it_names_counts() -> None:
    house = House('pool = "a"\nmax_connections_per_client = 1\naccept_proxy_protocol = ["192.0.2.0/24"]')
    outcomes = []
    for host in ("203.0.113.1", "203.0.113.2", "203.0.113.1"):
        client = house.connect("192.0.2.1")
        house.send(client, encode_v1((host, 1), ("203.0.113.9", 2)))
        outcomes.append(let_in(client))
    assert outcomes == [True, True, False]
    house.close()


def test_a_refused_connection_reaches_no_server() -> None:
    house = House('pool = "a"\nmax_connections_per_client = 1')
    house.connect()
    refused = house.connect()
    with pytest.raises(ConnectionResetError):
        refused.recv_nowait()
    assert house.connections() == {8001: 1}
    house.close()


def test_a_reload_keeps_counting() -> None:
    house = House('pool = "a"\nmax_connections_per_client = 2')
    first = house.connect()
    house.reload('pool = "a"\nmax_connections_per_client = 1')
    assert not let_in(house.connect())
    first.abort()
    house.lane.run()
    assert let_in(house.connect())
    house.reload('pool = "a"')
    assert let_in(house.connect())
    house.close()
