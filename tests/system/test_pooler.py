"""The pooler as its users meet it: psql, pgbench and psycopg, a real PostgreSQL, the daemon as a process."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from supervisor.cli.demo.credentials import Certificate
from supervisor.cli.demo.postgres import Cluster
from tests.system.support.daemon import Daemon
from tests.system.support.poll import until

Start = Callable[..., Daemon]
Port = Callable[[], int]
Connection = psycopg.Connection[tuple[Any, ...]]

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
        # Named prepared statements stay with the server that has them: not for transaction mode.
        options = {"password": "secret", "autocommit": True, "connect_timeout": 10, "prepare_threshold": None} | options
        options.setdefault("host", "127.0.0.1")
        made = psycopg.connect(port=self.port, user=user, dbname=database, **options)
        self.stack.callback(made.close)
        return made

    def connect_each_worker(self, **options: Any) -> list[Connection]:
        """A connection in each of the two workers; its cancel key names the worker's column."""
        found: dict[int, Connection] = {}
        for _ in range(64):
            connection = self.connect(**options)
            if found.setdefault(connection.info.backend_pid >> 24, connection) is not connection:
                connection.close()
            if len(found) == 2:
                return list(found.values())
        raise AssertionError("64 connections, and all came to one worker")

    def servers(self, database: str = "app", user: str = "app") -> int:
        """How many connections PostgreSQL has from us."""
        count = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND usename = %s"
        return int(self.cluster.execute(count, database, user)[0][0])


@pytest.fixture
def pooler(daemon: Start, tmp_path: Path, free_tcp_port: Port, postgres: Cluster) -> Iterator[Callable[..., Pooler]]:
    """`pooler(**options)` starts one before the cluster."""
    with ExitStack() as stack:

        def start(**options: Any) -> Pooler:
            made = Pooler(daemon, tmp_path, free_tcp_port(), postgres, **options)
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


def test_psql_works_as_against_postgres(pooler: Callable[..., Pooler]) -> None:
    port = pooler().port
    commands = ("-At", "-c", "SELECT 41 + 1", "-c", "BEGIN; SELECT 'in'; COMMIT", "-c", "SELECT 1 / 0", "-c", r"\d")
    done = psql(port, *commands)
    assert done.stdout.split()[:4] == ["42", "BEGIN", "in", "COMMIT"]  # behind them, tables that other tests have made
    assert "division by zero" in done.stderr


@pytest.mark.parametrize("protocol", ["simple", "extended", "prepared"])
def test_pgbench_runs_without_a_failure(pooler: Callable[..., Pooler], protocol: str, postgres: Cluster) -> None:
    running = pooler(database="pool_size = 3")
    postgres.execute("CREATE TABLE IF NOT EXISTS counted (n int)", database="app")
    postgres.execute("GRANT ALL ON counted TO app", database="app")
    script = running.folder / "script.sql"
    script.write_text("BEGIN;\nINSERT INTO counted VALUES (1);\nSELECT count(*) FROM counted;\nEND;\n")
    database = "sessions" if protocol == "prepared" else "app"
    clients = "2" if protocol == "prepared" else "8"
    arguments = ("-n", "-M", protocol, "-c", clients, "-j", "2", "-t", "50", "-f", str(script))
    done = psql(running.port, *arguments, database=database, program="pgbench")
    assert done.returncode == 0, done.stderr
    processed = int(clients) * 50
    assert f"transactions actually processed: {processed}/{processed}" in done.stdout
    assert postgres.execute("SELECT count(*) FROM counted", database="app") == [(processed,)]
    postgres.execute("DROP TABLE counted", database="app")


def test_48_clients_over_two_workers_never_have_more_than_4_servers(
    pooler: Callable[..., Pooler], postgres: Cluster
) -> None:
    running = pooler()
    counts: list[int] = []
    done = threading.Event()

    def watch() -> None:
        with postgres.connect() as connection:
            while not done.is_set():
                row = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'").fetchone()
                assert row is not None
                counts.append(row[0])

    failures: list[BaseException] = []

    def work(connection: Connection) -> None:
        try:
            for number in range(30):
                with connection.transaction():
                    assert connection.execute("SELECT %s::int", [number]).fetchone() == (number,)
        except BaseException as error:
            failures.append(error)

    connections = [running.connect() for _ in range(48)]
    assert len({connection.info.backend_pid >> 24 for connection in connections}) == 2
    watcher = threading.Thread(target=watch)
    watcher.start()
    threads = [threading.Thread(target=work, args=[connection]) for connection in connections]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    watcher.join()
    assert not failures
    assert max(counts) == 4


