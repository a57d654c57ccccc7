"""Forked children for tests of shared memory: each says when it is there, and is gone when the test is."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def run_child(work: Callable[[], int]) -> int:
    """Fork, run `work`, exit with what it returned; the child's pid. `wait_child` collects it."""
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        code = work()
    finally:
        os._exit(code)


def wait_child(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@contextmanager
def child_that(enters: Callable[[], object]) -> Iterator[int]:
    """A child that calls `enters` and then stays; yields its pid once it is inside."""
    reading, writing = os.pipe()

    def stay() -> int:
        enters()
        os.write(writing, b"x")
        while True:
            signal.pause()

    pid = run_child(stay)
    os.close(writing)
    assert os.read(reading, 1) == b"x"
    os.close(reading)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def stop(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    os.waitpid(pid, os.WUNTRACED)
