from collections.abc import Iterator

import pytest

from supervisor.plane.memory import Plane


@pytest.fixture
def plane() -> Iterator[Plane]:
    plane = Plane.create()
    yield plane
    plane.close()
