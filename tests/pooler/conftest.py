"""Fixtures of the pooler's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from supervisor.plane.layout import Kind, LeasePool, ProcessState
from supervisor.plane.memory import Plane
from tests.pooler.stage import Movable, Stage


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Callable[..., Stage]]:
    """`stage(pooler=..., database=...)` makes a pooler with these lines in its configuration."""
    plane = Plane.create()
    made: list[Stage] = []

    def make(**lines: str) -> Stage:
        made.append(Stage(tmp_path, plane, **lines))
        return made[-1]

    yield make
    for one in made:
        one.close()
    plane.close()


@pytest.fixture
def two(stage: Callable[..., Stage]) -> tuple[Stage, int, int]:
    """A stage with an idle connection, another worker's column, and the cell of its ticket."""
    playing = stage()
    other = playing.plane.claim_column("pooler", 2)
    playing.plane.set_state(other, ProcessState.READY)
    playing.client().ask("SELECT 1")
    playing.lane.advance(0.2)
    playing.mailbox.sent.clear()
    (server,) = playing.pool.servers
    server.conn = Movable(server.conn)
    return playing, other, playing.plane.counters(Kind.LEASEPOOL, playing.pool.row, other) + LeasePool.OLDEST_TICKET
