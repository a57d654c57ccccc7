"""Anything at all, from a client that shares its server: the next client notices nothing of it."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pooler.messages import SYNC, message, query
from supervisor.plane.memory import Plane
from tests.pooler.stage import Stage

NAMES = st.sampled_from(["", "a", "b", "portway_"])
TEXTS = st.sampled_from(
    ["SELECT 1", "SET x = 1", "RESET x", "RESET ALL", "PREPARE a AS SELECT 2", "EXECUTE a", "DEALLOCATE a", "FAIL",
     "DEALLOCATE ALL", "DISCARD ALL", "LISTEN c", "UNLISTEN *", "NOTIFY c", "BEGIN", "COMMIT", "ROLLBACK",
     "CREATE TEMP TABLE t (n int)", "", "SELECT 1; FAIL",
     "PREPARE b AS SELECT 3; EXECUTE b; DEALLOCATE b", "SELECT pg_advisory_lock(1)"]
)  # fmt: skip
MESSAGES = st.one_of(
    st.builds(lambda sql: query(sql), TEXTS),
    st.builds(lambda name, sql: message(b"P", f"{name}\0{sql}\0\0\0".encode()), NAMES, TEXTS),
    st.builds(lambda name: message(b"B", f"\0{name}\0".encode() + bytes(6)), NAMES),
    st.builds(lambda kind, what, name: message(kind, f"{what}{name}\0".encode()),
              st.sampled_from([b"D", b"C"]), st.sampled_from("SP"), NAMES),
    st.sampled_from([message(b"E", bytes(5)), SYNC, SYNC, message(b"H"), message(b"c"), message(b"d", b"x")]),
)  # fmt: skip


@given(st.lists(MESSAGES, max_size=12), st.binary(max_size=8), st.integers(1, 200), st.booleans())
def test_property_nothing_reaches_the_next_client(sent: list[bytes], end: bytes, piece: int, politely: bool) -> None:
    plane = Plane.create()
    playing = Stage(Path(tempfile.mkdtemp()), plane)
    try:
        one = playing.client()
        with suppress(OSError):  # what it said ended its session
            one.send(b"".join(sent) + (message(b"X") if politely else end), piece)
        one.receive()
        one.conn.close()
        playing.lane.advance(12)
        other = playing.client()
        for _ in range(2):
            other.send(message(b"P", b"a\0SELECT mine\0\0\0") + message(b"B", b"\0a\0" + bytes(6)))
            other.send(message(b"E", bytes(5)) + SYNC + message(b"C", b"Sa\0") + SYNC)
            assert other.kinds() == "12DCI3I"
        (server,) = playing.pool.servers
        backend = playing.postgres.backends[server.pid - 1]
        assert backend.queries[-1] == "SELECT mine"
        assert "x" not in backend.settings
        assert not backend.channels
        assert other.ask("EXECUTE b") == "EI"
        other.send(message(b"X"))
        playing.settled()
    finally:
        playing.close()
        plane.close()
