"""TLS on a listener: the first bytes decide, and only bytes that are TLS."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
from OpenSSL import SSL

from pooler.config import ListenerTable, TlsTable
from pooler.listener import ALPN, Listener, certificates
from supervisor.cli.demo.credentials import write_certificate
from supervisor.ground.config import Bind, CertificateTable, File
from supervisor.ground.lane import Conn, Lane, Session
from supervisor.ground.net.tls import base_context

BOUND = 10.0  # s


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> ListenerTable:
    made = write_certificate(tmp_path_factory.mktemp("tls"))
    files = [File(path, path.read_bytes()) for path in (made.cert, made.key)]
    tls = TlsTable(certificates=(CertificateTable(cert=files[0], key=files[1]),), required=True)
    return ListenerTable(bind=Bind("127.0.0.1", 6432), tls=tls)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ends = socket.socketpair()
    yield ends
    for end in ends:
        end.close()


def drive(server: socket.socket, session: Callable[[Conn], Any], client: Callable[[], None]) -> Any:
    """Run a session over one end on a real lane, while `client` plays the other in a thread; what the session
    returns."""
    found: list[Any] = []

    async def main() -> None:
        lane = Lane()

        async def run() -> None:
            found.append(await session(lane.adopt(server)))

        with trio.fail_after(BOUND):
            async with trio.open_nursery() as nursery:
                await nursery.start(lane.run)
                done = trio.Event()

                def ended(session: Session) -> None:
                    if session.error is not None:
                        found.append(session.error)
                    done.set()

                lane.spawn(run()).when_done(ended)
                await trio.to_thread.run_sync(client)
                await done.wait()
                nursery.cancel_scope.cancel()
        lane.close()

    trio.run(main)
    return found[0]


def new_base(name: str, alpn: Sequence[bytes]) -> SSL.Context:
    return base_context(alpn)


def shake(sock: socket.socket, alpn: list[bytes]) -> None:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    if alpn:
        context.set_alpn_protos(alpn)
    connection = SSL.Connection(context, sock)
    connection.set_connect_state()
    connection.do_handshake()


def test_a_listener_without_certificates_offers_none(table: ListenerTable) -> None:
    plain = Listener("main", 0, 0, ListenerTable(bind=table.bind), new_base)
    assert not plain.offers_tls
    assert not plain.demands_tls
    plain.take(table, certificates(table))
    assert plain.offers_tls
    assert plain.demands_tls
    plain.take(table, certificates(table))
    assert plain.offers_tls


@pytest.mark.parametrize(("sent", "expected"), [(b"\x16\x03\x01", True), (b"\0\0\0\x08", False), (b"", False)])
def test_the_first_byte_tells_and_stays(
    table: ListenerTable, pair: tuple[socket.socket, socket.socket], sent: bytes, expected: bool
) -> None:
    listener = Listener("main", 0, 0, table, new_base)
    left: list[bytes] = []

    async def session(conn: Conn) -> bool:
        found = await listener.starts_with_tls(conn)
        left.append(await conn.recv())
        return found

    def client() -> None:
        pair[1].send(sent) if sent else pair[1].shutdown(socket.SHUT_WR)

    assert drive(pair[0], session, client) is expected
    assert left == [sent]


@pytest.mark.parametrize("alpn", [[], [ALPN], [b"h2"]])
def test_a_handshake_agrees_on_our_protocol_or_none(
    table: ListenerTable, pair: tuple[socket.socket, socket.socket], alpn: list[bytes]
) -> None:
    listener = Listener("main", 0, 0, table, new_base)

    async def session(conn: Conn) -> bytes:
        return (await listener.secure(conn)).alpn()

    assert drive(pair[0], session, lambda: shake(pair[1], alpn)) == (ALPN if ALPN in alpn else b"")


def test_what_is_no_tls_is_an_error_of_the_peer(
    table: ListenerTable, pair: tuple[socket.socket, socket.socket], tmp_path: Path
) -> None:
    listener = Listener("main", 0, 0, table, new_base)

    async def session(conn: Conn) -> object:
        return await listener.secure(conn)

    assert isinstance(drive(pair[0], session, lambda: pair[1].sendall(b"GET / HTTP/1.1\r\n\r\n")), OSError)
