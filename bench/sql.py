"""The pooler beside PgBouncer: `pgbench -S` on 8 server connections, transaction mode, SCRAM both ways.

CPU for 32 clients by each protocol, the time that a transaction takes of the whole for 200 clients, and what a second
worker costs.
"""

from collections.abc import Mapping
from pathlib import Path

from bench.loads import Load, pgbench
from bench.proxies import Proxy, pgbouncer, pgbouncer_version, portway
from bench.stage import Stage
from bench.workload import Figure, Starter, Workload, per_operation
from supervisor.cli.demo.ports import free_tcp_port

SERVERS = 8
CLIENTS = 32
USERS = '"bench" "bench"\n'


def pgbouncer_pool(stage: Stage, folder: Path, mode: str = "transaction", servers: int = SERVERS) -> Proxy:
    port = free_tcp_port()
    users = stage.readable(folder / "users.txt", USERS)
    config = f"[databases]\nbench = host=127.0.0.1 port={stage.database.port} dbname=bench\n"
    config += f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n"
    config += f"auth_type = scram-sha-256\nauth_file = {users}\n"
    config += f"pool_mode = {mode}\ndefault_pool_size = {servers}\nmax_client_conn = 20000\nunix_socket_dir =\n"
    config += "log_connections = 0\nlog_disconnections = 0\nserver_tls_sslmode = disable\nstats_period = 600\n"
    config += f"logfile = {stage.writable(folder / 'pgbouncer.log')}\nlisten_backlog = 4096\n"
    return pgbouncer(folder, config, port)


def pgbouncer_prepared(stage: Stage, folder: Path) -> Proxy:
    """Before 1.21 PgBouncer knows no prepared statements but in session mode: a server connection for each client."""
    if pgbouncer_version() < (1, 21):
        return pgbouncer_pool(stage, folder, "session", CLIENTS)
    return pgbouncer_pool(stage, folder)


def portway_pool(stage: Stage, folder: Path, workers: int = 1) -> Proxy:
    port = free_tcp_port()
    users = stage.readable(folder / "users.txt", USERS)
    config = f'[pools.primary]\nservers = ["{stage.database.address}"]\n\n'
    config += f'[pooler.listeners.main]\nbind = "127.0.0.1:{port}"\n\n'
    config += f'[pooler.databases.bench]\nprimary = "primary"\npool_mode = "transaction"\npool_size = {SERVERS}\n\n'
    config += f'[pooler.auth]\nusers = "{users}"\n'
    return portway(folder, config, port, workers=workers)


def portway_pool_of_two(stage: Stage, folder: Path) -> Proxy:
    return portway_pool(stage, folder, workers=2)


def simple_load(stage: Stage, proxy: Proxy, seconds: float) -> Load:
    return pgbench(stage.installation, proxy.port, seconds, "simple")


def extended_load(stage: Stage, proxy: Proxy, seconds: float) -> Load:
    return pgbench(stage.installation, proxy.port, seconds, "extended")


def prepared_load(stage: Stage, proxy: Proxy, seconds: float) -> Load:
    return pgbench(stage.installation, proxy.port, seconds, "prepared")


def many_load(stage: Stage, proxy: Proxy, seconds: float) -> Load:
    return pgbench(stage.installation, proxy.port, seconds, "simple", clients=200)


def elapsed(stage: Stage, proxy: Proxy, seconds: float) -> Figure:
    """Microseconds of the clock per transaction: the throughput, the other way round."""
    done = many_load(stage, proxy, seconds)
    return Figure(done.seconds * 1e6 / done.operations, done.operations / done.seconds)


POOLERS: Mapping[str, Starter] = {"pgbouncer": pgbouncer_pool, "portway": portway_pool}
BY_PROTOCOL = {"simple": (simple_load, 1.2), "extended": (extended_load, 1.3)}

WORKLOADS = [
    *(
        Workload(
            name=name,
            title=f"pooler, pgbench -S -M {name}, 32 clients on 8",
            unit="CPU µs/transaction",
            goals={"pgbouncer": goal},
            sides=POOLERS,
            measure=per_operation(load),
            warm_up=1.0,
            prepare=lambda stage: stage.database,
        )
        for name, (load, goal) in BY_PROTOCOL.items()
    ),
    Workload(
        name="prepared",
        title="the same with prepared statements (PgBouncer before 1.21 in session mode, on 32)",
        unit="CPU µs/transaction",
        goals={"pgbouncer": 1.3},
        sides={"pgbouncer": pgbouncer_prepared, "portway": portway_pool},
        measure=per_operation(prepared_load),
        warm_up=1.0,
        prepare=lambda stage: stage.database,
    ),
    Workload(
        name="many",
        title="pooler, 200 clients on 8, as fast as it goes",
        unit="elapsed µs/transaction",
        goals={"pgbouncer": 1.11},
        sides=POOLERS,
        measure=elapsed,
        warm_up=4.0,  # pgbench counts from its start, and 200 logins take a while
        prepare=lambda stage: stage.database,
    ),
    Workload(
        name="two-workers",
        title="pooler with two workers, beside one",
        unit="CPU µs/transaction",
        goals={"one worker": 1.1},
        sides={"one worker": portway_pool, "portway": portway_pool_of_two},
        measure=per_operation(simple_load),
        warm_up=1.0,
        prepare=lambda stage: stage.database,
    ),
]
