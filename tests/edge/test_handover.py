"""UDP sessions between two workers: sent with their sockets, refused by nobody, closed where nobody wants them."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
import structlog

from edge import handover as module
from edge.handover import BATCH, KEPT, Flow, Handed, Handover
from supervisor.ground.wire import Wire
from supervisor.plane.heirs import name_heirs
from supervisor.plane.layout import Kind
from supervisor.plane.memory import Plane
from tests.leftovers import open_files

OLD, NEW = 2, 3


@attrs.define(eq=False)
class FakeWorker:
    plane: Plane
    column: int
    mailbox: Any
    log: Any = attrs.Factory(structlog.get_logger)


@attrs.define(eq=False)
class Stage:
    plane: Plane
    row: int
    old: Handover
    new: Handover

    def deliver(self) -> int:
        """What lies in the new worker's mailbox; how many messages."""
        count = 0
        while (letter := self.new.worker.mailbox.receive()) is not None:
            assert isinstance(letter.message, Handed)
            self.new.receive(letter.message, letter.fds)
            count += 1
        return count


@pytest.fixture
def stage() -> Iterator[Stage]:
    plane = Plane.create()
    wire = Wire.create(4)
    row = plane.allocate(Kind.LISTENER, "edge/game")
    for number, column in ((1, OLD), (2, NEW)):
        assert plane.claim_column("edge", number) == column

    def handover(column: int) -> Handover:
        mailbox = wire.mailbox(column, plane.incarnation(column), plane.incarnation)
        worker: Any = FakeWorker(plane, column, mailbox)
        return Handover(worker, lambda listener: plane.row(Kind.LISTENER, f"edge/{listener}"))

    made = Stage(plane, row, handover(OLD), handover(NEW))
    yield made
    made.new.close()
    wire.close()
    plane.close()


def flow(port: int) -> Flow:
    return Flow(("127.0.0.1", port, 0, 0), 7, 1.5)


@pytest.fixture
def sockets() -> Iterator[list[socket.socket]]:
    made = []
    for _ in range(3):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        made.append(sock)
    yield made
    for sock in made:
        sock.close()


def test_the_heir_gets_the_sockets_themselves(stage: Stage, sockets: list[socket.socket]) -> None:
    name_heirs(stage.plane, stage.row, [OLD, NEW])
    stage.old.give("game", 1, [(flow(port), sock.fileno()) for port, sock in enumerate(sockets, 1)])
    assert stage.deliver() == 1
    taken = stage.new.take("game", 1)
    assert [one for one, _ in taken] == [flow(1), flow(2), flow(3)]
    assert [sock.getsockname() for _, sock in taken] == [sock.getsockname() for sock in sockets]
    assert stage.new.take("game", 1) == []
    for _, sock in taken:
        sock.close()


def test_without_another_heir_nothing_is_sent(stage: Stage, sockets: list[socket.socket]) -> None:
    name_heirs(stage.plane, stage.row, [OLD, 0])
    for slot in (0, 1):
        stage.old.give("game", slot, [(flow(1), sockets[0].fileno())])
    assert stage.deliver() == 0


def test_many_sessions_come_in_batches(stage: Stage, sockets: list[socket.socket]) -> None:
    name_heirs(stage.plane, stage.row, [NEW])
    stage.old.give("game", 0, [(flow(port), sockets[0].fileno()) for port in range(2 * BATCH + 1)])
    assert stage.deliver() == 3
    taken = stage.new.take("game", 0)
    assert [one.address[1] for one, _ in taken] == list(range(2 * BATCH + 1))
    for _, sock in taken:
        sock.close()


def test_a_mailbox_that_stays_full_costs_a_moment_and_no_descriptor(
    stage: Stage, sockets: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROOM_PATIENCE", 0.01)
    name_heirs(stage.plane, stage.row, [NEW])
    empty = Handed("game", 0, ())
    while stage.old.worker.mailbox.send(NEW, empty):
        pass
    before = open_files()
    stage.old.give("game", 0, [(flow(1), sockets[0].fileno())])
    assert open_files() <= before
    stage.deliver()
    assert stage.new.take("game", 0) == []


def test_sessions_that_came_to_the_wrong_worker_go_on_to_the_heir(stage: Stage, sockets: list[socket.socket]) -> None:
    name_heirs(stage.plane, stage.row, [NEW])
    before = open_files()
    stage.old.receive(Handed("game", 0, (flow(1),)), [os.dup(sockets[0].fileno())])
    assert stage.old.take("game", 0) == []
    assert stage.deliver() == 1
    ((one, sock),) = stage.new.take("game", 0)
    assert (one, sock.getsockname()) == (flow(1), sockets[0].getsockname())
    sock.close()
    assert open_files() <= before


def test_sessions_of_a_slot_that_another_got_are_closed(
    stage: Stage, sockets: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    name_heirs(stage.plane, stage.row, [NEW])
    before = open_files()
    stage.old.give("game", 0, [(flow(1), sockets[0].fileno())])
    stage.deliver()
    stage.new.sweep()
    assert open_files() == before + 1
    now = module.time.monotonic() + KEPT + 1
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    stage.new.sweep()
    assert open_files() <= before
