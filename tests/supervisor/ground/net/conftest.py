"""Certificates, and a TLS client that the test moves by hand beside the lane's rounds."""

from __future__ import annotations

import datetime
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from OpenSSL._util import lib as openssl

from supervisor.ground.lane import Lane
from supervisor.ground.net.keypairs import KeyPair
from supervisor.ground.net.tls import Acceptor
from supervisor.ground.net.tlsconn import TlsConn

ROUNDS = 20_000  # of one lane in one test: more is a loop that never ends


def make_pair(
    *names: str, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | None = None
) -> KeyPair:
    """A self-signed certificate for `names`; the first is its subject too."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
    )
    alternatives = [x509.DNSName(name) for name in names if "." in name]
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    certificate = builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
    return KeyPair(
        certificate.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


@pytest.fixture(scope="session")
def pair_for() -> Callable[..., KeyPair]:
    """The pair for some names: made once."""
    made: dict[tuple[str, ...], KeyPair] = {}

    def pair_for(*names: str) -> KeyPair:
        if names not in made:
            made[names] = make_pair(*names)
        return made[names]

    return pair_for


@pytest.fixture(name="make_pair", scope="session")
def make_pair_fixture() -> Callable[..., KeyPair]:
    return make_pair


def client_context(version: ssl.TLSVersion | None = None, alpn: tuple[str, ...] = ()) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


@attrs.define(eq=False)
class Client:
    """The client's end, over buffers in memory, so that the test says when and in what pieces bytes leave."""

    lane: Lane
    sock: socket.socket
    server: TlsConn
    context: ssl.SSLContext
    name: str | None = None
    session: ssl.SSLSession | None = None
    incoming: ssl.MemoryBIO = attrs.field(factory=ssl.MemoryBIO, init=False)
    outgoing: ssl.MemoryBIO = attrs.field(factory=ssl.MemoryBIO, init=False)
    tls: ssl.SSLObject = attrs.field(init=False)
    waiting: bytes = b""  # left OpenSSL, not taken by the socket yet
    seen: bytearray = attrs.field(factory=bytearray, init=False)  # all that has come, as it came

    def __attrs_post_init__(self) -> None:
        self.tls = self.context.wrap_bio(self.incoming, self.outgoing, server_hostname=self.name, session=self.session)

    def flush(self, piece: int = 1 << 20) -> bool:
        """Send what is ready, `piece` bytes at a time with a round after each. False when the socket takes no more."""
        self.waiting += self.outgoing.read()
        while self.waiting:
            try:
                sent = self.sock.send(self.waiting[:piece])
            except BlockingIOError:
                return False
            self.waiting = self.waiting[sent:]
            self.rounds()
        return True

    def fetch(self) -> None:
        """Take in what has come."""
        while True:
            try:
                data = self.sock.recv(1 << 16)
            except BlockingIOError:
                return
            if not data:
                self.incoming.write_eof()
                return
            self.seen += data
            self.incoming.write(data)

    def rounds(self) -> None:
        for _ in range(ROUNDS):
            if not self.lane._round():
                return
        raise AssertionError("the lane never rests")

    def handshake(self, piece: int = 1 << 20) -> None:
        for _ in range(20):
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.flush(piece)
                self.rounds()
                self.fetch()
            else:
                self.flush(piece)
                self.rounds()
                self.fetch()
                return
        raise AssertionError("the handshake does not end")

    def read(self, size: int = 1 << 16) -> bytes | None:
        """What is there; b"" after close_notify, None when nothing has come."""
        self.rounds()
        self.fetch()
        try:
            return self.tls.read(size)
        except ssl.SSLWantReadError:
            return None

    def read_all(self, count: int) -> bytes:
        got = bytearray()
        for _ in range(ROUNDS):
            if len(got) >= count:
                break
            got += self.read() or b""
        return bytes(got)

    def send(self, data: bytes) -> None:
        self.tls.write(data)
        assert self.flush()

    def certificate(self) -> bytes:
        """The server's, as DER."""
        found = self.tls.getpeercert(binary_form=True)
        assert found is not None
        return found


Dial = Callable[..., Client]


@pytest.fixture
def dial(by_hand: Lane) -> Iterator[Dial]:
    """Connect a client to an acceptor; the server's end is `client.server`, which the test gives a session."""
    made: list[Client] = []

    def dial(
        acceptor: Acceptor, name: str | None = None, context: ssl.SSLContext | None = None, session: object = None
    ) -> Client:
        theirs, ours = socket.socketpair()
        theirs.setblocking(False)
        server = acceptor.wrap(by_hand.adopt(ours))
        made.append(Client(by_hand, theirs, server, context or client_context(), name, session))  # type: ignore[arg-type]
        return made[-1]

    yield dial
    for client in made:
        client.sock.close()
        client.server.close()


async def echo(tls: TlsConn) -> None:
    try:
        await tls.handshake()
        while data := await tls.recv():
            await tls.send(data)
    finally:
        tls.close()


@pytest.fixture
def served(by_hand: Lane, dial: Dial) -> Callable[..., Any]:
    """Shake hands with an acceptor and return the client."""

    def served(acceptor: Acceptor, name: str | None = None, *args: Any) -> Client:
        client = dial(acceptor, name, *args)
        by_hand.spawn(echo(client.server))
        client.handshake()
        return client

    return served


@pytest.fixture(autouse=True)
def clean_error_queue() -> Iterator[None]:
    """OpenSSL keeps one queue of errors for the thread: what one connection leaves there the next would get."""
    yield
    left = openssl.ERR_peek_error()
    openssl.ERR_clear_error()
    assert left == 0
