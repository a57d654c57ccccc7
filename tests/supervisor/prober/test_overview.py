from __future__ import annotations

from typing import Any

from supervisor.ground import health
from supervisor.ground.config import HealthTable
from supervisor.plane.layout import Active, Kind, PoolState, ServerState
from supervisor.plane.memory import Plane
from supervisor.prober.overview import Overview
from tests.supervisor.prober.test_rounds import Working, make, pool

CHECK = HealthTable(type="tcp")


def start(plane: Plane, **more: Any) -> tuple[Overview, Working]:
    worker = make(plane, user=pool(1, 2, **more))
    return Overview(worker.config, plane, worker.log), worker


def state(plane: Plane, number: int) -> int:
    return plane.state(Kind.SERVER, plane.row(Kind.SERVER, f"user/127.0.0.1:{8100 + number}"))


def set_active(plane: Plane, number: int, value: int) -> None:
    row = plane.row(Kind.SERVER, f"user/127.0.0.1:{8100 + number}")
    health.set_active(plane, plane.row(Kind.POOL, "user"), row, value, 5)


def failing(plane: Plane) -> int:
    return plane.cells[plane.state(Kind.POOL, plane.row(Kind.POOL, "user")) + PoolState.FAILING_OPEN]


def test_a_pool_without_a_server_up_is_told_once_and_its_return_too(plane: Plane) -> None:
    overview, worker = start(plane)
    overview.look(100)
    for number in (1, 2):
        set_active(plane, number, Active.DOWN)
    for now in (101, 102):
        overview.look(now)
    assert failing(plane) == 1
    set_active(plane, 2, Active.UP)
    for now in (103, 104):
        overview.look(now)
    assert failing(plane) == 0
    assert worker.log.lines == [("pool has no server up", "user"), ("pool has a server up again", "user")]
    assert worker.log.details[0]["on_all_down"] == "try_all"


def test_each_ejection_is_told_once_with_its_end(plane: Plane) -> None:
    overview, worker = start(plane, health=None)
    at = state(plane, 1)
    plane.cells[at + ServerState.EJECTED_SINCE] = 7
    plane.cells[at + ServerState.EJECTIONS] = 2
    plane.cells[at + ServerState.EJECTED_UNTIL] = 30_000_000_100
    for now in (100, 200):
        overview.look(now)
    assert worker.log.details == [{"server": "user/127.0.0.1:8101", "seconds": 30.0, "ejections": 2}]
    for now in (30_000_000_100, 30_000_000_200):
        overview.look(now)
    assert [event for event, _ in worker.log.lines] == ["server ejected", "server back from ejection"]


def test_an_ejection_from_before_a_reload_is_not_told_again(plane: Plane) -> None:
    start(plane)
    at = state(plane, 1)
    plane.cells[at + ServerState.EJECTED_SINCE] = 7
    plane.cells[at + ServerState.EJECTED_UNTIL] = 500
    overview, worker = start(plane)
    overview.look(100)
    assert worker.log.lines == []
    plane.cells[at + ServerState.EJECTED_SINCE] = 8
    overview.look(101)
    assert worker.log.lines == [("server ejected", "user/127.0.0.1:8101")]
