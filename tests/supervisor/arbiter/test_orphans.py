"""Orphans are reaped, our own children are left to those who know them.

In a child process that is a subreaper: adopted are processes in earnest, and pytest's own stay out of it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from supervisor.arbiter import orphans
from supervisor.cli.demo.waiting import until
from supervisor.ground.privileges import _ffi, _libc

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def in_child(function: Callable[[], None]) -> None:
    pid = os.fork()
    if not pid:
        code = 1
        try:
            assert _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0, _ffi.errno
            function()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def orphan() -> int:
    """A process whose parent ends at once; it has ended when this returns."""
    reading, writing = os.pipe()
    parent = os.fork()
    if not parent:
        child = os.fork()
        if child:
            os.write(writing, str(child).encode())
        os._exit(0)
    os.waitpid(parent, 0)
    pid = int(os.read(reading, 32))
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    os.close(reading)
    os.close(writing)
    return pid


def test_adopted_zombies_are_gone() -> None:
    def check() -> None:
        pids = [orphan() for _ in range(3)]
        assert orphans.reap(lambda pid: False) == 3
        assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
        assert orphans.reap(lambda pid: False) == 0

    in_child(check)


def test_a_dead_child_of_our_own_keeps_its_status_for_who_waits_for_it() -> None:
    def check() -> None:
        own = os.fork()
        if not own:
            os._exit(7)
        os.waitid(os.P_PID, own, os.WEXITED | os.WNOWAIT)
        assert orphans.reap(lambda pid: pid == own) == 0
        assert os.waitstatus_to_exitcode(os.waitpid(own, 0)[1]) == 7

    in_child(check)


def test_the_living_are_left_alone() -> None:
    def check() -> None:
        own = os.fork()
        if not own:
            signal.pause()
        assert orphans.reap(lambda pid: False) == 0
        os.kill(own, signal.SIGKILL)
        until(lambda: orphans.reap(lambda pid: False) == 1, "the child to be reaped")

    in_child(check)
