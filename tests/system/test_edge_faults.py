"""Servers and clients that fail in the middle: each costs its own connection, in its time, and no other anything."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import attrs
import pytest

from supervisor.cli.demo.ports import free_tcp_port
from tests.system.support.backends import Backend
from tests.system.support.clients import connect, read_all, reset
from tests.system.support.daemon import Daemon
from tests.system.support.poll import until

IDLE = 1.0  # seconds
CONFIGURATION = """
[supervisor]
workers = 2
[pools.p]
servers = ["{address}"]
outlier = {{ consecutive_failures = 1000 }}
[pools.well]
servers = ["{well}"]
[edge.listeners.l]
bind = "127.0.0.1:{port}"
pool = "p"
connect_timeout = "500ms"
idle_timeout = "1s"
[edge.listeners.well]
bind = "127.0.0.1:{neighbour}"
pool = "well"
"""


@attrs.frozen
class Stage:
    daemon: Daemon
    backend: Backend
    address: str
    neighbour: socket.socket  # a connection of another listener, which must never notice

    def open(self) -> socket.socket:
        """A connection that has proved to work."""
        with ExitStack() as undo:
            sock = undo.enter_context(connect(self.address))
            sock.sendall(b"hello")
            assert sock.recv(100) == b"hello"
            undo.pop_all()
        return sock

    def files(self) -> dict[int, int]:
        """Open files of each worker."""
        return {pid: len(os.listdir(f"/proc/{pid}/fd")) for pid in self.daemon.pids("edge")}

    def active(self) -> float:
        return self.daemon.metric("portway_listener_active", listener="l")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with ExitStack() as stack:
        backend, well = Backend("tcp", "a").start(), Backend("tcp", "well").start()
        stack.callback(backend.stop)
        stack.callback(well.stop)
        port, neighbour = free_tcp_port(), free_tcp_port()
        text = CONFIGURATION.format(address=backend.address, well=well.address, port=port, neighbour=neighbour)
        daemon = Daemon.start(tmp_path_factory.mktemp("faults"), text)
        stack.callback(daemon.stop)
        sock = stack.enter_context(connect(f"127.0.0.1:{neighbour}"))
        yield Stage(daemon, backend, f"127.0.0.1:{port}", sock)


@pytest.fixture(autouse=True)
def nothing_is_left(stage: Stage) -> Iterator[None]:
    """After each fault: the neighbour works, the server works again, and no count and no file is left."""
    before = stage.files()
    yield
    stage.neighbour.sendall(b"well")
    assert stage.neighbour.recv(100) == b"well"
    stage.open().close()
    until(lambda: stage.active() == 0, "every connection to end")
    until(lambda: stage.files() == before, "every file to be closed")
    assert stage.daemon.metric("portway_server_in_flight", pool="p") == 0


def test_a_server_killed_ends_its_connections_and_refuses_new_ones(stage: Stage) -> None:
    with stage.open() as sock:
        stage.backend.stop()
        try:
            assert read_all(sock) == b""
        except ConnectionResetError:
            pass
        with pytest.raises(ConnectionResetError), connect(stage.address) as refused:  # it may come as soon as that
            read_all(refused)
    stage.backend.start()


def test_a_server_that_hangs_costs_idle_timeout(stage: Stage) -> None:
    stage.backend.freeze()
    try:
        with connect(stage.address) as sock:
            sock.sendall(b"anybody?")
            assert read_all(sock) == b""
    finally:
        stage.backend.thaw()


def test_a_server_that_resets_resets_its_client(stage: Stage) -> None:
    stage.backend.stop()
    with socket.create_server(("127.0.0.1", stage.backend.port)) as server, connect(stage.address) as sock:
        conn, _ = server.accept()
        conn.sendall(b"half an ans")
        assert sock.recv(100) == b"half an ans"
        reset(conn)
        with pytest.raises(ConnectionResetError):
            read_all(sock)
    stage.backend.start()


def test_a_client_that_resets_frees_its_server(stage: Stage) -> None:
    sock = stage.open()
    reset(sock)


def test_a_client_that_vanishes_costs_idle_timeout(stage: Stage) -> None:
    with stage.open() as sock:
        until(lambda: stage.active() == 0, "idle_timeout", 5 * IDLE)
        assert sock.recv(100) == b""


def test_a_client_that_reads_slowly_gets_everything(stage: Stage) -> None:
    data = os.urandom(1 << 20)
    with connect(stage.address) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        sock.setblocking(False)
        received = bytearray()
        rest = memoryview(data)
        while len(received) < len(data):
            try:
                rest = rest[sock.send(rest[:8192]) :] if rest else rest
            except BlockingIOError:
                pass
            try:
                received += sock.recv(4096)
            except BlockingIOError:
                pass
        assert bytes(received) == data


def test_one_that_only_listens_half_closed_gets_its_answer(stage: Stage) -> None:
    with stage.open() as sock:
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b""
