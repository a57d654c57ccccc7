"""One client's side of the protocol towards the console: simple queries, and the extended protocol as drivers use it.

`receive` takes a message and is a generator: it yields bytes to send, and Commands to run, whose Result is sent back
into it (or whose PeerError is thrown in). There are no transactions and no parameters; a batch that fails is skipped up
to its Sync. Source: PostgreSQL 55.2.2 "Simple Query" and 55.2.3 "Extended Query".
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

import attrs

from pooler.console import results
from pooler.console.grammar import Command, parse, refusal, statements
from pooler.console.results import Column, Result
from pooler.errors import PROTOCOL_VIOLATION, PeerError
from pooler.messages import READY_IDLE, message, text

UNDEFINED_STATEMENT, UNDEFINED_CURSOR = "26000", "34000"
MAX_NAMED = 256  # statements, and portals, of one client: a driver's cache holds about a hundred
EMPTY_QUERY = message(b"I")
NO_DATA = message(b"n")
PORTAL_SUSPENDED = message(b"s")

Steps = Generator[bytes | Command, Result, None]


@attrs.define(eq=False)
class Portal:
    """A command bound, and what is left of its rows once it ran."""

    command: Command | None
    formats: Sequence[int]
    result: Result | None = None
    sent: int = 0


@attrs.define(eq=False)
class Conversation:
    """`columns_of` says, without running it, which columns a command brings."""

    columns_of: Callable[[Command], Sequence[Column]]
    skipping: bool = False  # to the Sync
    _statements: dict[str, Command | None] = attrs.field(factory=dict)
    _portals: dict[str, Portal] = attrs.field(factory=dict)

    def receive(self, kind: int, payload: bytes) -> Steps:
        """Raises PeerError for what is no message of the protocol: it ends the session."""
        match chr(kind):
            case "Q":
                self.skipping = False
                yield from self._query(payload)
                yield READY_IDLE
            case "S":
                self.skipping = False
                self._portals.clear()
                yield READY_IDLE
            case "H" | "d" | "c" | "f":
                return
            case _ if self.skipping:
                return
            case "P" | "B" | "D" | "E" | "C":
                try:
                    yield from self._extended(chr(kind), payload)
                except PeerError as error:
                    if error.severity == "FATAL":
                        raise
                    self.skipping = True
                    yield error.encode()
            case _:
                raise PeerError(PROTOCOL_VIOLATION, f"invalid frontend message type {kind}")

    def _query(self, payload: bytes) -> Steps:
        sql, _ = text(payload)
        found = [*statements(sql)]
        if not found:
            yield EMPTY_QUERY
        try:
            for statement in found:
                result = yield parse(statement)
                said = result.before
                if result.columns:
                    said += results.row_description(result.columns) + results.data_rows(result.columns, result.rows)
                yield said + results.complete(result.tag)
        except PeerError as error:
            yield error.encode()

    def _extended(self, kind: str, payload: bytes) -> Steps:
        match kind:
            case "P":
                yield self._parse(payload)
            case "B":
                yield self._bind(payload)
            case "D":
                yield self._describe(payload)
            case "C":
                name, _ = text(payload, 1)
                (self._statements if payload[:1] == b"S" else self._portals).pop(name, None)
                yield message(b"3")
            case _:
                yield from self._execute(payload)

    def _parse(self, payload: bytes) -> bytes:
        name, at = text(payload)
        sql, _ = text(payload, at)
        found = [*statements(sql)]
        if len(found) > 1:
            raise refusal("42601", "cannot insert multiple commands into a prepared statement")
        if name and name not in self._statements and len(self._statements) >= MAX_NAMED:
            raise refusal("53400", f"a client of the console can have {MAX_NAMED} prepared statements")
        self._statements[name] = parse(found[0]) if found else None
        return message(b"1")

    def _bind(self, payload: bytes) -> bytes:
        name, at = text(payload)
        statement, at = text(payload, at)
        if statement not in self._statements:
            raise refusal(UNDEFINED_STATEMENT, f'prepared statement "{statement}" does not exist')
        numbers = [int.from_bytes(payload[i : i + 2], "big") for i in range(at, len(payload) - 1, 2)]
        # Formats of parameters, then parameters, of which there are none, then formats of columns.
        formats = numbers[0] if numbers else 0
        rest = numbers[1 + formats :]
        if len(rest) < 2 or rest[0] or rest[1] != len(rest) - 2:
            raise refusal(PROTOCOL_VIOLATION, "commands of the console have no parameters")
        command, wanted = self._statements[statement], rest[2:]
        width = len(self.columns_of(command)) if command is not None else 0
        if any(form > 1 for form in wanted) or (len(wanted) > 1 and len(wanted) != width):
            raise refusal(PROTOCOL_VIOLATION, "invalid result formats")
        if name and name not in self._portals and len(self._portals) >= MAX_NAMED:
            raise refusal("53400", f"a client of the console can have {MAX_NAMED} portals")
        self._portals[name] = Portal(command, wanted)
        return message(b"2")

    def _describe(self, payload: bytes) -> bytes:
        name, _ = text(payload, 1)
        if payload[:1] == b"S":
            if name not in self._statements:
                raise refusal(UNDEFINED_STATEMENT, f'prepared statement "{name}" does not exist')
            return message(b"t", b"\0\0") + self._columns(self._statements[name], ())
        portal = self._portal(name)
        return self._columns(portal.command, portal.formats)

    def _columns(self, command: Command | None, formats: Sequence[int]) -> bytes:
        found = self.columns_of(command) if command is not None else ()
        return results.row_description(found, formats) if found else NO_DATA

    def _portal(self, name: str) -> Portal:
        if name not in self._portals:
            raise refusal(UNDEFINED_CURSOR, f'portal "{name}" does not exist')
        return self._portals[name]

    def _execute(self, payload: bytes) -> Steps:
        name, at = text(payload)
        limit = int.from_bytes(payload[at : at + 4], "big")
        portal = self._portal(name)
        if portal.command is None:
            yield EMPTY_QUERY
            return
        said = b""
        if portal.result is None:
            portal.result = yield portal.command
            said = portal.result.before
        result, start = portal.result, portal.sent
        portal.sent = end = min(start + limit, len(result.rows)) if limit else len(result.rows)
        said += results.data_rows(result.columns, result.rows[start:end], portal.formats)
        yield said + (PORTAL_SUSPENDED if end < len(result.rows) else results.complete(result.tag))
