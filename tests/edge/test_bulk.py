"""Bulk goes through the kernel, whole and in order; ends, resets and slow readers mean what they mean to the relay."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from edge import bulk as bulk_module
from edge.bulk import Pipes
from edge.connection import Connection
from edge.relay import relay
from supervisor.ground.lane import Cancelled, Lane, Overdue
from supervisor.ground.lane.conn import RESET_ON_CLOSE
from supervisor.plane import layout

MIB = 1024 * 1024
AT, TO = 0, 64


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    return near, far


class Carried:
    """A relay between real sockets whose far ends the test plays; the test gives the rounds."""

    def __init__(self, pipes: Pipes, idle: float = 60.0) -> None:
        self.lane = Lane()
        self.pipes = pipes
        self.cells = memoryview(bytearray(8 * 128)).cast("Q")
        self.client, client = pair()
        self.server, server = pair()
        for end in (self.client, self.server):
            end.setblocking(False)
        self.outcome: list[BaseException | None] = []
        self.session = self.lane.spawn(self._serve(client, server, idle))
        self.rounds()

    async def _serve(self, client: socket.socket, server: socket.socket, idle: float) -> None:
        connection = Connection(self.lane.adopt(client), ("192.0.2.1", 1), self.lane.now)
        connection.upstream, connection.idle_timeout = self.lane.adopt(server), idle
        self.connection = connection
        try:
            await relay(self.lane.current, connection, self.cells, AT, TO, self.pipes)
        except (OSError, Overdue, Cancelled) as error:
            self.outcome.append(error)
        else:
            self.outcome.append(None)
        finally:
            connection.stream.close()
            connection.upstream.close()

    def rounds(self) -> None:
        for _ in range(10_000):
            if not self.lane._round():
                return
        raise AssertionError("never rests")

    def until(self, condition: Callable[[], object]) -> None:
        """Give rounds until it holds: what the loopback carries may take a moment."""
        end = time.monotonic() + 5
        while not condition():
            assert time.monotonic() < end
            self.rounds()

    def carry(self, source: socket.socket, sink: socket.socket, data: bytes) -> bytes:
        """Send `data` as fast as it is taken, and what of it arrives; the sink reads whatever comes."""
        received = bytearray()
        rest = memoryview(data)
        while len(received) < len(data):
            try:
                rest = rest[source.send(rest) :] if rest else rest
            except BlockingIOError:
                pass
            self.rounds()
            received += take(sink)
        return bytes(received)

    def fill(self, source: socket.socket) -> int:
        """Send as much as is taken while nobody reads it; how much."""
        sent = 0
        try:
            while True:
                sent += source.send(bytes(MIB))
                self.rounds()
        except BlockingIOError:
            return sent

    def end(self) -> None:
        self.lane.end_all()
        self.lane.close()
        self.client.close()
        self.server.close()


def take(sock: socket.socket) -> bytes:
    """What is there now."""
    found = bytearray()
    try:
        while data := sock.recv(MIB):
            found += data
    except BlockingIOError:
        pass
    return bytes(found)


def ended(sock: socket.socket) -> bool:
    """Whether its peer's stream has ended, with nothing left."""
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False


@pytest.fixture
def pipes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipes]:
    pipes = Pipes()
    yield pipes
    pipes.close()
    assert pipes._open == 0


@pytest.fixture
def carried(pipes: Pipes) -> Iterator[Carried]:
    carried = Carried(pipes)
    yield carried
    carried.end()


