"""`portway check`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from supervisor.__main__ import main

GOOD = """
supervisor.workers = 2
[pools.web]
servers = ["127.0.0.1:1", "127.0.0.1:2"]
[edge.listeners.web]
bind = "127.0.0.1:80"
pool = "web"
"""
BAD = '[pools.web]\nbalence = "x"\nservers = [1]\n'


def test_a_good_file_is_0_and_a_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.toml").write_text(GOOD)
    assert main(["check", str(tmp_path / "a.toml")]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"{tmp_path}/a.toml: ok: 1 listener, 1 pool, 2 servers, edge with 2 workers\n"


def test_a_bad_file_is_2_and_every_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.toml"
    path.write_text(BAD)
    assert main(["check", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        f'{path}:2: pools.web.balence: unknown key; did you mean "balance"?\n'
        f"{path}:3: pools.web.servers[0]: must be a string or a table, not an integer\n"
    )


def test_json_is_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.toml"
    path.write_text(BAD)
    assert main(["check", "--json", str(path)]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] is False
    assert answer["problems"][0] == {
        "file": str(path),
        "line": 2,
        "key": "pools.web.balence",
        "message": 'unknown key; did you mean "balance"?',
    }
    path.write_text(GOOD)
    assert main(["check", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"ok": True, "problems": [], "warnings": []}


def test_a_missing_file_is_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path / "absent.toml")]) == 2
    assert "cannot be read: No such file or directory" in capsys.readouterr().err
