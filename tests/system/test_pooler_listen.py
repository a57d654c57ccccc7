"""LISTEN and NOTIFY in transaction mode: one server connection listens for all clients of a worker and database."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from supervisor.cli.demo.ports import free_tcp_port
from supervisor.cli.demo.postgres import Cluster
from tests.system.support.daemon import Daemon
from tests.system.support.poll import until
from tests.system.support.pooler import BOUND, Connection, Pooler


@pytest.fixture(scope="module")
def running(postgres: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pooler]:
    """One daemon with two workers, and two server connections for everybody."""
    folder = tmp_path_factory.mktemp("listen")
    pooler = Pooler(lambda text: Daemon.start(folder, text), folder, free_tcp_port(), postgres,
                    database='pool_size = 2\nsession_state = "refuse"', pooler='admin_users = ["app"]')  # fmt: skip
    with pooler.stack:
        yield pooler
    pooler.daemon.stop()


def heard(connection: Connection, count: int = 1, within: float = BOUND) -> list[tuple[str, str]]:
    """What comes, up to `count` notifications."""
    return [(one.channel, one.payload) for one in connection.notifies(timeout=within, stop_after=count)]


def listeners(postgres: Cluster) -> int:
    """Server connections that listen for others."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'app' AND application_name = 'portway: LISTEN'"
    return int(postgres.execute(query)[0][0])


def test_every_listener_in_every_worker_hears_it_and_holds_no_server(running: Pooler, postgres: Cluster) -> None:
    clients = [one for _ in range(2) for one in running.connect_each_worker()]
    for client in clients:
        assert client.execute("LISTEN news").statusmessage == "LISTEN"
    clients[0].execute('LISTEN "Other ""one"""')
    notifier = running.connect()
    pid = notifier.execute("SELECT pg_backend_pid()").fetchone()
    notifier.execute("NOTIFY news, 'größer'")
    for client in clients:
        (found,) = client.notifies(timeout=BOUND, stop_after=1)
        assert (found.channel, found.payload) == ("news", "größer")
        assert pid is not None
        assert found.pid in {row[0] for row in postgres.execute("SELECT pid FROM pg_stat_activity")}
    notifier.execute("SELECT pg_notify('Other \"one\"', 'x'), pg_notify('news', 'y')")
    assert heard(clients[0], 2) == [('Other "one"', "x"), ("news", "y")]
    assert heard(clients[1]) == [("news", "y")]
    assert listeners(postgres) == 2
    assert running.servers() <= 2 + 2
    for client in clients:
        assert client.execute("UNLISTEN *").statusmessage == "UNLISTEN"
    notifier.execute("NOTIFY news, 'nobody'; NOTIFY news, 'hears'")
    assert heard(clients[0], within=0.5) == []


def test_a_listen_holds_from_its_commit_and_is_taken_back_by_a_rollback(running: Pooler) -> None:
    client, notifier = running.connect_each_worker()
    with client.transaction():
        client.execute("LISTEN one")
        client.execute("SAVEPOINT s")
        client.execute("LISTEN two")
        client.execute("ROLLBACK TO s")
        client.execute("LISTEN three")
        notifier.execute("NOTIFY one, 'early'")
    for channel in ("two", "three", "one"):
        notifier.execute(f"NOTIFY {channel}, 'late'")
    assert heard(client, 3) == [("one", "early"), ("three", "late"), ("one", "late")]
    with client.transaction(force_rollback=True):
        client.execute("UNLISTEN one")
        client.execute("LISTEN four")
        notifier.execute("NOTIFY one, 'inside'")
        assert heard(client, within=0.5) == []
    notifier.execute("NOTIFY four; NOTIFY one, 'again'")
    assert heard(client, 2) == [("one", "inside"), ("one", "again")]
    client.execute("BEGIN; UNLISTEN one; COMMIT; SELECT 1; LISTEN four")
    notifier.execute("NOTIFY one; NOTIFY three; NOTIFY four")
    assert heard(client, 2) == [("three", ""), ("four", "")]
    client.execute("BEGIN")
    with pytest.raises(psycopg.errors.UndefinedTable):
        client.execute("SELECT * FROM nosuch")
    with pytest.raises(psycopg.errors.InFailedSqlTransaction):
        client.execute("LISTEN five")
    client.execute("ROLLBACK")
    assert client.execute("DISCARD ALL").statusmessage == "DISCARD ALL"
    notifier.execute("NOTIFY three; NOTIFY four; NOTIFY five")
    assert heard(client, within=0.5) == []


