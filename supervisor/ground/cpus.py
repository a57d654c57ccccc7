"""How many CPUs this process may use: its affinity, and the quota that its cgroup (a container) gives it.

`os.cpu_count` tells neither; a worker per core of the host in a container of two CPUs would be throttled, not faster.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path


def usable_cpus(root: Path = Path("/")) -> int:
    """At least 1. A quota of 1.5 CPUs counts as 2: the half is worth a worker."""
    cpus = len(os.sched_getaffinity(0))
    return max(1, min([cpus, *(math.ceil(quota) for quota in _quotas(root))]))


def pin(number: int, allowed: Iterable[int]) -> int:
    """Keep this process on one of the allowed CPUs: worker 1 on the first, worker 2 on the second, and round again."""
    cpus = sorted(allowed)
    cpu = cpus[(number - 1) % len(cpus)]
    os.sched_setaffinity(0, {cpu})
    return cpu


def _quotas(root: Path) -> Iterator[float]:
    """The quotas, in CPUs, of this process's cgroup and its parents (cgroups(7)); what can't be read limits nothing."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:  # version 2: one hierarchy
            for folder in _upwards(root / "sys/fs/cgroup", path):
                quota, _, period = _read(folder / "cpu.max").partition(" ")
                yield from _ratio(quota, period)
        elif "cpu" in controllers.split(","):
            for folder in _upwards(root / "sys/fs/cgroup/cpu", path):
                yield from _ratio(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    # Inside a container the path is the host's and leads nowhere; its own limits then stand at the mount itself.
    folder = mount / path.strip().lstrip("/")
    while folder != mount and mount in folder.parents:
        yield folder
        folder = folder.parent
    yield mount


def _ratio(quota: str, period: str) -> Iterator[float]:
    try:
        if int(quota) > 0 and int(period) > 0:
            yield int(quota) / int(period)
    except ValueError:  # "max", or no such file
        pass


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
