"""The console as operators and exporters meet it: two workers, psql and psycopg."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from supervisor.cli.demo import ports
from supervisor.cli.demo.postgres import Cluster
from tests.system.support.daemon import Daemon
from tests.system.support.edges import server
from tests.system.support.poll import until
from tests.system.support.pooler import BOUND, Pooler, poolers, psql
from tests.system.support.programs import needed

CONSOLE = 'admin_users = ["app"]\nstats_users = ["legacy"]'


@pytest.fixture(scope="module")
def running(postgres: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pooler]:
    """One daemon for all tests here; each leaves it as it found it."""
    folder = tmp_path_factory.mktemp("console")
    with ExitStack() as stack:

        def start(text: str) -> Daemon:
            daemon = Daemon.start(folder, text, "portway.toml", True)
            stack.callback(daemon.stop)
            return daemon

        with poolers(start, folder, ports.free_tcp_port, postgres) as make:
            yield make(pooler=CONSOLE, listener='[pooler.listeners.local]\nunix_socket = ".s.PGSQL.6432"')


class Console:
    def __init__(self, running: Pooler, user: str = "app") -> None:
        self.connection = running.connect("pgbouncer", user, row_factory=dict_row)

    def rows(self, command: str) -> list[dict[str, Any]]:
        found: list[Any] = self.connection.execute(command.encode()).fetchall()
        return found


def test_psql_and_both_protocols(running: Pooler) -> None:
    shown = psql(running.port, "-At", "-c", "SHOW VERSION", "-c", "SHOW HELP", database="pgbouncer")
    assert shown.stdout.startswith("PgBouncer 1.24"), shown.stderr
    assert "SHOW HOLDERS" in shown.stderr
    console = Console(running)
    simple = console.rows("SHOW LISTS")
    assert [row["list"] for row in simple][:2] == ["databases", "users"]
    with console.connection.cursor(binary=True) as cursor:
        extended = cursor.execute("SHOW LISTS", prepare=True).fetchall()
    assert {row["list"]: type(row["items"]) for row in extended} == {row["list"]: int for row in simple}


def test_a_unix_socket_leads_to_the_same(running: Pooler) -> None:
    path = running.folder / ".s.PGSQL.6432"
    with psycopg.connect(
        host=str(running.folder), port=6432, user="app", password="secret", dbname="pgbouncer", autocommit=True
    ) as connection:
        mine = [row for row in connection.execute("SHOW CLIENTS").fetchall() if row[5] == "unix"]
        assert mine == []  # the console's own clients are not among them
        with psycopg.connect(host=str(running.folder), port=6432, user="app", password="secret", dbname="app") as other:
            assert other.execute("SELECT 1").fetchone() == (1,)
            assert [row[16] for row in connection.execute("SHOW CLIENTS").fetchall() if row[5] == "unix"] == [
                os.getpid()
            ]
    assert running.daemon.command("reload").status == 0
    assert path.is_socket()


def test_clients_and_holders_of_all_workers_are_shown(running: Pooler) -> None:
    clients = running.connect_each_worker()
    for number, client in enumerate(clients):
        client.execute("BEGIN")
        client.execute(f"SELECT 'number {number}'".encode())
    console = Console(running, "legacy")
    shown = {row["id"] for row in console.rows("SHOW CLIENTS")}
    assert {client.info.backend_pid for client in clients} <= shown
    assert until(lambda: len(console.rows("SHOW HOLDERS")) == 2)
    holders = {row["client_id"]: row for row in console.rows("SHOW HOLDERS")}
    for number, client in enumerate(clients):
        holder = holders[client.info.backend_pid]
        assert (holder["query"], holder["reason"]) == (f"SELECT 'number {number}'", "in a transaction")
        assert holder["server_pid"] != client.info.backend_pid
        client.execute("ROLLBACK")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        console.rows("RECONNECT")


def test_pause_over_all_workers(running: Pooler) -> None:
    clients = running.connect_each_worker()
    for client in clients:
        client.execute("SELECT 1")
    clients[1].execute("BEGIN")
    console = Console(running)
    pausing = threading.Thread(target=console.connection.execute, args=["PAUSE app"])
    pausing.start()
    assert until(lambda: running.servers() == 1)
    clients[1].execute("COMMIT")
    pausing.join(BOUND)
    assert running.servers() == 0
    answers: list[Any] = []
    threads = [
        threading.Thread(target=lambda client=client: answers.append(client.execute("SELECT 2").fetchone()))
        for client in clients
    ]
    for thread in threads:
        thread.start()
    assert until(lambda: sum(pool["cl_waiting"] for pool in console.rows("SHOW POOLS")) == 2)
    console.connection.execute("RESUME app")
    for thread in threads:
        thread.join(BOUND)
    assert answers == [(2,), (2,)]


def test_reload_says_what_is_wrong(running: Pooler) -> None:
    path = running.folder / "portway.toml"
    before = path.read_text()
    console = Console(running)
    try:
        path.write_text(before.replace("pool_size = 4", "pool_siez = 4"))
        with pytest.raises(psycopg.DatabaseError, match="pool_siez"):
            console.connection.execute("RELOAD")
        path.write_text(before.replace("pool_size = 4", "pool_size = 3"))
        console.connection.execute("RELOAD")
        assert [row["pool_size"] for row in console.rows("SHOW DATABASES") if row["name"] == "app"] == [3]
    finally:
        path.write_text(before)
        console.connection.execute("RELOAD")


SHOWS = (
    "ACTIVE_SOCKETS", "CLIENTS", "CONFIG", "DATABASES", "DNS_HOSTS", "DNS_ZONES", "LISTS", "MEM", "PEERS", "PEER_POOLS",
    "POOLS", "SERVERS", "SOCKETS", "STATE", "STATS", "STATS_AVERAGES", "STATS_TOTALS", "TOTALS", "USERS", "VERSION",
)  # fmt: skip
NUMBERED = (1, 24)  # the PgBouncer whose columns are compared


@pytest.fixture
def pgbouncer(tmp_path: Path) -> Iterator[psycopg.Connection[Any]]:
    """The console of a PgBouncer of the version whose columns ours has."""
    needed("pgbouncer")
    told = subprocess.run(["pgbouncer", "--version"], capture_output=True, text=True, check=True).stdout
    version = re.match(r"PgBouncer (\d+)\.(\d+)", told)
    if version is None or (int(version[1]), int(version[2])) != NUMBERED:
        pytest.skip(f"not installed: PgBouncer 1.24; there is {told.splitlines()[0]}")
    port = ports.free_tcp_port()
    path = tmp_path / "pgbouncer.ini"
    path.write_text(
        f"[databases]\nany = host=127.0.0.1 user=app\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n"
        "auth_type = any\nadmin_users = app\nunix_socket_dir =\n"
    )
    user = ["-u", "nobody"] if os.geteuid() == 0 else []  # it does not run as root
    where = f"host=127.0.0.1 port={port} user=app dbname=pgbouncer"
    with server(port, "pgbouncer", *user, "-q", path), psycopg.connect(where, autocommit=True) as connection:
        yield connection


def test_columns_are_those_of_pgbouncer(running: Pooler, pgbouncer: psycopg.Connection[Any]) -> None:
    ours = running.connect("pgbouncer")

    def columns(connection: psycopg.Connection[Any], what: str) -> list[str]:
        found = connection.execute(f"SHOW {what}".encode()).description
        assert found is not None
        return [column.name for column in found]

    for what in SHOWS:
        assert columns(ours, what) == columns(pgbouncer, what), what
    there, here = ([row[0] for row in connection.execute(b"SHOW LISTS").fetchall()] for connection in (pgbouncer, ours))
    assert here == there
