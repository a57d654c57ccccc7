"""The client's side of the control socket."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from supervisor.cli.control import Unreachable, ask, ask_daemon, errors_of, socket_path
from supervisor.cli.exits import Stopped
from supervisor.ground.config import ConfigError

Start = Callable[[Any], Any]


def test_a_question_is_a_line_and_so_is_the_answer(config: Path, daemon: Start) -> None:
    fake = daemon({"ok": True, "x": "é\n"})
    assert ask_daemon(config, {"command": "status"}) == {"ok": True, "x": "é\n"}
    assert fake.asked == [{"command": "status"}]


def test_a_long_answer_comes_whole(config: Path, daemon: Start) -> None:
    daemon({"ok": True, "x": "y" * 1_000_000})
    assert len(ask_daemon(config, {})["x"]) == 1_000_000


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("", "portway.sock"),
        ('[supervisor]\ncontrol = "run/x.sock"', "run/x.sock"),
        ('[supervisor]\ncontrol = "/run/x.sock"', "/run/x.sock"),
        ("[supervisor]\ncontrol = 3", "portway.sock"),
        ("supervisor = 3", "portway.sock"),
        ('[supervisor]\nunknown = 1\ncontrol = "x.sock"', "x.sock"),
    ],
)
def test_the_socket_is_found_in_any_file_that_is_toml(tmp_path: Path, text: str, path: str) -> None:
    (tmp_path / "a.toml").write_text(text)
    assert socket_path(tmp_path / "a.toml") == tmp_path / path


def test_a_file_that_is_no_toml_names_no_socket(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("= 3")
    with pytest.raises(ConfigError):
        socket_path(tmp_path / "a.toml")


def test_no_daemon_is_said(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="no daemon runs this configuration: nothing listens at"):
        ask(tmp_path / "absent.sock", {})


def test_a_socket_left_behind_is_no_daemon(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead.sock"))
    with pytest.raises(Unreachable, match="nothing listens"):
        ask(tmp_path / "dead.sock", {})


def test_a_path_too_long_for_a_socket_is_said(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="can't be asked: AF_UNIX path too long"):
        ask(tmp_path / ("x" * 120), {})


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", "ended before its answer was complete"),
        (b'{"ok": tr', "ended before its answer was complete"),
        (b"[1]\n", "is not a control socket of Portway"),
    ],
)
def test_an_answer_that_is_none_is_said(config: Path, daemon: Start, answer: bytes, message: str) -> None:
    daemon(answer)
    with pytest.raises(Stopped, match=message):
        ask_daemon(config, {})


def test_a_daemon_that_hangs_is_not_waited_for_forever(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "c.sock"))
        listener.listen()
        with pytest.raises(Unreachable, match=r"did not answer within 0\.05s"):
            ask(tmp_path / "c.sock", {}, patience=0.05)


def test_a_refusal_always_has_a_reason() -> None:
    assert errors_of({"ok": False, "errors": ["a", "b"]}) == ["a", "b"]
    assert errors_of({"ok": False, "error": "a"}) == ["a"]
    assert errors_of({"ok": False}) == ["the daemon refused and gave no reason"]
