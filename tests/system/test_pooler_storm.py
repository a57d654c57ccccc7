"""Everybody logs in at once: nobody fails, and the server sees no more than the pool."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.cli.demo.postgres import Cluster
from tests.system.support.pooler import MakePooler, Port, Start, poolers
from tests.system.support.storm import storm

WITHIN = 10.0  # s for all of them


@pytest.fixture
def pooler(daemon: Start, tmp_path: Path, free_tcp_port: Port, postgres: Cluster) -> Iterator[MakePooler]:
    with poolers(daemon, tmp_path, free_tcp_port, postgres) as start:
        yield start


@pytest.mark.parametrize("clients", [300, pytest.param(2000, marks=pytest.mark.soak)])
def test_a_storm_of_logins(pooler: MakePooler, clients: int) -> None:
    running = pooler(database="pool_size = 8", pooler="max_client_conn = 5000")
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if limit < clients + 200:
        pytest.skip(f"this user may open {limit} files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    outcomes = storm(running.port, clients, 2 * WITHIN)
    assert [outcome.error for outcome in outcomes if outcome.error] == []
    assert max(outcome.seconds for outcome in outcomes) <= WITHIN
    assert running.servers() <= 8
    logins = running.daemon.metric("portway_leasepool_logins_total", database="app", user="app")
    assert logins <= 8
