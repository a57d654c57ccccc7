"""The limit of open files against what the configuration allows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from supervisor.arbiter.capacity import OWN, Shortage, open_files, shortages
from supervisor.ground.config import Bind, Config, Workers, load_bytes
from supervisor.ground.tier import ListenerSpec, Tier


@attrs.frozen(kw_only=True)
class Listener:
    bind: Bind
    max_connections: int = 100_000


@attrs.frozen(kw_only=True)
class Table:
    workers: Workers | None = None
    listeners: Mapping[str, Listener] = attrs.Factory(dict)
    max_client_conn: int = 10_000


def specs(config: Config) -> list[ListenerSpec]:
    return [ListenerSpec(name, table.bind) for name, table in config.tier("web").listeners.items()]


def nothing(worker: Any) -> Any: ...


TIER = Tier(name="web", table=Table, listeners=specs, rows=lambda config: (), start=nothing)
LISTENER = '[web]\nworkers = 2\n[web.listeners.a]\nbind = "127.0.0.1:1"\n'
POOL = '[pools.p]\nservers = [{ address = "127.0.0.1:1", max_connections = 3001 }]\n'


def found(text: str, limit: int) -> list[Shortage]:
    config = load_bytes(text.encode(), "x.toml", Path("/"), {"web": Table})
    return [*shortages(config, (TIER,), 8, limit)]


def test_servers_connections_are_shared_by_the_workers_and_each_takes_two_files() -> None:
    needed = OWN + 8 + 2 * 1501
    assert found(LISTENER + POOL, needed) == []
    (shortage,) = found(LISTENER + POOL, needed - 1)
    assert str(shortage) == (
        f"a worker of web may run out of open files: 1501 connections (max_connections of the pools' servers) take "
        f"{needed}, and {needed - 1} are allowed; raise LimitNOFILE= in the unit (ulimit -Hn in a shell), "
        f"or lower max_connections of the pools' servers"
    )


def test_a_listener_s_own_limit_counts_where_it_is_written() -> None:
    assert found(LISTENER, 4096) == []
    (shortage,) = found(LISTENER + "max_connections = 9999\n" + POOL, 4096)
    assert (shortage.connections, shortage.keys) == (5000, "max_connections of web's listeners")
    (shortage,) = found(LISTENER.replace("workers = 2", "workers = 2\nmax_client_conn = 9000"), 4096)
    assert (shortage.connections, shortage.keys) == (4500, "web.max_client_conn")


def test_a_tier_that_does_not_run_needs_nothing() -> None:
    assert found(POOL, 16) == []


def test_the_limit_is_that_of_this_process() -> None:
    assert open_files() > 64
