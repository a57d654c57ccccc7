"""The access log's file: tried by the supervisor, and given to workers that are not root, as nginx does."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from supervisor.ground.config import Config
from supervisor.ground.log import FILE_MODE
from supervisor.ground.privileges import Identity


class CannotLog(OSError):
    """The file can't be written, and why."""

    def __str__(self) -> str:
        return str(self.strerror)


def give(config: Config, identity: Identity | None) -> None:
    """Make sure that the file can be written, and that who writes it may open it again later (USR1), when it no longer
    is root. Raises CannotLog: better here, once and in words, than in every worker."""
    target = config.log.access
    if not isinstance(target, Path):
        return
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
    if identity is not None:
        if target.is_symlink():
            return  # to follow it would let who owns the folder have any file of root's given to him (CVE-2016-1247)
        flags |= os.O_NOFOLLOW
    try:
        fd = os.open(target, flags, FILE_MODE)
    except OSError as error:
        raise CannotLog(error.errno, f"access log {target} can't be written: {error.strerror}") from None
    try:
        if identity is not None and stat.S_ISREG(os.fstat(fd).st_mode):
            os.fchown(fd, identity.uid, identity.gid)
    finally:
        os.close(fd)
