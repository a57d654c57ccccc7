"""The processes that the demo starts: in sessions of their own, ended with it, whatever ends it.

A child gets a session of its own, so that Ctrl-C reaches the demo alone, which then ends its children in the right
order. Should the demo be killed, the kernel ends them (PR_SET_PDEATHSIG). As root, PostgreSQL has to run as somebody
else, who is chosen here.
"""

import ctypes
import os
import pwd
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import attrs

PR_SET_PDEATHSIG = 1  # prctl(2)
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # what ends the demo in an orderly way
GRACE = 10.0  # s for an orderly end, before SIGKILL
OWNERS = ("postgres", "nobody")  # whom root becomes for PostgreSQL: its own user where there is one

_libc = ctypes.CDLL(None, use_errno=True)


@attrs.frozen
class Owner:
    """The unprivileged user that a process runs as."""

    uid: int
    gid: int


def unprivileged() -> Owner | None:
    """Whom root should become; None for an ordinary user, who stays who he is."""
    if os.geteuid() != 0:
        return None
    for name in OWNERS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Owner(entry.pw_uid, entry.pw_gid)
    raise OSError(f"running as root, and none of the users {', '.join(OWNERS)} exists to run PostgreSQL as")


@contextmanager
def _held_back() -> Iterator[None]:
    """Let signals wait for the end of the block.

    A handler that ran within a fork would run in its hooks, where Python reports an exception and goes on.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDINGS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _prepare(last: signal.Signals) -> Callable[[], None]:
    """For a child between fork and exec, after it has changed its user (which would clear whose death it follows)."""

    def prepare() -> None:
        _libc.prctl(PR_SET_PDEATHSIG, int(last))
        signal.signal(last, signal.SIG_DFL)  # where we were started in the background, SIGINT is ignored
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDINGS)

    return prepare


@attrs.define(eq=False)
class Child:
    """A process that we started and must end."""

    name: str
    process: subprocess.Popen[bytes]
    last: signal.Signals  # the signal that asks for an orderly end

    @classmethod
    def start(
        cls,
        name: str,
        command: Sequence[str | Path],
        *,
        owner: Owner | None = None,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
        output: IO[bytes] | int | None = None,
        errors: IO[bytes] | int | None = None,
        last: signal.Signals = signal.SIGTERM,
    ) -> "Child":
        """Start `command`; its environment is ours with `environment` laid over it."""
        child = None
        try:
            with _held_back():
                process = subprocess.Popen(
                    [str(part) for part in command],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=errors,
                    cwd=directory,
                    env={**os.environ, **(environment or {})},
                    start_new_session=True,
                    user=owner.uid if owner else None,
                    group=owner.gid if owner else None,
                    extra_groups=[] if owner else None,
                    preexec_fn=_prepare(last),
                )
                child = cls(name, process, last)
        except BaseException:
            if child is not None:
                child.stop()
            raise
        return child

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def ask_to_end(self) -> None:
        """Send the signal for an orderly end, without waiting."""
        if self.alive:
            self.process.send_signal(self.last)

    def stop(self, grace: float = GRACE) -> int:
        """End it and wait for it; killed after `grace` seconds. Returns the exit status as Popen gives it."""
        self.ask_to_end()
        try:
            status = self.process.wait(grace)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        return status
