"""Listeners on Unix sockets: one socket, of which every slot has a copy, and a file that stands as long as it is open.

A socket that a dead daemon left is replaced; one that somebody answers at, and a file that is no socket, are errors.
Who may connect is for the folder to say, and for whoever asks for passwords: the file's mode is 0777, as PostgreSQL's.
"""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from supervisor.ground.tier import ListenerSpec

MODE = 0o777


class Occupied(Exception):
    """The path can't be listened on, and why."""


def open_local(spec: ListenerSpec, count: int) -> list[socket.socket]:
    """`count` copies of one socket that listens at the path. Raises Occupied."""
    path = Path(spec.bind.host)
    clear(path)
    sock = socket.socket(socket.AF_UNIX, spec.transport.value | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    before = os.umask(0o777 & ~MODE)
    try:
        sock.bind(str(path))
        sock.listen(spec.backlog)
        return [sock, *(sock.dup() for _ in range(count - 1))]
    except OSError as error:
        sock.close()
        raise Occupied(error.strerror or str(error)) from None
    finally:
        os.umask(before)


def clear(path: Path) -> None:
    """Take away what a dead daemon left at the path. Raises Occupied."""
    try:
        mode = path.lstat().st_mode
        if not stat.S_ISSOCK(mode):
            raise Occupied("there is a file of that name, and it is no socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            probe.connect(str(path))
            pid = int.from_bytes(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], "little")
        raise Occupied(f"a program (process {pid}) answers there already")
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise Occupied(error.strerror or str(error)) from None


def remove(path: str) -> None:
    """The listener is closed: nobody must wait there."""
    try:
        os.unlink(path)
    except OSError:  # the folder has changed hands; the next start replaces it
        pass
