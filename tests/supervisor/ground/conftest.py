"""A lane at work under trio, for tests that need real sockets."""

from __future__ import annotations

import os
import traceback
from collections.abc import Awaitable, Callable, Iterator

import pytest
import trio

from supervisor.ground.lane import Lane, Session
from tests.leftovers import open_files

SECONDS = 900 if os.environ.get("PORTWAY_LONG") else 30  # a test that takes longer hangs

Main = Callable[[Lane], Awaitable[None]]


async def until(condition: Callable[[], object], seconds: float = 30) -> None:
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
            trio.run(whole)
        finally:
            lane.close()
        assert not lane.sessions
        assert not lane.conns
        assert open_files() <= before, "descriptors are left"
        assert not crashes
        return lane

    return run


@pytest.fixture
def by_hand(crashes: list[tuple[Session | None, BaseException]]) -> Iterator[Lane]:
    """A lane that the test itself drives, a round at a time; like `on_lane` it must leave nothing."""
    lane = Lane(lambda session, error: crashes.append((session, error)))
    yield lane
    lane.end_all()
    left = list(lane.conns.values())
    lane.close()
    assert not lane.sessions
    assert not left
    assert not crashes


@pytest.fixture
def forked() -> Callable[[Callable[[], None]], None]:
    """Run a function in a child process of its own; what it raises fails the test."""

    def run(function: Callable[[], None]) -> None:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                function()
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0

    return run
