"""What the daemon is doing, as one document: what `portway status --json` prints and the admin serves at /status.

It reads the plane and the configuration and nothing else, so that every process can tell the same. Times are ISO 8601
in UTC, durations seconds; counters are totals since the start, over all processes, dead ones included.
"""

from __future__ import annotations

import functools
import pwd
import time
from collections.abc import Container, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from supervisor.ground import places
from supervisor.ground.config import Config, HealthTable, PoolTable, ServerTable
from supervisor.ground.health import Health, judge
from supervisor.plane import layout
from supervisor.plane.layout import Kind, ListenerState, ProcessState, Route
from supervisor.plane.memory import Plane
from supervisor.plane.processes import ProcessInfo

_PROCESS_STATES = {ProcessState.STARTING: "starting", ProcessState.READY: "ready", ProcessState.DRAINING: "draining"}
_US = 1e-6
_NS = 1e-9


def document(config: Config, plane: Plane) -> dict[str, Any]:
    """The whole status, ready for JSON."""
    now_ns = time.monotonic_ns()
    processes = [*_processes(plane)]
    return {
        "portway": _daemon(config, plane, processes),
        "processes": [_process(info, now_ns) for info in processes],
        "tiers": [
            {"name": name, **_totals(plane, Kind.TIER, row)} for name, row in sorted(plane.names(Kind.TIER).items())
        ],
        "listeners": [*_listeners(config, plane, processes)],
        "pools": [_pool(name, pool, plane, now_ns) for name, pool in sorted(config.pools.items())],
        "routes": [*_routes(plane)],
        "limits": [
            {"name": name, **_totals(plane, Kind.LIMIT, row)} for name, row in sorted(plane.names(Kind.LIMIT).items())
        ],
        "lease_pools": [*_lease_pools(plane, now_ns)],
    }


def state(config: Config, plane: Plane) -> str:
    """One of "ready", "draining" and "starting": the last while nobody polls one of the listeners."""
    supervisor = plane.process(layout.SUPERVISOR)
    if supervisor is not None and supervisor.state == ProcessState.DRAINING:
        return "draining"
    rows = plane.names(Kind.LISTENER)
    for name in listener_names(config):
        row = rows.get(name)
        if row is None or not _owners(plane, row):
            return "starting"
    return "ready"


def listener_names(config: Config) -> Iterator[str]:
    """The plane's names, `tier/name`, of all the listeners that the configuration asks for."""
    for tier, table in config.tiers.items():
        for name in getattr(table, "listeners", {}):
            yield f"{tier}/{name}"


@functools.cache
def version() -> str:
    """The installed version of Portway. Looked up once: that reads folders, and leaves cycles behind."""
    try:
        return metadata.version("portway")
    except metadata.PackageNotFoundError:  # run from a folder that was never installed
        return "0"


def server_health(
    plane: Plane, row: int, check: HealthTable | None, now_ns: int, named: bool = False
) -> tuple[Health, int]:
    """The health of a server, and since when (wall clock, ns): since the start, where nothing ever changed it."""
    shared = state_fields(plane, Kind.SERVER, row)
    resolved = not named or bool(shared["address_high"] or shared["address_low"])
    health = judge(shared["active"], shared["admin"], shared["ejected_until"], now_ns, check, resolved)
    since = {
        Health.MAINTENANCE: shared["admin_since"],
        Health.DRAINING: shared["admin_since"],
        Health.EJECTED: shared["ejected_since"],
        Health.DOWN: shared["active_since"],
        Health.UP: shared["active_since"] if check else 0,
        Health.UNRESOLVED: 0,
    }
    return health, since[health] or plane.cells[layout.Header.CREATED]


def user_name(uid: int | None) -> str | None:
    """The name of a user, or its number where it has none here."""
    if uid is None:
        return None
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def cause(shared: Mapping[str, int], health: Health, pool: PoolTable) -> str:
    """Why a server is in its state, as the plane's fields tell; empty for one that is up."""
    match health:
        case Health.UP:
            return ""
        case Health.DOWN:
            return f"{pool.health.type} check" if pool.health is not None else ""
        case Health.EJECTED:
            seconds = max(0.0, (shared["ejected_until"] - time.monotonic_ns()) * _NS)
            return f"failures in traffic, for another {seconds:.0f}s, {shared['ejections']} in a row"
        case Health.UNRESOLVED:
            return "its name has no address"
    return f"set by {user_name(shared['admin_by'] - 1)}" if shared["admin_by"] else "set by hand"


def oldest_wait(plane: Plane, row: int, now_ns: int) -> float:
    """Seconds that the longest waiting client of a lease pool has waited, over all columns; 0 with none waiting."""
    cells = plane.cells
    tickets = [
        cells[plane.counters(Kind.LEASEPOOL, row, column) + layout.LeasePool.OLDEST_TICKET]
        for column in range(layout.COLUMNS)
    ]
    waiting = [ticket for ticket in tickets if ticket]
    return max(0.0, (now_ns - min(waiting)) * _NS) if waiting else 0.0


def latency_quantile(buckets: list[int], quantile: float) -> float:
    """Seconds below which that share of the requests stayed: the upper edge of the log2 bucket that holds it."""
    wanted = quantile * sum(buckets)
    seen = 0
    for power, count in enumerate(buckets):
        seen += count
        if count and seen >= wanted:
            return float(1 << power) * _US
    return 0.0


def state_fields(plane: Plane, kind: Kind, row: int) -> dict[str, int]:
    """The shared fields of a row, by name."""
    base = plane.state(kind, row)
    return {name: plane.cells[base + at] for name, at in layout.fields(layout.TABLES[kind].state).items()}


