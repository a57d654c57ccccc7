"""The pooler as the supervisor sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from pooler.config import PoolerTable, pool_names
from pooler.runtime import NAME, PoolerRuntime
from supervisor.ground.config import Config
from supervisor.ground.tier import ListenerSpec, Tier, Worker
from supervisor.plane.layout import Kind


def _table(config: Config) -> PoolerTable:
    table: PoolerTable = config.tier(NAME)
    return table


def _listeners(config: Config) -> Sequence[ListenerSpec]:
    return [ListenerSpec(name, table.bind) for name, table in _table(config).listeners.items()]


def _rows(config: Config) -> Iterable[tuple[Kind, str]]:
    return [(Kind.LEASEPOOL, name) for name in pool_names(_table(config))]


_start: Callable[[Worker], PoolerRuntime] = PoolerRuntime

TIER = Tier(name=NAME, table=PoolerTable, listeners=_listeners, rows=_rows, start=_start)
