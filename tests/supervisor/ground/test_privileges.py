"""Privileges: whom the names mean, and that what is given up is gone (in a forked child)."""

from __future__ import annotations

import grp
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from supervisor.ground import privileges

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def in_a_child(function: Callable[[], bool]) -> bool:
    """What `function` returns in a forked child; an exception there is False."""
    pid = os.fork()
    if not pid:
        try:
            os._exit(0 if function() else 1)
        finally:
            os._exit(2)
    return os.waitpid(pid, 0)[1] == 0


def test_without_names_nobody_else_is_meant() -> None:
    assert privileges.resolve(None, None) is None


def test_a_user_brings_its_group_unless_one_is_given() -> None:
    user = pwd.getpwuid(os.getuid())
    other = grp.getgrall()[-1]
    alone = privileges.resolve(user.pw_name, None)
    with_group = privileges.resolve(user.pw_name, other.gr_name)
    assert alone is not None
    assert with_group is not None
    assert (alone.uid, alone.gid) == (user.pw_uid, user.pw_gid)
    assert with_group.gid == other.gr_gid
    assert other.gr_gid in with_group.groups
    assert privileges.may_become(alone)


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(KeyError):
        privileges.resolve("no-such-user", None)


@ROOT
def test_what_was_root_becomes_the_user_for_good() -> None:
    def child() -> bool:
        identity = privileges.resolve("nobody", None)
        assert identity is not None
        privileges.drop(identity)
        privileges.forbid_new()
        status = dict(line.split(":\t") for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
        try:
            os.setuid(0)
        except PermissionError:
            pass
        else:
            return False
        return (
            os.getresuid() == (identity.uid,) * 3
            and os.getresgid() == (identity.gid,) * 3
            and set(os.getgroups()) == set(identity.groups)
            and status["NoNewPrivs"] == "1"
            and int(status["CapEff"], 16) == 0
        )

    assert in_a_child(child)


def test_a_child_is_told_when_its_parent_dies() -> None:
    read, write = os.pipe()
    middle = os.fork()
    if not middle:
        me = os.getpid()
        ready, say = os.pipe()
        if not os.fork():
            try:
                signal.signal(signal.SIGTERM, lambda *_: os.write(write, b"told") and os._exit(0))
                privileges.follow(me)
                os.write(say, b"x")
                signal.pause()
            finally:
                os._exit(1)
        os.read(ready, 1)
        os._exit(0)
    os.close(write)
    os.waitpid(middle, 0)
    assert os.read(read, 10) == b"told"
    os.close(read)


def test_a_child_whose_parent_is_gone_already_notices() -> None:
    def child() -> bool:
        try:
            privileges.follow(os.getppid() + 1)
        except privileges.Orphaned:
            return True
        return False

    assert in_a_child(child)


@ROOT
def test_one_process_keeps_the_networks_administration_and_hands_it_on() -> None:
    def child() -> bool:
        identity = privileges.resolve("nobody", None)
        assert identity is not None
        privileges.drop(attrs.evolve(identity, net_admin=True))
        privileges.forbid_new()
        # What a program that it runs has.
        text = subprocess.run(["cat", "/proc/self/status"], capture_output=True, check=True).stdout.decode()
        status = dict(line.split(":\t") for line in text.splitlines() if ":\t" in line)
        only = f"{1 << privileges.CAP_NET_ADMIN:016x}"
        return os.getuid() != 0 and status["CapEff"] == status["CapPrm"] == status["CapAmb"] == only

    assert in_a_child(child)


@ROOT
def test_what_root_never_had_is_not_kept_and_is_no_error() -> None:
    def child() -> bool:
        code = (
            "import attrs, os; from supervisor.ground import privileges as p;"
            "p.drop(attrs.evolve(p.resolve('nobody', None), net_admin=True)); print(open('/proc/self/status').read())"
        )
        command = ["setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-all", sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, check=True, text=True)
        return "CapEff:\t0000000000000000" in done.stdout and "CapPrm:\t0000000000000000" in done.stdout

    assert in_a_child(child)
