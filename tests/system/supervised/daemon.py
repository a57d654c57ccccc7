"""The daemon with the fake tier, as a process; asked over its control socket."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs

from supervisor.cli.control import Unreachable, ask
from tests.system.support.poll import until
from tests.system.support.processes import TITLE, Process, open_files, running, tree

ROOT = Path(__file__).resolve().parents[3]


def config(port: int, workers: int = 2, supervisor: str = "", fake: str = "", more: str = "") -> str:
    """A configuration of the fake tier with one listener; `supervisor` and `fake` are lines of these tables."""
    return f"""
[supervisor]
workers = {workers}
drain_timeout = "10s"
{supervisor}
[fake]
{fake}
[fake.listeners.a]
bind = "127.0.0.1:{port}"
{more}
"""


@attrs.define(eq=False)
class Supervised:
    """A running daemon."""

    config: Path
    process: subprocess.Popen[bytes]
    log: Path
    seen: set[Process] = attrs.Factory(set)

    @classmethod
    def start(cls, folder: Path, text: str, *prefix: str, overlay: Path | None = None) -> Supervised:
        """Without waiting for anything; `prefix` is a command to start it with, modules in `overlay` come first."""
        config, log = folder / "fake.toml", folder / "fake.log"
        config.write_text(text)
        with log.open("ab") as output:
            process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "tests.system.supervised.tier", str(config)],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1", "COVERAGE_PROCESS_START": "", **_first(overlay)},
            )
        return cls(config, process, log)

    # -- asked

    def ask(self, command: str, **more: str) -> dict[str, Any]:
        return ask(self.config.parent / "portway.sock", {"command": command, **more})

    def status(self) -> Any:
        return self.ask("status")["status"]

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def lines(self, event: str) -> list[dict[str, Any]]:
        """The log's lines of one event."""
        found = [json.loads(line) for line in self.text.splitlines() if line.startswith("{") and line.endswith("}")]
        return [line for line in found if line["event"] == event]

    def ready(self, seconds: float = 30.0) -> Supervised:
        def is_ready() -> bool:
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.text}"
            return bool(self.lines("ready")) and self.settled()

        until(is_ready, "the daemon", seconds)
        return self

    def settled(self) -> bool:
        """Whether every wanted worker is ready, and every slot polled by one of them, evenly."""
        try:
            status = self.status()
        except Unreachable:
            return False
        ready = [process for process in status["processes"] if process["tier"] == "fake"]
        counts = [sorted(listener["slots"].values()) for listener in status["listeners"]]
        return (
            all(process["state"] == "ready" for process in ready)
            and len(ready) == len(self.pids("fake"))
            and all(sum(count) >= 8 and len(count) == len(ready) and count[-1] - count[0] <= 1 for count in counts)
        )

    def files(self) -> int:
        """The supervisor's open files, once the client that asked last is gone: a count that stays."""
        counts: list[int] = []

        def stays() -> bool:
            counts.append(open_files(self.process.pid))
            return len(counts) > 3 and len(set(counts[-3:])) == 1

        until(stays, "a steady number of open files")
        return counts[-1]

    # -- its processes

    def tree(self) -> list[Process]:
        found = tree(self.process.pid)
        self.seen.update(found)
        return found

    def pids(self, name: str) -> list[int]:
        titled = [(TITLE.match(process.title), process.pid) for process in self.tree()]
        return [pid for title, pid in titled if title and title[1] == name]

    def titles(self) -> set[str]:
        return {process.title for process in self.tree()}

    def send(self, number: signal.Signals) -> None:
        self.tree()
        self.process.send_signal(number)

    def wait(self, seconds: float = 20.0) -> int:
        """Its exit code, once it and all of its processes have ended."""
        code = self.process.wait(seconds)
        until(lambda: not self.left(), "its processes to end", 10.0)
        return code

    def stop(self) -> None:
        """Whatever the test left of it."""
        self.tree()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for process in self.left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)

    def left(self) -> list[Process]:
        return [process for process in self.seen if running(process)]


def _first(overlay: Path | None) -> dict[str, str]:
    if overlay is None:
        return {}
    # Without PYTHONSAFEPATH the working directory would stand before it.
    return {"PYTHONSAFEPATH": "1", "PYTHONPATH": f"{overlay}:{ROOT}"}


class Visitor:
    """A client of the fake tier."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.file = self.sock.makefile("rb")
        pid, generation, self.greeting = self.file.readline().decode().rstrip("\n").split(" ", 2)
        self.pid, self.generation = int(pid), int(generation)

    def __enter__(self) -> Visitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.sock.close()

    def echo(self, line: bytes) -> bytes:
        self.sock.sendall(line)
        return self.file.readline()
