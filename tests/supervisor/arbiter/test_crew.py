"""The crew: roles filled by real children that do nothing, the dead succeeded, the hung replaced."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from supervisor.arbiter import crew as module
from supervisor.arbiter.children import Child, Death
from supervisor.arbiter.crew import Crew
from supervisor.arbiter.loop import Loop
from supervisor.arbiter.roles import Role
from supervisor.ground.config import load_bytes
from supervisor.ground.log import logger
from supervisor.ground.orders import Slots
from supervisor.ground.tier import Worker
from supervisor.ground.wire import Wire
from supervisor.ground.worker import Birth
from supervisor.plane import layout
from supervisor.plane.layout import Kind
from supervisor.plane.memory import Plane
from tests.supervisor.arbiter.faults import stumble

CONFIG = load_bytes(b"[supervisor]\n", "x.toml", Path("/"), {})
ONE, TWO = Role("test", 1), Role("test", 2)


async def idle(worker: Worker) -> None:
    await trio.sleep_forever()


@attrs.define(eq=False)
class Scene:
    loop: Loop
    plane: Plane
    crew: Crew
    events: list[str]
    program: Any = idle

    def until(self, condition: Callable[[], object], seconds: float = 30.0) -> None:
        """Turn the loop until the condition holds."""

        def look() -> None:
            if condition():
                self.loop.stop(1)
            else:
                self.loop.after(0.005, look)

        limit = self.loop.after(seconds, lambda: self.loop.stop(0))
        self.loop.after(0, look)
        assert self.loop.run() == 1, f"in vain; so far: {self.events}"
        limit.cancel()

    def child(self, role: Role) -> Child:
        (found,) = [child for child in self.crew.children.values() if child.role == role and not child.retiring]
        return found


@pytest.fixture
def scene() -> Iterator[Scene]:
    loop, plane, wire, events = Loop(stumble), Plane.create(), Wire.create(layout.COLUMNS), list[str]()
    plane.processes.enter_supervisor(os.getpid())
    mailbox = wire.mailbox(0, plane.incarnation(0), plane.incarnation)

    def birth(role: Role, title: str, column: int, incarnation: int) -> Birth:
        return Birth(
            title=title,
            tier=role.name,
            number=role.number,
            column=column,
            incarnation=incarnation,
            program=scene.program,
            config=CONFIG,
            plane=plane,
            wire=wire,
            supervisor=os.getpid(),
            foreign=[loop],
        )

    def on_ready(child: Child) -> None:
        events.append(f"{child.title} ready")

    def on_death(child: Child, death: Death) -> None:
        events.append(f"{child.title} {death}")

    def retire(child: Child) -> None:
        child.retiring = True
        child.signal(signal.SIGTERM)

    scene = Scene(loop, plane, Crew(loop, plane, wire, mailbox, logger(), birth, on_ready, on_death, retire), events)
    yield scene
    scene.crew.close()
    for child in scene.crew.children.values():
        child.retiring = True
        child.signal(signal.SIGKILL)
    scene.until(lambda: not scene.crew.children)
    loop.close()
    wire.close()
    plane.close()


def test_every_role_gets_a_process_and_who_is_no_longer_wanted_ends(scene: Scene) -> None:
    scene.crew.settle([ONE, TWO])
    scene.until(scene.crew.complete)
    assert sorted(scene.events) == ["test 1/2 ready", "test 2/2 ready"]
    scene.crew.settle([ONE])
    scene.until(lambda: "test 2/2 exit code 0" in scene.events)
    assert scene.crew.complete()
    assert [child.role for child in scene.crew.children.values()] == [ONE]


def test_a_killed_one_has_a_successor_in_another_incarnation_and_is_counted(scene: Scene) -> None:
    scene.crew.settle([ONE])
    scene.until(scene.crew.complete)
    first = scene.child(ONE)
    first.signal(signal.SIGKILL)
    scene.until(lambda: "test 1/1 signal 9 (SIGKILL)" in scene.events and scene.crew.complete())
    assert scene.child(ONE).incarnation > first.incarnation
    assert scene.plane.total(Kind.TIER, scene.plane.row(Kind.TIER, "test"), layout.Tier.RESPAWNS) == 1


def test_a_fault_of_ours_in_a_death_does_not_keep_a_successor_away(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults: list[Exception] = []
    monkeypatch.setattr(scene.loop, "_failed", faults.append)

    def on_death(child: Child, death: Death) -> None:
        if not faults:
            raise RuntimeError("a fault of ours")

    scene.crew.on_death = on_death
    scene.crew.settle([ONE])
    scene.until(scene.crew.complete)
    first = scene.child(ONE)
    first.signal(signal.SIGKILL)
    scene.until(lambda: faults and scene.crew.complete() and scene.child(ONE) is not first)
    assert [str(fault) for fault in faults] == ["a fault of ours"]
    assert scene.plane.process(first.column) is None or scene.child(ONE).column == first.column


def test_one_that_dies_before_it_is_ready_is_waited_with(scene: Scene) -> None:
    async def fail(worker: Worker) -> None:
        os._exit(9)

    scene.program = fail
    scene.crew.settle([ONE])
    scene.until(lambda: scene.events.count("test 1/1 exit code 9") >= 2)
    scene.program = idle
    scene.until(scene.crew.complete)


def test_one_that_has_to_wait_is_not_born_by_what_its_death_means_to_others(scene: Scene) -> None:
    successors: list[int] = []

    async def fail(worker: Worker) -> None:
        os._exit(9)

    def on_death(child: Child, death: Death) -> None:
        scene.crew.fill()  # as an aborted reload does
        successors.append(len(scene.crew.children))

    scene.program = fail
    scene.crew.on_death = on_death
    scene.crew.settle([ONE])
    scene.until(lambda: len(successors) == 3)
    assert successors[1:] == [0, 0], "the first may be free"
    scene.program = idle
    scene.until(scene.crew.complete)


def test_nobody_is_born_while_births_are_paused(scene: Scene) -> None:
    scene.crew.settle([ONE])
    scene.until(scene.crew.complete)
    scene.crew.paused = True
    scene.child(ONE).signal(signal.SIGKILL)
    scene.until(lambda: "test 1/1 signal 9 (SIGKILL)" in scene.events)
    assert not scene.crew.children
    scene.crew.paused = False
    scene.crew.fill()
    scene.until(scene.crew.complete)


def test_one_that_hangs_is_killed_and_succeeded(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.crew.settle([ONE])
    scene.until(scene.crew.complete)
    monkeypatch.setattr(module, "HUNG_AFTER", 1.5)  # heartbeats come each second
    monkeypatch.setattr(module, "ABORT_PATIENCE", 0.05)
    scene.child(ONE).signal(signal.SIGSTOP)
    scene.until(lambda: "test 1/1 signal 9 (SIGKILL)" in scene.events)
    monkeypatch.undo()
    scene.until(scene.crew.complete)


def test_when_no_process_can_be_had_it_tries_again(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_more(child: object) -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(module, "RETRY", 0.01)
    monkeypatch.setattr(module, "fork", no_more)
    scene.crew.settle([ONE])
    assert not scene.crew.children
    assert scene.plane.live("test") == [], "the column was given back"
    monkeypatch.undo()
    scene.until(scene.crew.complete)


def test_orders_to_a_full_mailbox_follow_in_order(scene: Scene) -> None:
    scene.crew.settle([ONE])
    scene.until(scene.crew.complete)
    child = scene.child(ONE)
    child.signal(signal.SIGSTOP)
    for step in range(5000):
        scene.crew.tell(child, Slots(step, "test 1/1"))
    assert child.outbox
    assert [order.step for order, _ in child.outbox] == list(range(5000 - len(child.outbox), 5000))
    child.signal(signal.SIGCONT)
    scene.until(lambda: not child.outbox)
