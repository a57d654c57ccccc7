"""What a client does to its session in transaction mode is its own: statements, settings, tables, locks."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import psycopg
import pytest

from supervisor.cli.demo.ports import free_tcp_port
from supervisor.cli.demo.postgres import Cluster
from tests.system.support.daemon import Daemon
from tests.system.support.poll import until
from tests.system.support.pooler import Connection, Pooler, shown, vanish

DATABASES = """pool_size = 2
[pooler.databases.refusing]
primary = "pg"
database = "app"
session_state = "refuse"
pool_size = 1"""


@pytest.fixture(scope="module")
def running(postgres: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pooler]:
    """One daemon, with two server connections for everybody."""
    folder = tmp_path_factory.mktemp("sessions")
    pooler = Pooler(lambda text: Daemon.start(folder, text), folder, free_tcp_port(), postgres, database=DATABASES,
                    pooler='admin_users = ["app"]\nmax_prepared_statements = 20')  # fmt: skip
    with pooler.stack:
        yield pooler
    pooler.daemon.stop()


def value(connection: Connection, sql: Any, *arguments: Any) -> Any:
    row = connection.execute(sql, arguments or None).fetchone()
    assert row is not None
    return row[0]


def backend(connection: Connection) -> Any:
    return value(connection, "SELECT pg_backend_pid()")


def test_drivers_prepare_statements_and_share_them(running: Pooler) -> None:
    clients = [running.connect(prepare_threshold=0) for _ in range(5)]
    for number in range(30):  # more than a server keeps
        for client in clients:
            assert value(client, f"SELECT %s::int + {number}", number) == 2 * number
    counted = value(clients[0], "SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'portway_%%'")
    assert 0 < counted <= 20


def test_who_ends_its_side_gets_its_answers(running: Pooler) -> None:
    client = running.connect()
    client.pgconn.send_query(b"SELECT pg_sleep(0.3), 7")
    with socket.fromfd(client.pgconn.socket, socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.shutdown(socket.SHUT_WR)
    result = client.pgconn.get_result()
    assert result is not None
    assert result.get_value(0, 1) == b"7"
    client.close()


def broken_pipeline(client: Any) -> None:
    """psycopg raises the error where it happens to read it: at the sync, or at the statement before."""
    with client.pipeline() as pipeline:
        client.execute("SELECT %s::int", [1])
        client.execute("SELECT 1 / %s::int", [0])
        client.execute("SELECT %s::text", ["skipped"])
        pipeline.sync()


def test_statements_in_pipelines_with_errors(running: Pooler) -> None:
    client = running.connect(prepare_threshold=0, autocommit=False)
    for _ in range(3):
        with pytest.raises(psycopg.errors.DivisionByZero):
            broken_pipeline(client)
        client.rollback()
        assert value(client, "SELECT %s::text", "usable") == "usable"
        client.commit()


def test_sql_prepare_is_each_clients_own(running: Pooler) -> None:
    clients = [running.connect() for _ in range(4)]
    for number, client in enumerate(clients):
        client.execute(f"PREPARE mine (int) AS SELECT $1 + {number}")
    for number, client in enumerate(clients):
        assert value(client, "EXECUTE mine(10)") == 10 + number
    with pytest.raises(psycopg.errors.DuplicatePreparedStatement, match='prepared statement "mine" already exists'):
        clients[0].execute("PREPARE mine AS SELECT 1")
    assert clients[0].execute("DEALLOCATE mine").statusmessage == "DEALLOCATE"
    with pytest.raises(psycopg.errors.InvalidSqlStatementName, match='prepared statement "mine" does not exist'):
        clients[0].execute("EXECUTE mine(1)")
    assert clients[1].execute("DISCARD ALL").statusmessage == "DISCARD ALL"
    with pytest.raises(psycopg.errors.InvalidSqlStatementName):
        clients[1].execute("EXECUTE mine(1)")
    assert value(clients[2], "EXECUTE mine(10)") == 12


def test_a_table_that_changes_costs_at_most_one_error(running: Pooler, postgres: Cluster) -> None:
    postgres.execute("CREATE TABLE changing (a int)", database="app")
    postgres.execute("GRANT ALL ON changing TO app", database="app")
    try:
        clients = [running.connect(prepare_threshold=0) for _ in range(2)]
        for client in clients:
            client.execute("SELECT * FROM changing WHERE a = %s::int", [1])
        postgres.execute("ALTER TABLE changing ADD b text", database="app")
        for client in clients:
            for _ in range(2):  # once for each server connection
                with suppress(psycopg.errors.FeatureNotSupported):
                    client.execute("SELECT * FROM changing WHERE a = %s::int", [1])
            cursor = client.execute("SELECT * FROM changing WHERE a = %s::int", [1])
            assert len(cursor.description or ()) == 2
    finally:
        postgres.execute("DROP TABLE changing", database="app")


def test_settings_are_each_clients_own(running: Pooler) -> None:
    clients = [running.connect(options=f"-c work_mem={number}MB") for number in range(1, 5)]
    for _ in range(2):
        assert [shown(client, "work_mem") for client in clients] == [[f"{number}MB"] for number in range(1, 5)]
    one, two, three, four = clients
    one.execute("SET search_path = app, \"My Schema\"; SET SESSION statement_timeout TO '7s'")
    two.execute("SELECT set_config('app.tenant', 'two', false)")
    three.execute("RESET work_mem")
    with four.transaction(force_rollback=True):
        four.execute("SET work_mem = '64MB'")
        assert shown(four, "work_mem") == ["64MB"]
    with four.transaction():
        four.execute("SET work_mem = '5MB'")
        four.execute("SAVEPOINT s")
        four.execute("SET work_mem = '6MB'")
        four.execute("ROLLBACK TO s")
        four.execute("SET LOCAL statement_timeout = '1s'")
    for _ in range(2):
        assert shown(one, "search_path", "statement_timeout") == ['app, "My Schema"', "7s"]
        assert shown(two, "search_path", "statement_timeout") == ['"$user", public', "0"]
        assert value(two, "SELECT current_setting('app.tenant', true)") == "two"
        assert value(three, "SELECT coalesce(current_setting('app.tenant', true), '')") == ""
        assert shown(three, "work_mem") == ["3MB"]
        assert shown(four, "work_mem", "statement_timeout") == ["5MB", "0"]
    one.execute("RESET ALL")
    assert shown(one, "search_path", "statement_timeout", "work_mem") == ['"$user", public', "0", "1MB"]


def test_what_cannot_leave_its_server_pins_its_client(running: Pooler) -> None:
    console = running.connect("portway", prepare_threshold=None)
    client, other = running.connect(), running.connect()
    for makes, lifts, reason in (
        ("CREATE TEMP TABLE mine AS SELECT 7 AS n", "DROP TABLE mine", "temporary table"),
        ("SELECT pg_advisory_lock(42)", "SELECT pg_advisory_unlock(42)", "advisory lock"),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 7 AS n", "CLOSE c", "cursor with hold"),
    ):
        client.execute(makes)
        assert len({backend(client) for _ in range(3)}) == 1
        assert until(lambda why=reason: f"pinned: {why}" in str(console.execute("SHOW HOLDERS").fetchall()))
        assert not value(other, "SELECT pg_try_advisory_xact_lock(42)") or reason != "advisory lock"
        client.execute(lifts)
        assert until(lambda: not console.execute("SHOW HOLDERS").fetchall())
    with client.transaction(force_rollback=True):
        client.execute("CREATE TEMP TABLE gone (n int)")
    assert until(lambda: not console.execute("SHOW HOLDERS").fetchall())
    client.execute("SELECT pg_advisory_lock(43)")
    vanish(client)
    other.execute("SELECT pg_advisory_lock(43)")


def test_what_would_pin_can_be_refused(running: Pooler) -> None:
    client = running.connect("refusing")
    for makes in ("CREATE TEMP TABLE mine (n int)", "SELECT pg_advisory_lock(42)"):
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="does not outlive its transaction here"):
            client.execute(makes)
    with client.transaction():
        client.execute("CREATE TEMP TABLE mine (n int) ON COMMIT DROP")
        client.execute("SELECT pg_advisory_xact_lock(42)")
