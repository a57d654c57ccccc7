import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.cli.demo.ports import free_tcp_port, free_udp_port
from supervisor.cli.demo.processes import Child
from tests.system.support.poll import until

ROOT = Path(__file__).resolve().parents[3]
MODULE = "supervisor.cli.demo.echoes"


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    """Where a server of this kind listens."""
    port = free_udp_port() if request.param == "game" else free_tcp_port()
    command = [sys.executable, "-m", MODULE, request.param, "one", str(port)]
    child = Child.start(request.param, command, directory=ROOT)
    yield "127.0.0.1", port
    child.stop()


@pytest.mark.parametrize("server", ["game"], indirect=True)
def test_a_game_server_says_who_it_is_and_counts_for_each_player(server: tuple[str, int]) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as alice,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bob,
    ):
        for player in (alice, bob):
            player.connect(server)
            player.settimeout(10)

        def listens() -> bool:
            alice.send(b"1")
            return alice.recv(100) == b"one got '1', packet 1 of this session\n"

        until(listens, "the game server")
        alice.send(b"hi\n")
        assert alice.recv(100) == b"one got 'hi', packet 2 of this session\n"
        bob.send(b"\xff")
        assert bob.recv(100) == "one got '\ufffd', packet 1 of this session\n".encode()


@pytest.mark.parametrize("server", ["ingest"], indirect=True)
def test_an_ingest_server_echoes_streams_to_their_end(server: tuple[str, int]) -> None:
    with until(lambda: socket.create_connection(server, 10), "the ingest server") as stream:
        for piece in (b"first", b"x" * 100_000):
            stream.sendall(piece)
            assert b"".join(iter_exactly(stream, len(piece))) == piece
        stream.shutdown(socket.SHUT_WR)
        assert stream.recv(1) == b""


def iter_exactly(stream: socket.socket, size: int) -> Iterator[bytes]:
    while size:
        data = stream.recv(size)
        assert data
        size -= len(data)
        yield data
