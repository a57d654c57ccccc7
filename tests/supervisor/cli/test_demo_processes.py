import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.cli.demo.processes import Child
from tests.system.support.poll import until

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
    child = Child.start("sleeper", ["sh", "-c", "trap '' TERM; while :; do sleep 0.05; done"])
    until(lambda: "4000" in Path(f"/proc/{child.pid}/status").read_text().split("SigIgn:")[1].split()[0], "the trap")
    assert child.stop(grace=0.05) == -signal.SIGKILL


def test_a_child_gets_its_environment_over_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURS", "kept")
    monkeypatch.setenv("BOTH", "ours")
    with (tmp_path / "out").open("wb") as output:
        command = ["sh", "-c", "echo $OURS $BOTH $PWD"]
        child = Child.start("one", command, environment={"BOTH": "its"}, directory=tmp_path, output=output)
        assert child.process.wait(30) == 0
    assert (tmp_path / "out").read_text() == f"kept its {tmp_path}\n"
