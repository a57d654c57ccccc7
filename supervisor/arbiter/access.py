"""The access log's file: opened once by the supervisor to see that it can be, and given to workers that are not root.

So workers may open it again after a rotation (USR1), as with nginx.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from supervisor.ground.config import Config
from supervisor.ground.log import FILE_MODE
from supervisor.ground.privileges import Identity


class CannotLog(Exception):
    """The file can't be opened, and why."""


def make_ready(config: Config, identity: Identity | None) -> None:
    """Create the file if it isn't there, for who will write it. Raises CannotLog."""
    target = config.log.access
    if not isinstance(target, Path):
        return
    try:
        fd = os.open(target, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, FILE_MODE)
        try:
            # To follow a link would let who owns the folder have any file of root's given to him (CVE-2016-1247).
            if identity is not None and stat.S_ISREG(os.fstat(fd).st_mode) and not target.is_symlink():
                os.fchown(fd, identity.uid, identity.gid)
        finally:
            os.close(fd)
    except OSError as error:
        raise CannotLog(f"log.access: {target}: {error.strerror}") from None
