"""Backends as processes of their own: HTTP, TCP and UDP servers that tell what reached them.

What each can do stands at the head of its program in `servers/`. A backend that was stopped comes back on its port.
"""

import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import attrs

from supervisor.cli.demo.processes import Child

PROGRAMS = Path(__file__).parent / "servers"
START_BOUND = 20.0  # s


@attrs.define(eq=False)
class Backend:
    """One server: its name, which it tells in its answers, and its port."""

    program: str
    name: str
    port: int = 0
    modes: Sequence[str] = ()
    child: Child | None = None

    @property
    def address(self) -> str:
        """host:port, as a pool's server is written."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> "Backend":
        """Start it; it listens when this returns. A second start takes the same port again."""
        command = [sys.executable, "-S", PROGRAMS / f"{self.program}_server.py", self.name, str(self.port), *self.modes]
        self.child = Child.start(self.name, command, output=subprocess.PIPE)
        out = self.child.process.stdout
        assert out is not None
        if not select.select([out], [], [], START_BOUND)[0] or not (line := out.readline()):
            self.stop()
            raise AssertionError(f"the backend {self.name} did not start")
        self.port = int(line)
        return self

    def stop(self) -> None:
        """End it at once: its connections are cut, its port refuses."""
        if self.child is not None:
            self.child.process.kill()
            self.child.stop()
            self.child = None

    def freeze(self) -> None:
        """Stop it from running: its kernel accepts connections, nobody answers."""
        assert self.child is not None
        self.child.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it run again."""
        assert self.child is not None
        self.child.process.send_signal(signal.SIGCONT)

    def turn_health(self) -> None:
        """Turn /healthz from 200 to 503, or back (HTTP only)."""
        assert self.child is not None
        self.child.process.send_signal(signal.SIGUSR1)
