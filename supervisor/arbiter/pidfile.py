"""The PID file: the supervisor's process id, for scripts; written whole or not at all, and removed by who wrote it.

It proves nothing (a number may be another process's by now), so only a living supervisor in it refuses a start.
"""

from __future__ import annotations

import os
from pathlib import Path

MODE = 0o644


class CannotWrite(Exception):
    """The file can't be written, and why."""


def write(path: Path, proc: Path = Path("/proc")) -> None:
    """Our process id. Raises CannotWrite."""
    other = _owner(path)
    if other is not None and other != os.getpid() and _is_supervisor(proc / str(other)):
        raise CannotWrite(f"PID file {path}: belongs to process {other}, a daemon that runs")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # O_EXCL and a rename: a link that somebody has put there is replaced, not followed.
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
        try:
            os.write(fd, f"{os.getpid()}\n".encode())
        finally:
            os.close(fd)
        temporary.rename(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise CannotWrite(f"PID file {path} can't be written: {error.strerror}") from None


def remove(path: Path) -> None:
    """If it is still ours. A folder that has changed hands is not worth an error at the end."""
    if _owner(path) == os.getpid():
        try:
            path.unlink()
        except OSError:
            pass


def _owner(path: Path) -> int | None:
    try:
        return int(path.read_bytes()[:32])
    except (OSError, ValueError):
        return None


def _is_supervisor(folder: Path) -> bool:
    try:
        return (folder / "cmdline").read_bytes().startswith(b"portway: supervisor")
    except OSError:
        return False
