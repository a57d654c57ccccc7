"""The rounds on a clock that jumps, with checks that the test answers."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from supervisor.ground import health
from supervisor.ground import pools as pools_module
from supervisor.ground.config import Bind, Duration, HealthTable, OutlierTable, PoolTable, ServerTable, SupervisorTable
from supervisor.ground.health import Health
from supervisor.ground.pools import Pools
from supervisor.plane.layout import Active, Kind, Role, ServerState
from supervisor.plane.memory import Plane
from supervisor.prober.postgres import Noted
from supervisor.prober.rounds import Prober, forget_unchecked, run_prober, targets
from supervisor.prober.standing import Standing

COLUMN = 5


@attrs.define
class Log:
    """What would be logged: (event, server or pool)."""

    lines: list[tuple[str, str]] = attrs.field(factory=list)
    details: list[dict[str, Any]] = attrs.field(factory=list)

    def _note(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields.get("server", fields.get("pool", ""))))
        self.details.append(fields)

    warning = info = error = _note


@attrs.define
class Configured:
    pools: dict[str, PoolTable]
    supervisor: SupervisorTable = attrs.Factory(SupervisorTable)


@attrs.define
class Working:
    """Of a Worker what the prober uses."""

    config: Any
    plane: Plane
    column: int = COLUMN
    log: Log = attrs.field(factory=Log)


def server(number: int) -> ServerTable:
    return ServerTable(address=Bind("127.0.0.1", 8100 + number))


def pool(*numbers: int, **more: Any) -> PoolTable:
    more.setdefault("health", HealthTable(type="tcp"))
    return PoolTable(servers=tuple(map(server, numbers)), outlier=OutlierTable(), **more)


def make(plane: Plane, **tables: PoolTable) -> Any:
    config: Any = Configured(tables)
    for kind, name in pools_module.rows(config):
        plane.allocate(kind, name)
    return Working(config, plane)


def cell(plane: Plane, number: int, field: int) -> int:
    return plane.cells[plane.state(Kind.SERVER, plane.row(Kind.SERVER, f"user/127.0.0.1:{8100 + number}")) + field]


@attrs.define
class Checks:
    """Answers checks by port; notes when they came."""

    down: set[int] = attrs.field(factory=set)
    made: list[tuple[float, int]] = attrs.field(factory=list)

    async def __call__(self, address: Bind, check: HealthTable, noted: Noted) -> str | None:
        self.made.append((trio.current_time(), address.port - 8100))
        await trio.sleep(0.01)
        return "connection refused" if address.port - 8100 in self.down else None


def run_for(prober: Prober, *steps: tuple[float, Any]) -> None:
    """Let it run on a jumping clock; after each number of seconds call what stands beside it."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(prober.run)
            for seconds, then in steps:
                await trio.sleep(seconds)
                then()
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_a_server_that_fails_three_checks_is_down_and_after_two_passes_up(plane: Plane) -> None:
    checks = Checks(down={1})
    worker = make(plane, user=pool(1, 2))
    picking = Pools(worker.config, plane, 2)["user"]
    seen: list[set[int]] = []

    def look() -> None:
        seen.append({one.sockaddr[1] - 8100 for _ in range(4) if (one := picking.pick()) is not None})

    run_for(Prober(worker, checks), (5, look), (2.9, look), (0, checks.down.clear), (8, look))
    assert seen == [{1, 2}, {2}, {1, 2}]
    assert worker.log.lines == [("server down", "user/127.0.0.1:8101"), ("server up", "user/127.0.0.1:8101")]
    assert worker.log.details[0]["cause"] == "connection refused"
    assert cell(plane, 1, ServerState.CHECKS) >= 5
    assert cell(plane, 1, ServerState.CHECK_FAILURES) == 3
    assert cell(plane, 1, ServerState.CHECK_US) == pytest.approx(10_000, rel=0.01)


def test_checks_come_at_their_interval_and_not_in_step(plane: Plane) -> None:
    checks = Checks()
    run_for(Prober(make(plane, user=pool(1, 2)), checks), (60, lambda: None))
    times = [when for when, number in checks.made if number == 1]
    gaps = [round(after - before, 2) for before, after in pairwise(times)]
    assert all(2.7 <= gap <= 3.32 for gap in gaps)
    assert len(set(gaps)) > 3
    assert times[0] < 1


