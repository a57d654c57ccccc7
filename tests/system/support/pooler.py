"""The pooler as its tests meet it: a daemon with a pooler before a PostgreSQL, and what its clients do."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from supervisor.cli.demo.postgres import Cluster
from tests.system.support.daemon import Daemon

Start = Callable[..., Daemon]
Port = Callable[[], int]
Connection = psycopg.Connection[tuple[Any, ...]]
MakePooler = Callable[..., "Pooler"]

BOUND = 15.0  # s for anything that is to happen soon
USERS = {"app": "secret", "legacy": "secret"}


class Pooler:
    """A daemon with a pooler before a cluster."""

    def __init__(self, daemon: Start, folder: Path, port: int, cluster: Cluster, **options: Any) -> None:
        self.port, self.folder, self.cluster = port, folder, cluster
        self.write_users(options.pop("users", USERS))
        self.options = options
        self.daemon = daemon(self.text(**options))
        self.stack = ExitStack()

    def write_users(self, users: dict[str, str]) -> None:
        (self.folder / "users.txt").write_text("".join(f'"{name}" "{stored}"\n' for name, stored in users.items()))

    def text(self, address: str = "", workers: int = 2, **lines: str) -> str:
        """The configuration, with these lines in its tables: database, pooler, auth, listener."""
        database, pooler, auth, listener = (lines.get(key, "") for key in ("database", "pooler", "auth", "listener"))
        return f"""
[supervisor]
workers = {workers}
drain_timeout = "2s"
[pools.pg]
servers = ["{address or self.cluster.address}"]
[pooler]
{pooler}
[pooler.listeners.main]
bind = "127.0.0.1:{self.port}"
{listener}
[pooler.databases.app]
primary = "pg"
{database or "pool_size = 4"}
[pooler.databases.sessions]
primary = "pg"
database = "app"
pool_mode = "session"
pool_size = 2
[pooler.auth]
users = "users.txt"
{auth}
"""

    def connect(self, database: str = "app", user: str = "app", **options: Any) -> Connection:
        options = {"password": "secret", "autocommit": True, "connect_timeout": 10} | options
        options.setdefault("host", "127.0.0.1")
        made = psycopg.connect(port=self.port, user=user, dbname=database, **options)
        self.stack.callback(made.close)
        return made

    def connect_each_worker(self, **options: Any) -> list[Connection]:
        """A connection in each of the two workers, which may be starting yet; its cancel key names the worker's
        column."""
        found: dict[int, Connection] = {}
        ends = time.monotonic() + BOUND
        while time.monotonic() < ends:
            connection = self.connect(**options)
            if found.setdefault(connection.info.backend_pid >> 24, connection) is not connection:
                connection.close()
            if len(found) == 2:
                return list(found.values())
        raise AssertionError(f"in {BOUND:g} s all connections came to one worker")

    def servers(self, database: str = "app", user: str = "app") -> int:
        """How many connections PostgreSQL has from us."""
        count = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND usename = %s"
        return int(self.cluster.execute(count, database, user)[0][0])


@contextmanager
def poolers(daemon: Start, folder: Path, free_tcp_port: Port, cluster: Cluster) -> Iterator[MakePooler]:
    """`start(**options)` starts one before the cluster; its connections are closed at the end."""
    with ExitStack() as stack:

        def start(**options: Any) -> Pooler:
            made = Pooler(daemon, folder, free_tcp_port(), cluster, **options)
            stack.enter_context(made.stack)
            return made

        yield start


def psql(port: int, *arguments: str, database: str = "app", program: str = "psql") -> subprocess.CompletedProcess[str]:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"no {program} here")
    return subprocess.run(
        [path, "-h", "127.0.0.1", "-p", str(port), "-U", "app", *arguments, database],
        capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PGPASSWORD": "secret", "PGCONNECT_TIMEOUT": "10"},
    )  # fmt: skip


def waiting(running: Pooler) -> float:
    return running.daemon.metric("portway_leasepool_waiting", database="app", user="app")


def check_cancel(connection: Connection) -> None:
    """A query of this connection is cancelled, and the next one is not."""
    timer = threading.Timer(0.5, connection.cancel_safe)
    timer.start()
    with pytest.raises(psycopg.errors.QueryCanceled):
        connection.execute("SELECT pg_sleep(30)")
    timer.join()
    assert connection.execute("SELECT 1").fetchone() == (1,)


def resident(pid: int) -> int:
    """The most memory that a process ever had, in bytes."""
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))


def shown(connection: Connection, *names: str) -> list[str]:
    return [str(connection.execute(f"SHOW {name}").fetchone()[0]) for name in names]  # type: ignore[index,arg-type]


def vanish(connection: Connection) -> None:
    """End it without a word."""
    with socket.fromfd(connection.pgconn.socket, socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.shutdown(socket.SHUT_RDWR)
    connection.close()


def sleeping(cluster: Cluster) -> bool:
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND state = 'active'"
    return bool(cluster.execute(query)[0][0])