def test_drivers_that_prepare_everything(running: Pooler) -> None:
    client, notifier = (running.connect(prepare_threshold=0) for _ in range(2))
    for number in range(2):
        client.execute("LISTEN prepared")
        notifier.execute("NOTIFY prepared")
        assert heard(client) == [("prepared", "")]
        client.execute("UNLISTEN prepared")
        notifier.execute("NOTIFY prepared, 'unheard'")
        assert heard(client, within=0.3) == [], number
    with client.pipeline():
        client.execute("LISTEN a")
        client.execute("SELECT 1")
        client.execute("LISTEN b")
    notifier.execute("SELECT pg_notify('a', ''), pg_notify('b', '')")
    assert heard(client, 2) == [("a", ""), ("b", "")]


def test_two_thousand_notifications_come_in_order(running: Pooler) -> None:
    client, notifier = running.connect_each_worker()
    client.execute("LISTEN many")
    notifier.execute("SELECT pg_notify('many', repeat('x', 100) || n) FROM generate_series(1, 2000) AS n")
    assert [int(payload.strip("x")) for _, payload in heard(client, 2000)] == [*range(1, 2001)]


def test_async_clients(running: Pooler) -> None:
    async def listen() -> list[str]:
        client = await psycopg.AsyncConnection.connect(
            host="127.0.0.1", port=running.port, user="app", dbname="app", password="secret", autocommit=True
        )
        async with client:
            await client.execute("LISTEN later")
            await asyncio.to_thread(running.connect().execute, "NOTIFY later, 'x'")
            return [one.payload async for one in client.notifies(timeout=BOUND, stop_after=1)]

    assert asyncio.run(listen()) == ["x"]


def test_psql_shows_what_it_has_heard(running: Pooler, tmp_path: Path) -> None:
    path = shutil.which("psql")
    if path is None:
        pytest.skip("no psql here")
    shown = tmp_path / "shown"
    command = [path, "-X", "-h", "127.0.0.1", "-p", str(running.port), "-U", "app", "app"]
    environment = {**os.environ, "PGPASSWORD": "secret"}
    with shown.open("w") as output, subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, text=True,
                                                     env=environment) as shell:  # fmt: skip
        assert shell.stdin is not None
        say = shell.stdin
        say.write("LISTEN told;\nNOTIFY told, 'itself';\n")

        def told() -> bool:
            """It prints what it has heard behind each answer."""
            say.write("SELECT 1;\n")
            say.flush()
            return 'Asynchronous notification "told" with payload "itself" received' in shown.read_text()

        assert until(told, "what it has sent itself")


def test_an_encoding_is_the_clients_own(running: Pooler) -> None:
    client = running.connect(client_encoding="LATIN1")
    client.execute('LISTEN "größe"')
    running.connect().execute("SELECT pg_notify('größe', 'häßlich €')")
    assert heard(client) == [("größe", "häßlich ?")]


def test_the_connection_that_listens_is_shown_lost_and_found(running: Pooler, postgres: Cluster) -> None:
    console = running.connect("portway", prepare_threshold=None)
    client, notifier = running.connect_each_worker()
    notices: list[str | None] = []
    client.add_notice_handler(lambda notice: notices.append(notice.sqlstate))
    client.execute("LISTEN kept")
    show = "SHOW SERVERS"
    assert until(lambda: "listening" in [row[4] for row in console.execute(show).fetchall()], "it in SHOW SERVERS")
    assert running.daemon.metric("portway_database_listening", database="app") >= 1
    for lose in (lambda: ended(postgres), lambda: console.execute("RECONNECT app")):
        notices.clear()
        lose()
        assert until(lambda: noticed(client, notices), "a warning of what was lost")
        notifier.execute("NOTIFY kept, 'still'")
        assert heard(client) == [("kept", "still")]
    running.stack.close()
    listening = "portway_database_listening"
    assert until(lambda: not running.daemon.metric(listening, database="app"), "the end of listening")


def ended(postgres: Cluster) -> None:
    postgres.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'portway: LISTEN'"
    )


def noticed(client: Connection, notices: list[str | None]) -> bool:
    """Whether the client has been told that it may have missed something."""
    client.execute("SELECT 1")
    return "01000" in notices
