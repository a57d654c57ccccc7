"""The look over all pools: tells in the log, once for all workers, what they did to the health of servers.

Ejections come from whichever worker saw the failures, and a pool without a server that is up is noticed by each; a
line from every worker would bury the fact. Written here is only PoolState.FAILING_OPEN.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from supervisor.ground import health
from supervisor.ground.config import Config, PoolTable
from supervisor.ground.health import Health
from supervisor.ground.pools import server_name
from supervisor.plane.layout import Kind, PoolState, ServerState
from supervisor.plane.memory import Plane

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger


@attrs.define(eq=False)
class Overview:
    """`look` is called again and again with the monotonic time."""

    _config: Config
    _plane: Plane
    _log: FilteringBoundLogger
    _ejected: dict[str, int] = attrs.field(factory=dict, init=False)  # server -> EJECTED_SINCE, while it lasts

    def __attrs_post_init__(self) -> None:
        # What was so before this began has been told.
        for pool, table in self._config.pools.items():
            for name, row, _ in self._rows(pool, table):
                at = self._plane.state(Kind.SERVER, row)
                if self._plane.cells[at + ServerState.EJECTED_UNTIL]:
                    self._ejected[name] = self._plane.cells[at + ServerState.EJECTED_SINCE]

    def look(self, now_ns: int) -> None:
        for pool, table in self._config.pools.items():
            self._look_at(pool, table, now_ns)

    def _look_at(self, pool: str, table: PoolTable, now_ns: int) -> None:
        healths: list[Health] = []
        for name, row, named in self._rows(pool, table):
            healths.append(health.read(self._plane, row, now_ns, table.health, named))
            self._tell_ejection(name, row, now_ns)
        at = self._plane.state(Kind.POOL, self._plane.row(Kind.POOL, pool)) + PoolState.FAILING_OPEN
        failing = int(health.is_failing(table, healths))
        if failing != self._plane.cells[at]:
            self._plane.cells[at] = failing
            if failing:
                self._log.error("pool has no server up", pool=pool, on_all_down=table.on_all_down)
            else:
                self._log.info("pool has a server up again", pool=pool)

    def _tell_ejection(self, name: str, row: int, now_ns: int) -> None:
        cells, at = self._plane.cells, self._plane.state(Kind.SERVER, row)
        until, since = cells[at + ServerState.EJECTED_UNTIL], cells[at + ServerState.EJECTED_SINCE]
        if until > now_ns and self._ejected.get(name) != since:
            self._ejected[name] = since
            self._log.warning(
                "server ejected",
                server=name,
                seconds=round((until - now_ns) / 1e9, 1),
                ejections=cells[at + ServerState.EJECTIONS],
            )
        elif until <= now_ns and self._ejected.pop(name, None) is not None:
            self._log.info("server back from ejection", server=name)

    def _rows(self, pool: str, table: PoolTable) -> list[tuple[str, int, bool]]:
        """Of each server its name, its row, and whether its address is looked up."""
        names = [(server_name(pool, server), server.address.is_name) for server in table.servers]
        return [(name, self._plane.row(Kind.SERVER, name), named) for name, named in names]
