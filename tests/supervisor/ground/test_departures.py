"""Servers taken out by hand: since when, for how long, and what gives them work again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.ground import health, pools
from supervisor.ground.config import Duration, SupervisorTable
from supervisor.ground.departures import Departure, Departures
from supervisor.ground.pools import Pools
from supervisor.plane.layout import Admin, Kind, ServerState
from supervisor.plane.memory import Plane
from tests.supervisor.ground.test_pools import Configured, table

TIMEOUT = 10.0


@attrs.define
class Clock:
    now: float = 1000.0
    wall: float = 1_700_000_000.0

    def pass_by(self, seconds: float) -> None:
        self.now += seconds
        self.wall += seconds


@attrs.define(eq=False)
class Log:
    lines: list[dict[str, Any]] = attrs.field(factory=list)

    def warning(self, event: str, **words: Any) -> None:
        self.lines.append({"event": event, **words})


class House:
    """A worker, as much of it as is asked, with servers 0 and 1."""

    def __init__(self) -> None:
        self.plane, self.lane, self.log = Plane.create(), Clock(), Log()
        settings = SupervisorTable(drain_timeout=Duration(TIMEOUT))
        self.config: Any = Configured({"user": table(0, 1)}, settings)
        for kind, name in pools.rows(self.config):
            self.plane.allocate(kind, name)
        self.pools = Pools(self.config, self.plane, 2)
        self.departures = self.follow()

    def follow(self) -> Departures:
        worker: Any = self
        return Departures(worker)

    def set(self, value: int) -> None:
        """Server 0, by hand, now."""
        row = self.plane.row(Kind.SERVER, "user/127.0.0.1:8100")
        health.set_admin(self.plane, self.plane.row(Kind.POOL, "user"), row, value, 0)
        since = self.plane.state(Kind.SERVER, row) + ServerState.ADMIN_SINCE
        self.plane.cells[since] = int(self.lane.wall * 1e9)

    def look(self) -> Departure | None:
        found = list(self.departures.look())
        assert len(found) <= 1
        return found[0] if found else None


@pytest.fixture
def house() -> Iterator[House]:
    made = House()
    yield made
    made.plane.close()


@pytest.mark.parametrize("how", [Admin.DRAINING, Admin.MAINTENANCE])
def test_a_server_taken_out_departs_until_its_time_is_over(house: House, how: int) -> None:
    assert house.look() is None
    house.set(how)
    one = house.look()
    assert one is not None
    assert (one.server.name, one.passed, one.over, one.carries) == ("user/127.0.0.1:8100", 0, False, False)
    house.lane.pass_by(TIMEOUT - 0.1)
    again = house.look()
    assert again is one
    assert not one.over
    assert one.server.usable() is (how == Admin.DRAINING)
    house.lane.pass_by(0.2)
    house.look()
    assert one.over
    assert not one.server.usable()


def test_a_server_that_is_given_work_again_departs_no_longer(house: House) -> None:
    house.set(Admin.DRAINING)
    house.lane.pass_by(TIMEOUT)
    one = house.look()
    assert one is not None
    house.lane.pass_by(TIMEOUT)
    house.look()
    assert one.over
    house.set(Admin.NORMAL)
    assert house.look() is None
    assert one.server.usable()
    house.set(Admin.DRAINING)
    later = house.look()
    assert later is not None
    assert not later.over
    assert later.server.usable()


def test_a_worker_that_starts_later_goes_on_where_others_are(house: House) -> None:
    house.set(Admin.DRAINING)
    house.look()
    house.lane.pass_by(4)
    [one] = house.follow().look()
    assert one.passed == pytest.approx(4)


def test_a_clock_that_was_set_back_does_not_make_it_longer(house: House) -> None:
    house.set(Admin.DRAINING)
    house.lane.wall -= 3600
    one = house.look()
    assert one is not None
    assert one.passed == 0


def test_maintenance_after_a_drain_does_not_begin_anew(house: House) -> None:
    house.set(Admin.DRAINING)
    house.look()
    house.lane.pass_by(6)
    house.set(Admin.MAINTENANCE)
    one = house.look()
    assert one is not None
    assert one.passed == 6


def test_one_that_a_reload_takes_away_departs_until_nothing_is_left(house: House) -> None:
    house.set(Admin.DRAINING)
    one = house.look()
    assert one is not None
    one.server.started()
    house.pools.commit(house.pools.prepare(attrs.evolve(house.config, pools={"user": table(1)})))
    house.lane.pass_by(TIMEOUT)
    assert house.look() is one
    assert one.over
    one.server.ended()
    assert house.look() is None


def test_the_log_says_once_what_is_left_when_the_time_is_over(house: House) -> None:
    house.set(Admin.DRAINING)
    one = house.look()
    assert one is not None
    one.server.started()
    house.lane.pass_by(TIMEOUT)
    house.look()
    house.look()
    assert house.log.lines == [{"event": "drain timeout", "server": "user/127.0.0.1:8100", "left": 1}]


@given(st.integers(0, 5000), st.floats(0.1, 600))
def test_property_what_is_due_adds_up_to_all_in_time(count: int, within: float) -> None:
    server: Any = None
    one = Departure(server, 0.0)
    left, ahead = count, within
    while ahead > 0:
        due = one.due(left, ahead, 0.1)
        assert 0 <= due <= left
        left -= due
        ahead -= 0.1
    assert left == 0