@pytest.fixture
def spliced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes that splice moved."""
    moved: list[int] = []
    splice = os.splice

    def noted(*arguments: int, **more: int) -> int:
        size = splice(*arguments, **more)
        moved.append(size)
        return size

    monkeypatch.setattr(bulk_module.os, "splice", noted)
    return moved


def test_bulk_goes_through_the_kernel_and_small_messages_do_not(carried: Carried, spliced: list[int]) -> None:
    for _ in range(50):
        assert carried.carry(carried.client, carried.server, b"small") == b"small"
    assert spliced == []
    data = os.urandom(6 * MIB)
    assert carried.carry(carried.client, carried.server, data) == data
    assert sum(spliced) > 2 * 5 * MIB  # in and out
    assert carried.carry(carried.server, carried.client, data[::-1]) == data[::-1]
    listener, server = layout.Listener, layout.Server
    assert carried.cells[AT + listener.BYTES_IN] == carried.cells[TO + server.BYTES_OUT] == len(data) + 250
    assert carried.cells[AT + listener.BYTES_OUT] == carried.cells[TO + server.BYTES_IN] == len(data)
    assert (carried.connection.bytes_in, carried.connection.bytes_out) == (len(data) + 250, len(data))


def test_what_is_small_again_is_copied_again(carried: Carried, spliced: list[int]) -> None:
    data = bytes(2 * MIB)
    carried.carry(carried.client, carried.server, data)
    for _ in range(2 * bulk_module.LULL):
        carried.carry(carried.client, carried.server, b"x" * 100)
    spliced.clear()
    assert carried.carry(carried.client, carried.server, b"question") == b"question"
    assert carried.carry(carried.server, carried.client, b"answer") == b"answer"
    assert spliced == []


def test_idle_connections_hold_no_pipe(carried: Carried, pipes: Pipes) -> None:
    carried.carry(carried.client, carried.server, bytes(2 * MIB))
    assert pipes._open == len(pipes._free) > 0


def test_pipes_that_nobody_needs_are_closed(carried: Carried, pipes: Pipes) -> None:
    for _ in range(2):
        carried.carry(carried.client, carried.server, bytes(2 * MIB))
        pipes.trim()
        assert pipes._open > 0
    pipes.trim()
    assert pipes._open == 0
    assert carried.carry(carried.client, carried.server, bytes(MIB)) == bytes(MIB)


def test_without_a_pipe_it_is_copied(carried: Carried, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_module, "MAX_PIPES", 0)
    data = os.urandom(3 * MIB)
    assert carried.carry(carried.client, carried.server, data) == data


def test_half_close_is_kept(carried: Carried) -> None:
    data = os.urandom(2 * MIB)
    assert carried.carry(carried.client, carried.server, data) == data
    carried.client.shutdown(socket.SHUT_WR)
    carried.until(lambda: ended(carried.server))
    assert carried.carry(carried.server, carried.client, data) == data
    assert carried.outcome == []
    carried.server.close()
    carried.until(lambda: carried.outcome)
    assert carried.outcome == [None]
    carried.until(lambda: ended(carried.client))


def test_a_slow_reader_slows_its_writer_and_no_other(carried: Carried) -> None:
    carried.carry(carried.client, carried.server, bytes(2 * MIB))
    sent = carried.fill(carried.client)
    assert sent < 64 * MIB  # four buffers of the kernel, each of up to 6 MiB, and what it holds on their way
    assert carried.carry(carried.server, carried.client, b"meanwhile") == b"meanwhile"
    received = 0
    while data := take(carried.server):
        received += len(data)
        carried.rounds()
    assert received == sent


@pytest.mark.parametrize("bulk", [False, True])
def test_a_reset_after_ones_own_end_is_noticed(carried: Carried, bulk: bool) -> None:
    if bulk:
        carried.carry(carried.client, carried.server, bytes(2 * MIB))
    carried.client.shutdown(socket.SHUT_WR)
    carried.until(lambda: ended(carried.server))
    assert carried.outcome == []
    carried.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    carried.client.close()
    carried.until(lambda: carried.outcome)
    assert isinstance(carried.outcome[0], OSError)


@pytest.mark.parametrize("who", ["client", "server"])
def test_an_end_in_the_middle_leaves_nothing_behind(carried: Carried, pipes: Pipes, who: str) -> None:
    carried.carry(carried.client, carried.server, bytes(2 * MIB))
    carried.fill(carried.client)
    getattr(carried, who).close()
    if who == "server":
        carried.until(lambda: carried.outcome)
        assert isinstance(carried.outcome[0], OSError)
    carried.lane.end_all()
    assert pipes._open == len(pipes._free)


def test_silence_ends_it(pipes: Pipes) -> None:
    carried = Carried(pipes, idle=1.5)
    carried.carry(carried.client, carried.server, bytes(2 * MIB))
    assert carried.session.deadline <= carried.lane.now + 1.5
    carried.lane.now += 2
    for _ in range(2):
        carried.lane.sweep()
        carried.lane.now += 1.1
    carried.lane.wake(carried.session)
    carried.rounds()
    assert isinstance(carried.outcome[0], Overdue)
    carried.end()
