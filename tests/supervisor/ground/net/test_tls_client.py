"""TLS towards servers: whom we believe, what we show, and what we say when it fails."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator

import pytest

from supervisor.cli.demo.credentials import Certificate, write_certificate
from supervisor.ground.lane import Lane, Session
from supervisor.ground.net.keypairs import KeyPair
from supervisor.ground.net.tls_client import Connector
from supervisor.ground.net.tlsconn import TlsConn, TlsError

ROUNDS = 50


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return write_certificate(tmp_path_factory.mktemp("tls"), ["user.internal", "127.0.0.1"])


Meet = Callable[..., "str | bytes"]


@pytest.fixture
def meet(by_hand: Lane, shown: Certificate) -> Iterator[Meet]:
    """`meet(connector)`: shake hands with a server; what was agreed on (ALPN), or why it failed."""
    ends: list[socket.socket] = []

    def meet(connector: Connector, address: str = "127.0.0.1", wants: bytes | None = None) -> str | bytes:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(shown.cert, shown.key)
        context.set_alpn_protocols(["h2", "http/1.1"])
        if wants is not None:
            context.load_verify_locations(cadata=wants.decode())
            context.verify_mode = ssl.CERT_REQUIRED
        theirs, ours = socket.socketpair()
        theirs.setblocking(False)
        ends.append(theirs)
        tls: TlsConn = connector.wrap(by_hand.adopt(ours), address)
        outcome: list[str | bytes] = []

        async def client() -> None:
            try:
                await tls.handshake()
                await tls.send(b"hello")
                answer = await tls.recv()
                outcome.append(tls.alpn() if answer == b"welcome" else b"cut")
            except TlsError as error:
                outcome.append(str(error))
            finally:
                tls.close()

        session: Session = by_hand.spawn(client())
        server = context.wrap_socket(theirs, server_side=True, do_handshake_on_connect=False)
        ends[-1] = server
        for _ in range(ROUNDS):
            by_hand._round()
            try:
                server.do_handshake()
                if server.read(100) == b"hello":
                    server.write(b"welcome")
            except (ssl.SSLWantReadError, OSError):
                pass
            if session.done:
                break
        by_hand._round()
        return outcome[0]

    yield meet
    for end in ends:
        end.close()


@pytest.mark.parametrize("name", ["user.internal", None])
def test_a_server_that_proves_its_name_or_its_address_is_believed(
    meet: Meet, shown: Certificate, name: str | None
) -> None:
    connector = Connector(shown.authority.read_bytes(), name, alpn=(b"h2",))
    assert meet(connector) == b"h2"


@pytest.mark.parametrize(("name", "address"), [("other.internal", "127.0.0.1"), (None, "127.0.0.2"), (None, "::1")])
def test_a_certificate_for_somebody_else_is_refused(
    meet: Meet, shown: Certificate, name: str | None, address: str
) -> None:
    said = meet(Connector(shown.authority.read_bytes(), name), address)
    assert "certificate verify failed" in str(said)


def test_strangers_are_refused_unless_anybody_will_do(meet: Meet) -> None:
    assert "certificate verify failed" in str(meet(Connector(None, "user.internal")))
    assert meet(Connector(None, "user.internal", alpn=(b"http/1.1",), verify=False)) == b"http/1.1"


def test_a_server_may_ask_who_we_are(meet: Meet, shown: Certificate, pair_for: Callable[..., KeyPair]) -> None:
    pair, authority = pair_for("gateway.internal"), shown.authority.read_bytes()
    assert meet(Connector(authority, "user.internal", pair, (b"h2",)), wants=pair.cert) == b"h2"
    assert meet(Connector(authority, "user.internal", alpn=(b"h2",)), wants=pair.cert) != b"h2"


def test_what_is_no_certificate_is_said_at_once() -> None:
    with pytest.raises(ValueError, match="not PEM"):
        Connector(b"nonsense")
