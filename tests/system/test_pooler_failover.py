"""A real primary and its replica: what reads goes to the replica, and clients survive a failover."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from supervisor.cli.demo import ports
from supervisor.cli.demo.postgres import Cluster, Unavailable, find
from tests.system.support.daemon import Daemon
from tests.system.support.poll import until
from tests.system.support.pooler import BOUND, Connection, Pooler, poolers

INTERVAL = 0.5  # s between checks


@pytest.fixture
def pair() -> Iterator[tuple[Cluster, Cluster]]:
    """A cluster of its own and its replica: the primary does not survive."""
    try:
        primary = Cluster.create(find(prefer_system=True))
    except Unavailable as reason:
        pytest.skip(str(reason))
    with ExitStack() as stack:
        stack.callback(primary.stop)
        primary.start()
        primary.add_role("app", "secret")
        primary.add_database("app", "app")
        replica = primary.replica()
        stack.callback(replica.stop)
        yield primary, replica.start()


@pytest.fixture
def running(pair: tuple[Cluster, Cluster], tmp_path: Path) -> Iterator[Pooler]:
    primary, replica = pair
    with ExitStack() as stack:

        def start(text: str) -> Daemon:
            health = f'health = {{ type = "postgres", user = "app", password = "secret", interval = "{INTERVAL}s" }}'
            text = text.replace(
                f'servers = ["{primary.address}"]', f'servers = ["{primary.address}", "{replica.address}"]\n{health}'
            )
            daemon = Daemon.start(tmp_path, text, "portway.toml", True)
            stack.callback(daemon.stop)
            return daemon

        with poolers(start, tmp_path, ports.free_tcp_port, primary) as make:
            yield make(
                database='pool_size = 4\nreplicas = "pg"\ntarget_session_attrs = "primary"\nreads = "auto"',
                pooler='server_login_retry = "200ms"',
            )


def port(connection: Connection) -> Any:
    row = connection.execute("SELECT inet_server_port()").fetchone()
    assert row is not None
    return row[0]


def test_reads_writes_and_a_failover(pair: tuple[Cluster, Cluster], running: Pooler) -> None:
    primary, replica = pair
    reader, writer = running.connect_each_worker()
    assert until(lambda: port(reader) == replica.port)
    writer.execute("CREATE TABLE t (n int)")
    for number in range(30):  # whoever has written reads it, wherever that is
        writer.execute("INSERT INTO t VALUES (%s)", [number])
        assert writer.execute("SELECT max(n) FROM t").fetchone() == (number,)
    assert until(lambda: port(writer) == replica.port)

    primary.execute("CREATE FUNCTION w() RETURNS void LANGUAGE sql AS 'INSERT INTO t VALUES (-1)'", database="app")
    primary.execute("GRANT ALL ON FUNCTION w TO app", database="app")
    assert until(lambda: replica.execute("SELECT to_regproc('w')", database="app") != [(None,)])
    for written, prepare in enumerate((False, True), 1):  # in the extended protocol, and simple at last
        caller = running.connect()
        caller.execute("SELECT w() WHERE %s", [True], prepare=prepare)  # a replica refuses it, and nobody notices
        assert caller.execute("SELECT count(*) FROM t WHERE n = -1").fetchone() == (written,)
    caller = running.connect()
    caller.execute("SELECT w()")
    assert caller.execute("SELECT count(*) FROM t WHERE n = -1").fetchone() == (3,)

    hearers = running.connect_each_worker()
    for hearer in hearers:
        hearer.execute("LISTEN news")
    holder = running.connect()
    holder.execute("BEGIN")
    holder.execute("INSERT INTO t VALUES (100)")
    assert primary.child is not None
    assert until(lambda: replica.execute("SELECT count(*) FROM t", database="app") == [(33,)])
    primary.child.process.send_signal(signal.SIGQUIT)
    assert until(lambda: broken(holder))
    waited: list[Any] = []
    os.kill(running.daemon.pids("pooler")[0], signal.SIGKILL)  # its successor never sees this primary
    fresh, *_ = running.connect_each_worker()
    waiting = threading.Thread(target=lambda: waited.append(fresh.execute("INSERT INTO t VALUES (200)").rowcount))
    waiting.start()
    assert not until_quietly(lambda: bool(waited), 1.0)
    replica.execute("SELECT pg_promote()")
    promoted = time.monotonic()
    waiting.join(BOUND)
    assert waited == [1]
    assert time.monotonic() - promoted <= 4 * INTERVAL + 10.0, "within some looks, however busy the machine is"
    assert fresh.execute("SELECT max(n) FROM t WHERE n <> 100").fetchone() == (200,)
    assert replica.execute("SELECT count(*) FROM t WHERE n = 100", database="app") == [(0,)]
    (survivor,) = [one for one in hearers if not broken(one)]  # the other's worker is the one that was killed
    assert until(lambda: hears(survivor, fresh), "notifications of the new primary")


def hears(hearer: Connection, notifier: Connection) -> bool:
    """Whether a notification of this moment arrives; those of the time without a primary are nobody's."""
    notifier.execute("NOTIFY news")
    return any(True for _ in hearer.notifies(timeout=0.2, stop_after=1))


def broken(connection: Connection) -> bool:
    """Whether its server's end has reached the client."""
    try:
        connection.execute("SELECT 1")
    except psycopg.OperationalError:
        return True
    return False


def until_quietly(condition: Any, bound: float) -> bool:
    """Whether it comes true within the bound."""
    ends = time.monotonic() + bound
    while time.monotonic() < ends:
        if condition():
            return True
        time.sleep(0.05)
    return False
