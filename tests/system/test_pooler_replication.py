"""Replication through the pooler, by PostgreSQL's own tools: each on a server connection of its own."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest

from supervisor.cli.demo.ports import free_tcp_port
from supervisor.cli.demo.postgres import Cluster, Unavailable, find
from tests.system.support.daemon import Daemon
from tests.system.support.poll import until
from tests.system.support.pooler import Connection, Pooler

LONG = 60.0  # s: what these tools do takes a few hundred milliseconds on an idle machine
DATABASES = """pool_size = 2
[pooler.databases.replication]
primary = "pg"
pool_size = 3"""
RULES = """
host all          all  127.0.0.1/32 scram-sha-256
host replication  repl 127.0.0.1/32 scram-sha-256
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """One whose WAL can be decoded; the role `repl` may replicate."""
    try:
        made = Cluster.create(find(prefer_system=True), settings={"wal_level": "logical"})
    except Unavailable as reason:
        pytest.skip(str(reason))
    try:
        made.start()
        for role in ("app", "repl"):
            made.add_role(role, "secret")
        made.execute("ALTER ROLE repl REPLICATION")
        made.add_database("app", "app")
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def running(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pooler]:
    """One daemon with two workers."""
    folder = tmp_path_factory.mktemp("replication")
    (folder / "hba.conf").write_text(RULES)
    pooler = Pooler(lambda text: Daemon.start(folder, text), folder, free_tcp_port(), cluster, database=DATABASES,
                    users={"app": "secret", "repl": "secret"}, auth='hba = "hba.conf"',
                    pooler='admin_users = ["app"]\nquery_wait_timeout = "3s"')  # fmt: skip
    with pooler.stack:
        yield pooler
    pooler.daemon.stop()


def tool(running: Pooler, name: str, *arguments: str | Path, user: str = "repl") -> list[str]:
    """A command of PostgreSQL's own, of the version that runs; skips without it."""
    path = running.cluster.installation.program(name)
    if not path.exists():
        pytest.skip(f"this PostgreSQL has no {name}")
    return [str(path), "-h", "127.0.0.1", "-p", str(running.port), "-U", user, *map(str, arguments)]


ENVIRONMENT = {**os.environ, "PGPASSWORD": "secret", "PGCONNECT_TIMEOUT": "10"}


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=ENVIRONMENT)


@contextmanager
def working(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """It goes on until it is told to end."""
    with subprocess.Popen(command, env=ENVIRONMENT) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_base_backup_with_its_wal(running: Pooler, tmp_path: Path) -> None:
    done = run(tool(running, "pg_basebackup", "-D", tmp_path / "copy", "-X", "stream", "-c", "fast"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "copy" / "PG_VERSION").exists()
    verify = running.cluster.installation.program("pg_verifybackup")
    if verify.exists():
        assert run([str(verify), str(tmp_path / "copy")]).returncode == 0
    assert until(lambda: not walsenders(running), "the end of its connections")
    assert until(lambda: not running.daemon.metric("portway_leasepool_open", database="replication"), "free places")


def test_wal_streams_while_ordinary_clients_work(running: Pooler, tmp_path: Path) -> None:
    command = tool(running, "pg_receivewal", "-D", tmp_path, "--no-loop")
    with working(command) as receiving:
        assert until(lambda: walsenders(running) == ["streaming"], "streaming", LONG)
        client = running.connect()
        assert client.execute("SELECT 1").fetchone() == (1,)
        running.cluster.execute("SELECT pg_create_restore_point('here')")
        running.cluster.execute("SELECT pg_switch_wal()")
        assert until(
            lambda: [one for one in tmp_path.iterdir() if not one.name.endswith(".partial")], "a segment", LONG
        )
        console = running.connect("portway", prepare_threshold=None)
        wanted = {("C", "physical"), ("S", "physical"), ("C", "none")}
        assert until(lambda: wanted <= {(row[0], row[3]) for row in shown(console, "SOCKETS")}, "both its ends")
        assert until(lambda: "replication" in [row[-2] for row in shown(console, "HOLDERS")], "why it is held")
        receiving.send_signal(signal.SIGINT)
        assert receiving.wait(LONG) == 0
    assert until(lambda: not walsenders(running), "its end")


def test_logical_decoding(running: Pooler, tmp_path: Path) -> None:
    made = run(tool(running, "pg_recvlogical", "-d", "app", "--slot", "s", "--create-slot", "-P", "test_decoding"))
    assert made.returncode == 0, made.stderr
    output = tmp_path / "changes"
    command = tool(
        running, "pg_recvlogical", "-d", "app", "--slot", "s", "--start", "-f", output, "--no-loop", "-F", "1"
    )
    with working(command) as receiving:
        running.connect().execute("CREATE TABLE decoded AS SELECT 42 AS answer")
        assert until(lambda: output.exists() and "answer[integer]:42" in output.read_text(), "what was written", LONG)
        receiving.send_signal(signal.SIGINT)
        assert receiving.wait(LONG) == 0
    assert run(tool(running, "pg_recvlogical", "-d", "app", "--slot", "s", "--drop-slot")).returncode == 0


def logical(running: Pooler) -> dict[str, str | int | bool | None]:
    return {"host": "127.0.0.1", "port": running.port, "user": "repl", "password": "secret", "dbname": "app",
            "replication": "database", "autocommit": True, "prepare_threshold": None,
            "cursor_factory": psycopg.ClientCursor}  # fmt: skip


def test_who_may_not_is_told_so(running: Pooler) -> None:
    done = run(tool(running, "pg_basebackup", "-D", "/nowhere", user="app"))
    assert 'no rule lets host "127.0.0.1", user "app", replication in' in done.stderr
    refused = {**logical(running), "user": "app"}
    with pytest.raises(psycopg.OperationalError, match="server login failed: must be superuser or replication role"):
        psycopg.connect(**refused)


def test_it_counts_to_the_pool(running: Pooler) -> None:
    taken = [psycopg.connect(**logical(running)) for _ in range(2)]
    with pytest.raises(psycopg.OperationalError, match="no place in the pool became free in 3 seconds"):
        psycopg.connect(**logical(running))
    for one in taken:
        one.close()
    name = "portway_leasepool_open"
    assert until(lambda: not running.daemon.metric(name, database="app", user="repl"), "free places")
    psycopg.connect(**logical(running)).close()


def shown(console: Connection, what: LiteralString) -> list[tuple[Any, ...]]:
    return console.execute(f"SHOW {what}").fetchall()


def walsenders(running: Pooler) -> list[str]:
    rows = running.cluster.execute("SELECT state FROM pg_stat_replication WHERE usename = 'repl'")
    return [str(state) for (state,) in rows]
