"""A worker's decisions without a worker: its plan on a plane of its own, and as much around it as an admission uses.

Nothing is connected to, no time passes, and what a decision would start never begins.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, cast

import attrs

from gateway import plan
from gateway.answers import AnswerReader
from gateway.config import GatewayTable
from gateway.forwarded import Identities
from gateway.plan import NAME, Plan
from gateway.shared import Shared
from gateway.tier import TIER
from supervisor.ground import pools
from supervisor.ground.config import Config
from supervisor.ground.health import Health
from supervisor.plane.layout import Active, Admin, Kind, ServerState
from supervisor.plane.memory import Plane
from supervisor.plane.quotas import Quotas

_NEVER: Final = 1 << 62  # monotonic ns


class _Still:
    """As much of a lane as an admission uses: the time. What it would start never begins."""

    def __init__(self) -> None:
        self.wall = time.time()
        self.now_ns = time.monotonic_ns()
        self.now = self.now_ns / 1e9

    def spawn(self, coro: Any, name: str = "") -> None:
        coro.close()


@attrs.define(eq=False)
class _Bench:
    """As much of what a worker's connections share."""

    lane: _Still
    cells: memoryview[int]
    admit: Any
    identities: Identities
    tier: int


@contextmanager
def trial(config: Config, states: Mapping[str, str]) -> Iterator[tuple[Plan, Shared]]:
    """The plan of a worker that has the plane for itself. `states` of servers are those of the status, by their names
    ("pool/host:port"); all others are up."""
    plane = Plane.create()
    try:
        yield _made(config, plane, states)
    finally:
        plane.close()


def _made(config: Config, plane: Plane, states: Mapping[str, str]) -> tuple[Plan, Shared]:
    column = plane.claim_column(NAME, 1)
    table: GatewayTable = config.tier(NAME)
    databases = [one.sheds_on.rpartition(".")[2] for one in table.routes.values() if one.sheds_on is not None]
    rows = (*pools.rows(config), *TIER.rows(config), (Kind.TIER, NAME), *((Kind.DATABASE, name) for name in databases))
    for kind, name in rows:
        plane.allocate(kind, name)
    for name, row in plane.names(Kind.SERVER).items():
        _put(plane, row, states.get(name, Health.UP.value))
    quotas = Quotas(plane)
    made = plan.make(config, plane, column, pools.Pools(config, plane, column), quotas, AnswerReader())
    tier = plane.counters(Kind.TIER, plane.row(Kind.TIER, NAME), column)
    bench = _Bench(_Still(), plane.cells, quotas.admit, Identities(lambda size: bytes(size)), tier)
    return made, cast(Shared, bench)


def _put(plane: Plane, row: int, state: str) -> None:
    """Let a server be in this state."""
    cells, at = plane.cells, plane.state(Kind.SERVER, row)
    cells[at + ServerState.ACTIVE] = Active.UP
    cells[at + ServerState.ADDRESS_LOW] = 1  # of one that is given by name
    if state == Health.DRAINING.value:
        cells[at + ServerState.ADMIN] = Admin.DRAINING
    elif state == Health.MAINTENANCE.value:
        cells[at + ServerState.ADMIN] = Admin.MAINTENANCE
    elif state != Health.UP.value:
        cells[at + ServerState.EJECTED_UNTIL] = _NEVER
