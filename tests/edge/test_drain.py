import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.drain import due
from supervisor.ground import health
from supervisor.plane.layout import Admin, Kind
from tests.edge.house import House

POOL = '[pools.a]\nservers = ["127.0.0.1:8001", "127.0.0.1:8002"]\n[supervisor]\ndrain_timeout = "10s"\n'


def test_nothing_is_closed_in_the_first_half() -> None:
    assert due(1000, 0.0, 60.0, 0.1) == 0
    assert due(1000, 29.9, 60.0, 0.1) == 0


def test_the_second_half_closes_evenly() -> None:
    left, closed = 300, []
    for step in range(600):
        now = due(left, step * 0.1, 60.0, 0.1)
        left -= now
        closed.append(now)
    assert left == 0
    assert max(closed) <= 2


@given(st.integers(0, 100_000), st.floats(0.2, 600))
def test_property_a_drain_closes_all_the_silent_by_its_end(silent: int, timeout: float) -> None:
    left, passed = silent, 0.0
    while passed <= timeout:
        now = due(left, passed, timeout, 0.1)
        assert 0 <= now <= left
        left -= now
        passed += 0.1
    assert left == 0


def test_a_drain_waits_for_who_has_no_server_yet() -> None:
    house = House()
    house.silence(8001)
    client = house.connect()
    house.edge.drain()
    assert house.edge.holding() == ["tcp l connecting"]
    client.close()
    house.close()


def set_admin(house: House, value: int, server: str = "a/127.0.0.1:8001") -> None:
    """As the operator does."""
    plane = house.plane
    health.set_admin(plane, plane.row(Kind.POOL, "a"), plane.row(Kind.SERVER, server), value, 0)


@pytest.mark.parametrize("how", [Admin.DRAINING, Admin.MAINTENANCE])
def test_a_server_taken_out_ends_the_silent_in_the_second_half_and_the_rest_with_its_time(how: int) -> None:
    house = House(pools_text=POOL)
    clients = [house.connect() for _ in range(6)]
    assert house.connections() == {8001: 3, 8002: 3}
    busy = clients[0]
    house.send(busy, b"x")
    home = next(port for port in (8001, 8002) if any(end.take() for end in house.servers[port]))
    set_admin(house, how, f"a/127.0.0.1:{home}")
    for second in range(9):
        house.lane.advance(1)
        house.send(busy, b"y")
        if second == 3:
            assert len(house.edge._live()) == 6
    assert len(house.edge._live()) == 4
    assert not busy.at_end
    house.lane.advance(2)
    assert busy.at_end
    assert len(house.edge._live()) == 3
    assert house.log.lines[-1]["reason"] == "drained"
    more = [house.connect() for _ in range(2)]
    assert house.connections()[home] == 3
    for client in (*clients, *more):
        client.close()
    house.lane.run()
    house.close()


def test_a_server_that_is_given_work_again_keeps_what_it_has() -> None:
    house = House(pools_text=POOL)
    clients = [house.connect() for _ in range(2)]
    set_admin(house, Admin.DRAINING)
    house.lane.advance(4)
    set_admin(house, Admin.NORMAL)
    house.lane.advance(20)
    assert len(house.edge._live()) == 2
    for client in clients:
        client.close()
    house.lane.run()
    house.close()
