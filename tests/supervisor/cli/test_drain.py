"""`portway drain`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from supervisor.__main__ import main

Start = Callable[[Any], Any]
SERVER = "user/127.0.0.1:8101"


@pytest.mark.parametrize(
    ("command", "option", "state", "said"),
    [
        ("drain", [], "draining", "is draining"),
        ("drain", ["--maintenance"], "maintenance", "is in maintenance"),
        ("maintenance", [], "maintenance", "is in maintenance"),
        ("drain", ["--undo"], "normal", "is given work again"),
        ("up", [], "normal", "is given work again"),
    ],
)
def test_a_server_is_drained_and_given_back(
    config: Path,
    daemon: Start,
    capsys: pytest.CaptureFixture[str],
    command: str,
    option: list[str],
    state: str,
    said: str,
) -> None:
    fake = daemon({"ok": True})
    assert main([command, SERVER, str(config), *option]) == 0
    assert fake.asked == [{"command": "drain", "server": SERVER, "state": state}]
    assert capsys.readouterr().err == f"portway: {SERVER} {said}\n"


def test_a_refusal_is_1(config: Path, daemon: Start, capsys: pytest.CaptureFixture[str]) -> None:
    daemon({"ok": False, "errors": ['unknown server "x/1.2.3.4:5"']})
    assert main(["drain", "x/1.2.3.4:5", str(config)]) == 1
    assert capsys.readouterr().err == 'portway: unknown server "x/1.2.3.4:5"\n'


def test_without_a_daemon_it_is_1(config: Path) -> None:
    assert main(["drain", SERVER, str(config)]) == 1


def test_a_file_that_is_no_toml_is_2(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text("a = \n")
    assert main(["drain", SERVER, str(config)]) == 2
    assert main(["status", str(config)]) == 2
    assert capsys.readouterr().err == f"{config}:1: Invalid value (column 5)\n" * 2
