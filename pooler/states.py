"""What a server still owes: when a server connection may change hands, and when it may never again.

A server may be released only at ReadyForQuery `I` with nothing outstanding. Every Sync, Query and FunctionCall brings
exactly one ReadyForQuery, so these stand in a FIFO, and a ReadyForQuery takes the first. What makes it more than
counting:

- After an error in an extended message (Parse, Bind, Describe, Execute, Close) the server skips everything up to the
  next Sync: a Query or FunctionCall skipped like that is never answered. After an error in a Query or FunctionCall
  nothing is skipped. So where a Query stands behind extended messages without a Sync between, the extended messages are
  kept one by one, each taken by the message that completes it, to know which of the two failed. Before a Sync that
  makes no difference, and they are forgotten when it comes.
- A server in COPY FROM STDIN ignores Sync and Flush until CopyDone or CopyFail; a server whose COPY has failed ignores
  CopyData, CopyDone and CopyFail instead, and answers the Sync. Whether a Sync between CopyInResponse and CopyDone
  counts therefore depends on when the server failed, which nobody can see from here: then the count is unknown for
  good.
- Flush ends nothing and begins nothing. A message of which the server has only a part is outstanding, also one that
  brings no answer.

Owns the framing of both streams (a message may be cut anywhere) but no bytes: both directions are told what passes, and
say how much of it may go on. Source: PostgreSQL 55.2.3 "Extended Query", 55.2.6 "COPY Operations"; PostgresMain and
CopyGetData.
"""

from __future__ import annotations

from collections import deque

import attrs

from pooler.batches import remember, usual
from pooler.errors import ServerError, no_message
from pooler.glance import LOOKED_AT, concerns
from pooler.messages import HEAD, HEAD_SIZE
from pooler.prepared import COMPLAINT

# From the client.
BIND, CLOSE, COPY_DATA, COPY_DONE, COPY_FAIL, DESCRIBE, EXECUTE, FUNCTION_CALL, FLUSH, PARSE, QUERY, SYNC, TERMINATE = (
    b"BCdcfDEFHPQSX"
)
# From the server.
READY, PARAMETER_STATUS, ERROR, COPY_IN, COPY_BOTH = b"ZSEGW"

IDLE, IN_TRANSACTION, FAILED_TRANSACTION = b"ITE"

MAX_MESSAGE = 0x3FFFFFFE  # bytes; PostgreSQL's PQ_LARGE_MESSAGE_LIMIT: a longer length is garbage
# A ParameterStatus is held back until it is whole; PostgreSQL's longest are names and paths of some hundred bytes.
MAX_PARAMETER_STATUS = 8 * 1024

# Each extended message, and what the server sends when it has done it. Flush brings nothing.
COMPLETED_BY = {
    PARSE: frozenset(b"1"),
    BIND: frozenset(b"2"),
    CLOSE: frozenset(b"3"),
    DESCRIBE: frozenset(b"Tn"),  # a statement's ParameterDescription comes before one of these
    EXECUTE: frozenset(b"CIs"),
}
_EXTENDED = frozenset(COMPLETED_BY)
_ANSWERED = frozenset((SYNC, QUERY, FUNCTION_CALL))
_COPY_END = frozenset((COPY_DONE, COPY_FAIL))

# What a client's message means here, by its kind: 0 is none.
_OPENS, _SYNCS, _ASKS, _ENDS_COPY, _PASSES, _LOOKED_AT = range(1, 7)
_MEANING = bytes(
    _OPENS if kind in b"PBDEC" else _SYNCS if kind in b"S" else _ASKS if kind in b"QF" else _ENDS_COPY if kind in b"cf"
    else _PASSES if kind in b"dHX" else 0
    for kind in range(256)
)  # fmt: skip
_MEANING_WATCHED = bytes(_LOOKED_AT if kind in b"PBDCQ" else _MEANING[kind] for kind in range(256))
# Outstanding.unnamed: nothing has made the statement without a name on this connection since its client got it; its
# client has; its client has made one on another connection, which it may want to use.
UNBOUND, BOUND, REMEMBERED = range(3)
# Which messages of a server are looked at where it matters what it completes (which extended message, or a COPY that is
# in doubt), and elsewhere.
_COMPLETIONS = frozenset().union(*COMPLETED_BY.values())
_NOTED_COARSELY = bytes(kind in b"ZSEGW" for kind in range(256))
_NOTED = bytes(kind in b"ZSEGW" or kind in _COMPLETIONS for kind in range(256))

