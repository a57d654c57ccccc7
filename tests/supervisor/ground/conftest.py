"""A lane at work under trio, for tests that need real sockets."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable

import pytest
import trio

from supervisor.ground.lane import Lane, Session

SECONDS = 30  # a test that takes longer hangs

Main = Callable[[Lane], Awaitable[None]]


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def until(condition: Callable[[], object], seconds: float = 10) -> None:
    """Poll until `condition` holds."""
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110  # what it looks at tells nobody
            await trio.sleep(0.002)


@pytest.fixture(name="until")
def until_fixture() -> Callable[..., Awaitable[None]]:
    return until


@pytest.fixture
def crashes() -> list[tuple[Session | None, BaseException]]:
    """What was reported as a crash; a test that expects some takes them out."""
    return []


@pytest.fixture
def on_lane(crashes: list[tuple[Session | None, BaseException]]) -> Callable[[Main], Lane]:
    """Run a trio function beside a lane, which ends with it. The lane must leave no descriptor and no crash."""

    def run(main: Main) -> Lane:
        before = open_files()
        lane = Lane(lambda session, error: crashes.append((session, error)))

        async def whole() -> None:
            with trio.fail_after(SECONDS):
                async with trio.open_nursery() as nursery:
                    await nursery.start(lane.run)
                    await main(lane)
                    nursery.cancel_scope.cancel()

        try:
            trio.run(whole, strict_exception_groups=False)
        finally:
            lane.close()
        assert not lane.sessions
        assert not lane.conns
        assert open_files() == before, "descriptors are left"
        assert not crashes
        return lane

    return run