def test_checks_hasten_while_a_server_changes(plane: Plane) -> None:
    checks = Checks(down={1})
    table = HealthTable(type="tcp", interval=Duration(10), fast_interval=Duration(1))
    run_for(Prober(make(plane, user=pool(1, health=table)), checks), (4, lambda: None))
    assert cell(plane, 1, ServerState.ACTIVE) == Active.DOWN


def test_a_promotion_is_known_within_an_interval(plane: Plane) -> None:
    interval = 1.0
    promoted, known = 0.0, 0.0

    async def check(address: Bind, check: HealthTable, noted: Noted) -> str | None:
        nonlocal known
        asked = time.monotonic_ns()
        role = Role.PRIMARY if promoted else Role.REPLICA
        noted(asked, Standing(role, 0, 0, 2))
        if promoted and not known:
            known = trio.current_time()
        return None

    def promote() -> None:
        nonlocal promoted
        promoted = trio.current_time()

    working = make(plane, user=pool(1, health=HealthTable(type="postgres", interval=Duration(interval))))
    run_for(Prober(working, check), (7.3, promote), (5, lambda: None))
    assert cell(plane, 1, ServerState.ROLE) == Role.PRIMARY
    assert 0 <= known - promoted <= 1.1 * interval
    assert working.log.lines == [("role changed", "user/127.0.0.1:8101")]


def test_a_check_may_ask_another_port(plane: Plane) -> None:
    worker = make(plane, user=pool(1, health=HealthTable(type="tcp", port=9000)))
    (target,) = targets(worker.config, plane)
    assert target.address == Bind("127.0.0.1", 9000)


def test_a_reload_keeps_the_state_and_the_streak_of_servers_that_stay(plane: Plane) -> None:
    checks = Checks(down={1, 2})
    run_for(Prober(make(plane, user=pool(1, 2)), checks), (4.5, lambda: None))
    assert cell(plane, 1, ServerState.CHECK_STREAK) == 2
    worker = make(plane, user=pool(1, 3))
    run_for(Prober(worker, checks), (3.5, lambda: None))
    assert worker.log.lines == [("server down", "user/127.0.0.1:8101")]
    checks.made.clear()
    run_for(Prober(make(plane, user=pool(1, 3)), checks), (30, lambda: None))
    assert cell(plane, 1, ServerState.ACTIVE) == Active.DOWN
    assert worker.log.lines == [("server down", "user/127.0.0.1:8101")]


def test_a_pool_that_lost_its_check_forgets_what_it_said(plane: Plane) -> None:
    run_for(Prober(make(plane, user=pool(1)), Checks(down={1})), (10, lambda: None))
    assert cell(plane, 1, ServerState.ACTIVE) == Active.DOWN
    forget_unchecked(make(plane, user=pool(1, health=None)).config, plane)
    assert cell(plane, 1, ServerState.ACTIVE) == Active.UNKNOWN


def test_a_passing_check_ends_an_ejection_that_it_began_after(plane: Plane) -> None:
    worker = make(plane, user=pool(1, 2))
    row = plane.row(Kind.SERVER, "user/127.0.0.1:8101")
    at = plane.state(Kind.SERVER, row)
    ejected_until: list[int] = []

    def eject(since: int) -> None:
        plane.cells[at + ServerState.EJECTED_SINCE] = since
        plane.cells[at + ServerState.EJECTED_UNTIL] = time.monotonic_ns() + 60_000_000_000

    def look() -> None:
        ejected_until.append(health.read(plane, row, time.monotonic_ns(), HealthTable(type="tcp")) is Health.EJECTED)

    late = time.time_ns() + 3_600_000_000_000
    run_for(
        Prober(worker, Checks()),
        (1, lambda: eject(late)),
        (5, look),
        (0, lambda: eject(time.time_ns())),
        (5, look),
    )
    assert ejected_until == [True, False]
    assert ("server ejected", "user/127.0.0.1:8101") in worker.log.lines
    assert worker.log.lines[-1] == ("server back from ejection", "user/127.0.0.1:8101")


def test_the_service_checks_real_servers_and_ends_when_cancelled(plane: Plane) -> None:
    async def main() -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        table = PoolTable(
            servers=(ServerTable(address=Bind("127.0.0.1", port)),),
            health=HealthTable(type="tcp", interval=Duration(0.02), initial="down", rise=2),
        )
        worker = make(plane, user=table)
        with trio.move_on_after(10) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run_prober, worker)
                while not worker.log.lines or worker.log.lines[-1][0] != "server up":  # noqa: ASYNC110  # cells tell nobody
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
        assert not scope.cancelled_caught
        await listener.aclose()

    trio.run(main)
