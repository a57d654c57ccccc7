"""How the daemon ends, stage by stage, over children that only remember what they were sent."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from supervisor.arbiter.ending import AT_ONCE, LATE, Ending, Stage
from supervisor.arbiter.listeners import Listeners
from supervisor.arbiter.roles import Role
from supervisor.ground.config import load_bytes
from supervisor.ground.log import logger
from supervisor.plane import layout
from supervisor.plane.layout import ProcessState
from supervisor.plane.memory import Plane


@attrs.define(eq=False)
class FakeLoop:
    timers: list[tuple[float, Callable[[], None]]] = attrs.Factory(list)
    now: float = 0.0
    code: int | None = None

    def after(self, seconds: float, function: Callable[[], None]) -> None:
        self.timers.append((self.now + seconds, function))

    def stop(self, code: int) -> None:
        self.code = code

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        due = [function for when, function in self.timers if when <= self.now]
        self.timers = [timer for timer in self.timers if timer[0] > self.now]
        for function in due:
            function()


@attrs.define(eq=False)
class FakeChild:
    role: Role
    retiring: bool = False
    sent: list[signal.Signals] = attrs.Factory(list)

    def signal(self, number: signal.Signals) -> None:
        self.sent.append(number)


@attrs.define(eq=False)
class FakeCrew:
    children: dict[int, FakeChild]
    closed: bool = False

    def close(self) -> None:
        self.closed = True


@attrs.define(eq=False)
class Scene:
    loop: FakeLoop
    crew: FakeCrew
    plane: Plane
    ending: Ending
    begun: list[int]

    def end(self, pid: int) -> None:
        del self.crew.children[pid]
        self.ending.child_ended()

    def sent(self) -> dict[int, list[signal.Signals]]:
        return {pid: child.sent for pid, child in self.crew.children.items()}


def scene(plane: Plane, delay: str = "0s") -> Scene:
    config = load_bytes(
        f'[supervisor]\ndrain_delay = "{delay}"\ndrain_timeout = "10s"\n'.encode(), "x.toml", Path("/"), {}
    )
    loop: Any = FakeLoop()
    crew: Any = FakeCrew({1: FakeChild(Role("edge", 1)), 2: FakeChild(Role("gateway", 1)), 3: FakeChild(Role("admin"))})
    begun: list[int] = []
    ending = Ending(
        loop, plane, crew, Listeners(), logger(), lambda: config, {"edge", "gateway"}, lambda: begun.append(1)
    )
    return Scene(loop, crew, plane, ending, begun)


@pytest.fixture
def plane() -> Iterator[Plane]:
    plane = Plane.create()
    plane.processes.enter_supervisor(1)
    yield plane
    plane.close()


TERM, QUIT, KILL = signal.SIGTERM, signal.SIGQUIT, signal.SIGKILL


def test_workers_drain_first_and_what_exists_once_goes_last(plane: Plane) -> None:
    here = scene(plane)
    here.ending.terminate()
    assert here.crew.closed
    assert here.begun == [1]
    assert here.sent() == {1: [TERM], 2: [TERM], 3: []}
    here.end(1)
    assert here.sent() == {2: [TERM], 3: []}
    here.end(2)
    assert here.sent() == {3: [TERM]}
    assert here.loop.code is None
    here.end(3)
    assert here.loop.code == 0


def test_a_delay_is_announced_before_anybody_is_told(plane: Plane) -> None:
    here = scene(plane, "5s")
    here.ending.terminate()
    info = plane.process(layout.SUPERVISOR)
    assert info is not None
    assert info.state == ProcessState.DRAINING
    assert here.sent() == {1: [], 2: [], 3: []}
    assert not here.crew.closed, "who dies now still has a successor"
    here.loop.pass_time(5)
    assert here.sent() == {1: [TERM], 2: [TERM], 3: []}


@pytest.mark.parametrize("delay", ["0s", "5s"])
def test_a_second_term_cuts_it_short(plane: Plane, delay: str) -> None:
    here = scene(plane, delay)
    here.ending.terminate()
    here.ending.terminate()
    assert here.ending.stage is Stage.NOW
    assert all(QUIT in sent for sent in here.sent().values())
    here.loop.pass_time(5)
    assert all(KILL in sent for sent in here.sent().values())


def test_who_does_not_end_in_time_is_killed(plane: Plane) -> None:
    here = scene(plane)
    here.ending.terminate()
    here.loop.pass_time(10 + LATE)
    assert here.sent() == {1: [TERM, KILL], 2: [TERM, KILL], 3: []}
    here.end(1)
    here.end(2)
    here.loop.pass_time(AT_ONCE)
    assert here.sent() == {3: [TERM, KILL]}


def test_at_once_is_at_once_and_keeps_the_worst_code(plane: Plane) -> None:
    here = scene(plane)
    here.ending.at_once(1)
    here.ending.at_once()
    assert here.sent() == {1: [QUIT], 2: [QUIT], 3: [QUIT]}
    for pid in (1, 2, 3):
        here.end(pid)
    assert here.loop.code == 1


def test_with_nobody_there_it_is_over_immediately(plane: Plane) -> None:
    here = scene(plane)
    here.crew.children.clear()
    here.ending.terminate()
    assert here.loop.code == 0
