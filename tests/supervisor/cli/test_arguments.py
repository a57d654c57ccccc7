"""Which command does what, and the exit codes."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.__main__ import main
from supervisor.cli import arguments


def test_without_a_command_it_shows_its_usage_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "usage: portway" in captured.err


@pytest.mark.parametrize("line", [["chekc", "a.toml"], ["check"], ["check", "a.toml", "--jsno"], ["drain", "a"]])
def test_wrong_usage_is_2(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line) == 2
    assert "usage: portway" in capsys.readouterr().err


def test_help_is_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "Exit codes" in capsys.readouterr().out


def test_the_version_goes_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("portway ")


def test_every_command_of_the_usage_has_a_function() -> None:
    for name in ("run", "check", "status", "reload", "drain", "schema"):
        assert callable(arguments._function(name, "run"))
    assert callable(arguments._function("demo", "main"))


@pytest.mark.parametrize(
    "line", [["drain", "user/127.0.0.1:80", "conf/a.toml"], ["drain", "conf/a.toml", "user/127.0.0.1:80"]]
)
def test_drain_takes_its_two_words_in_either_order(line: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[argparse.Namespace] = []
    monkeypatch.setattr("supervisor.cli.drain.run", lambda options: seen.append(options) or 0)
    assert main(line) == 0
    assert (seen[0].server, seen[0].config) == ("user/127.0.0.1:80", "conf/a.toml")


def test_the_options_of_the_demo_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(arguments, "_function", lambda *name: lambda rest: seen.append(rest) or 0)
    assert main(["demo", "--keep", "x"]) == 0
    assert seen == [["--keep", "x"]]


def test_an_interrupt_is_a_failure_without_a_traceback() -> None:
    def interrupted(options: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    assert arguments.run(interrupted, argparse.Namespace()) == 1


def test_a_reader_that_leaves_early_is_no_error() -> None:
    command = f"{sys.executable} -m supervisor schema | head -c 1; exit ${{PIPESTATUS[0]}}"
    root = Path(__file__).parents[3]
    done = subprocess.run(["bash", "-c", command], cwd=root, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"{", b"")


def test_check_loads_no_trio() -> None:
    code = "import sys, supervisor.cli.arguments, supervisor.cli.check; sys.exit('trio' in sys.modules)"
    root = Path(__file__).parents[3]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False, timeout=60).returncode == 0
