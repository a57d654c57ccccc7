"""What a child gives up after the fork, and how it learns that its supervisor is gone.

The order matters: setuid clears the parent-death signal (prctl(2)), so privileges go first; and the parent may have
died before the signal was asked for, so it is looked at afterwards.
"""

from __future__ import annotations

import grp
import os
import pwd
import signal
from typing import Any

import attrs
import cffi

PR_SET_PDEATHSIG = 1  # linux/prctl.h
PR_SET_KEEPCAPS = 8
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 47, 2
CAP_NET_ADMIN = 12  # linux/capability.h
_CAPABILITY_VERSION_3 = 0x20080522

_ffi = cffi.FFI()
_ffi.cdef(
    """
    int prctl(int option, unsigned long, unsigned long, unsigned long, unsigned long);
    int capget(uint32_t *header, uint32_t *data);
    int capset(uint32_t *header, const uint32_t *data);
    """
)
_libc: Any = _ffi.dlopen(None)


class Orphaned(Exception):
    """The supervisor died before this process could ask to be told."""


@attrs.frozen
class Identity:
    """Whom a worker runs as."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    net_admin: bool = False  # keeps CAP_NET_ADMIN, and hands it to the programs that it runs


def resolve(user: str | None, group: str | None) -> Identity | None:
    """The identity that the names mean; without a group the user's own. None without names. Raises KeyError."""
    if user is None and group is None:
        return None
    uid, gid, name = os.getuid(), os.getgid(), ""
    if user is not None:
        entry = pwd.getpwnam(user)
        uid, gid, name = entry.pw_uid, entry.pw_gid, entry.pw_name
    if group is not None:
        gid = grp.getgrnam(group).gr_gid
    return Identity(uid, gid, tuple(os.getgrouplist(name, gid)) if name else (gid,))


def may_become(identity: Identity) -> bool:
    """Whether this process can: root, or who is it already."""
    return os.geteuid() == 0 or (os.geteuid() == identity.uid and os.getegid() == identity.gid)


def drop(identity: Identity) -> None:
    """Become `identity` for good. Raises OSError."""
    keeps = identity.net_admin and os.geteuid() == 0
    if keeps:
        _prctl(PR_SET_KEEPCAPS, 1)
    if os.geteuid() == 0:
        os.setgroups(identity.groups)
    os.setresgid(identity.gid, identity.gid, identity.gid)
    os.setresuid(identity.uid, identity.uid, identity.uid)
    if keeps:
        _keep_only(CAP_NET_ADMIN)


def _keep_only(capability: int) -> None:
    """Of all that was kept over setuid only this, as an ambient one: programs that are run have it too
    (capabilities(7), "Ambient"). Nothing at all where root never had it, as in most containers. Raises OSError."""
    header = _ffi.new("uint32_t[2]", [_CAPABILITY_VERSION_3, 0])
    # Effective, permitted and inheritable, the low words and then the high ones (capget(2)).
    data = _ffi.new("uint32_t[6]")
    if _libc.capget(header, data):
        raise OSError(_ffi.errno, os.strerror(_ffi.errno))
    kept = data[1] & 1 << capability
    data = _ffi.new("uint32_t[6]", [kept] * 3 + [0] * 3)
    if _libc.capset(header, data):
        raise OSError(_ffi.errno, os.strerror(_ffi.errno))
    if not kept:
        return
    if _libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0):
        raise OSError(_ffi.errno, os.strerror(_ffi.errno))


def forbid_new() -> None:
    """No exec of this process or its children gains a privilege (no setuid programs, no file capabilities)."""
    _prctl(PR_SET_NO_NEW_PRIVS, 1)


def follow(supervisor: int, number: signal.Signals = signal.SIGTERM) -> None:
    """Receive `number` when the supervisor dies. Raises Orphaned when it is dead already."""
    _prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != supervisor:
        raise Orphaned


def _prctl(option: int, argument: int) -> None:
    if _libc.prctl(option, argument, 0, 0, 0):
        raise OSError(_ffi.errno, os.strerror(_ffi.errno))
