"""Bytes go both ways, in order and once; who is slow slows the other down; ends and silence end things."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.connection import Connection
from edge.relay import relay
from supervisor.ground.lane import Overdue
from supervisor.ground.net.memory import MemoryConn, Rehearsal
from supervisor.plane import layout

KIB = 1024
AT, TO = 0, 64  # where the listener's and the server's counters stand here
IDLE = 60.0


class Between:
    """A relay between two ends that the test plays, each with a buffer of `capacity` bytes."""

    def __init__(self, first: bytes = b"", capacity: int = 64 * KIB) -> None:
        self.lane = Rehearsal()
        near_client, self.client = self.lane.pair(capacity)
        near_server, self.server = self.lane.pair(capacity)
        self.cells = memoryview(bytearray(8 * 128)).cast("Q")
        self.outcome: list[BaseException | None] = []
        self.session = self.lane.spawn(self._session(near_client, near_server, first))
        self.lane.run()

    async def _session(self, client: MemoryConn, server: MemoryConn, first: bytes) -> None:
        session = self.lane.current
        client.attach()
        server.attach()
        session.deadline = self.lane.now + IDLE
        connection = Connection(client, ("192.0.2.1", 1234), 0.0, first=first, upstream=server, idle_timeout=IDLE)
        try:
            await relay(session, connection, self.cells, AT, TO)
        except (OSError, Overdue) as error:
            self.outcome.append(error)
        else:
            self.outcome.append(None)
        finally:
            client.close()
            server.close()

    def feed(self, end: MemoryConn, data: bytes, piece: int = 64 * KIB) -> None:
        self.lane.feed(end, data, piece)

    def taken(self, end: MemoryConn) -> bytes:
        self.lane.run()
        return end.take()


@pytest.fixture
def between() -> Iterator[Between]:
    between = Between()
    yield between
    between.lane.finish()


def test_bytes_go_both_ways(between: Between) -> None:
    between.feed(between.client, b"question")
    assert between.taken(between.server) == b"question"
    between.feed(between.server, b"answer!")
    assert between.taken(between.client) == b"answer!"
    listener, server = layout.Listener, layout.Server
    assert [between.cells[at] for at in (AT + listener.BYTES_IN, AT + listener.BYTES_OUT)] == [8, 7]
    assert [between.cells[at] for at in (TO + server.BYTES_OUT, TO + server.BYTES_IN)] == [8, 7]


def test_what_was_peeked_goes_first_and_is_not_counted_again() -> None:
    between = Between(b"peeked ")
    between.feed(between.client, b"rest")
    assert between.taken(between.server) == b"peeked rest"
    assert between.cells[AT + layout.Listener.BYTES_IN] == 4


def test_one_sides_end_leaves_the_other_direction_open(between: Between) -> None:
    between.feed(between.client, b"all")
    between.client.shutdown_write()
    assert between.taken(between.server) == b"all"
    assert between.server.at_end
    between.feed(between.server, b"late")
    assert between.taken(between.client) == b"late"
    assert between.outcome == []
    between.server.shutdown_write()
    between.lane.run()
    assert between.outcome == [None]
    assert between.client.at_end


def test_a_slow_reader_slows_its_writer(between: Between) -> None:
    sent = 0
    between.client.writable = True
    while taken := between.client.send_nowait(bytes(64 * KIB)):
        sent += taken
        between.lane.run()
        between.client.writable = True
    # The two buffers, and one read between them.
    assert sent <= 3 * 64 * KIB
    received = 0
    while data := between.taken(between.server):
        received += len(data)
    assert received == sent


def test_who_takes_little_at_a_time_gets_all_of_it(between: Between, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = MemoryConn.send_nowait

    def a_record(conn: MemoryConn, data: bytes | memoryview) -> int:
        """As TLS: part of it, and still writable."""
        return whole(conn, data[:100])

    monkeypatch.setattr(MemoryConn, "send_nowait", a_record)
    between.server.writable = True
    whole(between.server, bytes(10_000))
    assert len(between.taken(between.client)) == 10_000


def test_a_slow_direction_does_not_stop_the_other(between: Between) -> None:
    between.client.writable = True
    while between.client.send_nowait(bytes(64 * KIB)):
        between.lane.run()
        between.client.writable = True
    between.feed(between.server, b"meanwhile")
    assert between.taken(between.client) == b"meanwhile"


def test_a_reset_ends_it_with_its_error(between: Between) -> None:
    between.server.abort()
    between.lane.run()
    assert isinstance(between.outcome[0], ConnectionResetError)


@pytest.mark.parametrize("who", ["client", "server"])
def test_a_reset_after_ones_own_end_is_noticed(between: Between, who: str) -> None:
    end = between.client if who == "client" else between.server
    end.shutdown_write()
    between.lane.run()
    assert between.outcome == []
    end.abort()
    between.lane.run()
    assert isinstance(between.outcome[0], ConnectionResetError)


def test_silence_ends_it_and_every_byte_puts_that_off(between: Between) -> None:
    between.lane.advance(IDLE - 5)
    between.feed(between.server, b"x")
    between.taken(between.client)
    between.lane.advance(IDLE - 5)
    assert between.outcome == []
    between.lane.advance(10)
    assert isinstance(between.outcome[0], Overdue)


MOVES = st.lists(
    st.tuples(st.sampled_from(["client", "server"]), st.sampled_from(["send", "take", "end"]), st.integers(1, 300)),
    max_size=60,
)


@given(MOVES, st.binary(max_size=50), st.sampled_from([16, 100, 64 * KIB]))
@settings(max_examples=60)
def test_property_every_byte_arrives_once_in_order(
    moves: list[tuple[str, str, int]], first: bytes, capacity: int
) -> None:
    between = Between(first, capacity)
    ends = {"client": between.client, "server": between.server}
    sent = {"client": bytearray(first), "server": bytearray()}
    received = {"client": bytearray(), "server": bytearray()}
    ended = set()
    for who, what, size in moves:
        if what == "take":
            received[who] += ends[who].take()
        elif who not in ended and between.outcome == []:
            if what == "end":
                ended.add(who)
                ends[who].shutdown_write()
            else:
                data = bytes((len(sent[who]) + at) % 251 for at in range(size))
                ends[who].writable = True
                sent[who] += data[: ends[who].send_nowait(data)]
        between.lane.run()
    for who in ends:
        if who not in ended:
            ends[who].shutdown_write()
    for _ in range(40):
        for who, end in ends.items():
            received[who] += between.taken(end)
    while between.outcome == []:
        for who, end in ends.items():
            received[who] += between.taken(end)
    assert between.outcome == [None]
    for who, end in ends.items():
        received[who] += end.take()
    assert received["server"] == sent["client"]
    assert received["client"] == sent["server"]
