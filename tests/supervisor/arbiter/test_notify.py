"""What a service manager hears, over a socket that stands in for its own."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from supervisor.arbiter.notify import Notifier, watchdog_interval


@attrs.define(eq=False)
class Manager:
    sock: socket.socket
    address: str

    def heard(self) -> list[dict[str, str]]:
        messages = []
        while True:
            try:
                lines = self.sock.recv(4096).decode().split("\n")
            except BlockingIOError:
                return messages
            messages.append(dict(line.split("=", 1) for line in lines))


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    name = str(tmp_path / "notify") if request.param == "path" else f"@portway-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.bind(name.replace("@", "\0"))
        yield Manager(sock, name)


def notifier(manager: Manager) -> Notifier:
    return Notifier.from_environment({"NOTIFY_SOCKET": manager.address}, 7)


def test_the_life_of_a_daemon_in_its_manager_s_words(manager: Manager) -> None:
    teller = notifier(manager)
    assert teller
    teller.ready("running generation 1")
    teller.reloading()
    teller.reloaded("running generation 2")
    teller.beat()
    teller.stopping("draining", 2.5)
    first, second, third, fourth, fifth = manager.heard()
    assert first == {"READY": "1", "STATUS": "running generation 1"}
    assert second["RELOADING"] == "1"
    assert int(second["MONOTONIC_USEC"]) > 0
    assert third == {"READY": "1", "STATUS": "running generation 2"}
    assert fourth == {"WATCHDOG": "1"}
    assert fifth == {"STOPPING": "1", "STATUS": "draining", "EXTEND_TIMEOUT_USEC": "2500000"}
    teller.close()


def test_a_reload_before_the_start_or_after_the_end_says_nothing_of_ready(manager: Manager) -> None:
    teller = notifier(manager)
    teller.reloading()
    teller.reloaded("x")
    assert manager.heard() == []
    teller.ready("x")
    teller.stopping("x", 1)
    manager.heard()
    teller.reloaded("x")
    assert manager.heard() == []
    teller.close()


@pytest.mark.parametrize("name", ["", "vsock:2:1", "relative"])
def test_without_a_socket_nothing_is_opened_or_said(name: str) -> None:
    teller = Notifier.from_environment({"NOTIFY_SOCKET": name}, 7)
    teller.ready("x")
    assert not teller
    assert teller.lost == 0


def test_a_manager_that_is_gone_or_full_holds_nobody_up(manager: Manager) -> None:
    teller = notifier(manager)
    for _ in range(10_000):
        teller.beat()
        if teller.lost:
            break
    assert teller.lost == 1
    manager.heard()
    manager.sock.close()
    teller.beat()
    assert teller.lost == 2
    teller.close()


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"WATCHDOG_USEC": "3000000"}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "7"}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_beaten_twice_in_its_time(environ: dict[str, str], expected: float | None) -> None:
    assert watchdog_interval(environ, 7) == expected
