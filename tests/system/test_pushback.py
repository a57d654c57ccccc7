"""A saturated database pushes back at the gateway: 503 at the edge of the site instead of requests piling up."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.cli.demo.postgres import Cluster
from tests.system.conftest import BackendMaker
from tests.system.support.daemon import Daemon
from tests.system.support.poll import until
from tests.system.support.pooler import BOUND, MakePooler, Port, Start, poolers


@pytest.fixture
def pooler(
    daemon: Start, tmp_path: Path, free_tcp_port: Port, postgres: Cluster, http_backend: BackendMaker
) -> Iterator[tuple[MakePooler, int]]:
    port = free_tcp_port()
    site = f"""
[pools.web]
servers = ["{http_backend("web").address}"]
[gateway.listeners.web]
bind = "127.0.0.1:{port}"
[gateway.routes.web]
pool = "web"
sheds_on = "pooler.databases.app"
[gateway.routes.other]
path = "/other"
pool = "web"
"""

    def start(text: str) -> Daemon:
        started: Daemon = daemon(text + site)
        return started

    with poolers(start, tmp_path, free_tcp_port, postgres) as make:
        yield make, port


def get(port: int, path: str) -> tuple[int, str | None]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=BOUND)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.headers["Retry-After"]
    finally:
        connection.close()


def test_a_route_sheds_while_its_database_is_saturated(pooler: tuple[MakePooler, int]) -> None:
    make, port = pooler
    running = make(database='pool_size = 1\nsaturated_wait = "300ms"')
    holder, waiter = running.connect(), running.connect()
    assert get(port, "/") == (200, None)
    holder.execute("BEGIN")
    holder.execute("SELECT 1")
    answers: list[Any] = []
    waiting = threading.Thread(target=lambda: answers.append(waiter.execute("SELECT 2").fetchone()))
    waiting.start()
    assert until(lambda: get(port, "/") == (503, "1"))
    assert get(port, "/other") == (200, None)
    holder.execute("COMMIT")
    waiting.join(BOUND)
    assert answers == [(2,)]
    assert until(lambda: get(port, "/") == (200, None))
