import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.cli.demo.processes import Child

ROOT = Path(__file__).resolve().parents[3]
SLEEP = (sys.executable, "-c", "import time; print('here', flush=True); time.sleep(60)")

# What was asked of a process while it forked: the hook runs where Python swallows exceptions.
INTERRUPTED = """\
import os, signal, sys
from supervisor.cli.demo.processes import Child

def end(number, frame):
    raise SystemExit(7)

signal.signal(signal.SIGTERM, end)
os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGTERM))
Child.start("sleeper", ["sleep", "60"])
print("nobody heard it")
"""


@pytest.fixture
def background() -> Iterator[None]:
    """As a shell starts a command in the background: an interrupt is for others."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_signal_during_a_fork_is_heard() -> None:
    command = [sys.executable, "-c", INTERRUPTED]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, "", "")


@pytest.mark.parametrize("last", [signal.SIGTERM, signal.SIGINT])
def test_a_child_ends_by_its_signal(last: signal.Signals) -> None:
    read, write = os.pipe()
    with os.fdopen(read) as said, os.fdopen(write, "wb") as output:
        child = Child.start("sleeper", SLEEP, output=output, errors=subprocess.DEVNULL, last=last)
        assert said.readline() == "here\n"
        assert child.alive
        assert child.stop() == -last
        assert not child.alive


def test_a_child_that_will_not_end_is_killed() -> None:
    read, write = os.pipe()
    with os.fdopen(read) as said, os.fdopen(write, "wb") as output:
        child = Child.start("stubborn", ["sh", "-c", "trap '' TERM; echo here; exec sleep 60"], output=output)
        assert said.readline() == "here\n"
        assert child.stop(grace=0.05) == -signal.SIGKILL


def test_a_child_is_interrupted_even_if_we_are_in_the_background(background: None) -> None:
    child = Child.start("sleeper", ["sleep", "60"], last=signal.SIGINT)
    assert child.stop() == -signal.SIGINT


def test_a_child_gets_its_environment_over_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURS", "kept")
    monkeypatch.setenv("BOTH", "ours")
    with (tmp_path / "out").open("wb") as output:
        command = ["sh", "-c", "echo $OURS $BOTH $PWD"]
        child = Child.start("one", command, environment={"BOTH": "its"}, directory=tmp_path, output=output)
        assert child.process.wait(30) == 0
    assert (tmp_path / "out").read_text() == f"kept its {tmp_path}\n"
