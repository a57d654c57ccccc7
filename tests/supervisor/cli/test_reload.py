"""`portway reload`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from supervisor.__main__ import main

Start = Callable[[Any], Any]
Capture = pytest.CaptureFixture[str]


def test_what_changed_is_shown(config: Path, daemon: Start, capsys: Capture) -> None:
    acknowledged = ["edge 1/2", "edge 2/2", "admin"]
    answer = {"ok": True, "changed": ["pools.user", "log.level"], "errors": [], "processes": 3}
    fake = daemon({**answer, "acknowledged": acknowledged})
    assert main(["reload", str(config)]) == 0
    assert fake.asked == [{"command": "reload"}]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "portway: reloaded; changed:\n  pools.user\n  log.level\nportway: taken by edge 1/2, edge 2/2, admin\n"
    )


def test_a_reload_of_the_same_file_says_so(config: Path, daemon: Start, capsys: Capture) -> None:
    daemon({"ok": True, "changed": [], "errors": [], "processes": 4})
    assert main(["reload", str(config)]) == 0
    assert capsys.readouterr().err == "portway: reloaded; nothing has changed\n"


def test_a_refusal_is_2_and_every_error(config: Path, daemon: Start, capsys: Capture) -> None:
    daemon({"ok": False, "errors": ["a.toml:1: x: one", "a.toml:2: y: two"]})
    assert main(["reload", str(config)]) == 2
    assert capsys.readouterr().err.splitlines()[:2] == ["a.toml:1: x: one", "a.toml:2: y: two"]


def test_a_file_that_is_no_toml_is_2_without_asking(config: Path, capsys: Capture) -> None:
    config.write_text("a = \n")
    assert main(["reload", str(config)]) == 2
    assert capsys.readouterr().err == f"{config}:1: Invalid value (column 5)\n"


def test_without_a_daemon_it_is_1(config: Path, capsys: Capture) -> None:
    assert main(["reload", str(config)]) == 1
    assert "no daemon runs this configuration" in capsys.readouterr().err


def test_json_is_the_answer_itself(config: Path, daemon: Start, capsys: Capture) -> None:
    answer = {"ok": False, "errors": ["a"], "changed": [], "processes": 0}
    daemon(answer)
    assert main(["reload", "--json", str(config)]) == 2
    assert json.loads(capsys.readouterr().out) == answer
