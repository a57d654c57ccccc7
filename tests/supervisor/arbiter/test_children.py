"""A child: how it is forked, how its death reads, what it held."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import NoReturn

import pytest

from supervisor.arbiter.children import MAX_SHOWN, Child, Death, fork, in_flight
from supervisor.arbiter.roles import Role
from supervisor.plane import layout
from supervisor.plane.layout import Kind
from supervisor.plane.memory import Plane


@pytest.fixture
def plane() -> Iterator[Plane]:
    plane = Plane.create()
    yield plane
    plane.close()


def status_of(code: int | None = None, number: int | None = None) -> int:
    def child() -> NoReturn:
        if number is not None:
            signal.signal(number, signal.SIG_DFL) if number != signal.SIGKILL else None
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.kill(os.getpid(), number)
        os._exit(code or 0)

    return os.waitpid(fork(child), 0)[1]


@pytest.mark.parametrize(
    ("code", "number", "text"),
    [
        (0, None, "exit code 0"),
        (3, None, "exit code 3"),
        (None, signal.SIGKILL, "signal 9 (SIGKILL)"),
        (None, signal.SIGTERM, "signal 15 (SIGTERM)"),
        (None, signal.SIGRTMIN + 1, "signal 35"),
    ],
)
def test_a_death_reads_as_a_person_would_say_it(code: int | None, number: int | None, text: str) -> None:
    death = Death.from_status(status_of(code, number))
    assert str(death) == text
    assert death.killed is (number == signal.SIGKILL)


def test_a_forked_child_begins_with_all_signals_blocked_and_the_parent_gets_its_own_back() -> None:
    def child() -> NoReturn:
        os._exit(0 if signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ()) else 1)

    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert os.waitpid(fork(child), 0)[1] == 0
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_a_signal_to_one_that_has_ended_is_nothing() -> None:
    def child() -> NoReturn:
        os._exit(0)

    pid = fork(child)
    dead = Child(Role("edge", 1), "edge 1/1", pid, os.pidfd_open(pid), 2, 1, 0.0)
    os.waitpid(pid, 0)
    dead.signal(signal.SIGTERM)
    os.close(dead.pidfd)


def test_what_was_in_flight_is_what_the_gauges_of_the_column_say(plane: Plane) -> None:
    server = plane.allocate(Kind.SERVER, "user/127.0.0.1:1")
    listener = plane.allocate(Kind.LISTENER, "edge/https")
    pool = plane.allocate(Kind.LEASEPOOL, "app/me")
    cells = plane.cells
    cells[plane.counters(Kind.SERVER, server, 2) + layout.Server.IN_FLIGHT] = 3
    cells[plane.counters(Kind.SERVER, server, 2) + layout.Server.REQUESTS] = 100
    cells[plane.counters(Kind.SERVER, server, 2) + layout.Server.STREAK] = 4
    cells[plane.counters(Kind.SERVER, server, 3) + layout.Server.IN_FLIGHT] = 9
    cells[plane.counters(Kind.LISTENER, listener, 2) + layout.Listener.ACTIVE] = 2
    cells[plane.counters(Kind.LEASEPOOL, pool, 2) + layout.LeasePool.BUSY] = 1
    assert in_flight(plane, 2) == {
        "server user/127.0.0.1:1 in_flight": 3,
        "listener edge/https active": 2,
        "leasepool app/me busy": 1,
    }


def test_a_long_list_is_cut(plane: Plane) -> None:
    for number in range(2 * MAX_SHOWN):
        row = plane.allocate(Kind.ROUTE, f"route {number}")
        plane.cells[plane.counters(Kind.ROUTE, row, 2) + layout.Route.IN_FLIGHT] = 1
    assert len(in_flight(plane, 2)) == MAX_SHOWN
