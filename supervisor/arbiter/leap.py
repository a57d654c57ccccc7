"""The exec itself: how the daemon was started, and how the same process starts as the new code."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from supervisor.arbiter.estate import VARIABLE

# Read when the daemon starts: by the time of an upgrade the files are the new code's.
_HOLDFAST = Path(__file__).with_name("holdfast.py").read_text()


def own_command() -> tuple[str, ...]:
    """The arguments behind the interpreter, with which this process was started."""
    return tuple(sys.orig_argv[1:])


def own_program(command: Sequence[str]) -> list[str]:
    """`command`, with which this process was started, in its guard. Raises ValueError."""
    return guarded(command, len(sys.argv) - 1)


def guarded(command: Sequence[str], arguments: int) -> list[str]:
    """The same program with the guard around it. The last `arguments` of the command are the program's own; before them
    stands the script, or `-m` and the module, and before that what is the interpreter's. ValueError for another way to
    start a program."""
    split = len(command) - arguments
    head, tail = list(command[:split]), list(command[split:])
    if split < 1 or "-c" in head[-2:]:
        raise ValueError(f"can't tell how this daemon was started: {list(command)}")
    if len(head) >= 2 and head[-2] == "-m":
        options, program = head[:-2], head[-2:]
    else:
        options, program = head[:-1], ["script", head[-1]]
    return [*options, "-c", _HOLDFAST, *program, *tail]


def block_signals() -> None:
    """Those that mean something to a supervisor: they wait in the kernel until the new code can hear them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def unblock_signals() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def leap(program: Sequence[str], estate: int, descriptors: Iterable[int]) -> None:
    """Become the new code, in this process: what `guarded` has made, which adopts what stands in the document `estate`.
    Returns only by raising OSError, and then everything is as it was."""
    kept = [estate, *descriptors]
    block_signals()
    try:
        for fd in kept:
            os.set_inheritable(fd, True)
        environment = {**os.environ, VARIABLE: f"adopt:{estate}"}
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(sys.executable, [sys.executable, *program], environment)
    finally:
        for fd in kept:
            os.set_inheritable(fd, False)
        unblock_signals()
