"""The rules of ejection, whatever two workers see and in whatever order: a model beside the real plane."""

from __future__ import annotations

import time
from typing import Any

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from supervisor.ground import health
from supervisor.ground import pools as pools_module
from supervisor.ground.config import Bind, Duration, OutlierTable, Percent, PoolTable, ServerTable, SupervisorTable
from supervisor.ground.health import Health
from supervisor.ground.pools import Pool, Pools
from supervisor.plane.layout import Kind, ServerState
from supervisor.plane.memory import Plane

SECOND = 10**9
FAILURES, EJECT, MOST = 3, 10, 40
WORKERS = 2


@attrs.frozen
class Configured:
    pools: dict[str, PoolTable]
    supervisor: SupervisorTable = attrs.Factory(SupervisorTable)


class Ejections(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.now = 10**12
        self.patch.setattr(time, "monotonic_ns", self.clock)
        self.patch.setattr(pools_module, "_monotonic_ns", self.clock)
        self.plane = Plane.create()
        self.streaks: dict[tuple[int, int], int] = {}
        self.out: dict[int, int] = {}  # server -> monotonic ns until which it is out
        self.times: dict[int, int] = {}

    def clock(self) -> int:
        self.now += 64  # no two epochs are the same
        return self.now

    @initialize(servers=st.integers(1, 6), share=st.sampled_from([0.0, 0.3, 0.5, 1.0]))
    def begin(self, servers: int, share: float) -> None:
        outlier = OutlierTable(
            consecutive_failures=FAILURES,
            eject=Duration(EJECT),
            max_eject=Duration(MOST),
            max_ejected=Percent(share),
        )
        tables = tuple(ServerTable(address=Bind("127.0.0.1", 8000 + number)) for number in range(servers))
        config: Any = Configured({"p": PoolTable(servers=tables, outlier=outlier)})
        for kind, name in pools_module.rows(config):
            self.plane.allocate(kind, name)
        self.share = share
        self.pools: list[Pool] = [
            Pools(config, self.plane, self.plane.claim_column("edge", number))["p"] for number in range(WORKERS)
        ]

    @property
    def count(self) -> int:
        return len(self.pools[0].servers)

    def still_out(self) -> set[int]:
        return {number for number, until in self.out.items() if until > self.now}

    @rule(worker=st.integers(0, WORKERS - 1), number=st.integers(0, 5))
    def fail(self, worker: int, number: int) -> None:
        number %= self.count
        streak = self.streaks[worker, number] = self.streaks.get((worker, number), 0) + 1
        now = self.clock()
        before = self.still_out()
        self.pools[worker].servers[number].failed(now)
        after = self.seen()
        if streak % FAILURES or number in before:
            assert after == before
            return
        if len(before) + 1 > self.count * self.share + 1e-9:
            assert after == before, "never more than max_ejected"
            return
        assert after == before | {number}
        self.streaks[worker, number] = 0
        until = self.plane.cells[self.pools[0].servers[number].state + ServerState.EJECTED_UNTIL]
        lasts = (until - now) / SECOND
        passed = (now - self.out[number]) // (EJECT * SECOND) if number in self.out else 0
        self.times[number] = max(0, self.times.get(number, 0) - passed) + 1
        assert lasts == min(MOST, EJECT * self.times[number])
        self.out[number] = until

    @rule(worker=st.integers(0, WORKERS - 1), number=st.integers(0, 5))
    def succeed(self, worker: int, number: int) -> None:
        self.streaks[worker, number % self.count] = 0
        self.pools[worker].servers[number % self.count].succeeded()

    @rule(seconds=st.integers(1, 60))
    def wait(self, seconds: int) -> None:
        self.now += seconds * SECOND

    @rule(number=st.integers(0, 5))
    def pass_a_check(self, number: int) -> None:
        number %= self.count
        ended = health.restore(self.plane, self.plane.row(Kind.POOL, "p"), self.pools[0].servers[number].row, 9)
        assert ended == (number in self.still_out())
        if ended:
            self.out[number] = self.plane.cells[self.pools[0].servers[number].state + ServerState.EJECTED_UNTIL]

    def seen(self) -> set[int]:
        """Who is out, by the plane."""
        rows = [server.row for server in self.pools[0].servers]
        healths = [health.read(self.plane, row, self.now, None) for row in rows]
        return {number for number, one in enumerate(healths) if one is Health.EJECTED}

    @invariant()
    def every_worker_sees_the_same_and_picks_nobody_who_is_out(self) -> None:
        if not hasattr(self, "pools"):
            return
        out = self.still_out()
        assert self.seen() == out
        for pool in self.pools:
            picked = {pool.pick() for _ in range(2 * self.count)}
            numbers = {pool.servers.index(server) for server in picked if server is not None}
            assert numbers == set(range(self.count)) - out or len(out) == self.count  # then all are tried

    def teardown(self) -> None:
        self.patch.undo()
        self.plane.close()


Ejections.TestCase.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
TestEjections = Ejections.TestCase
