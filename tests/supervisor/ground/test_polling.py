"""Which slots a worker polls: what the owner cells say."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from supervisor.ground.polling import Polling
from supervisor.plane.layout import Kind, ListenerState
from supervisor.plane.memory import Plane

ME, OTHER = 2, 3


class Runtime:
    """A runtime that only remembers."""

    def __init__(self) -> None:
        self.polled: set[tuple[str, int]] = set()
        self.full = False

    def attach(self, listener: str, slot: int, sock: socket.socket) -> None:
        if self.full:
            raise OSError(24, "Too many open files")
        assert (listener, slot) not in self.polled
        assert sock.fileno() >= 0
        self.polled.add((listener, slot))

    def detach(self, listener: str, slot: int) -> None:
        self.polled.remove((listener, slot))


@pytest.fixture
def plane() -> Iterator[Plane]:
    plane = Plane.create()
    yield plane
    plane.close()


def own(plane: Plane, listener: str, *owners: int) -> None:
    at = plane.state(Kind.LISTENER, plane.row(Kind.LISTENER, f"edge/{listener}")) + ListenerState.OWNER
    for slot, owner in enumerate(owners):
        plane.cells[at + slot] = owner


@pytest.fixture
def sockets(plane: Plane) -> Iterator[dict[str, list[socket.socket]]]:
    for name in ("a", "b"):
        plane.allocate(Kind.LISTENER, f"edge/{name}")
    sockets = {name: [socket.socket() for _ in range(3)] for name in ("a", "b")}
    every = [sock for some in sockets.values() for sock in some]
    yield sockets
    for sock in every:
        sock.close()


def polling(plane: Plane, sockets: dict[str, list[socket.socket]]) -> tuple[Polling, Any, list[str]]:
    runtime: Any = Runtime()
    failures: list[str] = []
    kept = {name: list(some) for name, some in sockets.items()}

    def failed(listener: str, slot: int, error: Exception) -> None:
        failures.append(f"{listener} {slot}: {error}")

    return Polling("edge", ME, plane, runtime, kept, failed), runtime, failures


def test_it_polls_what_is_its_own_and_lets_go_of_the_rest(plane: Plane, sockets: Any) -> None:
    polled, runtime, _ = polling(plane, sockets)
    own(plane, "a", ME, OTHER, ME)
    polled.look()
    polled.look()
    assert runtime.polled == {("a", 0), ("a", 2)}
    own(plane, "a", OTHER, ME, 0)
    polled.look()
    assert runtime.polled == {("a", 1)}
    assert all(sock.fileno() >= 0 for sock in sockets["a"]), "what is let go of stays open"


def test_a_slot_that_could_not_be_polled_is_tried_again(plane: Plane, sockets: Any) -> None:
    polled, runtime, failures = polling(plane, sockets)
    own(plane, "a", ME)
    runtime.full = True
    polled.look()
    assert failures == ["a 0: [Errno 24] Too many open files"]
    runtime.full = False
    polled.look()
    assert runtime.polled == {("a", 0)}


def test_a_removed_listener_is_let_go_of_and_closed(plane: Plane, sockets: Any) -> None:
    polled, runtime, _ = polling(plane, sockets)
    own(plane, "a", ME, ME, ME)
    own(plane, "b", ME)
    polled.look()
    polled.remove(["a", "unknown"])
    assert runtime.polled == {("b", 0)}
    assert all(sock.fileno() < 0 for sock in sockets["a"])
    polled.look()


def test_a_listener_that_comes_is_polled_from_the_next_look(plane: Plane, sockets: Any) -> None:
    polled, runtime, _ = polling(plane, {"a": sockets["a"]})
    own(plane, "b", ME)
    polled.add({"b": sockets["b"]})
    polled.look()
    assert runtime.polled == {("b", 0)}


def test_a_drain_gives_up_everything(plane: Plane, sockets: Any) -> None:
    polled, runtime, _ = polling(plane, sockets)
    own(plane, "a", ME, ME, ME)
    polled.look()
    polled.close()
    assert runtime.polled == set()
    assert all(sock.fileno() < 0 for some in sockets.values() for sock in some)
    polled.look()
