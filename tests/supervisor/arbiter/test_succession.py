"""From one supervisor to the next: what the one leaves is what the other finds, and makes its own."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from supervisor.arbiter import succession
from supervisor.arbiter.activation import Activated
from supervisor.arbiter.children import Child
from supervisor.arbiter.estate import VARIABLE, write
from supervisor.arbiter.listeners import Key, Listeners
from supervisor.arbiter.roles import Role
from supervisor.ground import cargo
from supervisor.ground.config import Bind, Config, load_bytes
from supervisor.ground.tier import ListenerSpec, Transport
from supervisor.plane import layout
from supervisor.plane.memory import Plane

KEY = Key("edge", ListenerSpec("game", Bind("127.0.0.1", 0), Transport.UDP))
ROLE = Role("edge", 1)


def config(text: str = "") -> Config:
    return load_bytes(f"[supervisor]\n{text}".encode(), "x.toml", Path("/site"), {})


class Daemon:
    """As much of one as changes hands; what is done to it is noted."""

    def __init__(self, plane: Plane, running: Config) -> None:
        self.done: list[tuple[Any, ...]] = []
        self.plane, self.config = plane, running
        self.listeners = Listeners(slots=8)
        self.admin: socket.socket | None = None
        self.adjustments = {"edge": 1}
        self.booted = False
        self.wanted_roles = [ROLE]
        note = self.note
        self.wire = SimpleNamespace(descriptors=lambda: ((40, 41),))
        self.control = SimpleNamespace(
            sock=SimpleNamespace(fileno=lambda: 42), path=Path("/site/portway.sock"),
            resume=lambda sock: note("resumed", sock.detach()),
        )  # fmt: skip
        self.assignment = SimpleNamespace(
            pending=(7, {3: 7}), describe=lambda key: ((1,) * 8, (3,) * 8),
            restore=lambda step, asked, held: note("restored", step, dict(asked), [one.key.row for one in held]),
        )  # fmt: skip
        self.reloading = SimpleNamespace(last_generation=5, ask=lambda *replies: note("reload", *replies))
        self.upgrading = SimpleNamespace(command=("-m", "x"), resume=lambda askers: note("upgrade resumed", *askers))
        self.crew = SimpleNamespace(
            children={}, wanted=[], adopt=lambda child: note("adopted", child.title, child.predecessor)
        )

    def note(self, *what: Any) -> Any:
        self.done.append(what)
        return what[-1]

    def wanted(self) -> list[Role]:
        return self.wanted_roles

    def give_access_log(self) -> None:
        self.note("access log")


@pytest.fixture
def plane() -> Iterator[Plane]:
    plane = Plane.create()
    plane.processes.enter_supervisor(os.getpid())
    yield plane
    plane.close()


@pytest.fixture
def daemon(plane: Plane) -> Iterator[Any]:
    daemon = Daemon(plane, config('admin = "127.0.0.1:9"\npid_file = "run.pid"\n'))
    daemon.listeners.keep(daemon.listeners.open([KEY]))
    daemon.admin = socket.socket()
    daemon.crew.children[77] = Child(ROLE, "edge 1/1", 77, 43, 3, 9, 1.0, 2.0)
    yield daemon
    daemon.listeners.close_all()
    daemon.admin.close()


def test_all_that_there_is_is_left(daemon: Any) -> None:
    estate = succession.leave(daemon)
    assert (estate.pid, estate.command, estate.generation) == (os.getpid(), ("-m", "x"), 5)
    assert (estate.plane, estate.wire, estate.control) == (daemon.plane.fd, ((40, 41),), 42)
    assert (estate.admin, estate.admin_bind) == (daemon.admin.fileno(), "127.0.0.1:9")
    assert (estate.control_path, estate.pid_file) == ("/site/portway.sock", "/site/run.pid")
    (listener,) = estate.listeners
    assert listener.key == KEY
    assert list(listener.sockets) == [sock.fileno() for sock in daemon.listeners.sockets(KEY)]
    assert (listener.homes, listener.holders, listener.shared) == ((1,) * 8, (3,) * 8, False)
    assert [child.title for child in estate.children] == ["edge 1/1"]
    assert (estate.step, estate.asked, estate.adjustments) == (7, {3: 7}, {"edge": 1})


def test_sockets_of_a_service_manager_and_shared_slots_are_left_as_such(daemon: Any) -> None:
    with socket.socket() as given:
        daemon.listeners.activated = Activated([given])
        daemon.listeners.shared.add(KEY.row)
        estate = succession.leave(daemon)
        assert estate.activated == (given.fileno(),)
        assert estate.listeners[0].shared


def test_the_next_finds_it_with_the_configuration_of_the_rehearsal(daemon: Any) -> None:
    import attrs

    packed = cargo.pack(config("workers = 3\n"), "test")
    left = attrs.evolve(succession.leave(daemon), config=packed)
    document = write(left)
    found, read = succession.inherit(document)
    os.close(document)
    os.close(packed)
    assert found == left
    assert read.supervisor.workers == 3


@pytest.mark.parametrize("reload", ["", "asked by a client", "by a signal"])
def test_the_next_makes_it_its_own(daemon: Any, plane: Plane, monkeypatch: pytest.MonkeyPatch, reload: str) -> None:
    import attrs

    asker, waiting = socket.socketpair()
    document, packed = os.memfd_create("estate"), os.memfd_create("config")
    reload_asker, other = socket.socketpair()
    askers = {"reload_askers": (reload_asker.fileno(),)} if reload.startswith("asked") else {}
    estate = attrs.evolve(
        succession.leave(daemon), config=packed, askers=(asker.fileno(),), reload=bool(reload), **askers
    )
    os.set_inheritable(packed, True)
    kept = [plane.fd, *estate.listeners[0].sockets]
    for fd in kept:
        os.set_inheritable(fd, True)
    monkeypatch.setenv(VARIABLE, f"adopt:{document}")
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])

    succession.take_over(daemon, estate)

    assert daemon.booted
    assert daemon.crew.wanted == [ROLE]
    assert daemon.reloading.last_generation == plane.generation == 6
    info = plane.process(layout.SUPERVISOR)
    assert info is not None
    assert info.acknowledged == 6
    by_client = [("resumed", reload_asker.fileno()), ("reload", reload_asker.fileno())]
    expected: list[tuple[Any, ...]] = [
        ("adopted", "edge 1/1", True),
        ("restored", 7, {3: 7}, ["edge/game"]),
        ("access log",),
        ("resumed", asker.fileno()),
        ("upgrade resumed", asker.fileno()),
    ]
    expected += by_client if reload.startswith("asked") else [("reload",)] if reload else []
    assert daemon.done == expected
    # What lived through the exec is not for programs that this process starts.
    assert VARIABLE not in os.environ
    assert not any(map(os.get_inheritable, kept))
    for fd in (document, packed):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
    for sock in (asker, waiting, reload_asker, other):
        sock.close()
