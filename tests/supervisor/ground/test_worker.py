"""The child's side of a fork, with this process as its supervisor: ready, orders, signals, exit codes.

Real forks: what a child inherits and gives up can't be told otherwise.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from supervisor.arbiter.children import fork
from supervisor.cli.demo.waiting import until
from supervisor.ground import cargo, worker
from supervisor.ground.config import load_bytes
from supervisor.ground.orders import Prepare, Prepared, Ready, Released, Slots, Swapped
from supervisor.ground.tier import Tier, Worker
from supervisor.ground.wire import Mailbox, Wire
from supervisor.ground.worker import BOOT_FAILURE, CRASHED, DONE, Birth
from supervisor.plane.layout import ProcessState
from supervisor.plane.memory import Plane

CONFIG = load_bytes(b"[supervisor]\n", "x.toml", Path("/"), {})


@attrs.define(eq=False)
class Nest:
    """A supervisor's things, and its one child."""

    plane: Plane
    wire: Wire
    mailbox: Mailbox
    pid: int = 0
    column: int = 0

    def bear(self, program: Any, **more: Any) -> None:
        self.column = self.plane.claim_column("test", 0)
        birth = Birth(
            title="test",
            tier="test",
            number=0,
            column=self.column,
            incarnation=self.plane.incarnation(self.column),
            program=program,
            config=CONFIG,
            plane=self.plane,
            wire=self.wire,
            **{"supervisor": os.getpid(), **more},
        )
        self.pid = fork(lambda: worker.main(birth))
        self.plane.started(self.column, self.pid)

    def hear(self, seconds: float = 30.0) -> object:
        """The next message to the supervisor."""
        assert select.select([self.mailbox], [], [], seconds)[0], "nothing came"
        letter = self.mailbox.receive()
        assert letter is not None
        assert letter.sender_pid == self.pid
        return letter.message

    def end(self) -> int:
        """Its exit code, negative for a signal."""
        pid, self.pid = self.pid, 0
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def state(self) -> int:
        info = self.plane.process(self.column)
        assert info is not None
        return info.state


@pytest.fixture
def nest() -> Iterator[Nest]:
    plane, wire = Plane.create(), Wire.create(4)
    plane.processes.enter_supervisor(os.getpid())
    plane.generation = 1
    nest = Nest(plane, wire, wire.mailbox(0, plane.incarnation(0), plane.incarnation))
    yield nest
    if nest.pid:
        os.kill(nest.pid, signal.SIGKILL)
        nest.end()
    wire.close()
    plane.close()


async def forever(worker: Worker) -> None:
    await trio.sleep_forever()


async def failing(worker: Worker) -> None:
    raise RuntimeError("fails on command")


def test_it_says_when_it_is_ready_and_a_term_ends_it_in_order(nest: Nest) -> None:
    nest.bear(forever)
    assert nest.hear() == Ready()
    assert nest.state() == ProcessState.READY
    os.kill(nest.pid, signal.SIGTERM)
    os.kill(nest.pid, signal.SIGTERM)
    assert nest.end() == DONE


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_signals_of_the_terminal_and_of_the_supervisor_mean_nothing_to_it(nest: Nest, number: signal.Signals) -> None:
    nest.bear(forever)
    nest.hear()
    os.kill(nest.pid, number)
    nest.mailbox.send(nest.column, Slots(1, "test"))
    assert nest.hear() == Released(1), "it lives"
    os.kill(nest.pid, signal.SIGQUIT)
    assert nest.end() == DONE


def test_an_order_is_the_supervisors_only(nest: Nest) -> None:
    nest.bear(forever)
    nest.hear()
    stranger = os.fork()
    if not stranger:
        nest.mailbox.send(nest.column, Prepare(2), [cargo.pack(CONFIG, "forged")])
        os._exit(0)
    os.waitpid(stranger, 0)
    nest.mailbox.send(nest.column, Slots(1, "test"))
    assert nest.hear() == Released(1), "the first of the two orders is not answered"
    nest.mailbox.send(nest.column, Prepare(2), [cargo.pack(CONFIG, "real")])
    assert nest.hear() == Prepared(2)


def test_the_generation_cell_is_enough_to_commit(nest: Nest) -> None:
    nest.bear(forever)
    nest.hear()
    nest.mailbox.send(nest.column, Prepare(2), [cargo.pack(CONFIG, "real")])
    assert nest.hear() == Prepared(2)
    nest.plane.generation = 2
    assert nest.hear() == Swapped(2), "no message told it"


def test_its_heart_beats(nest: Nest) -> None:
    nest.bear(forever)
    nest.hear()

    def beat() -> int:
        info = nest.plane.process(nest.column)
        assert info is not None
        return info.heartbeat

    first = beat()
    until(lambda: beat() > first, "a heartbeat")


def test_a_failure_after_ready_is_a_crash_with_its_traceback(nest: Nest, capfd: pytest.CaptureFixture[str]) -> None:
    nest.bear(failing)
    assert nest.end() == CRASHED
    assert "RuntimeError: fails on command" in "".join(capfd.readouterr())


def test_what_is_foreign_is_closed(nest: Nest) -> None:
    read, write = os.pipe()

    class End:
        def close(self) -> None:
            os.close(write)

    nest.bear(forever, foreign=[End()])
    nest.hear()
    os.close(write)
    assert os.read(read, 1) == b"", "the child has no copy"
    os.close(read)


def test_one_whose_supervisor_is_gone_ends_quietly(nest: Nest) -> None:
    nest.bear(forever, supervisor=os.getppid())
    assert nest.end() == DONE
    assert nest.mailbox.receive() is None, "it never was ready"


def test_boot_failures_have_an_exit_code_of_their_own(nest: Nest) -> None:
    def refuse(worker: Worker) -> Any:
        raise RuntimeError("fails on command")

    tier = Tier(name="test", table=object, listeners=lambda config: (), rows=lambda config: (), start=refuse)
    nest.bear(tier)
    assert nest.end() == BOOT_FAILURE
