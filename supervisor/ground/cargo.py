"""What is too large for a message: a value in a memfd, sealed, its descriptor sent over the wire.

Only the supervisor packs and only its children unpack (they check the sender's process id first): unpickling runs code,
and nothing in the supervisor ever unpickles.
"""

from __future__ import annotations

import fcntl
import os
import pickle
from typing import Any

MAX_CARGO = 1024 * 1024 * 1024  # bytes; several files of `config.secrets.MAX_FILE` fit

ADD_SEALS, _GET_SEALS = 1033, 1034  # fcntl(2); Python 3.11 lacks the names on some builds
SEALED = 0x1 | 0x2 | 0x4 | 0x8  # F_SEAL_SEAL, SHRINK, GROW, WRITE: what is read can't change under the reader


def pack(value: object, name: str) -> int:
    """A descriptor of the sealed value, the caller's to close."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(fd, "wb", closefd=False) as file:
            pickle.dump(value, file, protocol=pickle.HIGHEST_PROTOCOL)
        fcntl.fcntl(fd, ADD_SEALS, SEALED)
    except BaseException:
        os.close(fd)
        raise
    return fd


def unpack(fd: int) -> Any:
    """The value behind a descriptor from the supervisor; it stays open. ValueError if it isn't sealed."""
    if fcntl.fcntl(fd, _GET_SEALS) & SEALED != SEALED:
        raise ValueError("the cargo is not sealed")
    size = os.fstat(fd).st_size
    if size > MAX_CARGO:
        raise ValueError(f"a cargo of {size} bytes; at most {MAX_CARGO}")
    # The offset is shared by all who got this descriptor, so it is left alone.
    data = bytearray()
    while len(data) < size:
        data += os.pread(fd, size - len(data), len(data))
    return pickle.loads(data)
