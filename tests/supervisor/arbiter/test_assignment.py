"""Slots to workers, carried out over a plane: who is told what, when. Crew and time are the test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest

from supervisor.arbiter import assignment as module
from supervisor.arbiter.assignment import RELEASE_PATIENCE, TOGETHER, Assignment
from supervisor.arbiter.children import Child
from supervisor.arbiter.listeners import Key, Listeners
from supervisor.arbiter.roles import Role
from supervisor.ground.config import Bind
from supervisor.ground.orders import Slots
from supervisor.ground.tier import ListenerSpec
from supervisor.plane.layout import Kind, ListenerState
from supervisor.plane.memory import Plane

KEY = Key("edge", ListenerSpec("a", Bind("127.0.0.1", 1)))
SLOTS = 8


@attrs.define(eq=False)
class FakeLoop:
    """Timers that come when the test says so."""

    now: float = 100.0
    timers: list[tuple[float, Callable[[], None]]] = attrs.Factory(list)

    def after(self, seconds: float, function: Callable[[], None]) -> None:
        self.timers.append((self.now + seconds, function))

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        due = [function for when, function in self.timers if when <= self.now]
        self.timers = [timer for timer in self.timers if timer[0] > self.now]
        for function in due:
            function()


@attrs.define(eq=False)
class FakeCrew:
    """Workers that exist because the test says so."""

    wanted: list[Role] = attrs.Factory(list)
    children: dict[int, Child] = attrs.Factory(dict)
    told: list[tuple[str, Slots]] = attrs.Factory(list)

    def of(self, name: str) -> Iterator[Child]:
        return (child for child in self.children.values() if child.role.name == name)

    def in_column(self, column: int) -> Child | None:
        return next((child for child in self.children.values() if child.column == column), None)

    def tell(self, child: Child, order: Slots) -> None:
        self.told.append((child.title, order))

    def title(self, role: Role) -> str:
        return role.title(len(self.wanted))


@attrs.define(eq=False)
class Stage:
    plane: Plane
    loop: Any
    crew: Any
    assignment: Assignment

    def bear(self, number: int, column: int, ready: bool = True) -> Child:
        role = Role("edge", number)
        child = Child(role, f"edge {number}/?", 1000 + column, -1, column, column, self.loop.now)
        child.ready_at = self.loop.now if ready else None
        self.crew.children[child.pid] = child
        if role not in self.crew.wanted:
            self.crew.wanted.append(role)
        return child

    def die(self, child: Child) -> None:
        del self.crew.children[child.pid]
        self.plane.reap(child.column)
        self.assignment.died(child)

    def owners(self) -> list[int]:
        at = self.plane.state(Kind.LISTENER, self.plane.row(Kind.LISTENER, KEY.row)) + ListenerState.OWNER
        return self.plane.cells[at : at + SLOTS].tolist()

    def answer(self) -> None:
        """Everybody who was told to look says that it has."""
        told, self.crew.told = self.crew.told, []
        for child in list(self.crew.children.values()):
            steps = [order.step for title, order in told if title == child.title]
            if steps:
                self.assignment.released(child, max(steps))


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    plane = Plane.create()
    plane.allocate(Kind.LISTENER, KEY.row)
    loop: Any = FakeLoop()
    crew: Any = FakeCrew()
    listeners = Listeners(slots=SLOTS)
    listeners.keep({KEY: []})
    monkeypatch.setattr(module.time, "monotonic", lambda: loop.now)
    yield Stage(plane, loop, crew, Assignment(loop, plane, crew, listeners))
    plane.close()


def test_the_first_workers_share_once_all_are_ready(stage: Stage) -> None:
    stage.bear(1, 2)
    second = stage.bear(2, 3, ready=False)
    stage.assignment.update("edge")
    assert stage.owners() == [0] * SLOTS
    second.ready_at = stage.loop.now
    stage.assignment.update("edge")
    assert sorted(stage.owners()) == [2] * 4 + [3] * 4
    assert {title for title, _ in stage.crew.told} == {"edge 1/?", "edge 2/?"}


def test_a_fellow_that_is_late_is_not_waited_for_long(stage: Stage) -> None:
    stage.bear(1, 2)
    stage.bear(2, 3, ready=False)
    stage.assignment.update("edge")
    stage.loop.pass_time(TOGETHER)
    assert stage.owners() == [2] * SLOTS


def test_a_dead_workers_slots_go_at_once_and_come_back_when_it_has_a_successor(stage: Stage) -> None:
    stage.bear(1, 2)
    second = stage.bear(2, 3)
    stage.assignment.update("edge")
    before = stage.owners()
    stage.die(second)
    assert stage.owners() == [2] * SLOTS
    stage.bear(2, 4)
    stage.assignment.update("edge")
    assert stage.owners() == [owner if owner == 2 else 0 for owner in before], "nobody's until let go"
    stage.answer()
    assert stage.owners() == [{2: 2, 3: 4}[owner] for owner in before]


def test_a_worker_that_does_not_let_go_is_passed_over(stage: Stage) -> None:
    stage.bear(1, 2)
    stage.assignment.update("edge")
    stage.bear(2, 3)
    stage.assignment.update("edge")
    assert sorted(stage.owners()) == [0] * 4 + [2] * 4
    stage.loop.pass_time(RELEASE_PATIENCE)
    assert sorted(stage.owners()) == [2] * 4 + [3] * 4


def test_who_is_to_go_holds_nothing_once_it_has_let_go(stage: Stage) -> None:
    stage.bear(1, 2)
    leaving = stage.bear(2, 3)
    stage.assignment.update("edge")
    leaving.retiring = True
    stage.crew.wanted.pop()
    stage.assignment.update("edge")
    assert stage.assignment.holds(leaving)
    stage.answer()
    assert not stage.assignment.holds(leaving)
    assert stage.owners() == [2] * SLOTS


def test_titles_follow_the_count(stage: Stage) -> None:
    child = stage.bear(1, 2)
    stage.bear(2, 3)
    stage.assignment.retitle("edge")
    assert child.title == "edge 1/2"
    assert {order.title for _, order in stage.crew.told} == {"edge 1/2", "edge 2/2"}
    stage.crew.told.clear()
    stage.assignment.retitle("edge")
    assert stage.crew.told == []


def test_a_removed_listener_is_nobodys(stage: Stage) -> None:
    child = stage.bear(1, 2)
    stage.assignment.update("edge")
    stage.assignment.forget([KEY])
    assert stage.owners() == [0] * SLOTS
    assert not stage.assignment.holds(child)
