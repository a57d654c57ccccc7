"""What one supervisor leaves to the next: read as written, by code that knows more or less."""

from __future__ import annotations

import json
import os
import socket

import attrs
import pytest

from supervisor.arbiter import estate as module
from supervisor.arbiter.children import Child
from supervisor.arbiter.estate import Estate, HeldChild, HeldListener, UnreadableEstate, read, write
from supervisor.arbiter.listeners import Key
from supervisor.arbiter.roles import Role
from supervisor.ground.config import Bind
from supervisor.ground.tier import ListenerSpec, Transport

KEY = Key("edge", ListenerSpec("game", Bind("::1", 7777), Transport.UDP, 99))
ESTATE = Estate(
    pid=1,
    command=("-m", "supervisor", "run", "x.toml"),
    generation=7,
    plane=3,
    wire=((4, 5), (6, 7)),
    control=8,
    control_path="/x/portway.sock",
    admin=None,
    admin_bind=None,
    slots=8,
    listeners=(attrs.evolve(HeldListener.of(KEY, (10, 11)), homes=(1, 2), holders=(5, 6)),),
    children=(HeldChild("edge", 1, "edge 1/2", 77, 12, 5, 40, 1.5, None, False, False),),
    step=3,
    asked={5: 3},
    adjustments={"edge": 1},
)


def document(text: str) -> int:
    fd = os.memfd_create("test")
    os.write(fd, text.encode())
    return fd


def test_it_is_read_as_it_was_written() -> None:
    fd = write(ESTATE)
    assert read(fd) == ESTATE
    with pytest.raises(OSError, match="not permitted"):
        os.write(fd, b"x")
    os.close(fd)
    assert ESTATE.listeners[0].key == KEY


def test_what_must_live_through_the_exec_is_all_of_it() -> None:
    assert sorted(ESTATE.descriptors()) == [3, 4, 5, 6, 7, 8, 10, 11, 12]
    more = attrs.evolve(ESTATE, admin=20, config=21, askers=(22,), reload_askers=(23,))
    assert sorted(more.descriptors())[-4:] == [20, 21, 22, 23]
    assert sorted(more.handles()) == [3, 10, 11, 20]


def test_keys_of_later_code_are_passed_over() -> None:
    fd = write(ESTATE)
    words = json.loads(os.pread(fd, 1 << 16, 0))
    os.close(fd)
    fd = document(json.dumps({**words, "later": [1, 2]}))
    assert read(fd) == ESTATE
    os.close(fd)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"version": 1}', "\xff"])
def test_anything_else_is_refused(text: str) -> None:
    fd = document(text)
    with pytest.raises(UnreadableEstate):
        read(fd)
    os.close(fd)


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    fd = write(ESTATE)
    monkeypatch.setattr(module, "VERSION", 2)
    with pytest.raises(UnreadableEstate, match="by version 1, this code takes 2"):
        read(fd)
    os.close(fd)


def test_a_child_is_the_same_and_a_predecessor() -> None:
    child = Child.of(ESTATE.children[0])
    assert (child.role, child.pid, child.ready, child.predecessor) == (Role("edge", 1), 77, False, True)
    assert child.held() == ESTATE.children[0]


def test_sockets_are_found_behind_their_numbers() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        (found,) = module.sockets_of(HeldListener.of(KEY, (os.dup(sock.fileno()),)))
        with found:
            assert found.type == socket.SOCK_DGRAM
