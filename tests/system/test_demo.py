"""`portway demo`: its five commands work as printed, and whatever ends it, nothing is left behind."""

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.cli.demo.tree import everybody
from tests.system.support.daemon import ROOT
from tests.system.support.poll import until

START_BOUND = 90.0  # s


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A place for the demo's temporary files that PostgreSQL's user can reach, unlike pytest's."""
    folder = Path(tempfile.mkdtemp(prefix="portway-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def start(temporary: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "supervisor", "demo", *options],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def left(temporary: Path) -> list[str]:
    """Processes that were started with the demo's folder for temporary files, and what is in that folder."""
    mark = f"TMPDIR={temporary}".encode()
    found = [str(path) for path in temporary.iterdir()]
    for process in everybody():
        try:
            if process.state != "Z" and mark in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0"):
                found.append(f"{process.pid} {process.title}")
        except OSError:
            continue
    return found


def read_until(demo: subprocess.Popen[str], words: str) -> str:
    """What it prints, up to those words."""
    assert demo.stdout is not None
    found = ""
    deadline = time.monotonic() + START_BOUND
    while words not in found:
        assert select.select([demo.stdout], [], [], max(0, deadline - time.monotonic()))[0], found
        piece = os.read(demo.stdout.fileno(), 65536).decode()
        assert piece, found
        found += piece
    return found


@pytest.mark.timeout(240)
def test_its_five_commands_work_as_printed(temporary: Path) -> None:
    with start(temporary, "--check") as demo:
        out, _ = demo.communicate(timeout=200)
    assert demo.returncode == 0, out
    assert out.count("\nok ") == 5, out
    assert left(temporary) == []


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("moment", "number"),
    [("Ctrl-C ends it all", signal.SIGINT), ("starting the services", signal.SIGTERM)],
    ids=["ready", "starting"],
)
def test_a_signal_leaves_nothing_behind(temporary: Path, moment: str, number: signal.Signals) -> None:
    with start(temporary, "--free-ports") as demo:
        read_until(demo, moment)
        demo.send_signal(number)
        out, _ = demo.communicate(timeout=60)
    assert demo.returncode == 0, out
    until(lambda: not left(temporary), "the demo's processes and files to go")


@pytest.mark.timeout(240)
def test_even_a_kill_leaves_no_process(temporary: Path) -> None:
    with start(temporary, "--free-ports") as demo:
        read_until(demo, "Ctrl-C ends it all")
        demo.kill()
        demo.communicate(timeout=60)
    until(lambda: not [line for line in left(temporary) if not line.startswith("/")], "its processes to end", 30)
