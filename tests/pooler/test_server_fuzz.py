"""Anything at all, from a server: its clients are told or cut off, nobody else is harmed, and nothing leaks."""

from __future__ import annotations

import tempfile
from collections import deque
from contextlib import suppress
from pathlib import Path

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from pooler.errors import fields
from pooler.messages import READY_IDLE, SYNC, message, parameter_status, query
from supervisor.ground.lane import PARK
from supervisor.ground.net.memory import MemoryConn
from supervisor.plane.memory import Plane
from tests.pooler.fake_postgres import Backend, FakePostgres, ready, row
from tests.pooler.stage import ADDRESS, Player, Stage
from tests.pooler.test_translation_fuzz import MESSAGES

FEWER = settings(max_examples=settings().max_examples // 4)  # each is a pooler from its start to its end

SAID = st.one_of(
    st.sampled_from([
        READY_IDLE, READY_IDLE, ready(b"T"), ready(b"E"), ready(b"?"), row(b"1"), message(b"T", b"\0\0"),
        message(b"C", b"SELECT 1\0"), message(b"C", b"SET\0"), message(b"1"), message(b"2"), message(b"3"),
        message(b"n"), message(b"s"), message(b"I"), message(b"t", b"\0\0"), message(b"G", b"\0\0\0"),
        message(b"H", b"\0\0\0"), message(b"W", b"\0\0\0"), message(b"d", b"data"), message(b"c"),
        message(b"V", bytes(4)),
        fields(b"E", "ERROR", "22012", "division by zero"), fields(b"E", "FATAL", "57P01", "gone"),
        fields(b"E", "ERROR", "26000", "no statement"), fields(b"E", "ERROR", "25006", "a replica"),
        fields(b"N", "NOTICE", "00000", "notice"), message(b"A", bytes(4) + b"c\0payload\0"), message(b"A", b"\0"),
        parameter_status("TimeZone", "UTC"), message(b"S", b"broken"), message(b"S", b"\xff\0\xff\0"),
        message(b"R", bytes(4)), message(b"K", bytes(8)), message(b"v", bytes(8)),
    ]),
    st.builds(lambda kind, body: message(bytes([kind]), body), st.integers(0, 255), st.binary(max_size=20)),
    st.binary(max_size=12),
    st.none(),
)  # fmt: skip


@attrs.define(eq=False)
class Liar(FakePostgres):
    """A server that answers whatever it is sent by the next of `script`, None being its end; then it is honest, in new
    connections. `greets` comes before a login."""

    script: deque[bytes | None] = attrs.field(factory=deque)
    greets: bytes = b""
    piece: int = 1 << 16

    async def _serve(self, conn: MemoryConn) -> None:
        if self.greets:
            greets, self.greets = self.greets, b""
            with suppress(OSError):
                await conn.send(greets)
        await super()._serve(conn)

    async def _talk(self, backend: Backend, buffer: bytearray) -> None:
        if not self.script:
            await super()._talk(backend, buffer)
            return
        conn = backend.conn
        while buffer or await conn.recv():
            buffer.clear()
            said = self.script.popleft() if self.script else None
            if said is None:
                return
            for at in range(0, len(said), self.piece):
                await conn.send(said[at : at + self.piece])
                self.lane.wake(self.lane.current)
                await PARK


@FEWER
@given(
    st.lists(SAID, max_size=12),
    st.lists(st.tuples(st.integers(0, 2), MESSAGES), max_size=10),
    st.binary(max_size=10),
    st.integers(1, 40),
    st.booleans(),
)
def test_property_a_server_harms_nobody_but_those_who_ask_it(
    script: list[bytes | None], asked: list[tuple[int, bytes]], greets: bytes, piece: int, sticky: bool
) -> None:
    plane = Plane.create()
    mode = "session" if sticky else "transaction"
    playing = Stage(Path(tempfile.mkdtemp()), plane, database=f'pool_mode = "{mode}"\npool_size = 2')
    liar = Liar(playing.lane)
    try:
        first = playing.client()  # while it is honest: what servers report of themselves is known from now on
        assert first.ask("SELECT 1") == "DCI"
        first.send(message(b"X"))
        playing.postgres = liar
        playing.lane.servers[ADDRESS] = liar.accept
        for server in list(playing.pool.servers):
            server.expires = server.good_until = 0.0
        playing.lane.advance(1)
        liar.script.extend(script)
        liar.greets, liar.piece = greets, piece
        clients = [playing.client() for _ in range(3)]
        for number, data in asked:
            with suppress(OSError):  # its session has ended
                clients[number].send(data)
                clients[number].receive()
        for client in clients:
            client.conn.close()
        liar.script.clear()
        liar.greets = b""
        playing.lane.advance(12)
        assert served(playing) == "DCI"
        playing.settled()
    finally:
        playing.close()
        plane.close()


def served(playing: Stage) -> str:
    """What a new client gets, once those connections are gone that the liar has left."""
    got = ""
    for _ in range(4):
        client = playing.client()
        client.send(query("SELECT 1"))
        got = answered(playing, client)
        client.conn.close()
        playing.lane.advance(12)
        if got == "DCI":
            break
    return got


def answered(playing: Stage, client: Player) -> str:
    playing.lane.advance(2)
    return client.kinds().replace("N", "").replace("S", "")


@FEWER
@given(st.binary(max_size=60), st.integers(1, 20))
def test_property_a_login_is_answered_or_refused(greets: bytes, piece: int) -> None:
    plane = Plane.create()
    playing = Stage(Path(tempfile.mkdtemp()), plane)
    liar = playing.postgres = Liar(playing.lane, greets=greets, piece=piece)
    playing.lane.servers[ADDRESS] = liar.accept
    try:
        client = playing.client(log_in=False)
        words = b"user\0app\0database\0app\0\0"
        client.send((len(words) + 8).to_bytes(4, "big") + (3 << 16).to_bytes(4, "big") + words)
        with suppress(OSError):  # it has been refused
            client.send(query("SELECT 1") + SYNC)
        playing.lane.advance(40)
        client.conn.close()
        playing.lane.advance(12)
        assert served(playing) == "DCI"
        playing.settled()
    finally:
        playing.close()
        plane.close()
