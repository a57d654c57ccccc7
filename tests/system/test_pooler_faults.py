"""Faults under load: whatever breaks, no transaction is answered twice or half, clients are told the truth, and the
pool's counts are exact afterwards."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import attrs
import psycopg
import pytest

from supervisor.cli.demo import ports
from supervisor.cli.demo.postgres import Cluster, Unavailable, find
from tests.system.support.cuttable import Wire, wire
from tests.system.support.daemon import Daemon
from tests.system.support.poll import until
from tests.system.support.pooler import BOUND, Pooler, poolers

CLIENTS = 6
POOL = 3


@attrs.define(eq=False)
class Load:
    """Clients that insert a number each in a transaction, and note what they were told of it."""

    running: Pooler
    numbers: itertools.count[int] = attrs.field(factory=itertools.count)
    committed: set[int] = attrs.field(factory=set)
    refused: set[int] = attrs.field(factory=set)  # an error before COMMIT was sent
    ended: threading.Event = attrs.field(factory=threading.Event)
    threads: list[threading.Thread] = attrs.field(factory=list)

    def __enter__(self) -> Load:
        self.threads = [threading.Thread(target=self.work) for _ in range(CLIENTS)]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        for thread in self.threads:
            thread.join(3 * BOUND)

    def work(self) -> None:
        while not self.ended.is_set():
            try:
                with self.running.connect(connect_timeout=5) as connection:
                    while not self.ended.is_set():
                        self.transaction(connection)
            except psycopg.Error:
                time.sleep(0.02)

    def transaction(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        number = next(self.numbers)
        try:
            connection.execute("BEGIN")
            connection.execute("INSERT INTO load VALUES (%s)", [number])
            row = connection.execute("SELECT n FROM load WHERE n = %s", [number]).fetchone()
            assert row == (number,)
        except psycopg.Error:
            self.refused.add(number)
            raise
        connection.execute("COMMIT")
        self.committed.add(number)

    def goes_on(self) -> None:
        """Until many more transactions have been committed."""
        before = len(self.committed)
        assert until(lambda: len(self.committed) > before + 50, 2 * BOUND)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """One of its own: it is killed."""
    try:
        # What is committed is to be there after a crash of the server; of the machine is not the question.
        made = Cluster.create(find(prefer_system=True), {"synchronous_commit": "on"})
    except Unavailable as reason:
        pytest.skip(str(reason))
    try:
        made.start()
        made.add_role("app", "secret")
        made.add_database("app", "app")
        made.execute("CREATE TABLE load (n int)", database="app")
        made.execute("GRANT ALL ON load TO app", database="app")
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def cable(cluster: Cluster) -> Iterator[Wire]:
    with wire("127.0.0.1", cluster.port) as made:
        yield made


@pytest.fixture(scope="module")
def running(cluster: Cluster, cable: Wire, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pooler]:
    folder: Path = tmp_path_factory.mktemp("faults")
    with ExitStack() as stack:

        def start(text: str) -> Daemon:
            daemon = Daemon.start(folder, text, "portway.toml", True)
            stack.callback(daemon.stop)
            return daemon

        with poolers(start, folder, ports.free_tcp_port, cluster) as make:
            yield make(
                address=f"127.0.0.1:{cable.port}",
                database=f"pool_size = {POOL}",
                pooler='query_timeout = "1s"\nserver_login_retry = "200ms"\nserver_connect_timeout = "1s"',
            )


def restart(cluster: Cluster, running: Pooler, cable: Wire) -> None:
    assert cluster.child is not None
    cluster.child.process.send_signal(signal.SIGQUIT)
    cluster.child.process.wait(BOUND)
    cluster.start()


def cut(cluster: Cluster, running: Pooler, cable: Wire) -> None:
    cable.cut()
    time.sleep(2.0)  # longer than query_timeout: the silence is to be noticed
    cable.mend()


def kill_worker(cluster: Cluster, running: Pooler, cable: Wire) -> None:
    os.kill(running.daemon.pids("pooler")[0], signal.SIGKILL)


def terminate(cluster: Cluster, running: Pooler, cable: Wire) -> None:
    for _ in range(5):
        cluster.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")


@pytest.mark.parametrize("fault", [restart, cut, kill_worker, terminate])
def test_nothing_is_lost_twice_or_half(
    running: Pooler, cluster: Cluster, cable: Wire, fault: Callable[[Cluster, Pooler, Wire], None]
) -> None:
    cluster.execute("TRUNCATE load", database="app")
    with Load(running) as load:
        load.goes_on()
        fault(cluster, running, cable)
        load.goes_on()
    there = [number for (number,) in cluster.execute("SELECT n FROM load", database="app")]
    assert len(there) == len(set(there))
    assert load.committed <= set(there)
    assert not load.refused & set(there)
    assert running.servers() <= POOL
    metric = running.daemon.metric
    assert until(lambda: metric("portway_leasepool_open", database="app", user="app") == running.servers())
    assert until(lambda: metric("portway_leasepool_busy", database="app", user="app") == 0)


def test_a_full_disk_is_the_clients_error_and_not_the_connections(running: Pooler) -> None:
    connection = running.connect()
    for _ in range(3):
        with pytest.raises(psycopg.errors.DiskFull, match="no space"):
            connection.execute("DO $$ BEGIN RAISE 'no space left' USING ERRCODE = 'disk_full'; END $$")
    assert connection.execute("SELECT 1").fetchone() == (1,)
    assert running.servers() <= POOL