def test_a_connection_idle_in_one_worker_serves_a_client_of_the_other(pooler: Callable[..., Pooler]) -> None:
    running = pooler(database="pool_size = 1")
    one, other = running.connect_each_worker()
    backends = [c.execute("SELECT pg_backend_pid()").fetchone() for _ in range(10) for c in (one, other)]
    assert len(set(backends)) == 1
    assert until(lambda: running.daemon.metric("portway_leasepool_handed_over_total"), BOUND)


def test_first_come_first_served_over_the_workers(pooler: Callable[..., Pooler]) -> None:
    running = pooler(database="pool_size = 1")
    holder, other = running.connect_each_worker()
    clients = [holder, other, *running.connect_each_worker(), *running.connect_each_worker()][1:]
    served: dict[int, Any] = {}  # by the server's clock: the threads here wake in any order
    holder.execute("BEGIN")
    threads = []
    for number, client in enumerate(clients):

        def ask(client: Connection = client, number: int = number) -> None:
            row = client.execute("SELECT clock_timestamp()").fetchone()
            assert row is not None
            served[number] = row[0]

        threads.append(threading.Thread(target=ask))
        threads[-1].start()
        assert until(lambda expected=number + 1: waiting(running) == expected, BOUND)
    holder.execute("COMMIT")
    for thread in threads:
        thread.join()
    assert sorted(served, key=lambda number: served[number]) == list(range(len(clients)))


def waiting(running: Pooler) -> float:
    return running.daemon.metric("portway_leasepool_waiting", database="app", user="app")


# -- who comes in


def test_a_wrong_password_is_refused(pooler: Callable[..., Pooler]) -> None:
    running = pooler()
    for user, password in (("app", "wrong"), ("nobody", "secret"), ("app", "")):
        with pytest.raises(psycopg.OperationalError, match=r"password authentication failed|no password supplied"):
            running.connect(user=user, password=password)


def test_a_database_that_is_not_listed_does_not_exist(pooler: Callable[..., Pooler]) -> None:
    with pytest.raises(psycopg.OperationalError, match='database "nosuch" does not exist'):
        pooler().connect("nosuch")


@pytest.mark.parametrize("stored", ["plain", "md5", "scram"])
@pytest.mark.parametrize("method", ["auto", "md5", "scram-sha-256"])
def test_every_kind_of_stored_password(
    pooler: Callable[..., Pooler], postgres: Cluster, stored: str, method: str
) -> None:
    """Both sides with the same entry: `legacy` is md5 in PostgreSQL, `app` is SCRAM there."""
    user = "legacy" if stored == "md5" else "app"
    entries = {
        "plain": "secret",
        "md5": "md5" + hashlib.md5(b"secretlegacy", usedforsecurity=False).hexdigest(),
        "scram": str(postgres.execute("SELECT rolpassword FROM pg_authid WHERE rolname = 'app'")[0][0]),
    }
    running = pooler(users={user: entries[stored]}, auth=f'type = "{method}"', workers=1)
    if stored == "md5" and method == "scram-sha-256":
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            running.connect(user=user)
        return
    assert running.connect(user=user).execute("SELECT current_user").fetchone() == (user,)


def test_a_password_that_the_server_refuses_is_said_so(pooler: Callable[..., Pooler]) -> None:
    running = pooler(users={"app": "other"})
    with pytest.raises(psycopg.OperationalError, match="server login failed: password authentication failed"):
        running.connect(password="other")


def test_protocol_3_2_and_its_long_cancel_keys(pooler: Callable[..., Pooler]) -> None:
    running = pooler(workers=1)
    connection = running.connect(max_protocol_version="latest")
    assert connection.info.server_version
    assert connection.pgconn.protocol_version == 3
    check_cancel(connection)


def check_cancel(connection: Connection) -> None:
    """A query of this connection is cancelled, and the next one is not."""
    timer = threading.Timer(0.5, connection.cancel_safe)
    timer.start()
    with pytest.raises(psycopg.errors.QueryCanceled):
        connection.execute("SELECT pg_sleep(30)")
    timer.join()
    assert connection.execute("SELECT 1").fetchone() == (1,)


