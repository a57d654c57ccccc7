"""A plane with one row of each kind, the configuration that goes with it, and a worker that has both."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from supervisor.cli.tables import TABLES
from supervisor.ground import log
from supervisor.ground.config import Config, load_bytes
from supervisor.plane.layout import Kind, ProcessState
from supervisor.plane.memory import Plane

TEXT = b"""
[supervisor]
pop = "fra1"
[pools.user]
servers = ["127.0.0.1:8101", "127.0.0.1:8102"]
health = { type = "tcp" }
[edge.listeners.web]
bind = "127.0.0.1:80"
pool = "user"
"""


@pytest.fixture
def config() -> Config:
    return load_bytes(TEXT, "a.toml", Path("/etc"), TABLES, {})


@pytest.fixture
def plane() -> Plane:
    plane = Plane.create()
    plane.processes.enter_supervisor(1)
    column = plane.claim_column("edge", 1)
    plane.started(column, 100)
    plane.set_state(column, ProcessState.READY)
    for kind, name in (
        (Kind.LISTENER, "edge/web"),
        (Kind.POOL, "user"),
        (Kind.SERVER, "user/127.0.0.1:8101"),
        (Kind.SERVER, "user/127.0.0.1:8102"),
        (Kind.ROUTE, "r"),
        (Kind.LIMIT, "l"),
        (Kind.LEASEPOOL, "app/alice"),
        (Kind.DATABASE, "app"),
    ):
        plane.allocate(kind, name)
    plane.cells[plane.state(Kind.LISTENER, 0)] = column
    return plane


@pytest.fixture
def column(plane: Plane) -> int:
    """The one worker's."""
    return plane.live("edge")[0]


@pytest.fixture
def worker(config: Config, plane: Plane) -> Any:
    return SimpleNamespace(config=config, plane=plane, log=log.logger(), inherited=None)