_PORTAL = ord("P")

_unpack = HEAD.unpack_from


@attrs.define(eq=False)
class Outstanding:
    """The state of one server connection, fresh after login. `free` says whether it may change hands now."""

    free: bool = True
    status: int = IDLE  # as the last ReadyForQuery said
    unknown: bool = False  # the count can't be known: never free again
    terminated: bool = False  # the client sent Terminate
    # Sync, Query, FunctionCall; CopyDone and extended messages where they matter.
    fifo: deque[int] = attrs.field(factory=deque)
    opened: list[int] = attrs.field(factory=list)  # extended messages behind the last of the FIFO
    unsynced: bool = False  # something waits for a Sync that the client has not sent
    skipping: bool = False  # the server skips everything until a Sync that the client has not sent
    copy_in: bool = False  # the server waits for CopyData, and the client has not ended it
    doubt: bool = False  # a Sync was sent into a COPY that may have failed already
    failing: bool = False  # the last that the server said was an error: it may be its last word
    client_left: int = 0  # bytes of the client's message in progress that are yet to come
    server_left: int = 0
    bytes_in: int = 0  # from the client
    bytes_out: int = 0
    queries: int = 0  # ReadyForQuery so far; the caller may count from zero again
    transactions: int = 0  # how many of them said idle
    parameters: list[bytes] = attrs.field(factory=list)  # payloads of ParameterStatus, for the caller to take
    watching: bool = False  # `sent` stops before what may matter beyond a transaction
    noticed: bool = False  # it did
    unnamed: int = UNBOUND  # the statement without a name, while watching
    unbound: bytes = b""  # the Parse that made it, if a Sync came before anything was bound to it
    doubtful: bool = False  # the server complained about a prepared statement

    def sent(self, data: bytes) -> int:
        """Notes bytes from the client; returns how many of them to send. Less than a header may stay behind.

        The caller sends exactly those, and gives the rest again with what comes next. Stops before a Terminate, and
        while `watching` before what may matter beyond its transaction: then `noticed` is set. Raises PeerError.
        """
        size = len(data)
        at = self.client_left
        if at > size:
            self.client_left = at - size
            self.bytes_in += size
            return size
        self.free = False
        fifo = self.fifo
        odd = self.copy_in or self.skipping
        if self.watching and not (at or odd):  # what nearly all is, at one look
            first = data[:1]
            if first == b"Q" and not self.opened and size > HEAD_SIZE and _unpack(data)[1] == size - 1:
                if not concerns(data[HEAD_SIZE:], several=True):
                    fifo.append(QUERY)
                    self.unsynced = False
                    self.bytes_in += size
                    return size
            elif first == b"P" and self.unnamed != REMEMBERED and usual(data):
                self.unnamed = BOUND
                self.sent_batch(size)
                return size
        run = -1  # where the extended messages behind the last Sync, Query or FunctionCall of these bytes begin
        parse = -1  # where a statement without a name was made to which nothing has been bound
        meanings = _MEANING_WATCHED if self.watching else _MEANING
        last = size - HEAD_SIZE
        while at <= last:
            kind, length = _unpack(data, at)
            meaning = meanings[kind]
            if length < 4 or length > MAX_MESSAGE or not meaning:
                raise no_message(kind, length, meaning != 0)
            if odd:
                if kind == TERMINATE:
                    self.terminated = True
                    break
                self._sent_unusually(kind)
                odd = self.copy_in or self.skipping
                at += length + 1
                continue
            if meaning == _LOOKED_AT:
                # A message of which too little is there to judge it is stopped at, too.
                if kind == BIND:
                    if self.unnamed != BOUND or at + 6 >= size or data[at + 5] or data[at + 6]:
                        self.noticed = True
                        break
                    parse = -1
                elif kind == QUERY:
                    if at + length >= size < at + LOOKED_AT or concerns(data[at + 5 : at + length + 1], several=True):
                        self.noticed = True
                        break
                elif kind == PARSE:
                    if (
                        at + length >= size < at + LOOKED_AT
                        or data[at + 5]
                        or self.unnamed == REMEMBERED
                        or concerns(data[at + 6 : at + length + 1], several=False)
                    ):
                        self.noticed = True
                        break
                    self.unnamed, parse = BOUND, at
                    if at + length < size:
                        remember(data[at : at + length + 1])
                elif (at + 5 >= size or data[at + 5] != _PORTAL) and (
                    self.unnamed != BOUND or kind == CLOSE or data[at + 5 : at + 7] != b"S\0"
                ):
                    self.noticed = True
                    break
                meaning = _MEANING[kind]
            if meaning == _OPENS:
                if run < 0:
                    run = at
            elif meaning == _SYNCS:
                if parse >= 0:
                    self.unbound = data[parse : parse + _unpack(data, parse)[1] + 1]
                    self.noticed = True
                    break
                run = -1
                self.opened.clear()
                fifo.append(SYNC)
                self.unsynced = False
            elif meaning == _ASKS:
                self._open(data, run, at)
                run = -1
                self._close_run()
                fifo.append(kind)
                self.unsynced = False
            elif meaning == _ENDS_COPY:
                # Ends a COPY that the server may not have begun yet. With nothing to begin one, the server ignores it.
                self._open(data, run, at)
                run = -1
                if fifo or self.opened:
                    self._close_run()
                    fifo.append(kind)
            elif kind == TERMINATE:
                self.terminated = True
                break
            at += length + 1
        self._open(data, run, at)
        if at > size:
            self.client_left, at = at - size, size
        else:
            self.client_left = 0
            if not fifo:
                self._settle()
        self.bytes_in += at
        return at

    def sent_batch(self, size: int) -> None:
        """Note `size` bytes of a batch with its Sync, where no message is in progress and nothing is skipped."""
        self.free = self.unsynced = False
        self.opened.clear()
        self.fifo.append(SYNC)
        self.bytes_in += size

    def _open(self, data: bytes, at: int, end: int) -> None:
        """Extended messages stand in `data` from `at` (-1: none) to `end`: nothing behind them has ended their batch
        yet."""
        while 0 <= at < end:
            kind, length = _unpack(data, at)
            if kind in _EXTENDED:  # else it is a Flush
                self.opened.append(kind)
                self.unsynced = True
            at += length + 1

    def _close_run(self) -> None:
        """The extended messages so far have something behind them that is no Sync: each must be accounted for."""
        if self.opened:
            self.fifo.extend(self.opened)
            self.opened.clear()

    def _sent_unusually(self, kind: int) -> None:
        if self.skipping:
            if kind == SYNC:
                self.skipping = False
                self.fifo.append(SYNC)
                self.unsynced = False
        elif kind in _COPY_END:
            self.copy_in = False
        elif kind == SYNC:
            self.doubt = True
        elif kind != COPY_DATA and kind != FLUSH:
            self.unknown = True  # a server in COPY breaks off at anything else

    def received(self, data: bytes) -> int:
        """Notes bytes from the server; returns how many of them to send on. A header, a ReadyForQuery and a
        ParameterStatus go whole.

        The caller gives the rest again with what comes next. Raises ServerError for what is no message.
        """
        size = len(data)
        at = self.server_left
        if at > size:
            self.server_left = at - size
            self.bytes_out += size
            return size
        fifo = self.fifo
        noted = _NOTED if self.doubt or (fifo[0] in _EXTENDED if fifo else self.opened) else _NOTED_COARSELY
        last = size - HEAD_SIZE
        while at <= last:
            kind, length = _unpack(data, at)
            if length < 4:
                raise ServerError("invalid message length from the server")
            end = at + length + 1
            if noted[kind]:
                if kind == READY:
                    if length != 5:
                        raise ServerError("malformed ReadyForQuery from the server")
                    if end > size:
                        break
                    self.status = status = data[at + HEAD_SIZE]
                    self.failing = False
                    self.queries += 1
                    if status == IDLE:
                        self.transactions += 1
                    while fifo:
                        if fifo.popleft() in _ANSWERED:
                            break
                    else:
                        self.unknown = True  # an answer that nobody asked for
                    if fifo:
                        self._drop_copy_ends()
                    elif end == size:
                        at = end
                        break  # as nearly every answer ends
                elif kind == PARAMETER_STATUS:
                    if length > MAX_PARAMETER_STATUS:
                        raise ServerError("oversized ParameterStatus from the server")
                    if end > size:
                        break
                    self.parameters.append(data[at + HEAD_SIZE : end])
                elif kind == ERROR:
                    self._failed()
                    if COMPLAINT.search(data, at, end):
                        self.doubtful = True
                elif kind == COPY_IN:
                    self._copying()
                elif kind == COPY_BOTH:
                    self.unknown = True  # belongs to replication
                else:
                    self._completed(kind)
                noted = _NOTED if self.doubt or (fifo[0] in _EXTENDED if fifo else self.opened) else _NOTED_COARSELY
            at = end
        if at > size:
            self.server_left, at = at - size, size
            self.free = False
        else:
            self.server_left = 0
            if not fifo:
                self._settle()
                if at != size:
                    self.free = False
        self.bytes_out += at
        return at

    @property
    def quiet(self) -> bool:
        """Whether the server has answered everything that it is going to answer without hearing more."""
        return not (self.fifo or self.opened or self.server_left or self.client_left or self.copy_in)

    def _settle(self) -> None:
        self.free = not (
            self.status != IDLE or self.fifo or self.unsynced or self.client_left or self.unknown or self.copy_in
        )

    def _drop_copy_ends(self) -> None:
        """CopyDone at the head of the FIFO meets a server that is not in COPY, which ignores it."""
        fifo = self.fifo
        while fifo and fifo[0] in _COPY_END:
            fifo.popleft()

    def _completed(self, kind: int) -> None:
        self.doubt = False  # a COPY that completes has read everything up to its CopyDone
        fifo = self.fifo
        if fifo:
            if kind in COMPLETED_BY.get(fifo[0], ()):
                fifo.popleft()
                self._drop_copy_ends()
        elif self.opened and kind in COMPLETED_BY[self.opened[0]]:
            del self.opened[0]

    def _failed(self) -> None:
        self.failing = True
        fifo = self.fifo
        if self.doubt or not (fifo or self.unsynced):
            self.unknown = True  # out of the blue, it is how a server takes leave
        self.copy_in = False
        if fifo and fifo[0] not in _EXTENDED:
            return
        # An extended message failed: whatever stands before the next Sync is skipped.
        waits = self.unsynced or bool(fifo)
        while fifo and fifo[0] != SYNC:
            fifo.popleft()
        if not fifo and waits:
            self.opened.clear()
            self.skipping = self.unsynced = True

    def _copying(self) -> None:
        """The message at the head began COPY FROM STDIN: what the client has sent behind it is read by the COPY."""
        fifo = self.fifo
        self._close_run()
        head = fifo.popleft() if fifo else 0
        if head not in (EXECUTE, QUERY, SYNC):
            self.unknown = True  # nothing that could begin a COPY
            return
        swallowed = []
        ended = False
        while fifo and not ended:
            kind = fifo.popleft()
            if kind in _COPY_END:
                ended = True
            else:
                swallowed.append(kind)
        if head == SYNC:
            # An Execute before this Sync began it. Other batches behind it would have forgotten messages of their own.
            head = EXECUTE
            swallowed.append(SYNC)
        if swallowed:
            self.doubt = True
            if swallowed != [SYNC]:
                self.unknown = True
        fifo.appendleft(head)
        self.copy_in = not ended
        if head == EXECUTE and not any(kind in _ANSWERED for kind in fifo):
            self.unsynced = True
