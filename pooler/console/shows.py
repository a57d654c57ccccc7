"""SHOW, as far as the plane and the configuration answer it: the same in every worker, in PgBouncer's columns.

What Portway has no counterpart for is 0 or empty, so that who reads by column finds it. Sizes and counts hold over all
workers. Times that clients held connections are integrals of what every worker sees 20 times a second. Source:
PgBouncer 1.24, admin.c and stats.c.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from pooler.config import REPLICAS, UserTable, pool_names, users_of
from pooler.console.results import Column, Row, columns
from pooler.settings import pool_settings
from supervisor.ground import status
from supervisor.plane.layout import Kind, LeasePool, LeasePoolState
from supervisor.plane.layout import Listener as Counter

if TYPE_CHECKING:
    from pooler.runtime import PoolerRuntime

COMPATIBLE = "1.24.1"  # the PgBouncer whose columns these are
PROCESS_TABLES = ("client_cache", "server_cache", "pool_cache", "db_cache", "user_cache", "iobuf_cache")

_STATS = ("server_assignment_count", "xact_count", "query_count", "received", "sent", "xact_time", "query_time",
          "wait_time", "client_parse_count", "server_parse_count", "bind_count")  # fmt: skip
_AVERAGES = [{"received": "recv"}.get(name, name) for name in _STATS]
_TOTALS = [{"received": "bytes_received", "sent": "bytes_sent"}.get(name, name) for name in _STATS]
# SHOW STATS_AVERAGES has the totals' names, but for the last three.
_MEANS = [*_TOTALS[:-3], *(f"avg_{name}" for name in _TOTALS[-3:])]
# Each as a counter of the plane; None is not counted here.
_COUNTERS = (
    LeasePool.TRANSACTIONS, LeasePool.TRANSACTIONS, LeasePool.QUERIES, LeasePool.BYTES_IN, LeasePool.BYTES_OUT,
    LeasePool.XACT_US, LeasePool.QUERY_US, LeasePool.WAIT_US, None, None, None,
)  # fmt: skip
# Averages of these are times of one transaction or query, not rates.
_PER = {5: 1, 6: 2}


def _counted(names: Sequence[str], prefix: str = "") -> str:
    return " ".join(f"{prefix}{name}:8" for name in names)


COLUMNS: Mapping[str, tuple[Column, ...]] = {
    "pools": columns(
        "database user cl_active:4 cl_waiting:4 cl_active_cancel_req:4 cl_waiting_cancel_req:4 sv_active:4 "
        "sv_active_cancel:4 sv_being_canceled:4 sv_idle:4 sv_used:4 sv_tested:4 sv_login:4 maxwait:4 maxwait_us:4 "
        "pool_mode load_balance_hosts"
    ),
    "databases": columns(
        "name host port:4 database force_user pool_size:4 min_pool_size:4 reserve_pool_size:4 server_lifetime:4 "
        "pool_mode load_balance_hosts max_connections:4 current_connections:4 max_client_connections:4 "
        "current_client_connections:4 paused:4 disabled:4"
    ),
    "users": columns(
        "name pool_size reserve_pool_size pool_mode max_user_connections:4 current_connections:4 "
        "max_user_client_connections:4 current_client_connections:4"
    ),
    "stats": columns(f"database {_counted(_STATS, 'total_')} {_counted(_AVERAGES, 'avg_')}"),
    "stats_totals": columns(f"database {_counted(_TOTALS)}"),
    "stats_averages": columns(f"database {_counted(_MEANS)}"),
    "totals": columns("name value:8"),
    "lists": columns("list items:4"),
    "config": columns("key value default changeable"),
    "version": columns("version"),
    "state": columns("key value"),
    "mem": columns("name size:4 used:4 free:4 memtotal:4"),
    "dns_hosts": columns("hostname ttl:8 addrs"),
    "dns_zones": columns("zonename serial:8 count:4"),
    "peers": columns("peer_id:4 host port:4 pool_size:4"),
    "peer_pools": columns("peer_id:4 cl_active_cancel_req:4 cl_waiting_cancel_req:4 sv_active_cancel:4 sv_login:4"),
}


def show(runtime: PoolerRuntime, what: str) -> list[Row]:
    """The rows of SHOW `what`, which is one of COLUMNS."""
    found = _ROWS.get(what)
    return found(runtime) if found is not None else []


def _pools(runtime: PoolerRuntime) -> list[Row]:
    plane, now_ns = runtime.worker.plane, time.monotonic_ns()
    rows: list[Row] = []
    for name, row in sorted(plane.names(Kind.LEASEPOOL).items()):
        database, _, user = name.partition("/")
        totals = plane.row_totals(Kind.LEASEPOOL, row)
        settings = pool_settings(runtime.table, database, user)
        opened = runtime.leases.open(row)
        if settings is None or not (opened or any(totals)):  # never used, or gone
            continue
        clients, waiting, busy, idle = (
            totals[field] for field in (LeasePool.CLIENTS, LeasePool.WAITING, LeasePool.BUSY, LeasePool.IDLE)
        )
        waited = status.oldest_wait(plane, row, now_ns)
        seconds = int(waited)
        rows.append((
            database, user, max(0, clients - waiting), waiting, 0, 0, busy, 0, 0, idle, 0, 0,
            max(0, opened - busy - idle), seconds, int((waited - seconds) * 1e6), settings.mode, None,
        ))  # fmt: skip
    return rows


def _databases(runtime: PoolerRuntime) -> list[Row]:
    rows: list[Row] = []
    lifetime = int(runtime.table.server_lifetime)
    for name, table in runtime.table.databases.items():
        group = runtime.worker.config.pools[table.primary]
        pools = _rows_of(runtime, name)
        opened = sum(runtime.leases.open(row) for row in pools)
        clients = sum(runtime.worker.plane.total(Kind.LEASEPOOL, row, LeasePool.CLIENTS) for row in pools)
        hosts = ",".join(server.address.host for server in group.servers)
        rows.append((
            name, hosts, group.servers[0].address.port, table.database or name, table.user, table.pool_size,
            table.min_pool_size, table.reserve_pool_size, lifetime, table.pool_mode, None, table.max_db_connections,
            opened, 0, clients, *(
                int(any(runtime.worker.plane.cells[_state(runtime, row) + flag] for row in pools))
                for flag in (LeasePoolState.PAUSED, LeasePoolState.DISABLED)
            ),
        ))  # fmt: skip
    return rows


def _users(runtime: PoolerRuntime) -> list[Row]:
    opened: dict[str, int] = {}
    clients: dict[str, int] = {}
    plane = runtime.worker.plane
    for name, row in plane.names(Kind.LEASEPOOL).items():
        user = name.partition("/")[2]
        opened[user] = opened.get(user, 0) + runtime.leases.open(row)
        clients[user] = clients.get(user, 0) + plane.total(Kind.LEASEPOOL, row, LeasePool.CLIENTS)
    names = sorted({*users_of(runtime.table).by_name, *opened})
    rows: list[Row] = []
    for name in names:
        special = runtime.table.users.get(name, UserTable())
        limit = special.max_user_connections or runtime.table.max_user_connections
        size = "" if special.pool_size is None else str(special.pool_size)
        rows.append((name, size, "", special.pool_mode, limit, opened.get(name, 0), 0, clients.get(name, 0)))
    return rows


def _by_database(totals: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for name, values in totals.items():
        sums = found.setdefault(name.partition("/")[0], [0] * len(_COUNTERS))
        for at, counter in enumerate(_COUNTERS):
            sums[at] += values[counter] if counter is not None else 0
    return found


def _averages(runtime: PoolerRuntime) -> dict[str, list[int]]:
    before, after, seconds = runtime.averages.last(runtime.lane.now)
    older, newer = _by_database(before), _by_database(after)
    found: dict[str, list[int]] = {}
    for database, values in newer.items():
        news = [now - then for now, then in zip(values, older.get(database, [0] * len(values)), strict=True)]
        found[database] = [
            news[at] // max(news[_PER[at]], 1) if at in _PER else int(news[at] / seconds) for at in range(len(news))
        ]
    return found


def _stats(runtime: PoolerRuntime) -> list[Row]:
    averages = _averages(runtime)
    none = [0] * len(_COUNTERS)
    return [
        (database, *totals, *averages.get(database, none))
        for database, totals in sorted(_by_database(runtime.averages.totals()).items())
    ]


def _stats_totals(runtime: PoolerRuntime) -> list[Row]:
    return [(database, *totals) for database, totals in sorted(_by_database(runtime.averages.totals()).items())]


def _stats_averages(runtime: PoolerRuntime) -> list[Row]:
    return [(database, *values) for database, values in sorted(_averages(runtime).items())]


def _totals(runtime: PoolerRuntime) -> list[Row]:
    names = [*(f"total_{name}" for name in _STATS), *(f"avg_{name}" for name in _AVERAGES)]
    rows = [row[1:] for row in _stats(runtime)]
    return [(name, sum(int(row[at] or 0) for row in rows)) for at, name in enumerate(names)]


def _lists(runtime: PoolerRuntime) -> list[Row]:
    plane = runtime.worker.plane
    pools = plane.names(Kind.LEASEPOOL).values()
    clients = sum(plane.total(Kind.LEASEPOOL, row, LeasePool.CLIENTS) for row in pools)
    connected = sum(plane.total(Kind.LISTENER, listener.row, Counter.ACTIVE) for listener in runtime.listeners.values())
    counts = {
        "databases": len(runtime.table.databases),
        "users": len(users_of(runtime.table).by_name),
        "peers": 0,
        "pools": sum(1 for row in pools if any(plane.row_totals(Kind.LEASEPOOL, row))),
        "peer_pools": 0,
        "free_clients": max(0, runtime.table.max_client_conn - connected),
        "used_clients": connected,
        "login_clients": max(0, connected - clients),
        "free_servers": 0,
        "used_servers": sum(runtime.leases.open(row) for row in pools),
        "dns_names": 0, "dns_zones": 0, "dns_queries": 0, "dns_pending": 0,
    }  # fmt: skip
    return [*counts.items()]


def _config(runtime: PoolerRuntime) -> list[Row]:
    """The keys of [pooler] that are single values; they change by editing the file and RELOAD."""
    table = runtime.table
    usual = type(table)()
    listeners = [*table.listeners.values()]
    rows: list[Row] = []
    if listeners:
        bind = listeners[0].address
        rows += [("listen_addr", bind.host, None, "no"), ("listen_port", str(bind.port), "6432", "no")]
    for name in sorted(vars_of(table)):
        rows.append((name, written(getattr(table, name)), written(getattr(usual, name)), "yes"))
    rows.append(("auth_type", runtime.method.value, "auto", "yes"))
    return rows


def vars_of(table: object) -> list[str]:
    """The keys of a table that hold one value: no tables, nothing that is secret."""
    names: Sequence[str] = getattr(table, "__slots__", ()) or list(vars(table))
    plain = (str, int, float, tuple)
    return [name for name in names if not name.startswith("_") and isinstance(getattr(table, name), plain)]


def written(value: object) -> str:
    """A value as PgBouncer writes it: seconds as a number, a list with commas."""
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _version(runtime: PoolerRuntime) -> list[Row]:
    return [(f"PgBouncer {COMPATIBLE} (Portway {status.version()})",)]


def _state_of(runtime: PoolerRuntime) -> list[Row]:
    flags = [row[-2] for row in _databases(runtime)]
    paused = bool(flags) and all(flags)
    return [("active", "no" if paused else "yes"), ("paused", "yes" if paused else "no"), ("suspended", "no")]


def _mem(runtime: PoolerRuntime) -> list[Row]:
    """PgBouncer's caches have no counterpart: how many there are is told, memory is the process's."""
    plane = runtime.worker.plane
    counts = dict(zip(PROCESS_TABLES, (
        sum(plane.total(Kind.LEASEPOOL, row, LeasePool.CLIENTS) for row in plane.names(Kind.LEASEPOOL).values()),
        sum(runtime.leases.open(row) for row in plane.names(Kind.LEASEPOOL).values()),
        len(pool_names(runtime.table)), len(runtime.table.databases), len(users_of(runtime.table).by_name), 0,
    ), strict=True))  # fmt: skip
    return [(name, 0, count, 0, 0) for name, count in counts.items()]


def _rows_of(runtime: PoolerRuntime, database: str) -> list[int]:
    """The plane's rows of the pools of a database."""
    prefixes = (f"{database}/", f"{database}{REPLICAS}/")
    return [row for name, row in runtime.worker.plane.names(Kind.LEASEPOOL).items() if name.startswith(prefixes)]


def _state(runtime: PoolerRuntime, row: int) -> int:
    return runtime.worker.plane.state(Kind.LEASEPOOL, row)


_ROWS: Mapping[str, Callable[[PoolerRuntime], list[Row]]] = {
    "pools": _pools, "databases": _databases, "users": _users, "stats": _stats, "stats_totals": _stats_totals,
    "stats_averages": _stats_averages, "totals": _totals, "lists": _lists, "config": _config, "version": _version,
    "state": _state_of, "mem": _mem,
}  # fmt: skip
