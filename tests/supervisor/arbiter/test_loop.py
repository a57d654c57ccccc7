"""The loop: descriptors, timers and signals become plain calls, in order, one at a time."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator

import pytest

from supervisor.arbiter import loop as loops
from supervisor.arbiter.loop import Loop
from tests.supervisor.arbiter.faults import stumble


@pytest.fixture(autouse=True)
def own_signals_again() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGUSR2)}
    yield
    signal.set_wakeup_fd(-1)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def loop(own_signals_again: None) -> Iterator[Loop]:
    loop = Loop(stumble)
    yield loop
    loop.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    with left, right:
        yield left, right


def test_what_can_be_read_is_told_until_it_is_forgotten(loop: Loop, pair: tuple[socket.socket, socket.socket]) -> None:
    left, right = pair
    calls = []

    def readable() -> None:
        calls.append(right.recv(1))
        if len(calls) == 3:
            loop.forget(right)
            loop.after(0, lambda: loop.stop(7))

    loop.watch(right, readable)
    left.send(b"abcd")
    assert loop.run() == 7
    assert calls == [b"a", b"b", b"c"]
    loop.forget(right)


def test_watching_again_for_writing_replaces_the_reading(loop: Loop, pair: tuple[socket.socket, socket.socket]) -> None:
    left, right = pair
    left.send(b"x")
    loop.watch(right, lambda: loop.stop(1))
    loop.watch(right, lambda: loop.stop(2), write=True)
    assert loop.run() == 2


def test_one_event_may_forget_what_another_of_the_same_batch_is_for(loop: Loop) -> None:
    pairs = [socket.socketpair() for _ in range(2)]
    calls = []

    def first_come(mine: int) -> None:
        calls.append(mine)
        for _, right in pairs:
            loop.forget(right)
        loop.after(0, lambda: loop.stop(0))

    for number, (left, right) in enumerate(pairs):
        loop.watch(right, lambda number=number: first_come(number))
        left.send(b"x")
    loop.run()
    assert len(calls) == 1
    for left, right in pairs:
        left.close()
        right.close()


def test_timers_come_in_order_and_cancelled_ones_never(loop: Loop) -> None:
    calls: list[str] = []
    loop.after(0.02, lambda: calls.append("second"))
    loop.after(0.01, lambda: calls.append("first"))
    cancelled = loop.after(0.0, lambda: calls.append("never"))
    cancelled.cancel()
    loop.after(0.03, lambda: loop.stop(0))
    loop.run()
    assert calls == ["first", "second"]


def test_a_repeated_timer_repeats(loop: Loop) -> None:
    calls: list[int] = []
    loop.every(0.001, lambda: calls.append(1) if len(calls) < 3 else loop.stop(0))
    loop.run()
    assert len(calls) == 3


def test_a_signal_is_an_event_and_two_waiting_ones_are_one(loop: Loop) -> None:
    calls: list[str] = []
    loop.on_signals({signal.SIGUSR1: lambda: calls.append("usr1"), signal.SIGUSR2: lambda: loop.stop(5)})
    for number in (signal.SIGUSR1, signal.SIGUSR1, signal.SIGUSR2):
        os.kill(os.getpid(), number)
    assert calls == [], "not inside the handler"
    assert loop.run() == 5
    assert calls == ["usr1"]


def test_signals_at_the_very_end_change_nothing(loop: Loop) -> None:
    loop.on_signals({signal.SIGUSR1: lambda: None, signal.SIGUSR2: lambda: None})
    loop.ignore_signals()
    assert signal.getsignal(signal.SIGUSR1) == signal.getsignal(signal.SIGUSR2) == signal.SIG_IGN
    assert signal.set_wakeup_fd(-1) == -1


# -- faults of ours


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Loop, list[str]]]:
    """A loop, and what it was told to have failed."""
    monkeypatch.setattr(loops, "REST", 0.01)
    told: list[str] = []
    loop = Loop(lambda error: told.append(str(error)))
    yield loop, told
    loop.close()


def fail() -> None:
    raise RuntimeError("a fault of ours")


def test_a_timer_that_fails_costs_that_call_alone(faults: tuple[Loop, list[str]]) -> None:
    loop, told = faults
    calls: list[int] = []

    def every() -> None:
        calls.append(1)
        if len(calls) == 3:
            loop.stop(4)
        fail()

    loop.after(0, fail)
    loop.every(0.001, every)
    assert loop.run() == 4
    assert told == ["a fault of ours"] * 4


def test_a_signal_s_fault_does_not_keep_others_from_being_heard(faults: tuple[Loop, list[str]]) -> None:
    loop, told = faults
    loop.on_signals({signal.SIGUSR1: fail, signal.SIGUSR2: lambda: loop.stop(5)})
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        os.kill(os.getpid(), number)
    assert loop.run() == 5
    assert told == ["a fault of ours"]


def test_a_descriptor_whose_callback_fails_rests_before_it_is_tried_again(
    faults: tuple[Loop, list[str]], pair: tuple[socket.socket, socket.socket]
) -> None:
    loop, told = faults
    left, right = pair
    left.send(b"x")
    turns: list[int] = []

    def once() -> None:
        if told:
            loop.stop(6)
        else:
            loop.after(0, lambda: turns.append(1))
            fail()

    loop.watch(right, once)
    assert loop.run() == 6
    assert told == ["a fault of ours"]
    assert turns, "others had their turn meanwhile"


@pytest.mark.parametrize("again", [False, True])
def test_a_descriptor_that_is_forgotten_while_it_rests_stays_so(
    faults: tuple[Loop, list[str]], pair: tuple[socket.socket, socket.socket], again: bool
) -> None:
    loop, told = faults
    left, right = pair
    left.send(b"x")
    calls: list[int] = []

    def change() -> None:
        if told:
            loop.forget(right)
            if again:
                loop.watch(right, lambda: calls.append(loop.forget(right) or 1))
            loop.after(0.03, lambda: loop.stop(0))
        else:
            loop.after(0, change)

    loop.watch(right, fail)
    loop.after(0, change)
    loop.run()
    assert told == ["a fault of ours"]
    assert calls == ([1] if again else [])