# -- cancel


def test_cancel_reaches_the_query_through_any_worker(pooler: Callable[..., Pooler]) -> None:
    running = pooler()
    connection = running.connect()
    for _ in range(6):  # a cancel request arrives at either worker
        check_cancel(connection)


def test_cancel_takes_a_waiting_client_out_of_the_queue(pooler: Callable[..., Pooler]) -> None:
    running = pooler(database="pool_size = 1")
    holder, waiter = running.connect(), running.connect()
    holder.execute("BEGIN")
    for query in ("SELECT 1", "SELECT %s::int"):
        timer = threading.Timer(0.5, waiter.cancel_safe)
        timer.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            waiter.execute(query, [1] if "%" in query else None)
        timer.join()
    holder.execute("COMMIT")
    assert waiter.execute("SELECT 1").fetchone() == (1,)


def test_a_cancel_of_an_idle_client_hits_nobody(pooler: Callable[..., Pooler]) -> None:
    running = pooler(database="pool_size = 1")
    idle, busy = running.connect(), running.connect()
    idle.execute("SELECT 1")
    done = threading.Event()
    thread = threading.Thread(target=lambda: (busy.execute("SELECT pg_sleep(1)"), done.set()))
    thread.start()
    while not done.is_set():
        idle.cancel_safe()
    thread.join()


# -- COPY and large messages


def test_copy_both_ways(pooler: Callable[..., Pooler]) -> None:
    connection = pooler(database="pool_size = 1").connect()
    with connection.transaction():
        connection.execute("CREATE TEMP TABLE t (n int, s text) ON COMMIT DROP")
        with connection.cursor().copy("COPY t FROM STDIN") as copy:
            for number in range(20_000):
                copy.write_row((number, "x" * 100))
        with connection.cursor().copy("COPY t TO STDOUT") as copy:
            assert sum(1 for _ in copy) == 20_000
    assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_copy_that_fails_leaves_the_connection_usable(pooler: Callable[..., Pooler], postgres: Cluster) -> None:
    running = pooler(database="pool_size = 1")
    connection = running.connect()
    postgres.execute("CREATE TABLE copied (n int)", database="app")
    postgres.execute("GRANT ALL ON copied TO app", database="app")
    try:
        for _ in range(3):
            with (
                pytest.raises(psycopg.errors.InvalidTextRepresentation),
                connection.cursor().copy("COPY copied FROM STDIN") as copy,
            ):
                copy.write("1\nnonsense\n" + "2\n" * 100_000)
            assert running.connect().execute("SELECT count(*) FROM copied").fetchone() == (0,)
    finally:
        postgres.execute("DROP TABLE copied", database="app")


def test_large_messages_are_streamed(pooler: Callable[..., Pooler]) -> None:
    """64 MiB each way, in a worker that does not grow by anything near it."""
    running = pooler(workers=1)
    (worker,) = running.daemon.pids("pooler")
    connection = running.connect()
    connection.execute("SELECT 1")
    before = resident(worker)
    size = 64 << 20
    row = connection.execute("SELECT length(%s::text), repeat('y', %s)", ["x" * size, size]).fetchone()
    assert row is not None
    assert row[0] == len(row[1]) == size
    assert resident(worker) - before < 8 << 20


def resident(pid: int) -> int:
    """The most memory that a process ever had, in bytes."""
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))


def test_a_pipeline_larger_than_all_buffers_does_not_lock_up(pooler: Callable[..., Pooler]) -> None:
    connection = pooler(database="pool_size = 1").connect()
    big = "x" * 10_000
    with connection.pipeline():
        cursors = [connection.execute("SELECT %s::text, %s::int", [big, number]) for number in range(1000)]
    assert [cursor.fetchone() for cursor in cursors] == [(big, number) for number in range(1000)]


# -- session state


