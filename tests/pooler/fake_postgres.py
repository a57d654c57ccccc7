"""A PostgreSQL in memory: a session for the rehearsal that logs in by trust and understands a handful of statements.

`SELECT anything` gives a row with the text; BEGIN, COMMIT and ROLLBACK move the status; SLEEP answers when it is
cancelled; FAIL is an error; DIE closes without a word; COPY IN takes data; BIG n gives n bytes in one row;
set_config and DISCARD ALL report parameters; SET and RESET others, which it tells when asked by current_setting; what
EXISTS asks for stands in `kept`. LISTEN and UNLISTEN hold from the end of their transaction, NOTIFY reaches whoever
listens at once. Statements are prepared by Parse and by PREPARE, named or not.
"""

from __future__ import annotations

import re
from collections.abc import Coroutine
from typing import Any

import attrs

from pooler.errors import PeerError
from pooler.messages import HEAD, HEAD_SIZE, READY_IDLE, message, parameter_status
from supervisor.ground.lane import PARK, Session
from supervisor.ground.net.memory import MemoryConn, Rehearsal

DEFAULTS = {"server_version": "15.1", "TimeZone": "UTC", "client_encoding": "UTF8", "application_name": ""}
_SET = re.compile(r"set_config\(E?'(\w+)',E'((?:[^']|'')*)',false\)")
_ASKED = re.compile(r"current_setting\(E'([\w.]+)', true\)")


def ready(status: bytes) -> bytes:
    return message(b"Z", status)


def row(value: bytes) -> bytes:
    return message(b"D", b"\0\x01" + len(value).to_bytes(4, "big") + value)


@attrs.define(eq=False)
class Backend:
    """One server connection."""

    pid: int
    conn: MemoryConn
    queries: list[str] = attrs.field(factory=list)
    parameters: dict[str, str] = attrs.field(factory=lambda: dict(DEFAULTS))
    status: bytes = b"I"
    canceled: int = 0
    session: Session | None = None
    sleeping: bool = False
    closed: bool = False
    statements: dict[str, str] = attrs.field(factory=dict)  # prepared, by name
    parses: int = 0  # of named ones
    outdated: bool = False  # the tables of what is prepared have changed
    settings: dict[str, str] = attrs.field(factory=dict)  # that are not reported
    kept: bool = False  # something that EXISTS finds
    startup: dict[str, str] = attrs.field(factory=dict)
    received: int = 0  # CopyData while it streamed
    channels: dict[str, None] = attrs.field(factory=dict)  # it listens to, in order
    listens: list[str] = attrs.field(factory=list)  # LISTEN and UNLISTEN of its transaction

    def end(self, committed: bool) -> None:
        """Its transaction ends."""
        for word, channel in (sql.replace('"', "").split(" ") for sql in self.listens if committed):
            if word == "LISTEN":
                self.channels[channel] = None
            elif channel == "*":
                self.channels.clear()
            else:
                self.channels.pop(channel, None)
        self.listens.clear()


