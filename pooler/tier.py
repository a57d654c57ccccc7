"""The pooler as the supervisor sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from pooler.config import PoolerTable, pool_names
from pooler.listener import ALPN
from pooler.runtime import NAME, PoolerRuntime
from supervisor.ground.config import Config
from supervisor.ground.tier import ListenerSpec, Tier, Worker
from supervisor.plane.layout import Kind

if TYPE_CHECKING:
    from OpenSSL import SSL


def _table(config: Config) -> PoolerTable:
    table: PoolerTable = config.tier(NAME)
    return table


def _listeners(config: Config) -> Sequence[ListenerSpec]:
    return [ListenerSpec(name, table.address) for name, table in _table(config).listeners.items()]


def _rows(config: Config) -> Iterable[tuple[Kind, str]]:
    table = _table(config)
    return [
        *((Kind.LEASEPOOL, name) for name in pool_names(table)),
        *((Kind.DATABASE, name) for name in table.databases),
    ]


def _inherit(config: Config) -> Mapping[str, SSL.Context]:
    """The contexts that all workers share because they are older than the first fork (see `Worker.base_context`)."""
    secured = [name for name, table in _table(config).listeners.items() if table.tls is not None]
    if not secured:
        return {}
    from supervisor.ground.net.tls import base_context  # OpenSSL is loaded only where TLS is asked for

    return {name: base_context((ALPN,)) for name in secured}


_start: Callable[[Worker], PoolerRuntime] = PoolerRuntime

TIER = Tier(name=NAME, table=PoolerTable, listeners=_listeners, rows=_rows, start=_start, inherit=_inherit)