def test_parameters_follow_the_client_from_server_to_server(pooler: Callable[..., Pooler]) -> None:
    running = pooler(database="pool_size = 1")
    here = running.connect(application_name="here", options="-c TimeZone=Asia/Tokyo")
    there = running.connect(application_name="there")
    for _ in range(3):
        assert shown(here, "TimeZone", "application_name") == ["Asia/Tokyo", "here"]
        assert shown(there, "application_name") == ["there"]
    here.execute("SET TimeZone = 'Europe/Paris'")
    assert shown(there, "TimeZone") != ["Europe/Paris"]
    assert shown(here, "TimeZone") == ["Europe/Paris"]
    assert here.info.parameter_status("TimeZone") == "Europe/Paris"


def shown(connection: Connection, *names: str) -> list[str]:
    return [str(connection.execute(f"SHOW {name}").fetchone()[0]) for name in names]  # type: ignore[index,arg-type]


def test_a_setting_that_is_invalid_or_not_kept_is_refused(pooler: Callable[..., Pooler]) -> None:
    running = pooler()
    with pytest.raises(psycopg.OperationalError, match="unsupported startup parameter: geqo"):
        running.connect(options="-c geqo=off")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match='invalid value for parameter "TimeZone"'):
        running.connect(options="-c TimeZone=nowhere").execute("SELECT 1")


def test_a_session_is_reset_when_it_ends(pooler: Callable[..., Pooler]) -> None:
    running = pooler()
    connections = [running.connect("sessions") for _ in range(2)]
    for connection in connections:
        connection.execute("SET work_mem = '77MB'")
        connection.execute("CREATE TEMP TABLE mine (n int)")
        connection.execute("PREPARE plan AS SELECT 1")
        assert shown(connection, "work_mem") == ["77MB"]
        connection.close()
    for connection in [running.connect("sessions") for _ in range(2)]:
        assert shown(connection, "work_mem") != ["77MB"]
        assert connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)
        assert connection.execute("SELECT to_regclass('mine')").fetchone() == (None,)
    assert running.servers() <= 2


def test_statement_mode_knows_no_transactions(pooler: Callable[..., Pooler]) -> None:
    connection = pooler(database='pool_mode = "statement"').connect()
    assert connection.execute("SELECT 1").fetchone() == (1,)
    connection.execute("BEGIN")
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="statement pooling mode"):
        connection.execute("SELECT 1")


# -- what goes wrong


def test_a_client_that_vanishes_takes_its_transaction_with_it(pooler: Callable[..., Pooler], postgres: Cluster) -> None:
    running = pooler(database="pool_size = 1")
    postgres.execute("CREATE TABLE vanished (n int)", database="app")
    postgres.execute("GRANT ALL ON vanished TO app", database="app")
    try:
        for ending in ("BEGIN; INSERT INTO vanished VALUES (1)", "BEGIN; LOCK vanished; SELECT pg_sleep(60)"):
            victim = running.connect()
            victim.pgconn.send_query(ending.encode())
            if "sleep" in ending:
                assert until(lambda: sleeping(postgres), BOUND)
            else:
                victim.pgconn.get_result()
            vanish(victim)
            assert running.connect().execute("SELECT count(*) FROM vanished").fetchone() == (0,)
    finally:
        postgres.execute("DROP TABLE vanished", database="app")


