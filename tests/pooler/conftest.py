"""Fixtures of the pooler's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from supervisor.plane.memory import Plane
from tests.pooler.stage import Stage


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
