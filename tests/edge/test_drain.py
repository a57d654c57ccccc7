from hypothesis import given
from hypothesis import strategies as st

from edge.drain import due
from tests.edge.house import House


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
