"""A PostgreSQL in memory: a session for the rehearsal that logs in by trust and understands a handful of statements.

`SELECT anything` gives a row with the text; BEGIN, COMMIT and ROLLBACK move the status; SLEEP answers when it is
cancelled; FAIL is an error; DIE closes without a word; COPY IN takes data; BIG n gives n bytes in one row;
set_config and DISCARD ALL report parameters. The extended protocol takes the statement from its Parse.
"""

from __future__ import annotations

import re
from collections.abc import Coroutine
from typing import Any

import attrs

from pooler.errors import PeerError
from pooler.messages import HEAD, HEAD_SIZE, READY_IDLE, message, parameter_status
from supervisor.ground.lane import Session, park
from supervisor.ground.net.memory import MemoryConn, Rehearsal

DEFAULTS = {"server_version": "15.1", "TimeZone": "UTC", "client_encoding": "UTF8", "application_name": ""}
_SET = re.compile(r"set_config\('(\w+)',E'((?:[^']|'')*)',false\)")


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


@attrs.define(eq=False)
class FakePostgres:
    """A server; every connection that was ever made to it is in `backends`."""

    lane: Rehearsal
    backends: list[Backend] = attrs.field(factory=list)
    refusal: PeerError | None = None  # said at login
    dead: bool = False  # closes at once
    silent: bool = False  # never answers a login
    cancels: list[bytes] = attrs.field(factory=list)

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
        self.backends.append(backend)
        try:
            while self.silent:
                if conn.recv_nowait() == b"":
                    return
                await park()
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
        skipping, parsed = False, ""
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
            elif kind == "P":
                parsed = payload.split(b"\0")[1].decode()
                await conn.send(message(b"1"))
            elif kind in "BDCH":
                await conn.send({"B": message(b"2"), "D": message(b"n"), "C": message(b"3"), "H": b""}[kind])
            elif kind == "E":
                answer = await self._execute(backend, parsed, buffer)
                if answer is None:
                    return
                skipping = answer[:1] == b"E"
                await conn.send(answer)

    async def _execute(self, backend: Backend, sql: str, buffer: bytearray) -> bytes | None:
        """The answer without ReadyForQuery; None to close."""
        backend.queries.append(sql)
        word = sql.split(" ")[0]
        settings = _SET.findall(sql)
        if settings:
            return b"".join(self._set(backend, name, value) for name, value in settings) + message(b"C", b"SELECT 1\0")
        if word == "DISCARD":
            changed = [name for name, value in DEFAULTS.items() if backend.parameters[name] != value]
            return b"".join(self._set(backend, name, DEFAULTS[name]) for name in changed) + message(b"C", b"DISCARD\0")
        if word == "DIE":
            return None
        if word == "FAIL" or (backend.status == b"E" and word != "ROLLBACK"):
            backend.status = b"I" if backend.status == b"I" else b"E"
            return self._error("42601", "failed")
        if word == "SLEEP":
            return await self._sleep(backend)
        if word == "COPY":
            return await self._copy(backend, buffer)
        if word == "BIG":
            return row(b"x" * int(sql.split(" ")[1])) + message(b"C", b"SELECT 1\0")
        if word in ("BEGIN", "COMMIT", "ROLLBACK"):
            backend.status = b"T" if word == "BEGIN" else b"I"
            return message(b"C", word.encode() + b"\0")
        return row(sql.encode()) + message(b"C", b"SELECT 1\0")

    def _set(self, backend: Backend, name: str, value: str) -> bytes:
        if value == "invalid":
            return self._error("22023", f"invalid value for {name}")
        backend.parameters[name] = value.upper() if name == "client_encoding" else value
        return parameter_status(name, backend.parameters[name])

    async def _sleep(self, backend: Backend) -> bytes:
        before, backend.sleeping = backend.canceled, True
        while backend.canceled == before:
            await self.lane.sleep(0.1)
        backend.sleeping = False
        backend.status = b"I" if backend.status == b"I" else b"E"
        return self._error("57014", "canceled")

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
