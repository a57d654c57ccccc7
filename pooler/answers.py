"""What a server's answers are to a client whose messages were translated: shown, hidden, or made by us.

Each message that goes to the server stands in a FIFO with what its answer means; answers that we give ourselves stand
between them, so that all come in the order in which the client asked. After an error everything up to the next Sync is
skipped, by the server and here, and what was noted for it is taken back. Owns no bytes beyond a
CommandComplete or an error that is not all there. Source: PostgreSQL 55.2.3 "Extended Query".
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable

import attrs

from pooler.messages import HEAD, HEAD_SIZE, message
from pooler.prepared import Step
from pooler.states import COMPLETED_BY, COPY_IN, ERROR, EXECUTE, FUNCTION_CALL, QUERY, READY, SYNC

_ANYTIME = frozenset(b"NAS")  # notices, notifications and parameters belong to no message
_COMPLETE = ord("C")
_READ_WHOLE = frozenset((_COMPLETE, ERROR))
MAX_HELD = 64 * 1024  # bytes of an answer that is read before it is shown; tags and errors are far shorter
# What the server says where it is made to fail for us; anything else (25P02, say) PostgreSQL finds first, too.
_PROVOKED = re.compile(rb"\0C(?:26000|42P05)\0")
_unpack = HEAD.unpack_from


@attrs.define(eq=False)
class Expected:
    """The answer to one message. `kind` 0: none will come, `answer` is ours."""

    kind: int
    hidden: bool = False
    answer: bytes = b""
    error: bytes = b""  # shown instead of the server's, if that is the one that was provoked
    steps: tuple[Step, ...] = ()  # of a Query or Execute, each with a CommandComplete
    done: int = 0  # of them
    undo: Callable[[], None] | None = None  # if it fails or is skipped


@attrs.define(eq=False)
class Answers:
    """Of one client on one server connection, from a moment at which the server owed nothing."""

    step_done: Callable[[Step], None]
    batch_done: Callable[[int, bool], bytes]  # status, and whether an error came: what to say before
    fifo: deque[Expected] = attrs.field(factory=deque)
    skipping: bool = False  # to the client's next Sync
    failed: bool = False  # since the last ReadyForQuery
    said: bytes = b""  # ours, for the client, when the server has nothing to say before
    _left: int = 0  # of the message in progress
    _hiding: bool = False  # it
    _partial: bytes = b""  # the beginning of a CommandComplete or ErrorResponse

    def expect(self, expected: Expected) -> None:
        """One more message went to the server, or would have."""
        self.fifo.append(expected)
        if len(self.fifo) == 1 and not expected.kind:
            self.said += self._ours()

    def received(self, data: bytes) -> bytes:
        """What of it the client gets."""
        shown = []
        if self._partial:
            data, self._partial = self._partial + data, b""
        at, size = 0, len(data)
        while at < size:
            if self._left:
                end = min(size, at + self._left)
                self._left -= end - at
                if not self._hiding:
                    shown.append(data[at:end])
                at = end
                if not self._left:
                    shown.append(self._ours())
                continue
            if size - at < HEAD_SIZE:
                self._partial = data[at:]
                break
            kind, length = _unpack(data, at)
            if kind in _READ_WHOLE and size <= at + length < at + MAX_HELD:
                self._partial = data[at:]
                break
            self._left = length + 1
            instead = self._judge(kind, data, at, length)
            self._hiding = instead is not None
            if instead:
                shown.append(instead)
        return b"".join(shown)

    def _ours(self) -> bytes:
        """The answers that we owe now."""
        said = b""
        while self.fifo and not self.fifo[0].kind:
            said += self.fifo.popleft().answer
        return said

    def _judge(self, kind: int, data: bytes, at: int, length: int) -> bytes | None:
        """None to show it, else what to show instead."""
        if kind in _ANYTIME or not self.fifo:
            return None
        head = self.fifo[0]
        if kind == READY:
            return self._ready(data[at + HEAD_SIZE])
        if kind == ERROR:
            return self._error(head, data[at : at + length + 1])
        if kind == _COMPLETE and head.kind in (EXECUTE, QUERY):
            return self._completed(head)
        if kind == COPY_IN and head.kind == EXECUTE and len(self.fifo) > 1 and self.fifo[1].kind == SYNC:
            del self.fifo[1]  # read by the COPY, which ignores it
        elif kind in COMPLETED_BY.get(head.kind, ()):
            self.fifo.popleft()
        return b"" if head.hidden else None

    def _completed(self, head: Expected) -> bytes | None:
        if head.kind == EXECUTE:
            self.fifo.popleft()
        if head.hidden:
            return b""
        if head.done >= len(head.steps):
            return None
        step = head.steps[head.done]
        head.done += 1
        self.step_done(step)
        if step.act is None:
            return b""
        return message(b"C", step.tag + b"\0") if step.tag else None

    def _ready(self, status: int) -> bytes | None:
        hidden = False
        while self.fifo:
            head = self.fifo.popleft()
            if head.kind in (SYNC, QUERY, FUNCTION_CALL):
                hidden = head.hidden
                break
        if hidden:
            return b""
        before = self.batch_done(status, self.failed)
        self.failed = False
        return before + message(b"Z", bytes((status,))) if before else None

    def _error(self, head: Expected, said: bytes) -> bytes | None:
        error = head.error
        if head.kind in (QUERY, EXECUTE) and head.done < len(head.steps):
            error = head.steps[head.done].error
        self.failed = True
        if head.kind in COMPLETED_BY:
            skipped = []
            while self.fifo and self.fifo[0].kind != SYNC:
                skipped.append(self.fifo.popleft())
            for expected in reversed(skipped):
                if expected.undo is not None:
                    expected.undo()
            hidden = bool(self.fifo) and self.fifo[0].hidden  # ours, up to a Sync of ours
            self.skipping = not self.fifo
            if hidden:
                return b""
        return error if error and _PROVOKED.search(said) else None
