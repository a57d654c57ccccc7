"""Usable CPUs: affinity and the quotas of cgroup versions 1 and 2."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from supervisor.ground.cpus import pin, usable_cpus


@pytest.fixture(autouse=True)
def eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_without_a_quota_the_affinity_counts(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "0::/user.slice\n")
    write(tmp_path / "sys/fs/cgroup/user.slice/cpu.max", "max 100000\n")
    assert usable_cpus(tmp_path) == 8


def test_nothing_to_read_limits_nothing(tmp_path: Path) -> None:
    assert usable_cpus(tmp_path) == 8


def test_the_smallest_quota_on_the_way_up_counts_rounded_up(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "0::/a/b\n")
    write(tmp_path / "sys/fs/cgroup/a/b/cpu.max", "400000 100000\n")
    write(tmp_path / "sys/fs/cgroup/a/cpu.max", "150000 100000\n")
    assert usable_cpus(tmp_path) == 2


def test_a_container_sees_its_quota_at_the_mount(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "0::/docker/0123\n")
    write(tmp_path / "sys/fs/cgroup/cpu.max", "50000 100000\n")
    assert usable_cpus(tmp_path) == 1


def test_version_1_has_its_own_files(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "4:cpu,cpuacct:/x\n3:memory:/x\n")
    write(tmp_path / "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us", "300000\n")
    write(tmp_path / "sys/fs/cgroup/cpu/x/cpu.cfs_period_us", "100000\n")
    assert usable_cpus(tmp_path) == 3


def test_workers_take_the_allowed_cpus_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[set[int]] = []
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cpus: taken.append(cpus))
    assert [pin(number, {7, 2, 5}) for number in range(1, 5)] == [2, 5, 7, 2]
    assert taken == [{2}, {5}, {7}, {2}]
