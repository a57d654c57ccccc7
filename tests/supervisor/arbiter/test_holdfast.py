"""The guard around new code that takes over: as a program of its own, which it is."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.arbiter import holdfast
from supervisor.arbiter.estate import VARIABLE

PROGRAM = Path(holdfast.__file__).read_text()
BLOCKED = "import os, signal; signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\n"


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(10)
        yield sock


def start(folder: Path, code: str, **environment: str) -> subprocess.Popen[bytes]:
    """The new code as a script, in its guard, with signals blocked as they are across the exec."""
    script = folder / "new.py"
    script.write_text(BLOCKED + code)
    everything = {**os.environ, VARIABLE: "adopt:3", **environment}
    command = [sys.executable, "-c", PROGRAM, "script", str(script), "run"]
    return subprocess.Popen(command, stderr=subprocess.PIPE, env=everything)


def test_code_that_takes_over_ends_as_it_likes(tmp_path: Path) -> None:
    process = start(tmp_path, f"del os.environ[{VARIABLE!r}]\nraise SystemExit(4)")
    assert process.communicate(timeout=10)[1] == b""
    assert process.returncode == 4


def test_code_that_fails_before_is_held_up_and_the_watchdog_goes_on_hearing(
    tmp_path: Path, manager: socket.socket
) -> None:
    process = start(
        tmp_path, 'raise RuntimeError("half installed")',
        NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="40000",
    )  # fmt: skip
    heard = [manager.recv(1000) for _ in range(4)]
    assert heard[0].startswith(b"STATUS=the new code failed after the exec")
    assert heard[1:] == [b"WATCHDOG=1"] * 3
    process.send_signal(signal.SIGTERM)
    told = process.communicate(timeout=10)[1]
    assert b"RuntimeError: half installed" in told
    assert process.returncode == 1


def test_usr2_tries_again_at_once(tmp_path: Path) -> None:
    """The second time it takes over."""
    code = f"""
import pathlib
again = pathlib.Path({str(tmp_path / "again")!r})
if again.exists():
    del os.environ[{VARIABLE!r}]
    raise SystemExit(7)
again.touch()
raise RuntimeError("the first time")
"""
    process = start(tmp_path, code)
    assert process.stderr is not None
    while b"the next try follows" not in process.stderr.readline():
        assert select.select([process.stderr], [], [], 10)[0]
    process.send_signal(signal.SIGUSR2)
    process.communicate(timeout=10)
    assert process.returncode == 7


@pytest.mark.parametrize(("usec", "seconds"), [("", holdfast.RETRY), ("x", holdfast.RETRY), ("30000000", 15.0)])
def test_half_of_what_the_watchdog_waits(monkeypatch: pytest.MonkeyPatch, usec: str, seconds: float) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    assert holdfast.beat() == seconds


@pytest.mark.parametrize("address", ["", "relative", "/nowhere/at/all", "@nobody"])
def test_a_manager_that_is_not_there_costs_nothing(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    holdfast.tell("WATCHDOG=1")
