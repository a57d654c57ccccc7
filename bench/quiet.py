"""How much of the machine others used while something was measured.

Whoever else runs takes turns on the CPUs and throws the caches out, and interpreted code suffers more of that than
compiled code does. A run beside which others used too much is made again.
"""

import os
import time
from pathlib import Path

from supervisor.cli.demo.tree import TICKS, tree

TOLERATED = 0.08  # of one CPU: about what an idle machine's own housekeeping reaches at times
PATIENCE = 6.0  # s to wait for a quiet moment before a run
AGAIN = 3  # times that a disturbed run is made anew; then the least disturbed counts


def busy() -> float:
    """CPU seconds that all processes and interrupts of the machine have used since boot."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _, _, irq, softirq = (int(field) for field in fields[:7])
    return (user + nice + system + irq + softirq) / TICKS


def _ours() -> float:
    """CPU seconds of this process and its descendants, those that have ended included."""
    ticks = 0
    for process in tree(os.getpid()):
        try:
            stat = Path(f"/proc/{process.pid}/stat").read_text()
        except OSError:
            continue
        ticks += sum(int(field) for field in stat[stat.rindex(")") + 2 :].split()[11:15])
    return ticks / TICKS


class Watch:
    """From its making on."""

    def __init__(self) -> None:
        self._began, self._busy, self._ours = time.monotonic(), busy(), _ours()

    def others(self) -> float:
        """CPUs that others used on average since then."""
        passed = time.monotonic() - self._began
        return max(0.0, (busy() - self._busy) - (_ours() - self._ours)) / passed if passed > 0 else 0.0


def wait() -> bool:
    """Wait for a moment in which nobody else works; False if none came in time."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        watch = Watch()
        time.sleep(0.5)
        if watch.others() <= TOLERATED:
            return True
    return False
