"""What goes wrong around the pooler: clients, servers and workers that vanish, limits, drains and reloads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from supervisor.cli.demo.postgres import Cluster
from tests.system.support.poll import until
from tests.system.support.pooler import (
    BOUND,
    USERS,
    Connection,
    MakePooler,
    Port,
    Start,
    poolers,
    sleeping,
    vanish,
)


@pytest.fixture
def pooler(daemon: Start, tmp_path: Path, free_tcp_port: Port, postgres: Cluster) -> Iterator[MakePooler]:
    """`pooler(**options)` starts one before the cluster."""
    with poolers(daemon, tmp_path, free_tcp_port, postgres) as start:
        yield start


def test_a_client_that_vanishes_takes_its_transaction_with_it(pooler: MakePooler, postgres: Cluster) -> None:
    running = pooler(database="pool_size = 1")
    postgres.execute("CREATE TABLE vanished (n int)", database="app")
    postgres.execute("GRANT ALL ON vanished TO app", database="app")
    try:
        for ending in ("BEGIN; INSERT INTO vanished VALUES (1)", "BEGIN; LOCK vanished; SELECT pg_sleep(60)"):
            victim = running.connect()
            victim.pgconn.send_query(ending.encode())
            if "sleep" in ending:
                assert until(lambda: sleeping(postgres))
            else:
                victim.pgconn.get_result()
            vanish(victim)
            assert running.connect().execute("SELECT count(*) FROM vanished").fetchone() == (0,)
    finally:
        postgres.execute("DROP TABLE vanished", database="app")


def test_a_server_that_dies_is_told_and_replaced(pooler: MakePooler, postgres: Cluster) -> None:
    running = pooler(database="pool_size = 1")
    connection = running.connect()
    connection.execute("BEGIN")
    postgres.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")
    with pytest.raises(psycopg.OperationalError, match="terminating connection due to administrator command"):
        connection.execute("SELECT 1")
    other = running.connect()
    assert other.execute("SELECT 1").fetchone() == (1,)
    postgres.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")
    assert until(lambda: running.servers() == 0)
    assert other.execute("SELECT 2").fetchone() == (2,)  # it was idle, so nobody notices


def test_a_server_that_is_away_gives_its_error_fast(pooler: MakePooler, free_tcp_port: Port, postgres: Cluster) -> None:
    running = pooler(address=f"127.0.0.1:{free_tcp_port()}")
    for _ in range(20):
        with pytest.raises(psycopg.OperationalError, match=r"could not connect to pg/127\.0\.0\.1"):
            running.connect()


def test_who_waits_too_long_is_told(pooler: MakePooler) -> None:
    running = pooler(database="pool_size = 1", pooler='query_wait_timeout = "700ms"')
    holder, waiter = running.connect(), running.connect()
    holder.execute("BEGIN")
    with pytest.raises(psycopg.OperationalError, match="query_wait_timeout"):
        waiter.execute("SELECT 1")
    holder.execute("COMMIT")


def test_too_many_clients_are_refused(pooler: MakePooler) -> None:
    running = pooler(pooler="max_client_conn = 3")
    for _ in range(3):
        running.connect()
    with pytest.raises(psycopg.OperationalError, match="max_client_conn"):
        running.connect()


def test_a_killed_worker_costs_its_clients_only(pooler: MakePooler, postgres: Cluster) -> None:
    running = pooler(database="pool_size = 2")
    one, other = running.connect_each_worker()
    victims = [one, other]
    for connection in victims:
        connection.pgconn.send_query(b"SELECT pg_sleep(60)")
    assert until(lambda: running.servers() == 2)
    before = running.daemon.pids("pooler")
    os.kill(before[0], 9)
    assert until(lambda: len(set(running.daemon.pids("pooler")) - {before[0]}) == 2)
    # The dead worker's query is cancelled, and its place is free again: two new clients can work.
    for connection in victims:
        vanish(connection)
    fresh = [running.connect() for _ in range(2)]
    for connection in fresh:
        connection.execute("BEGIN")
    assert not sleeping(postgres)
    assert running.servers() == 2


def test_an_upgrade_ends_sessions_between_transactions(pooler: MakePooler, postgres: Cluster) -> None:
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


def test_a_drain_ends_sessions_between_transactions(pooler: MakePooler) -> None:
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
    assert until(lambda: not usable(idle))
    assert busy.execute("SELECT 1").fetchone() == (1,)
    busy.execute("COMMIT")
    assert not usable(busy)
    # What comes with the last answer libpq takes for a notice, what comes later for an error.
    assert sum("terminating connection due to administrator command" in text for text in said) == 2
    running.daemon.stop()


def test_a_reload_swaps_databases_users_and_sizes(pooler: MakePooler) -> None:
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