def vanish(connection: Connection) -> None:
    """End it without a word."""
    with socket.fromfd(connection.pgconn.socket, socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.shutdown(socket.SHUT_RDWR)
    connection.close()


def sleeping(cluster: Cluster) -> bool:
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND state = 'active'"
    return bool(cluster.execute(query)[0][0])


def test_a_server_that_dies_is_told_and_replaced(pooler: Callable[..., Pooler], postgres: Cluster) -> None:
    running = pooler(database="pool_size = 1")
    connection = running.connect()
    connection.execute("BEGIN")
    postgres.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")
    with pytest.raises(psycopg.OperationalError, match="terminating connection due to administrator command"):
        connection.execute("SELECT 1")
    other = running.connect()
    assert other.execute("SELECT 1").fetchone() == (1,)
    postgres.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")
    assert until(lambda: running.servers() == 0, BOUND)
    assert other.execute("SELECT 2").fetchone() == (2,)  # it was idle, so nobody notices


def test_a_server_that_is_away_gives_its_error_fast(
    pooler: Callable[..., Pooler], free_tcp_port: Port, postgres: Cluster
) -> None:
    running = pooler(address=f"127.0.0.1:{free_tcp_port()}")
    for _ in range(20):
        with pytest.raises(psycopg.OperationalError, match=r"could not connect to pg/127\.0\.0\.1"):
            running.connect()


def test_who_waits_too_long_is_told(pooler: Callable[..., Pooler]) -> None:
    running = pooler(database="pool_size = 1", pooler='query_wait_timeout = "700ms"')
    holder, waiter = running.connect(), running.connect()
    holder.execute("BEGIN")
    with pytest.raises(psycopg.OperationalError, match="query_wait_timeout"):
        waiter.execute("SELECT 1")
    holder.execute("COMMIT")


def test_too_many_clients_are_refused(pooler: Callable[..., Pooler]) -> None:
    running = pooler(pooler="max_client_conn = 3")
    for _ in range(3):
        running.connect()
    with pytest.raises(psycopg.OperationalError, match="max_client_conn"):
        running.connect()


def test_a_killed_worker_costs_its_clients_only(pooler: Callable[..., Pooler], postgres: Cluster) -> None:
    running = pooler(database="pool_size = 2")
    one, other = running.connect_each_worker()
    victims = [one, other]
    for connection in victims:
        connection.pgconn.send_query(b"SELECT pg_sleep(60)")
    assert until(lambda: running.servers() == 2, BOUND)
    before = running.daemon.pids("pooler")
    os.kill(before[0], 9)
    assert until(lambda: len(set(running.daemon.pids("pooler")) - {before[0]}) == 2, BOUND)
    # The dead worker's query is cancelled, and its place is free again: two new clients can work.
    for connection in victims:
        vanish(connection)
    fresh = [running.connect() for _ in range(2)]
    for connection in fresh:
        connection.execute("BEGIN")
    assert not sleeping(postgres)
    assert running.servers() == 2


def test_an_upgrade_ends_sessions_between_transactions(pooler: Callable[..., Pooler], postgres: Cluster) -> None:
    running = pooler()
    with running.connect(autocommit=False) as connection:
        cursor = connection.execute("CREATE TEMPORARY TABLE kept ON COMMIT DROP AS SELECT 7 AS n")
        old = set(running.daemon.pids("pooler"))
        done = running.daemon.command("upgrade")
        assert done.status == 0, done.err
        assert cursor.execute("SELECT n FROM kept").fetchone() == (7,), "in the old code"
        connection.commit()
    with running.connect() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,), "in the new"
    until(lambda: not set(running.daemon.pids("pooler")) & old, "the old ones to end", BOUND)
    assert running.daemon.metric("portway_leasepool_open", database="app", user="app") == running.servers()


def test_a_drain_ends_sessions_between_transactions(pooler: Callable[..., Pooler]) -> None:
    running = pooler()
    idle, busy = running.connect(), running.connect()
    said: list[str] = []
    for connection in (idle, busy):
        connection.add_notice_handler(lambda notice: said.append(str(notice.message_primary)))

    def usable(connection: Connection) -> bool:
        try:
            connection.execute("SELECT 1")
        except psycopg.OperationalError as error:
            said.append(str(error))
            return False
        return True

    busy.execute("BEGIN")
    running.daemon.send(15)
    assert until(lambda: not usable(idle), BOUND)
    assert busy.execute("SELECT 1").fetchone() == (1,)
    busy.execute("COMMIT")
    assert not usable(busy)
    # What comes with the last answer libpq takes for a notice, what comes later for an error.
    assert sum("terminating connection due to administrator command" in text for text in said) == 2
    running.daemon.stop()


def test_a_reload_swaps_databases_users_and_sizes(pooler: Callable[..., Pooler]) -> None:
    running = pooler(database="pool_size = 1", pooler='query_wait_timeout = "500ms"')
    holder, waiter = running.connect(), running.connect()
    gone = running.connect("sessions")
    holder.execute("BEGIN")
    running.write_users({**USERS, "legacy": "other"})
    text = running.text(database="pool_size = 2", pooler='query_wait_timeout = "500ms"')
    running.daemon.rewrite(text.replace("[pooler.databases.sessions]", "[pooler.databases.renamed]"))
    assert running.daemon.command("reload").status == 0
    assert waiter.execute("SELECT 1").fetchone() == (1,)
    holder.execute("COMMIT")
    assert running.connect("renamed").execute("SELECT 1").fetchone() == (1,)
    with pytest.raises(psycopg.OperationalError):
        running.connect(user="legacy")
    with pytest.raises(psycopg.OperationalError, match="administrator command"):
        gone.execute("SELECT 1")