def _daemon(config: Config, plane: Plane, processes: Iterable[ProcessInfo]) -> dict[str, Any]:
    created = plane.cells[layout.Header.CREATED]
    pid = next((info.pid for info in processes if info.column == layout.SUPERVISOR), 0)
    return {
        "version": version(),
        "pid": pid,
        "state": state(config, plane),
        "config": str(config.path),
        "generation": plane.generation,
        "pop": config.supervisor.pop,
        "started": _when(created),
        "uptime": round((time.time_ns() - created) * _NS, 3),
    }


def _processes(plane: Plane) -> Iterator[ProcessInfo]:
    for column in range(layout.COLUMNS):
        info = plane.process(column)
        if info is not None and column != layout.RETIRED:
            yield info


def _process(info: ProcessInfo, now_ns: int) -> dict[str, Any]:
    return {
        "pid": info.pid,
        "tier": info.tier,
        "number": info.number,
        "state": _PROCESS_STATES.get(info.state, "gone"),
        "generation": info.acknowledged,
        "heartbeat_age": round((now_ns - info.heartbeat) * _NS, 3),
        "started": _when(info.started),
        "column": info.column,
        "incarnation": info.incarnation,
    }


def _listeners(config: Config, plane: Plane, processes: Iterable[ProcessInfo]) -> Iterator[dict[str, Any]]:
    titles = {info.column: f"{info.tier} {info.number}" for info in processes}
    rows = plane.names(Kind.LISTENER)
    for full in listener_names(config):
        row = rows.get(full)
        if row is None:
            continue
        tier, _, name = full.partition("/")
        table = config.tier(tier).listeners[name]
        slots: dict[str, int] = {}
        for column in _owners(plane, row):
            title = titles.get(column, f"column {column}")
            slots[title] = slots.get(title, 0) + 1
        yield {
            "tier": tier,
            "name": name,
            "bind": str(table.bind or table.unix_socket),
            "protocol": getattr(table, "protocol", "tcp"),
            "datapath": "kernel" if _by_kernel(plane, row) else "proxy",
            "slots": slots,
            **_totals(plane, Kind.LISTENER, row),
        }


def _by_kernel(plane: Plane, row: int) -> bool:
    return bool(plane.cells[plane.state(Kind.LISTENER, row) + ListenerState.BY_KERNEL])


def _owners(plane: Plane, row: int) -> list[int]:
    base = plane.state(Kind.LISTENER, row) + ListenerState.OWNER
    return [column for column in plane.cells[base : base + layout.MAX_SLOTS].tolist() if column]


def _pool(name: str, pool: PoolTable, plane: Plane, now_ns: int) -> dict[str, Any]:
    servers = [
        server
        for table in pool.servers
        if (server := _server(f"{name}/{table.address}", table, pool, plane, now_ns)) is not None
    ]
    row = plane.names(Kind.POOL).get(name)
    return {
        "name": name,
        "balance": pool.balance,
        "up": sum(server["state"] == "up" for server in servers),
        **(_totals(plane, Kind.POOL, row, {"oldest_ticket"}) if row is not None else {}),
        "servers": servers,
    }


def _server(full: str, table: ServerTable, pool: PoolTable, plane: Plane, now_ns: int) -> dict[str, Any] | None:
    row = plane.names(Kind.SERVER).get(full)
    if row is None:
        return None
    shared = state_fields(plane, Kind.SERVER, row)
    health, since = server_health(plane, row, pool.health, now_ns, table.address.is_name)
    place = places.read(plane.cells, plane.state(Kind.SERVER, row)) if table.address.is_name else None
    return {
        "address": str(table.address),
        "resolved": places.show(place) if place is not None else None,
        "state": health.value,
        "since": _when(since),
        "cause": cause(shared, health, pool),
        "set_by": user_name(shared["admin_by"] - 1) if shared["admin_by"] else None,
        "weight": table.weight,
        "backup": table.backup,
        "zone": table.zone,
        "max_connections": table.max_connections,
        "checked": pool.health.type if pool.health else None,
        "ejections": shared["ejections"],
        "checks": shared["checks"],
        "check_failures": shared["check_failures"],
        **_totals(plane, Kind.SERVER, row),
    }


def _routes(plane: Plane) -> Iterator[dict[str, Any]]:
    for name, row in sorted(plane.names(Kind.ROUTE).items()):
        totals = plane.row_totals(Kind.ROUTE, row)
        buckets = totals[Route.LATENCY : Route.LATENCY + Route.LATENCY_BUCKETS]
        fields = {field: totals[at] for field, at in layout.fields(Route).items() if at != Route.LATENCY_SUM}
        answered = sum(buckets)
        yield {
            "name": name,
            **fields,
            "latency": {
                "mean": round(totals[Route.LATENCY_SUM] * _US / answered, 6) if answered else 0.0,
                "p50": latency_quantile(buckets, 0.50),
                "p99": latency_quantile(buckets, 0.99),
            },
        }


def _lease_pools(plane: Plane, now_ns: int) -> Iterator[dict[str, Any]]:
    for name, row in sorted(plane.names(Kind.LEASEPOOL).items()):
        database, _, user = name.partition("/")
        totals = _totals(plane, Kind.LEASEPOOL, row, {"oldest_ticket"})
        yield {
            "database": database,
            "user": user,
            **state_fields(plane, Kind.LEASEPOOL, row),
            "oldest_wait": round(oldest_wait(plane, row, now_ns), 3),
            **totals,
        }


def _totals(plane: Plane, kind: Kind, row: int, without: Container[str] = ()) -> dict[str, int]:
    totals = plane.row_totals(kind, row)
    fields = layout.fields(layout.TABLES[kind].counters)
    return {name: totals[at] for name, at in fields.items() if name not in without}


def _when(wall_ns: int) -> str:
    return datetime.fromtimestamp(wall_ns * _NS, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