@attrs.define(eq=False)
class FakePostgres:
    """A server; every connection that was ever made to it is in `backends`."""

    lane: Rehearsal
    backends: list[Backend] = attrs.field(factory=list)
    refusal: PeerError | None = None  # said at login
    dead: bool = False  # closes at once
    silent: bool = False  # never answers a login
    cancels: list[bytes] = attrs.field(factory=list)
    refuses: dict[str, str] = attrs.field(factory=dict)  # statements, and the SQLSTATE that they get
    reported: dict[str, str] = attrs.field(factory=dict)  # what it reports beside DEFAULTS

    @property
    def alive(self) -> list[Backend]:
        return [backend for backend in self.backends if not backend.closed]

    def wake(self) -> None:
        """After silence."""
        for backend in self.alive:
            assert backend.session is not None
            self.lane.wake(backend.session)
        self.lane.run()

    def accept(self, conn: MemoryConn) -> Coroutine[Any, Any, None]:
        return self._serve(conn)

    async def _serve(self, conn: MemoryConn) -> None:
        buffer = bytearray()
        while len(buffer) < 4 or len(buffer) < int.from_bytes(buffer[:4], "big"):
            data = b"" if self.dead else await conn.recv()
            if not data:
                conn.close()
                return
            buffer += data
        size, code = int.from_bytes(buffer[:4], "big"), int.from_bytes(buffer[4:8], "big")
        body = bytes(buffer[8:size])
        del buffer[:size]
        if code == 80877102:
            self._cancel(body)
            conn.close()
            return
        backend = Backend(len(self.backends) + 1, conn, session=self.lane.current)
        backend.parameters.update(self.reported)
        words = body[:-2].decode().split("\0")
        backend.startup = dict(zip(words[::2], words[1::2], strict=True))
        self.backends.append(backend)
        try:
            while self.silent:
                if conn.recv_nowait() == b"":
                    return
                await PARK
            if self.refusal is not None:
                await conn.send(self.refusal.encode())
                return
            said = b"".join(parameter_status(*pair) for pair in backend.parameters.items())
            key = message(b"K", backend.pid.to_bytes(4, "big") + b"k%03d" % backend.pid)
            await conn.send(message(b"R", bytes(4)) + said + key + READY_IDLE)
            await self._talk(backend, buffer)
        except OSError:
            pass
        finally:
            backend.closed = True
            conn.close()

    def _cancel(self, body: bytes) -> None:
        self.cancels.append(body)
        backend = self.backends[int.from_bytes(body[:4], "big") - 1]
        assert body[4:] == b"k%03d" % backend.pid
        if backend.sleeping and backend.session is not None:
            backend.canceled += 1
            self.lane.wake(backend.session)

    async def _talk(self, backend: Backend, buffer: bytearray) -> None:
        conn = backend.conn
        skipping, portal = False, ""
        while True:
            while len(buffer) < HEAD_SIZE or len(buffer) <= HEAD.unpack_from(buffer)[1]:
                data = await conn.recv()
                if not data:
                    return
                buffer += data
            kind, length = chr(buffer[0]), HEAD.unpack_from(buffer)[1]
            payload = bytes(buffer[HEAD_SIZE : length + 1])
            del buffer[: length + 1]
            if kind == "X":
                return
            if kind == "S":
                skipping = False
                await conn.send(ready(backend.status))
            elif skipping or kind in "dcf":
                continue
            elif kind == "Q":
                answer = await self._execute(backend, payload[:-1].decode(), buffer)
                if answer is None:
                    return
                await conn.send(answer + ready(backend.status))
            elif kind in "PBDC":
                answer, portal = self._extended(backend, kind, payload, portal)
                skipping = answer[:1] == b"E"
                await conn.send(answer)
            elif kind == "E":
                answer = await self._execute(backend, portal, buffer)
                if answer is None:
                    return
                skipping = answer[:1] == b"E" or portal in self.refuses
                await conn.send(answer)

    def _extended(self, backend: Backend, kind: str, payload: bytes, portal: str) -> tuple[bytes, str]:
        """Parse, Bind, Describe or Close: the answer, and what Execute will execute."""
        words = [word.decode("latin-1") for word in payload.split(b"\0")]
        if kind == "P":
            if words[0] and words[0] in backend.statements:
                return self._error("42P05", f'prepared statement "{words[0]}" already exists'), portal
            backend.parses += bool(words[0])
            backend.statements[words[0]] = words[1]
            return message(b"1"), portal
        name = words[1] if kind == "B" else words[0][1:]
        if kind == "C":
            if payload[:1] == b"S":
                backend.statements.pop(name, None)
            backend.outdated = False
            return message(b"3"), portal
        if kind == "D" and payload[:1] == b"P":
            return message(b"n"), portal
        if name not in backend.statements:
            return self._missing(name), portal
        if kind == "B" and backend.outdated and name:
            return self._error("0A000", "cached plan must not change result type"), portal
        return (message(b"2"), backend.statements[name]) if kind == "B" else (message(b"n"), portal)

    def _missing(self, name: str) -> bytes:
        which = f'prepared statement "{name}"' if name else "unnamed prepared statement"
        return self._error("26000", f"{which} does not exist")

    async def _execute(self, backend: Backend, sql: str, buffer: bytearray) -> bytes | None:
        """The answer without ReadyForQuery; None to close."""
        *before, sql = sql.split("; ")
        answers = b""
        for statement in before:
            answer = await self._execute(backend, statement, buffer)
            if answer is None or answer[:1] == b"E":
                return None if answer is None else answers + answer
            answers += answer
        answer = await self._statement(backend, sql, buffer)
        return None if answer is None else answers + answer

    async def _statement(self, backend: Backend, sql: str, buffer: bytearray) -> bytes | None:
        word, *words = sql.replace('"', "").split(" ")
        if backend.status == b"E" and word not in ("ROLLBACK", "RESET", "SELECT"):
            word = "FAIL"
        if word == "EXECUTE" and words[0] not in backend.statements:
            backend.status = b"I" if backend.status == b"I" else b"E"
            return self._missing(words[0])
        if word == "EXECUTE":
            return await self._execute(backend, backend.statements[words[0]], buffer)
        backend.queries.append(sql)
        if sql in self.refuses:
            # Columns before, and flushed by itself, as PostgreSQL does.
            await backend.conn.send(message(b"T", b"\0\0") + self._error(self.refuses[sql], "refused"))
            await self.lane.sleep(0.1)
            return b""
        if word == "PREPARE":
            if words[0] in backend.statements:
                return self._error("42P05", "already exists")
            backend.statements[words[0]] = sql.split(" AS ")[1]
            return message(b"C", b"PREPARE\0")
        if word in ("SET", "RESET"):
            if word == "SET":
                backend.settings[words[0]] = words[2]
            elif words[0] == "ALL":
                backend.settings.clear()
            else:
                backend.settings.pop(words[0], None)
            return message(b"C", word.encode() + b"\0")
        if word in ("LISTEN", "UNLISTEN"):
            backend.listens.append(sql)
            if backend.status == b"I":
                backend.end(True)
            return message(b"C", word.encode() + b"\0")
        if word == "NOTIFY":
            self.notify(words[0])
            return message(b"C", b"NOTIFY\0")
        if not word:
            return message(b"I")
        if "current_setting" in sql or "EXISTS" in sql or "pg_listening_channels" in sql:
            return self._tell(backend, sql)
        settings = _SET.findall(sql)
        if settings:
            return b"".join(self._set(backend, name, value) for name, value in settings) + message(b"C", b"SELECT 1\0")
        if word == "DISCARD":
            changed = [name for name, value in DEFAULTS.items() if backend.parameters[name] != value]
            backend.statements.clear()
            backend.settings.clear()
            backend.kept = False
            backend.channels.clear()
            return b"".join(self._set(backend, name, DEFAULTS[name]) for name in changed) + message(
                b"C", b"DISCARD ALL\0"
            )
        if word == "DIE":
            return None
        if word == "FAIL" or (backend.status == b"E" and word != "ROLLBACK"):
            backend.status = b"I" if backend.status == b"I" else b"E"
            return self._error("42601", "failed")
        if word == "SLEEP":
            return await self._sleep(backend)
        if word == "STREAM":
            return await self._stream(backend, buffer)
        if word == "COPY":
            return await self._copy(backend, buffer)
        if word == "BIG":
            return row(b"x" * int(sql.split(" ")[1])) + message(b"C", b"SELECT 1\0")
        if word in ("BEGIN", "COMMIT", "ROLLBACK"):
            if word != "BEGIN":
                backend.end(word == "COMMIT" and backend.status == b"T")
            backend.status = b"T" if word == "BEGIN" else b"I"
            return message(b"C", word.encode() + b"\0")
        return row(sql.encode()) + message(b"C", b"SELECT 1\0")

    @staticmethod
    def _tell(backend: Backend, sql: str) -> bytes:
        asked = [backend.settings.get(name) for name in _ASKED.findall(sql)]
        values = asked + ["t" if backend.kept else "f"] * sql.count("EXISTS")
        if "pg_listening_channels" in sql:
            values.append(",".join(backend.channels) or None)
        body = b"".join(
            b"\xff" * 4 if value is None else len(value).to_bytes(4, "big") + value.encode() for value in values
        )
        return message(b"D", len(values).to_bytes(2, "big") + body) + message(b"C", b"SELECT 1\0")

    def notify(self, channel: str, payload: str = "") -> None:
        """Whoever listens hears it."""
        for backend in self.alive:
            if channel in backend.channels:
                backend.conn.send_nowait(message(b"A", bytes(4) + f"{channel}\0{payload}\0".encode()))

    @property
    def listener(self) -> Backend | None:
        """The connection that listens for the pooler's clients."""
        listening = [one for one in self.alive if any("portway: LISTEN" in sql for sql in one.queries)]
        return listening[0] if listening else None

    def _set(self, backend: Backend, name: str, value: str) -> bytes:
        if value == "invalid":
            return self._error("22023", f"invalid value for {name}")
        if name not in backend.parameters:
            backend.settings[name] = value
            return b""
        backend.parameters[name] = value.upper() if name == "client_encoding" else value
        return parameter_status(name, backend.parameters[name])

    async def _sleep(self, backend: Backend) -> bytes:
        before, backend.sleeping = backend.canceled, True
        while backend.canceled == before:
            await self.lane.sleep(0.1)
        backend.sleeping = False
        backend.status = b"I" if backend.status == b"I" else b"E"
        return self._error("57014", "canceled")

    async def _stream(self, backend: Backend, buffer: bytearray) -> bytes | None:
        """CopyBoth, to the client's CopyDone; the test sends what streams."""
        await backend.conn.send(message(b"W", bytes(3)))
        while True:
            while len(buffer) < HEAD_SIZE or len(buffer) <= HEAD.unpack_from(buffer)[1]:
                data = await backend.conn.recv()
                if not data:
                    return None
                buffer += data
            kind, length = chr(buffer[0]), HEAD.unpack_from(buffer)[1]
            del buffer[: length + 1]
            backend.received += kind == "d"
            if kind == "X":
                return None
            if kind == "c":
                return message(b"c") + message(b"C", b"STREAM\0")

    async def _copy(self, backend: Backend, buffer: bytearray) -> bytes:
        await backend.conn.send(message(b"G", bytes(3)))
        taken = 0
        while True:
            while len(buffer) < HEAD_SIZE or len(buffer) <= HEAD.unpack_from(buffer)[1]:
                data = await backend.conn.recv()
                if not data:
                    raise ConnectionError("the client left in the middle of a COPY")
                buffer += data
            kind, length = chr(buffer[0]), HEAD.unpack_from(buffer)[1]
            payload = bytes(buffer[HEAD_SIZE : length + 1])
            del buffer[: length + 1]
            if kind == "f" or (kind == "d" and payload == b"bad\n"):
                return self._error("57014" if kind == "f" else "22P02", "copy failed")
            if kind == "c":
                return message(b"C", b"COPY %d\0" % taken)
            taken += len(payload) if kind == "d" else 0

    @staticmethod
    def _error(code: str, text: str) -> bytes:
        return PeerError(code, text, severity="ERROR").encode()
