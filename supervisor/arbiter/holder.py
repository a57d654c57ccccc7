"""Who holds a port: what /proc tells, for the message of a start that failed.

The socket tables name the inode of whatever listens there, the processes' descriptors name the process; those of other
users are visible to root alone.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import attrs

_LISTEN = "0A"  # TCP_LISTEN, include/net/tcp_states.h; a UDP socket that is not connected shows as 07
_UNCONNECTED = "07"


@attrs.frozen
class Holder:
    """A process that has the port."""

    pid: int
    name: str

    def __str__(self) -> str:
        return f"{self.name} (process {self.pid})"


def holder(port: int, kind: socket.SocketKind, proc: Path = Path("/proc")) -> Holder | None:
    """Who listens on `port`, if it can be seen. Addresses are left aside: any of them that conflicts is the culprit."""
    inodes = set(_inodes(port, kind, proc))
    if not inodes:
        return None
    for folder in sorted(proc.glob("[0-9]*"), key=lambda folder: int(folder.name)):
        if any(inode in inodes for inode in _sockets(folder)):
            return Holder(int(folder.name), _name(folder))
    return None


def held(port: int, kind: socket.SocketKind, proc: Path = Path("/proc")) -> bool:
    """Whether anybody listens on `port`, asked of the kernel: a connection would be work for whoever does."""
    return any(_inodes(port, kind, proc))


def _inodes(port: int, kind: socket.SocketKind, proc: Path) -> Iterator[str]:
    protocol, state = ("tcp", _LISTEN) if kind is socket.SOCK_STREAM else ("udp", _UNCONNECTED)
    for table in (proc / "net" / protocol, proc / "net" / f"{protocol}6"):
        try:
            lines = table.read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == state and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]


def _sockets(folder: Path) -> Iterator[str]:
    try:
        descriptors = os.listdir(folder / "fd")
    except OSError:  # another user's, or gone meanwhile
        return
    for descriptor in descriptors:
        try:
            target = os.readlink(folder / "fd" / descriptor)
        except OSError:
            continue
        if target.startswith("socket:["):
            yield target[8:-1]


def _name(folder: Path) -> str:
    try:
        command = (folder / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")[0].decode(errors="replace")
        short = (folder / "comm").read_text().strip()
    except OSError:
        return "?"
    # A title that a process gave itself says more than the 15 characters of its comm.
    return command if command.startswith("portway:") else short
