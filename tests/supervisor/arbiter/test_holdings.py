"""What holds a drain up: asked of those who drain, answered in time or left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs
import pytest

from supervisor.arbiter.holdings import Holdings
from supervisor.ground.orders import Held, Holding, WhatHolds
from supervisor.plane.layout import ProcessState
from supervisor.plane.memory import Plane


@attrs.define(eq=False)
class FakeLoop:
    functions: list[Callable[[], None]] = attrs.Factory(list)

    def after(self, seconds: float, function: Callable[[], None]) -> Any:
        self.functions.append(function)

        @attrs.define
        class Timer:
            cancel: Callable[[], None]

        return Timer(lambda: self.functions.remove(function) if function in self.functions else None)


@attrs.define(eq=False)
class FakeChild:
    pid: int
    column: int
    title: str
    role: str = "web"
    ready: bool = True
    outbox: list[object] = attrs.Factory(list)


@attrs.define(eq=False)
class FakeCrew:
    children: dict[int, FakeChild]
    asked: list[tuple[int, int]] = attrs.Factory(list)
    held: list[tuple[int, Held]] = attrs.Factory(list)

    def of(self, name: str) -> list[FakeChild]:
        return [child for child in self.children.values() if child.role == name]

    def tell(self, child: FakeChild, order: WhatHolds | Held) -> None:
        if isinstance(order, Held):
            self.held.append((child.pid, order))
        else:
            self.asked.append((child.pid, order.question))


@attrs.define(eq=False)
class Scene:
    holdings: Holdings
    loop: FakeLoop
    crew: FakeCrew
    plane: Plane
    told: list[Sequence[dict[str, Any]]] = attrs.Factory(list)

    def drain(self, *pids: int) -> None:
        for pid in pids:
            self.plane.set_state(self.crew.children[pid].column, ProcessState.DRAINING)

    def answer(self, pid: int, question: int = 1, *lines: str) -> None:
        child: Any = self.crew.children[pid]
        self.holdings.answered(child, Holding(question, len(lines), lines))


@pytest.fixture
def scene() -> Iterator[Scene]:
    plane = Plane.create()
    children = {}
    for number in (1, 2, 3):
        column = plane.claim_column("web", number)
        plane.started(column, number)
        children[number] = FakeChild(number, column, f"web {number}/3")
    loop: Any = FakeLoop()
    crew: Any = FakeCrew(children)
    yield Scene(Holdings(loop, plane, crew), loop, crew, plane)
    plane.close()


def test_with_nobody_draining_nobody_is_asked(scene: Scene) -> None:
    scene.holdings.ask(scene.told.append)
    assert scene.told == [[]]
    assert scene.crew.asked == []


def test_the_answer_comes_when_all_have_answered_or_died(scene: Scene) -> None:
    scene.drain(1, 2, 3)
    scene.holdings.ask(scene.told.append)
    assert scene.crew.asked == [(1, 1), (2, 1), (3, 1)]
    scene.answer(2, 1, "a", "b")
    scene.answer(2, 1, "again")
    gone: Any = scene.crew.children[3]
    scene.holdings.died(gone)
    assert scene.told == []
    scene.answer(1)
    assert scene.told == [
        [
            {"process": "web 1/3", "pid": 1, "left": 0, "holding": []},
            {"process": "web 2/3", "pid": 2, "left": 2, "holding": ["a", "b"]},
        ]
    ]
    assert scene.loop.functions == []


def test_who_does_not_answer_in_time_is_left_out(scene: Scene) -> None:
    scene.drain(1, 2)
    scene.holdings.ask(scene.told.append)
    scene.answer(1, 1, "a")
    scene.loop.functions[0]()
    assert [[answer["pid"] for answer in told] for told in scene.told] == [[1]]
    scene.answer(2, 1, "late")
    assert len(scene.told) == 1


# -- for the admin


@pytest.fixture
def admin(scene: Scene) -> FakeChild:
    scene.crew.children[3].role = "admin"
    return scene.crew.children[3]


def test_the_admin_is_told_while_somebody_drains(scene: Scene, admin: FakeChild) -> None:
    scene.holdings.share()
    assert scene.crew.asked == []
    scene.drain(1, 2)
    scene.holdings.share()
    scene.answer(1, 1, "a", "b")
    scene.answer(2)
    assert scene.crew.held == [
        (3, Held("web 1/3", 1, 2, ("a", "b"))),
        (3, Held("web 2/3", 2, 0, ())),
    ]


def test_an_admin_that_hears_nothing_now_or_is_gone_is_told_nothing(scene: Scene, admin: FakeChild) -> None:
    scene.drain(1)
    admin.outbox.append(object())
    scene.holdings.share()
    assert scene.crew.asked == []
    admin.outbox.clear()
    scene.holdings.share()
    del scene.crew.children[3]
    scene.answer(1, 1, "a")
    assert scene.crew.held == []


def test_a_tier_is_asked_whether_or_not_it_drains(scene: Scene) -> None:
    scene.drain(2)
    scene.crew.children[3].role = "other"
    scene.holdings.ask(scene.told.append, "web")
    assert [pid for pid, _ in scene.crew.asked] == [1, 2]
    scene.answer(1, 1, "tcp a")
    scene.answer(2, 1)
    assert [answer["left"] for answer in scene.told[0]] == [1, 0]
