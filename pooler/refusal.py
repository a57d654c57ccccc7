"""One statement answered with an error instead of being executed: for a client that cancels while it waits in the
queue.

As PostgreSQL does it: a Query or FunctionCall gets the error and ReadyForQuery; an extended message gets the error,
everything up to its Sync is skipped, and the Sync gets the ReadyForQuery. Whatever comes after that is a statement of
its own.
"""

from __future__ import annotations

import attrs

from pooler.errors import PROTOCOL_VIOLATION, QUERY_CANCELED, PeerError
from pooler.messages import HEAD, HEAD_SIZE, READY_IDLE
from pooler.states import FUNCTION_CALL, MAX_MESSAGE, QUERY, SYNC, TERMINATE


class Canceled(Exception):
    """Thrown into a session that waits in the queue, when its client cancels."""


class NoReplica(Exception):
    """Thrown into a session that waits for a replica, when there is none: the primary is to answer."""


CANCELED = PeerError(QUERY_CANCELED, "canceling statement due to user request", severity="ERROR")


@attrs.define(eq=False)
class Refusal:
    """Takes the client's bytes from the statement's first message on, until `done`."""

    error: PeerError = CANCELED
    done: bool = False
    _begun: bool = False
    _skipping: bool = False  # to the Sync
    _left: int = 0  # bytes of the message in progress that are yet to come

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """What to answer, and what of `data` is to be given again with more, or is left over when `done`."""
        answer = b""
        while not self.done:
            if self._left:
                taken = min(self._left, len(data))
                self._left -= taken
                data = data[taken:]
                if self._left:
                    break
                answer += self._ended()
                continue
            if len(data) < HEAD_SIZE:
                break
            kind, length = HEAD.unpack_from(data)
            if not 4 <= length <= MAX_MESSAGE:
                raise PeerError(PROTOCOL_VIOLATION, "invalid message length")
            if kind == TERMINATE:
                self.done = True  # for the caller to meet
                break
            if not self._begun:
                self._begun = True
                self._skipping = kind not in (QUERY, FUNCTION_CALL)
                if kind != SYNC:  # a Sync alone does nothing that could be canceled
                    answer += self.error.encode()
            if kind == SYNC:
                self._skipping = False
            self._left = length + 1
        return answer, data

    def _ended(self) -> bytes:
        """A message has been taken whole."""
        if self._skipping:
            return b""
        self.done = True
        return READY_IDLE
