"""A reload inside a process: prepared beside, swapped when the generation cell says so, or forgotten."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from supervisor.ground import cargo
from supervisor.ground.config import Config, load_bytes
from supervisor.ground.log import AccessLog, logger
from supervisor.ground.orders import Prepare, Prepared, Refused, Sockets, Swapped
from supervisor.ground.polling import Polling
from supervisor.ground.swap import Swap
from supervisor.ground.wire import Mailbox, Wire
from supervisor.plane.layout import Kind, ListenerState
from supervisor.plane.memory import Plane
from tests.leftovers import open_files

SUPERVISOR, ME = 0, 2


def config(pop: str) -> Config:
    return load_bytes(f'[supervisor]\npop = "{pop}"\n'.encode(), "x.toml", Path("/"), {})


class Runtime:
    """What the swap drives, with a record of it."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.error: Exception | None = None

    def attach(self, listener: str, slot: int, sock: socket.socket) -> None:
        self.events.append(f"attach {listener} {slot}")

    def detach(self, listener: str, slot: int) -> None:
        self.events.append(f"detach {listener} {slot}")

    def prepare(self, config: Config) -> str:
        if self.error is not None:
            raise self.error
        return config.supervisor.pop

    def commit(self, prepared: str) -> None:
        self.events.append(f"commit {prepared}")


@attrs.define(eq=False)
class Stage:
    plane: Plane
    wire: Wire
    supervisor: Mailbox
    worker: Any
    runtime: Any
    polling: Polling
    swap: Swap

    def prepare(self, generation: int, pop: str, removed: tuple[str, ...] = ()) -> Prepared | Refused:
        return self.swap.prepare(Prepare(generation, removed), [cargo.pack(config(pop), "test")])

    def said(self) -> list[object]:
        found = []
        while letter := self.supervisor.receive():
            found.append(letter.message)
        return found


@attrs.define(eq=False)
class FakeWorker:
    """The part of a Worker that a swap touches."""

    config: Config
    plane: Plane
    mailbox: Mailbox
    access: AccessLog
    column: int = ME
    log: Any = attrs.Factory(logger)


@pytest.fixture
def stage() -> Iterator[Stage]:
    plane, wire = Plane.create(), Wire.create(4)
    plane.processes.enter_supervisor(os.getpid())
    assert plane.claim_column("edge", 1) == ME
    plane.generation = 1
    worker: Any = FakeWorker(config("one"), plane, wire.mailbox(ME, 1, plane.incarnation), AccessLog("off"))
    runtime: Any = Runtime()
    polling = Polling("edge", ME, plane, runtime, {}, lambda *_: None)
    boss = wire.mailbox(SUPERVISOR, plane.incarnation(SUPERVISOR), plane.incarnation)
    yield Stage(plane, wire, boss, worker, runtime, polling, Swap(worker, runtime, polling, True))
    polling.close()
    wire.close()
    plane.close()


def test_what_is_prepared_changes_nothing_until_the_generation_does(stage: Stage) -> None:
    assert stage.prepare(2, "two") == Prepared(2)
    stage.swap.catch_up()
    assert stage.runtime.events == []
    assert stage.worker.config.supervisor.pop == "one"
    assert stage.plane.process(ME).acknowledged == 2  # type: ignore[union-attr]  # claimed above
    stage.plane.generation = 2
    stage.swap.catch_up()
    stage.swap.catch_up()
    assert stage.runtime.events == ["commit two"]
    assert stage.worker.config.supervisor.pop == "two"
    assert stage.said() == [Swapped(2)]


@pytest.mark.parametrize(
    ("error", "reason"),
    [(ValueError("no such key"), "no such key"), (RuntimeError("a fault"), "RuntimeError: a fault")],
)
def test_whatever_goes_wrong_in_preparing_is_a_refusal(stage: Stage, error: Exception, reason: str) -> None:
    before = open_files()
    stage.runtime.error = error
    assert stage.prepare(2, "two") == Refused(2, (reason,))
    stage.plane.generation = 2
    stage.swap.catch_up()
    assert stage.runtime.events == []
    assert open_files() <= before


def test_cargo_that_is_none_is_a_refusal(stage: Stage) -> None:
    read, write = os.pipe()
    os.close(write)
    answer = stage.swap.prepare(Prepare(2), [read])
    assert isinstance(answer, Refused)


def test_what_was_aborted_never_comes(stage: Stage) -> None:
    stage.prepare(2, "two")
    stage.swap.abort(2)
    stage.plane.generation = 2
    stage.swap.catch_up()
    assert stage.runtime.events == []


def test_a_lost_commit_is_caught_up_with_before_the_next_reload(stage: Stage) -> None:
    stage.prepare(2, "two")
    stage.plane.generation = 2
    assert stage.prepare(3, "three") == Prepared(3)
    assert stage.runtime.events == ["commit two"]


def test_listeners_go_before_the_swap_and_come_after_it(stage: Stage) -> None:
    row = {name: stage.plane.allocate(Kind.LISTENER, f"edge/{name}") for name in ("old", "new")}
    for name in row:
        at = stage.plane.state(Kind.LISTENER, row[name]) + ListenerState.OWNER
        stage.plane.cells[at] = stage.plane.cells[at + 1] = ME
    stage.polling.add({"old": [socket.socket() for _ in range(2)]})
    stage.polling.look()
    fresh = [socket.socket() for _ in range(2)]
    stage.swap.receive_sockets(Sockets(2, "new", 1), [fresh[1].detach()])
    stage.swap.receive_sockets(Sockets(2, "new", 0), [fresh[0].detach()])
    stage.prepare(2, "two", removed=("old",))
    stage.plane.generation = 2
    stage.runtime.events.clear()
    stage.swap.catch_up()
    assert stage.runtime.events == ["detach old 0", "detach old 1", "commit two", "attach new 0", "attach new 1"]


def test_sockets_of_a_reload_that_came_to_nothing_are_closed(stage: Stage) -> None:
    before = open_files()
    stage.swap.receive_sockets(Sockets(2, "new", 0), [socket.socket().detach()])
    stage.swap.abort(2)
    assert open_files() <= before
    stage.swap.receive_sockets(Sockets(3, "new", 0), [socket.socket().detach()])
    stage.prepare(4, "four")
    assert open_files() <= before
