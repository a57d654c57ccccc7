"""The control socket: whose it is, and that clients cost only themselves."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from supervisor.arbiter import control
from supervisor.arbiter.control import CannotControl, Control, Reply, refusal
from supervisor.arbiter.loop import Loop
from supervisor.ground.log import logger
from tests.supervisor.arbiter.faults import stumble


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "c.sock"


@pytest.fixture
def serving(path: Path) -> Iterator[Control]:
    loop = Loop(stumble)
    later: list[Reply] = []

    def echo(request: Mapping[str, Any], reply: Reply) -> None:
        reply({"ok": True, "request": dict(request)})

    def fail(request: Mapping[str, Any], reply: Reply) -> None:
        raise RuntimeError("a fault of ours")

    def wait(request: Mapping[str, Any], reply: Reply) -> None:
        later.append(reply)
        loop.after(0.01, lambda: later.pop()({"ok": True}))

    def large(request: Mapping[str, Any], reply: Reply) -> None:
        reply({"ok": True, "text": "x" * 4_000_000})

    commands = {"echo": echo, "fail": fail, "wait": wait, "large": large}
    serving = Control(loop, path, control.bind(path), commands, logger())
    yield serving
    serving.close()
    loop.close()


def ask(serving: Control, request: bytes) -> Any:
    """One visit, the loop turned until the answer is whole."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(serving.path))
        client.sendall(request)
        client.setblocking(False)
        received = bytearray()

        def look() -> None:
            data = client.recv(1 << 20)
            received.extend(data)
            if not data:
                serving.loop.forget(client)
                serving.loop.stop(0)

        serving.loop.watch(client, look)
        serving.loop.run()
    return json.loads(received) if received else None


def test_it_is_the_owners_alone_from_its_first_moment(path: Path) -> None:
    before = os.umask(0)
    try:
        sock = control.bind(path)
        assert os.umask(0) == 0, "and the umask is given back"
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    sock.close()


def test_a_dead_ones_file_is_replaced_and_a_living_ones_refused(path: Path) -> None:
    control.bind(path).close()
    with control.bind(path), pytest.raises(CannotControl, match=rf"a daemon \(process {os.getpid()}\) answers"):
        control.bind(path)


def test_a_file_that_is_no_socket_stays(path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(CannotControl, match="no socket"):
        control.bind(path)
    assert path.read_text() == "precious"


def test_a_folder_that_is_missing_is_named(path: Path) -> None:
    with pytest.raises(CannotControl, match="No such file or directory"):
        control.bind(path.parent / "missing" / "c.sock")


def test_a_request_is_answered_at_once_or_later(serving: Control) -> None:
    assert ask(serving, b'{"command": "echo", "x": 1}\n') == {
        "ok": True,
        "request": {"command": "echo", "x": 1, "uid": os.getuid()},
    }
    # The kernel says who asks.
    assert ask(serving, b'{"command": "echo", "uid": 4711}\n')["request"]["uid"] == os.getuid()
    assert ask(serving, b'{"command": "wait"}\nrest') == {"ok": True}


def test_a_large_answer_arrives_whole(serving: Control) -> None:
    assert len(ask(serving, b'{"command": "large"}\n')["text"]) == 4_000_000


def test_a_command_that_fails_says_so_and_the_daemon_lives(serving: Control) -> None:
    assert ask(serving, b'{"command": "fail"}\n') == refusal("fail failed; the daemon's log says why")
    assert ask(serving, b'{"command": "echo"}\n')["ok"]


@pytest.mark.parametrize("line", [b"", b"[]", b"\xff", b'"', b"[" * 60_000, b'{"command":7}', b'{"command":{}}'])
def test_what_is_no_request_is_told_so(serving: Control, line: bytes) -> None:
    told: list[Mapping[str, Any]] = []
    serving.answer(line, told.append, 0)
    assert [one["ok"] for one in told] == [False]


def test_too_long_a_line_is_cut_off(serving: Control) -> None:
    assert ask(serving, b"x" * (control.MAX_REQUEST + 1)) is None


def test_closing_takes_the_file_away(path: Path) -> None:
    loop = Loop(stumble)
    Control(loop, path, control.bind(path), {}, logger()).close()
    assert not path.exists()
    loop.close()


def test_who_waits_is_known_by_its_descriptor_and_answered_by_another_server(serving: Control) -> None:
    """As over an upgrade: the client's socket is all that the next supervisor gets."""
    waiting: list[Reply] = []
    serving.commands = {"wait": lambda request, reply: waiting.append(reply)}
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(serving.path))
        client.sendall(b'{"command": "wait"}\n')
        serving.loop.after(0.05, lambda: serving.loop.stop(0))
        serving.loop.run()
        (first,) = waiting
        fd = serving.descriptor(first)
        assert fd is not None
        reply = serving.resume(socket.socket(fileno=os.dup(fd)))
        reply({"ok": True, "from": "the next"})
        client.settimeout(5)
        assert json.loads(client.recv(1 << 16)) == {"ok": True, "from": "the next"}
        assert serving.descriptor(reply) is None
