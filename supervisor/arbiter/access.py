"""The access log's file, for workers that are not root: made and given to them by the supervisor, as nginx does."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from supervisor.ground.config import Config
from supervisor.ground.log import FILE_MODE
from supervisor.ground.privileges import Identity


def give(config: Config, identity: Identity | None) -> None:
    """Make sure that who writes the file may open it again later (USR1), when it no longer is root. Raises OSError."""
    target = config.log.access
    if identity is None or not isinstance(target, Path):
        return
    if target.is_symlink():
        return  # to follow it would let who owns the folder have any file of root's given to him (CVE-2016-1247)
    fd = os.open(target, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            os.fchown(fd, identity.uid, identity.gid)
    finally:
        os.close(fd)