# -- bad input


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00" + b"\x01" * 600,
        (20_000).to_bytes(4, "big") + bytes(19_996),
        (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big") + b"more",
        (8).to_bytes(4, "big") + (2 << 16).to_bytes(4, "big"),
        (9).to_bytes(4, "big") + (3 << 16).to_bytes(4, "big") + b"\0",
    ],
    ids=["http", "tls", "oversized", "behind-ssl-request", "protocol-2", "no-user"],
)
def test_bad_input_gets_an_error_and_a_close(pooler: Callable[..., Pooler], sent: bytes) -> None:
    running = pooler(workers=1)
    with socket.create_connection(("127.0.0.1", running.port), BOUND) as sock:
        sock.sendall(sent)
        answer = b""
        try:
            while data := sock.recv(4096):
                answer += data
        except ConnectionResetError:
            pass
    assert answer == b"" or answer.startswith(b"E")
    assert running.connect().execute("SELECT 1").fetchone() == (1,)


def test_a_startup_that_never_ends_is_cut(pooler: Callable[..., Pooler]) -> None:
    running = pooler(workers=1, pooler='client_login_timeout = "500ms"')
    with socket.create_connection(("127.0.0.1", running.port), BOUND) as sock:
        sock.sendall(b"\0\0")
        assert b"client_login_timeout" in sock.recv(4096)
        assert sock.recv(4096) == b""


def test_ssl_and_gss_requests_are_answered_in_plain_text(pooler: Callable[..., Pooler]) -> None:
    running = pooler(workers=1)
    with socket.create_connection(("127.0.0.1", running.port), BOUND) as sock:
        for code in (80877104, 80877103):
            sock.sendall((8).to_bytes(4, "big") + code.to_bytes(4, "big"))
            assert sock.recv(10) == b"N"
    running.connect(sslmode="prefer", gssencmode="prefer").execute("SELECT 1")


# -- TLS


@pytest.fixture
def secured(pooler: Callable[..., Pooler], certificate: Certificate) -> Callable[..., Pooler]:
    """`secured(required=...)` starts one whose listener has a certificate for localhost."""

    def start(required: bool = False, **options: Any) -> Pooler:
        more = f"required = {str(required).lower()}"
        tls = f'tls = {{ certificates = [{{ cert = "{certificate.cert}", key = "{certificate.key}" }}], {more} }}'
        return pooler(listener=tls, **options)

    return start


@pytest.mark.parametrize("negotiation", ["postgres", "direct"])
def test_tls_with_verification(secured: Callable[..., Pooler], certificate: Certificate, negotiation: str) -> None:
    running = secured()
    connection = running.connect(
        sslmode="verify-full", sslrootcert=str(certificate.authority), sslnegotiation=negotiation, host="localhost"
    )
    assert connection.pgconn.ssl_in_use
    row = connection.execute("SELECT length(%s::text), repeat('y', 10000000)", ["x" * 10_000_000]).fetchone()
    assert row is not None
    assert row[0] == len(row[1]) == 10_000_000
    check_cancel(connection)
    assert running.connect(sslmode="disable").execute("SELECT 1").fetchone() == (1,)


def test_tls_may_be_demanded(secured: Callable[..., Pooler]) -> None:
    running = secured(required=True)
    assert running.connect(sslmode="require").execute("SELECT 1").fetchone() == (1,)
    with pytest.raises(psycopg.OperationalError, match="must use TLS"):
        running.connect(sslmode="disable")


def test_direct_tls_for_another_protocol_is_refused(secured: Callable[..., Pooler]) -> None:
    running = secured()
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", running.port), BOUND) as sock,
        context.wrap_socket(sock, server_hostname="localhost") as secured_sock,
    ):
        assert b"without the ALPN protocol" in secured_sock.recv(4096)


def test_bytes_in_clear_behind_an_ssl_request_are_refused(secured: Callable[..., Pooler]) -> None:
    running = secured()
    with socket.create_connection(("127.0.0.1", running.port), BOUND) as sock:
        sock.sendall((8).to_bytes(4, "big") + (80877103).to_bytes(4, "big") + b"\0\0\0\x12")
        assert b"received unencrypted data after SSL request" in sock.recv(4096)
