"""The exec: what is run, and that everything is as before when it can't be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.arbiter import leap
from supervisor.arbiter.estate import VARIABLE


@pytest.mark.parametrize(
    ("command", "arguments", "program"),
    [
        (["-m", "supervisor", "run", "x"], 2, ["-m", "supervisor", "run", "x"]),
        (["-X", "dev", "-m", "tier", "x"], 1, ["-m", "tier", "x"]),
        (["/bin/portway", "run", "-m"], 2, ["script", "/bin/portway", "run", "-m"]),
    ],
)
def test_the_guard_runs_the_same_program(command: list[str], arguments: int, program: list[str]) -> None:
    made = leap.guarded(command, arguments)
    guard = made.index("-c")
    assert made[:guard] == command[: len(command) - len(program) + (program[0] == "script")]
    assert made[guard + 2 :] == program


@pytest.mark.parametrize("kind", ["module", "script"])
def test_a_guarded_program_sees_its_arguments_and_its_end_is_its_own(tmp_path: Path, kind: str) -> None:
    (tmp_path / "told.py").write_text("import sys\nif __name__ == '__main__':\n print(sys.argv[1:])\n sys.exit(7)\n")
    command = ["-m", "told", "a", "b"] if kind == "module" else [str(tmp_path / "told.py"), "a", "b"]
    done = subprocess.run(
        [sys.executable, *leap.guarded(command, 2)], cwd=tmp_path, capture_output=True, timeout=20, check=False
    )
    assert (done.returncode, done.stdout) == (7, b"['a', 'b']\n")


def test_a_failing_exec_leaves_everything_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    read, write = os.pipe()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with pytest.raises(FileNotFoundError):
        leap.leap(["-m", "supervisor", "run"], read, [write])
    assert not os.get_inheritable(read)
    assert not os.get_inheritable(write)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    assert VARIABLE not in os.environ
    os.close(read)
    os.close(write)


@pytest.mark.parametrize(("command", "arguments"), [(["x"], 1), (["x"], 4), (["-c", "code", "x"], 1)])
def test_another_way_to_start_is_refused(command: list[str], arguments: int) -> None:
    with pytest.raises(ValueError, match="how this daemon was started"):
        leap.guarded(command, arguments)


def test_the_guard_and_the_supervisor_know_each_other_by_one_name() -> None:
    from supervisor.arbiter import holdfast

    assert holdfast.VARIABLE == VARIABLE
