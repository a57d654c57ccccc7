"""A client's messages as its server is to get them, where the two are not the same.

Clients name prepared statements as they like, in the protocol and in SQL; servers know them by content (`prepared`),
and what is missing there is prepared in passing. What SQL does to the session (`sql`) is noted, to be settled when the
server is about to change hands (`settling`). Most messages never come here: `states` stops before those that matter.

Two ways: `rename` where only names differ, and the answers are none of our business; `take` where answers are to be
hidden, made or read, from a moment at which the server owes nothing up to the next such moment. Sans-I/O.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from pooler.answers import Answers, Expected
from pooler.errors import PROTOCOL_VIOLATION, PeerError
from pooler.journal import Journal
from pooler.listening import unheard
from pooler.messages import FLUSH, HEAD, HEAD_SIZE, SYNC, message, what_and_name
from pooler.prepared import ABSENT, PREFIX, ServerStatements, Statement, Step, Unnamed, closing, parsed
from pooler.renaming import rename
from pooler.rewriting import Rewritten, Session, duplicate, failing, rewrite
from pooler.sql import Kind, Pin
from pooler.states import (
    BIND,
    BOUND,
    CLOSE,
    DESCRIBE,
    EXECUTE,
    FAILED_TRANSACTION,
    FUNCTION_CALL,
    IDLE,
    MAX_MESSAGE,
    PARSE,
    QUERY,
    REMEMBERED,
    UNBOUND,
    Outstanding,
)
from pooler.states import SYNC as SYNC_KIND

MAX_GATHERED = 1 << 20  # bytes of a message that must be whole to be understood: a statement's text
MAX_NAMES = 10_000  # of one client: about 1 MiB, and far more than any driver keeps

_CLOSED = message(b"3")
_PARSED = message(b"1")
_FAILING_BIND = message(b"B", b"\0" + ABSENT + b"\0" + bytes(6))
_UNKNOWN_UNNAMED = PeerError("26000", "unnamed prepared statement does not exist", severity="ERROR").encode()
_TOO_MANY = PeerError("53000", f"more than {MAX_NAMES} prepared statements", severity="ERROR").encode()
_ENDS_BATCH = frozenset((SYNC_KIND, QUERY, FUNCTION_CALL))
_unpack = HEAD.unpack_from


@attrs.define(eq=False)
class Translation:
    """Of one client. `names` and `unnamed` live as long as it does, the rest between `begin` and the end of
    `active`."""

    journal: Journal
    limit: int  # statements that a server connection keeps
    refuses: Pin = Pin.NONE
    names: dict[bytes, Statement] = attrs.field(factory=dict)
    unnamed: Unnamed | None = None  # to which nothing was bound when its batch ended: it may be used in another
    place: bytes = b""  # what else the meaning of a statement hangs on
    waits: bool = False  # `take` stopped until the server has answered everything
    wants: tuple[bytes, ...] = ()  # it stopped until the client can hear these channels
    answers: Answers = attrs.field(init=False)
    _out: Outstanding = attrs.field(factory=Outstanding)
    _statements: ServerStatements = attrs.field(factory=ServerStatements)
    _current: Unnamed | None = None  # the one without a name that came in this batch
    _bound: bool = False  # to it
    _portals: dict[bytes, tuple[Step, ...]] = attrs.field(factory=dict)  # of this batch, where they matter
    _denied: bytes = b""  # why it can't
    _open: bool = False  # a batch that is not synced yet
    _certain: bool = False  # whether all that decides if it is committed has been seen here

    def __attrs_post_init__(self) -> None:
        self.answers = Answers(self._step_done, self._batch_done)

    def enter(self, out: Outstanding, statements: ServerStatements) -> None:
        """`out` has stopped before a message that may matter, on the connection that has these statements."""
        self._out, self._statements = out, statements
        if out.unbound:
            self.unnamed, out.unbound = Unnamed(out.unbound), b""
        if out.doubtful:
            out.doubtful = False
            statements.doubt()

    @property
    def remembered(self) -> int:
        """What `Outstanding.unnamed` is when this client gets a connection."""
        return UNBOUND if self.unnamed is None else REMEMBERED

    def rename(self, data: bytes) -> bytes | None:
        """The same messages, named as the server knows them, if that is all there is to it."""
        out = self._out
        renamed = rename(data, self.names, self._statements, out.unnamed == BOUND)
        if renamed is None:
            return None
        if renamed.parsed and out.unnamed != BOUND:
            out.unnamed, self.unnamed = BOUND, None
        return renamed.data

    # -- answers matter

    def begin(self) -> None:
        """Nothing is owed by the server now: `take` may be called, until `active` is false."""
        self.end()
        self._certain = self._out.status == IDLE and not self._out.unsynced

    def end(self) -> None:
        """Forget what belonged to this connection: it is given back."""
        self.answers = Answers(self._step_done, self._batch_done)
        self._current, self._bound, self._open = None, False, False
        self._portals.clear()

    @property
    def active(self) -> bool:
        """Whether answers are still to come that have to pass here."""
        answers = self.answers
        return bool(answers.fifo or answers.skipping or self._current or self._portals or self._open)

    def take(self, data: bytes, left: int, denied: bytes = b"") -> tuple[bytes, bytes]:
        """What to send, and what is to be given again with more, or when what it `wants` is there (or with the
        ErrorResponse that says why it is `denied`). The first `left` bytes belong to a message that has been sent in
        part. Raises PeerError."""
        self.waits, self.wants, self._denied = False, (), denied
        at, size = min(left, len(data)), len(data)
        pieces = [data[:at]]
        while at + HEAD_SIZE <= size:
            kind, length = _unpack(data, at)
            if not 4 <= length <= MAX_MESSAGE:
                raise PeerError(PROTOCOL_VIOLATION, "invalid message length")
            end = at + length + 1
            handle = _HANDLERS.get(kind)
            if handle is None or (self.answers.skipping and kind != SYNC_KIND):
                pieces.append(data[at:end])  # the server skips it
                at = end
                continue
            if end > size and (kind != BIND or data.count(b"\0", at + HEAD_SIZE) < 2):
                if length > MAX_GATHERED:
                    self._pass_unread(data, at)
                    return b"".join([*pieces, data[at:]]), b""
                break
            translated = handle(self, data, at, min(end, size))
            if translated is None:
                break
            pieces.append(translated)
            at = end
            if kind in _ENDS_BATCH and at < size and any(one.undo or one.steps for one in self.answers.fifo):
                # What the next batch finds prepared hangs on what this one comes to.
                self.waits = True
                break
        if self.waits and self._open:
            pieces.append(FLUSH)  # or it keeps its answers to itself
        return b"".join(pieces), data[at:]

    def _pass_unread(self, data: bytes, at: int) -> None:
        """A statement that is too long to be looked at. Raises PeerError if it has a name, which would be shared."""
        kind, length = _unpack(data, at)
        if kind not in (PARSE, QUERY) or (kind == PARSE and data[at + HEAD_SIZE]):
            raise PeerError("54000", f"a statement of {length} bytes can't be shared; {MAX_GATHERED} can")
        self._current = self.unnamed = None
        self._open, self._out.unnamed = kind == PARSE, BOUND
        self.answers.expect(Expected(kind))

    def take_said(self) -> bytes:
        """Answers of ours before which the server has nothing to say."""
        said, self.answers.said = self.answers.said, b""
        return said

    def _parse(self, data: bytes, at: int, end: int) -> bytes | None:
        name, _, rest = data[at + HEAD_SIZE : end].partition(b"\0")
        if name and any(one.kind in _ENDS_BATCH for one in self.answers.fifo):
            self.waits = True  # in a transaction that has failed, it fails, and whether it has is not known yet
            return None
        sql, _, types = rest.partition(b"\0")
        rewritten = self._rewrite(sql)
        self._open = True
        expect = self.answers.expect
        if not name:
            made = Unnamed(message(b"P", b"\0" + rewritten.sql + b"\0" + types), rewritten.steps)
            self._current, self.unnamed, self._bound = made, None, False
            self._out.unnamed = UNBOUND  # whoever binds to it passes here
            before = self._prepare(rewritten)
            expect(Expected(PARSE))
            return before + made.parse
        known = self.names.get(name)
        if known is not None and known.completions == b"P":  # the server finds it double too, if it finds nothing worse
            before = self._ensure(known)
            expect(Expected(PARSE, error=duplicate(name)))
            return before + known.preparing
        if known is not None:
            return self._fail(duplicate(name))
        if len(self.names) >= MAX_NAMES:
            return self._fail(_TOO_MANY)
        original = sql if rewritten.sql != sql else b""
        statement = parsed(rewritten.sql, types, self.place, original, rewritten.steps)
        self.names[name] = statement
        before = self._prepare(rewritten)
        if not self._statements.use(statement.name):
            before += self._room(statement)
        elif self._out.status == FAILED_TRANSACTION:
            before += self._hide_close(statement.name)  # made anew, so that it is refused where PostgreSQL refuses it
        else:
            expect(Expected(0, answer=_PARSED, undo=lambda: self._forget(name)))
            return before

        def undo() -> None:
            self._forget(name)
            self._statements.names.pop(statement.name, None)

        expect(Expected(PARSE, undo=undo))
        return before + statement.preparing

    def _bind(self, data: bytes, at: int, end: int) -> bytes:
        start = data.find(b"\0", at + HEAD_SIZE, end) + 1
        stop = data.find(b"\0", start, end)
        if not start or stop < 0:
            raise PeerError(PROTOCOL_VIOLATION, "invalid string in message")
        self._open = True
        portal = data[at + HEAD_SIZE : start - 1]
        found = self._find(data[start:stop])
        before, name, steps = found or (b"", ABSENT, ())
        self._portals.pop(portal, None)
        if steps:
            self._portals[portal] = steps
        self.answers.expect(Expected(BIND, error=b"" if found else _UNKNOWN_UNNAMED))
        length = _unpack(data, at)[1] + len(name) - (stop - start)
        return before + HEAD.pack(BIND, length) + data[at + HEAD_SIZE : start] + name + data[stop:end]

    def _describe(self, data: bytes, at: int, end: int) -> bytes:
        before, renamed, error = b"", data[at:end], b""
        what, name = what_and_name(data, at, end)
        self._open = True
        if what == ord("S"):
            found = self._find(name)
            before, name, _ = found or (b"", ABSENT, ())
            renamed, error = message(b"D", b"S" + name + b"\0"), b"" if found else _UNKNOWN_UNNAMED
        self.answers.expect(Expected(DESCRIBE, error=error))
        return before + renamed

    def _find(self, name: bytes) -> tuple[bytes, bytes, tuple[Step, ...]] | None:
        """What must be sent before, the server's name, what its execution does. None: there is none without a name."""
        if name:
            statement = self.names.get(name)
            if statement is None:  # the server will say so
                return b"", ABSENT if name.startswith(PREFIX) else name, ()
            return self._ensure(statement), statement.name, statement.steps
        if self._current is not None:
            self._bound = True
            return b"", b"", self._current.steps
        if self.unnamed is not None:
            self._current, self._bound = self.unnamed, False
            self.answers.expect(Expected(PARSE, hidden=True))
            return self._current.parse, b"", self._current.steps
        return (b"", b"", ()) if self._out.unnamed == BOUND else None

    def _close(self, data: bytes, at: int, end: int) -> bytes:
        what, name = what_and_name(data, at, end)
        self._open = True
        if what == ord("S") and name:
            statement = self.names.pop(name, None)

            def undo() -> None:
                if statement is not None:
                    self.names[name] = statement

            self.answers.expect(Expected(0, answer=_CLOSED, undo=undo))
            return b""
        if what == ord("S"):
            self._current = self.unnamed = None
        self.answers.expect(Expected(CLOSE))
        return data[at:end]

    def _execute(self, data: bytes, at: int, end: int) -> bytes | None:
        steps = self._portals.get(data[at + HEAD_SIZE : data.find(b"\0", at + HEAD_SIZE, end)], ())
        wants = unheard(steps, self.journal.client.listening)
        if wants:
            self.wants = () if self._denied else wants
            return self._fail(self._denied) if self._denied else None
        self._open = True
        self.answers.expect(Expected(EXECUTE, steps=steps))
        return data[at:end]

    def _sync(self, data: bytes, at: int, end: int) -> bytes:
        if self._current is not None and not self._bound:
            self.unnamed = self._current
        self._current, self._open = None, False
        self.answers.skipping = False
        self.answers.expect(Expected(SYNC_KIND))
        return data[at:end]

    def _query(self, data: bytes, at: int, end: int) -> bytes | None:
        rewritten = self._rewrite(data[at + HEAD_SIZE : end - 1], self.journal.may_listen)
        wants = unheard(rewritten.steps, self.journal.client.listening)
        if wants and not self._denied:
            self.wants = wants
            return None
        if wants:
            rewritten = failing(self._denied)
        self._current = self.unnamed = None  # a Query ends it
        before = self._prepare(rewritten)
        if before:  # in a batch of its own: if it fails, the Query must not be skipped
            before += SYNC
            self.answers.expect(Expected(SYNC_KIND, hidden=True))
        self.answers.expect(Expected(QUERY, steps=rewritten.steps))
        self._open = False
        return before + message(b"Q", rewritten.sql + b"\0")

    def _call(self, data: bytes, at: int, end: int) -> bytes:
        self.answers.expect(Expected(FUNCTION_CALL))
        return data[at:end]

    def _rewrite(self, sql: bytes, listens: bool = True) -> Rewritten:
        rewritten = rewrite(sql, Session(self.names, self.place, self.refuses, listens))
        if rewritten.control:
            self._certain = False
        return rewritten

    def _prepare(self, rewritten: Rewritten) -> bytes:
        """What must be on the server, or must not, before this text gets there."""
        before = b"".join(self._ensure(statement) for statement in rewritten.needs)
        for statement in rewritten.anew:
            if self._statements.names.pop(statement.name, None) is not None:
                before += self._hide_close(statement.name)
        return before

    def _ensure(self, statement: Statement) -> bytes:
        if self._statements.use(statement.name):
            return b""
        before = self._room(statement)

        def undo() -> None:
            self._statements.names.pop(statement.name, None)

        for number, kind in enumerate(statement.completions):
            self.answers.expect(Expected(kind, hidden=True, undo=None if number else undo))
        return before + statement.preparing

    def _room(self, statement: Statement) -> bytes:
        """It is going to be prepared: close what stands in its way."""
        return b"".join(self._hide_close(name) for name in self._statements.add(statement.name, self.limit))

    def _hide_close(self, name: bytes) -> bytes:
        def undo() -> None:
            self._statements.names.setdefault(name, False)

        self.answers.expect(Expected(CLOSE, hidden=True, undo=undo))
        return closing(name)

    def _fail(self, error: bytes) -> bytes:
        """A message that fails on the server, so that its transaction fails too, and what the client hears."""
        self._open = True
        self.answers.expect(Expected(BIND, error=error))
        return _FAILING_BIND

    def _forget(self, name: bytes) -> None:
        self.names.pop(name, None)

    # -- what came of it

    def _step_done(self, step: Step) -> None:
        act = step.act
        if act is None:
            return
        if act.kind is Kind.PREPARE and step.statement is not None:
            self.names[act.name] = step.statement
            self._statements.names[step.statement.name] = True
        elif act.kind is Kind.DEALLOCATE:
            self.names.pop(act.name, None)
        elif act.kind is Kind.DEALLOCATE_ALL:
            self.names.clear()
        elif act.kind is Kind.DISCARD_ALL:
            self.names.clear()
            self._statements.names.clear()
        if not act.plain:
            self.journal.note(act, step.mark)

    def _batch_done(self, status: int, failed: bool) -> bytes:
        before = self.journal.end_batch(self._certain and not failed and status == IDLE)
        self._portals.clear()
        if not self.answers.fifo:
            self._certain = status == IDLE
        return before


_Handler = Callable[[Translation, bytes, int, int], bytes | None]
_HANDLERS: dict[int, _Handler] = {
    PARSE: Translation._parse,
    BIND: Translation._bind,
    DESCRIBE: Translation._describe,
    CLOSE: Translation._close,
    EXECUTE: Translation._execute,
    SYNC_KIND: Translation._sync,
    QUERY: Translation._query,
    FUNCTION_CALL: Translation._call,
}
