"""The real daemon as a process: started from a configuration's text, watched, ended, and judged by how it ended.

A configuration without `[supervisor] admin` gets one on a free port. At the end the daemon must exit 0 on TERM, leave
no process behind, and must not have written a traceback.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import attrs
from prometheus_client.parser import text_string_to_metric_families

from supervisor.cli.demo.ports import free_tcp_port
from tests.system.support.poll import until
from tests.system.support.processes import TITLE, Process, running, tree

ROOT = Path(__file__).resolve().parents[3]
READY_BOUND = 30.0  # s: eight Python processes starting on two cores
END_BOUND = 30.0  # s
COMMAND_BOUND = 160.0  # s: longer than a command of ours waits, of which `upgrade` waits longest


def with_admin(text: str) -> str:
    """The configuration with an admin address. (Lines move by one: write your own where line numbers matter.)"""
    if "admin" in tomllib.loads(text).get("supervisor", {}):
        return text
    line = f'admin = "127.0.0.1:{free_tcp_port()}"\n'
    found = re.search(r"^\[supervisor\][^\n]*\n", text, re.MULTILINE)
    if found is None:
        return f"{text.rstrip()}\n\n[supervisor]\n{line}"
    return text[: found.end()] + line + text[found.end() :]


@attrs.frozen
class Finished:
    """How a command ended."""

    status: int
    out: str
    err: str


def portway(*arguments: str | Path, timeout: float = COMMAND_BOUND) -> Finished:
    """Run a portway command to its end."""
    command = [sys.executable, "-m", "supervisor", *(str(argument) for argument in arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=timeout, check=False)
    return Finished(done.returncode, done.stdout.decode(), done.stderr.decode())


@attrs.define(eq=False)
class Daemon:
    """A running daemon."""

    folder: Path
    config: Path
    admin: str
    process: subprocess.Popen[bytes]
    log: Path
    ended: bool = False
    seen: set[Process] = attrs.Factory(set)  # every process of it that was ever looked at

    @classmethod
    def start(cls, folder: Path, text: str, name: str = "portway.toml", ready: bool = True) -> "Daemon":
        """Write the configuration and start the daemon with it; returns when /healthz says that it is ready."""
        config = folder / name
        config.write_text(with_admin(text))
        admin = str(tomllib.loads(config.read_text())["supervisor"]["admin"])
        log = folder / f"{name}.stderr"
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "supervisor", "run", str(config)],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        daemon = cls(folder, config, admin, process, log)
        if ready:
            try:
                daemon.wait_ready()
            except BaseException:
                daemon.kill()
                raise
        return daemon

    # -- what it says -----------------------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        return self.process.pid

    @property
    def stderr(self) -> str:
        """All that the daemon wrote so far."""
        return self.log.read_text(errors="replace")

    def get(self, path: str) -> bytes:
        """What the admin process answers; OSError for no answer or an error status."""
        with urllib.request.urlopen(f"http://{self.admin}{path}", timeout=10) as answer:
            body: bytes = answer.read()
            return body

    def healthy(self) -> bool:
        """Whether /healthz answers 200."""
        try:
            self.get("/healthz")
        except urllib.error.HTTPError as error:
            error.close()
            return False
        return True

    def wait_ready(self, bound: float = READY_BOUND) -> None:
        """Wait until the daemon answers; fail at once, with its words, when it ended."""

        def ready() -> bool:
            if (status := self.process.poll()) is not None:
                raise AssertionError(f"the daemon ended with {status}:\n{self.stderr[-4000:]}")
            return self.healthy()

        try:
            until(ready, "the daemon", bound)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.stderr[-4000:]}") from None

    def status(self) -> Any:
        """/status, parsed."""
        return json.loads(self.get("/status"))

    def metrics(self) -> dict[str, list[tuple[dict[str, str], float]]]:
        """/metrics, parsed: name -> [(labels, value)]."""
        found: dict[str, list[tuple[dict[str, str], float]]] = {}
        for family in text_string_to_metric_families(self.get("/metrics").decode()):
            for sample in family.samples:
                found.setdefault(sample.name, []).append((sample.labels, sample.value))
        return found

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples whose labels agree with those given; 0 where there are none."""
        samples = self.metrics().get(name, ())
        return sum(value for have, value in samples if all(have.get(key) == label for key, label in labels.items()))

    def lines(self) -> list[dict[str, Any]]:
        """The JSON lines of its log; other lines are left out."""
        found = []
        for line in self.stderr.splitlines():
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict):
                found.append(value)
        return found

    # -- its processes ----------------------------------------------------------------------------------------------

    def tree(self) -> list[Process]:
        """Its living processes, the supervisor first."""
        found = tree(self.pid)
        self.seen.update(found)
        return found

    def pids(self, role: str) -> list[int]:
        """The processes of a role: edge, gateway, pooler, prober, admin, supervisor; in the order of their numbers."""
        titled = [(TITLE.match(process.title), process.pid) for process in self.tree()]
        found = [(int(title[2] or 0), pid) for title, pid in titled if title and title[1] == role]
        return [pid for _, pid in sorted(found)]

    # -- what is done to it -----------------------------------------------------------------------------------------

    def command(self, verb: str, *arguments: str) -> Finished:
        """Run `portway VERB CONFIG ARGUMENTS`."""
        return portway(verb, self.config, *arguments)

    def rewrite(self, text: str) -> None:
        """Another text for its configuration, the admin address kept; not loaded before a reload."""
        if self.admin not in text and "admin" not in tomllib.loads(text).get("supervisor", {}):
            changed = with_admin(text)
            given = tomllib.loads(changed)["supervisor"]["admin"]
            text = changed.replace(f'admin = "{given}"', f'admin = "{self.admin}"')
        self.config.write_text(text)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the supervisor."""
        self.process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM, bound: float = END_BOUND) -> None:
        """End it and judge the end: status 0, nobody left, no traceback."""
        if self.ended:
            return
        self.ended = True
        self.tree()
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            status = self.process.wait(bound)
            until(lambda: not self.left(), "the daemon's processes to end", 10.0)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the daemon did not end within {bound:g}s:\n{self.stderr[-4000:]}") from None
        except AssertionError:
            raise AssertionError(f"left behind: {self.left()}\n{self.stderr[-4000:]}") from None
        finally:
            self._kill()
        assert status == 0, f"the daemon ended with {status}:\n{self.stderr[-4000:]}"
        assert "Traceback" not in self.stderr, self.stderr[-8000:]

    def kill(self) -> None:
        """End it without any judgement: for tests that break it on purpose."""
        self.ended = True
        self.tree()
        self._kill()

    def left(self) -> list[Process]:
        """Processes of it that still run, in whatever tree they stand now."""
        return [process for process in self.seen if running(process)]

    def _kill(self) -> None:
        for process in self.left():
            try:
                os.kill(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
