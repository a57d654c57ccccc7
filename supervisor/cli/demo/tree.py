"""Process trees as /proc shows them: who descends from a process, under which title, with what CPU time and memory.

Used where processes are looked at from outside: by the demo, the system tests and the benchmark.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import attrs

TICKS = os.sysconf("SC_CLK_TCK")  # clock ticks a second
TITLE = re.compile(r"portway: (\w+)(?: (\d+)/(\d+))?")


@attrs.frozen
class Process:
    """One process: its id, its parent's, and the title that it gave itself."""

    pid: int
    parent: int
    state: str
    started: int  # clock ticks since boot: with the id it names a process for good
    title: str


def _read(pid: int) -> Process | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        title = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return None
    # proc(5): the command stands in parentheses and may hold any character, so look for the last one.
    fields = stat[stat.rindex(")") + 2 :].split()
    words = title.replace(b"\0", b" ").decode(errors="replace").strip()
    return Process(pid, int(fields[1]), fields[0], int(fields[19]), words)


def everybody() -> Iterator[Process]:
    """All processes of the machine."""
    for name in os.listdir("/proc"):
        if name.isdigit() and (found := _read(int(name))) is not None:
            yield found


def tree(pid: int) -> list[Process]:
    """The process and all its living descendants, parents before children; zombies left out."""
    children: dict[int, list[Process]] = {}
    root = None
    for process in everybody():
        if process.pid == pid:
            root = process
        children.setdefault(process.parent, []).append(process)
    found = [root] if root is not None else []
    for process in found:
        found.extend(children.get(process.pid, ()))
    return [process for process in found if process.state != "Z"]


def running(process: Process) -> bool:
    """Whether this very process still runs; another one with its id doesn't count."""
    found = _read(process.pid)
    return found is not None and found.state != "Z" and found.started == process.started


def cpu_seconds(pid: int) -> float:
    """CPU time of the process and its living descendants, user and system, in seconds (to the clock tick, 10 ms)."""
    ticks = 0
    for process in tree(pid):
        try:
            stat = Path(f"/proc/{process.pid}/stat").read_text()
        except OSError:
            continue
        fields = stat[stat.rindex(")") + 2 :].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS


def open_files(pid: int) -> int:
    """How many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def resident(pid: int) -> int:
    """Memory that belongs to this process alone (private, dirty and clean), in bytes."""
    total = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(("Private_Clean:", "Private_Dirty:")):
            total += int(line.split()[1]) * 1024
    return total
