"""Orphans: processes that the supervisor did not start and must reap, because it is PID 1 of a container.

Whoever's parent has ended becomes a child of PID 1 (or of a subreaper, prctl(2)), and stays a zombie until that waits
for it. Our own children are left to their pidfds: their ends have to be judged.
"""

from __future__ import annotations

import os
from collections.abc import Callable

AT_ONCE = 1000  # zombies reaped before other events have their turn


def reap(ours: Callable[[int], bool]) -> int:
    """Reap the dead that are not ours, up to one that is: it will be reaped by who knows it, and the rest at the next
    call. How many there were."""
    count = 0
    for _ in range(AT_ONCE):
        try:
            dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if dead is None or ours(dead.si_pid):
                break
            os.waitpid(dead.si_pid, os.WNOHANG)
        except ChildProcessError:
            break
        count += 1
    return count
