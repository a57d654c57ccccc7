"""Clients that share server connections see exactly what each would see on a connection of its own."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from supervisor.cli.demo.ports import free_tcp_port
from supervisor.cli.demo.postgres import Cluster
from tests.system.support.daemon import Daemon
from tests.system.support.pooler import Pooler
from tests.system.support.twins import Twins, drive

CLIENTS = 6
SERVERS = 3
STEPS = 900
MANY_STEPS = 100_000


@pytest.fixture
def running(tmp_path: Path, postgres: Cluster) -> Iterator[Pooler]:
    """A daemon with two workers, and fewer server connections than clients."""
    pooler = Pooler(lambda text: Daemon.start(tmp_path, text), tmp_path, free_tcp_port(), postgres,
                    database=f"pool_size = {SERVERS}", pooler="max_prepared_statements = 6")  # fmt: skip
    yield pooler
    pooler.stack.close()
    pooler.daemon.stop()


def compare(running: Pooler, clients: int, steps: int) -> None:
    """With another seed each time, which the failure tells."""
    options: dict[str, Any] = {"prepare_threshold": None, "options": "-c work_mem=5MB", "application_name": "twin"}
    port = int(running.cluster.address.rpartition(":")[2])

    def direct() -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(
            host="127.0.0.1", port=port, user="app", dbname="app", password="secret", autocommit=True, **options
        )

    seed = random.Random(time.time_ns()).randrange(1 << 30)
    drive([Twins(seed + number, lambda: running.connect(**options), direct) for number in range(clients)], steps)
    assert running.servers() <= SERVERS


def test_clients_see_what_they_would_see_alone(running: Pooler) -> None:
    compare(running, CLIENTS, STEPS)


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_clients_see_what_they_would_see_alone_for_long(running: Pooler) -> None:
    compare(running, 2 * CLIENTS, MANY_STEPS)
