"""A single read, or a whole batch of them, at a replica, which may refuse it as a write: then the primary is asked.

A function that writes looks like any other in a SELECT; a replica answers it with 25006. Nothing was done then, and as
long as nothing was said, the client need not know: so the beginning of the answer is kept back until it is clear, and
nothing behind the batch is sent before all of it is answered. Owns no more than the batch and 64 KiB of descriptions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from pooler.messages import HEAD, HEAD_SIZE
from pooler.states import ERROR, EXECUTE, PARSE

if TYPE_CHECKING:
    from pooler.client import Client

# What comes before anything has been done: ParseComplete, BindComplete, ParameterDescription, RowDescription, NoData,
# and notices.
_BEFORE = frozenset(b"12tTnN")
MAX_HELD = 64 * 1024  # bytes of an answer's beginning; 1,600 columns, PostgreSQL's most, are described in 50,000


@attrs.define(eq=False)
class Trial:
    """Of one batch, at one replica."""

    batch: bytes = attrs.field(repr=False)  # as the client sent it
    judged: bool = False  # it is the replica's to answer, whatever that is
    _held: bytes = attrs.field(default=b"", repr=False)

    def received(self, answer: bytes) -> bytes:
        """What of the answer the client gets now. If all has come and `judged` is still false, it was refused."""
        if self.judged:
            return answer
        held = self._held + answer
        if len(held) <= MAX_HELD and may_be_refused(held):
            self._held = held
            return b""
        self.judged, self._held = True, b""
        return held

    def again(self, client: Client) -> bytes:
        """It was refused: what to ask the primary."""
        client.insists = True
        if client.translation is not None:
            for name in _prepared(self.batch):  # there and in no transaction; it is prepared anew
                client.translation.names.pop(name, None)
        return self.batch


def may_be_refused(answer: bytes) -> bool:
    """Whether this beginning of an answer is a replica's 25006, or may still become it."""
    at = 0
    while at + HEAD_SIZE <= len(answer):
        kind, length = HEAD.unpack_from(answer, at)
        end = at + length + 1
        if kind == ERROR:
            return end > len(answer) or b"\0C25006\0" in answer[at:end]
        if kind not in _BEFORE:
            return False
        at = end
    return True


def _prepared(batch: bytes) -> list[bytes]:
    """What this batch names before anything is executed: the rest was skipped."""
    found, at = [], 0
    while at < len(batch):
        kind, length = HEAD.unpack_from(batch, at)
        if kind == EXECUTE:
            break
        if kind == PARSE:
            found.append(batch[at + HEAD_SIZE : at + length + 1].partition(b"\0")[0])
        at += length + 1
    return found
