"""The pooler as its users meet it: psql, pgbench and psycopg, a real PostgreSQL, the daemon as a process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from supervisor.cli.demo.postgres import Cluster
from tests.system.support.poll import until
from tests.system.support.pooler import (
    Connection,
    MakePooler,
    Port,
    Start,
    poolers,
    psql,
    resident,
    shown,
    waiting,
)


@pytest.fixture
def pooler(daemon: Start, tmp_path: Path, free_tcp_port: Port, postgres: Cluster) -> Iterator[MakePooler]:
    """`pooler(**options)` starts one before the cluster."""
    with poolers(daemon, tmp_path, free_tcp_port, postgres) as start:
        yield start


def test_psql_works_as_against_postgres(pooler: MakePooler) -> None:
    port = pooler().port
    commands = ("-At", "-c", "SELECT 41 + 1", "-c", "BEGIN; SELECT 'in'; COMMIT", "-c", "SELECT 1 / 0", "-c", r"\d")
    done = psql(port, *commands)
    assert done.stdout.split()[:4] == ["42", "BEGIN", "in", "COMMIT"]  # behind them, tables that other tests have made
    assert "division by zero" in done.stderr


@pytest.mark.parametrize("protocol", ["simple", "extended", "prepared"])
def test_pgbench_runs_without_a_failure(pooler: MakePooler, protocol: str, postgres: Cluster) -> None:
    running = pooler(database="pool_size = 3")
    postgres.execute("CREATE TABLE IF NOT EXISTS counted (n int)", database="app")
    postgres.execute("GRANT ALL ON counted TO app", database="app")
    script = running.folder / "script.sql"
    script.write_text("BEGIN;\nINSERT INTO counted VALUES (1);\nSELECT count(*) FROM counted;\nEND;\n")
    # A thread of pgbench waits for each Prepare: one thread a client, or it holds up the servers that it waits for.
    arguments = ("-n", "-M", protocol, "-c", "8", "-j", "8", "-t", "50", "-f", str(script))
    done = psql(running.port, *arguments, program="pgbench")
    assert done.returncode == 0, done.stderr
    processed = 8 * 50
    assert f"transactions actually processed: {processed}/{processed}" in done.stdout
    assert postgres.execute("SELECT count(*) FROM counted", database="app") == [(processed,)]
    postgres.execute("DROP TABLE counted", database="app")


def test_48_clients_over_two_workers_never_have_more_than_4_servers(pooler: MakePooler, postgres: Cluster) -> None:
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


def test_a_connection_idle_in_one_worker_serves_a_client_of_the_other(pooler: MakePooler) -> None:
    running = pooler(database="pool_size = 1")
    one, other = running.connect_each_worker()
    backends = [c.execute("SELECT pg_backend_pid()").fetchone() for _ in range(10) for c in (one, other)]
    assert len(set(backends)) == 1
    assert until(lambda: running.daemon.metric("portway_leasepool_handed_over_total"))


def test_first_come_first_served_over_the_workers(pooler: MakePooler) -> None:
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
        assert until(lambda expected=number + 1: waiting(running) == expected)
    holder.execute("COMMIT")
    for thread in threads:
        thread.join()
    assert sorted(served, key=lambda number: served[number]) == list(range(len(clients)))


def test_copy_both_ways(pooler: MakePooler) -> None:
    connection = pooler(database="pool_size = 1").connect()
    with connection.transaction():
        connection.execute("CREATE TEMP TABLE t (n int, s text) ON COMMIT DROP")
        with connection.cursor().copy("COPY t FROM STDIN") as copy:
            for number in range(20_000):
                copy.write_row((number, "x" * 100))
        with connection.cursor().copy("COPY t TO STDOUT") as copy:
            assert sum(1 for _ in copy) == 20_000
    assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_copy_that_fails_leaves_the_connection_usable(pooler: MakePooler, postgres: Cluster) -> None:
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


def test_large_messages_are_streamed(pooler: MakePooler) -> None:
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


def test_a_pipeline_larger_than_all_buffers_does_not_lock_up(pooler: MakePooler) -> None:
    connection = pooler(database="pool_size = 1").connect()
    big = "x" * 10_000
    with connection.pipeline():
        cursors = [connection.execute("SELECT %s::text, %s::int", [big, number]) for number in range(1000)]
    assert [cursor.fetchone() for cursor in cursors] == [(big, number) for number in range(1000)]


def test_parameters_follow_the_client_from_server_to_server(pooler: MakePooler) -> None:
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


def test_a_setting_that_the_server_refuses_is_told_with_the_first_statement(pooler: MakePooler) -> None:
    running = pooler()
    assert shown(running.connect(options="-c geqo=off"), "geqo") == ["off"]
    with pytest.raises(psycopg.OperationalError, match="unsupported startup parameter: a b"):
        running.connect(options=r"-c a\ b=off")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match='invalid value for parameter "TimeZone"'):
        running.connect(options="-c TimeZone=nowhere").execute("SELECT 1")


def test_a_session_is_reset_when_it_ends(pooler: MakePooler) -> None:
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


def test_statement_mode_knows_no_transactions(pooler: MakePooler) -> None:
    connection = pooler(database='pool_mode = "statement"').connect()
    assert connection.execute("SELECT 1").fetchone() == (1,)
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="statement pooling mode"):
        connection.execute("BEGIN")
