"""What a replication connection is doing, as far as its server's messages tell: nothing, a command, or sending WAL.

Both directions pass unread but for this: an error of ours may stand only between two of the server's messages, and WAL
that is sent without end is no reason to wait. Sans-I/O. Source: PostgreSQL 55.4 "Streaming Replication Protocol".
"""

from __future__ import annotations

from enum import Enum

import attrs

from pooler.errors import ServerError
from pooler.messages import HEAD, HEAD_SIZE

_READY, _COPY_BOTH, _COPY_DONE, _ERROR = b"ZWcE"
_unpack = HEAD.unpack_from


class Replication(Enum):
    """Kinds of connections, in PgBouncer's words."""

    NONE = "none"
    LOGICAL = "logical"  # of one database; takes SQL, too
    PHYSICAL = "physical"  # of the whole cluster


class Stage(Enum):
    IDLE = "idle"
    COMMAND = "command"  # a base backup, a statement
    STREAMING = "streaming"


NEXT = {_READY: Stage.IDLE, _COPY_BOTH: Stage.STREAMING, _COPY_DONE: Stage.COMMAND}


@attrs.define(eq=False)
class Walsender:
    """One connection."""

    kind: Replication
    stage: Stage = Stage.IDLE
    failing: bool = False  # the last that the server said was an error: it may be its last word
    left: int = 0  # bytes of the server's message in progress that are yet to come

    @property
    def endless(self) -> bool:
        """Whether nothing is under way that would come to an end by itself."""
        return self.stage is not Stage.COMMAND

    def sent(self) -> None:
        """The client said something."""
        if self.stage is Stage.IDLE:
            self.stage = Stage.COMMAND

    def received(self, data: bytes) -> int:
        """Notes bytes from the server; returns how many of them to send on: a header goes whole. The caller gives the
        rest again with what comes next. Raises ServerError for what is no message."""
        at, size = self.left, len(data)
        while at + HEAD_SIZE <= size:
            kind, length = _unpack(data, at)
            if length < 4:
                raise ServerError("invalid message length from the server")
            self.stage = NEXT.get(kind, self.stage)
            self.failing = kind == _ERROR
            at += length + 1
        self.left = max(0, at - size)
        return min(at, size)
