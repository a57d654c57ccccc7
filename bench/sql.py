"""The pooler beside PgBouncer: `pgbench -S`, 32 clients on 8 server connections, transaction mode, SCRAM both ways."""

from pathlib import Path

from bench.loads import Load, pgbench
from bench.proxies import Proxy, pgbouncer, portway
from bench.stage import Stage
from bench.workload import Workload, per_operation
from supervisor.cli.demo.ports import free_tcp_port

SERVERS = 8
USERS = '"bench" "bench"\n'


def pgbouncer_pool(stage: Stage, folder: Path) -> Proxy:
    port = free_tcp_port()
    users = stage.readable(folder / "users.txt", USERS)
    config = f"[databases]\nbench = host=127.0.0.1 port={stage.database.port} dbname=bench\n"
    config += f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n"
    config += f"auth_type = scram-sha-256\nauth_file = {users}\n"
    config += f"pool_mode = transaction\ndefault_pool_size = {SERVERS}\nmax_client_conn = 20000\nunix_socket_dir =\n"
    config += "log_connections = 0\nlog_disconnections = 0\nserver_tls_sslmode = disable\nstats_period = 600\n"
    config += f"logfile = {stage.writable(folder / 'pgbouncer.log')}\nlisten_backlog = 4096\n"
    return pgbouncer(folder, config, port)


def portway_pool(stage: Stage, folder: Path) -> Proxy:
    port = free_tcp_port()
    users = stage.readable(folder / "users.txt", USERS)
    config = f'[pools.primary]\nservers = ["{stage.database.address}"]\n\n'
    config += f'[pooler.listeners.main]\nbind = "127.0.0.1:{port}"\n\n'
    config += f'[pooler.databases.bench]\nprimary = "primary"\npool_mode = "transaction"\npool_size = {SERVERS}\n\n'
    config += f'[pooler.auth]\nusers = "{users}"\n'
    return portway(folder, config, port)


def simple_load(stage: Stage, proxy: Proxy, seconds: float) -> Load:
    return pgbench(stage.installation, proxy.port, seconds, "simple")


def extended_load(stage: Stage, proxy: Proxy, seconds: float) -> Load:
    return pgbench(stage.installation, proxy.port, seconds, "extended")


POOLERS = {"pgbouncer": pgbouncer_pool, "portway": portway_pool}

WORKLOADS = [
    Workload(
        name="simple",
        title="pooler, pgbench -S, simple protocol, 32 clients on 8",
        unit="CPU µs/transaction",
        goals={"pgbouncer": 1.3},
        sides=POOLERS,
        measure=per_operation(simple_load),
        warm_up=1.0,
        prepare=lambda stage: stage.database,
    ),
    Workload(
        name="extended",
        title="pooler, pgbench -S, extended protocol, 32 clients on 8",
        unit="CPU µs/transaction",
        goals={"pgbouncer": 1.3},
        sides=POOLERS,
        measure=per_operation(extended_load),
        warm_up=1.0,
        prepare=lambda stage: stage.database,
    ),
]
