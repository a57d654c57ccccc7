"""`portway upgrade`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from supervisor.__main__ import main

Start = Callable[[Any], Any]
Capture = pytest.CaptureFixture[str]


def test_the_new_code_says_that_it_runs(config: Path, daemon: Start, capsys: Capture) -> None:
    fake = daemon({"ok": True, "processes": 8, "errors": []})
    assert main(["upgrade", str(config)]) == 0
    assert fake.asked == [{"command": "upgrade"}]
    assert capsys.readouterr().err == "portway: upgraded; 8 processes run the new code\n"


@pytest.mark.parametrize("code", [1, 2])
def test_a_refusal_ends_with_its_code_and_every_reason(config: Path, daemon: Start, capsys: Capture, code: int) -> None:
    daemon({"ok": False, "errors": ["one", "two"], "code": code})
    assert main(["upgrade", str(config)]) == code
    assert capsys.readouterr().err == "one\ntwo\nportway: not upgraded; what served before serves on\n"


def test_without_a_daemon_it_is_1(config: Path, capsys: Capture) -> None:
    assert main(["upgrade", str(config)]) == 1
    assert "no daemon runs this configuration" in capsys.readouterr().err


def test_json_is_the_answer_itself(config: Path, daemon: Start, capsys: Capture) -> None:
    answer = {"ok": True, "processes": 2, "errors": []}
    daemon(answer)
    assert main(["upgrade", "--json", str(config)]) == 0
    assert json.loads(capsys.readouterr().out) == answer
