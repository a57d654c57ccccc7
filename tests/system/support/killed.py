"""Clients that go away at random points: in the middle of a head, a handshake, a login, a query, an answer.

Each opens a connection to one of a site's listeners, says the beginning of something sensible, cut anywhere, perhaps
reads, and is closed, reset, half-closed, or kept a while and killed among the others. Nothing is judged here.
"""

import os
import random
import socket
import ssl
from collections import Counter, deque
from collections.abc import Callable, Mapping

import attrs
import psycopg

from supervisor.ground.net import proxy
from tests.system.support.clients import TIMEOUT, connect, reset
from tests.system.support.site import Site

KEPT = 100  # connections that live on for a while


def message(kind: bytes, body: bytes) -> bytes:
    """A message of PostgreSQL's protocol; the first packets have no kind."""
    return kind + (len(body) + 4).to_bytes(4, "big") + body


SSL_REQUEST = message(b"", (80877103).to_bytes(4, "big"))
STARTUP = message(b"", b"\0\x03\0\0user\0app\0database\0app\0\0")
FIRST = b"n,,n=app,r=0123456789abcdefghijkl"
SASL = message(b"p", b"SCRAM-SHA-256\0" + len(FIRST).to_bytes(4, "big") + FIRST)
BEGIN = message(b"Q", b"BEGIN\0")
QUERY = message(b"Q", b"SELECT 6 * 7\0")
SLEEP = message(b"Q", b"SELECT pg_sleep(1)\0")


def client_hello() -> bytes:
    """What a TLS client says first."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    hello = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    try:
        hello.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def logged_in(site: Site, database: str = "app") -> socket.socket:
    """The bare socket of a client that is logged in to the pooler; the caller closes it."""
    connection = site.sql(database=database)
    sock = socket.socket(fileno=os.dup(connection.fileno()))
    with open(os.devnull, "wb") as nothing:  # where psycopg may say goodbye
        os.dup2(nothing.fileno(), connection.fileno())
    connection.close()
    sock.settimeout(TIMEOUT)
    return sock


@attrs.define(eq=False)
class Killer:
    """Makes and kills connections, one after the other."""

    site: Site
    chance: random.Random
    counts: Counter[str] = attrs.Factory(Counter)
    _kept: deque[socket.socket] = attrs.Factory(deque)
    _hello: bytes = attrs.Factory(client_hello)
    _requests: bytes = b""

    def __attrs_post_init__(self) -> None:
        token = self.site.token("killed").encode()
        self._requests = (
            b"GET /open/x HTTP/1.1\r\nHost: a\r\n\r\n"
            b"GET /api/user/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + token + b"\r\n\r\n"
            b"POST /open/up HTTP/1.1\r\nHost: a\r\nContent-Length: 3000\r\n\r\n" + b"x" * 3000 + b""
            b"POST /open/up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
            b"GET /open/down?size=200000 HTTP/1.1\r\nHost: a\r\n\r\n"
            b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n"
        )

    def run(self, connections: int) -> None:
        """Make that many; all are gone when this returns."""
        kinds = list(KINDS)
        weights = [KINDS[kind][1] for kind in kinds]
        for kind in self.chance.choices(kinds, weights, k=connections):
            self.counts[kind] += 1
            try:
                KINDS[kind][0](self)
            except (OSError, psycopg.OperationalError):
                self.counts["refused"] += 1  # cut from the other side while it spoke
        while self._kept:
            self._end(self._kept.popleft())

    # -- what they say

    def stream(self) -> None:
        sock = connect(self.site.address("rtmp"))
        self._say(sock, b"x" * self.chance.randint(0, 5000), cut=False)

    def plain(self) -> None:
        self._say(connect(self.site.address("plain")), self._requests)

    def introduced(self) -> None:
        header = proxy.encode_v2(("192.0.2.1", 1234), ("192.0.2.2", 443))
        self._say(connect(self.site.address("gateway")), header + self._hello)

    def hello(self) -> None:
        self._say(connect(self.site.address("https")), self._hello)

    def tls(self) -> None:
        sock = connect(self.site.address("https"))
        try:
            secure = self.site.tls.wrap_socket(sock, server_hostname="localhost")
        except BaseException:
            sock.close()
            raise
        self._say(secure, self._requests)

    def startup(self) -> None:
        first = self.chance.choice((SSL_REQUEST, STARTUP + SASL, STARTUP))
        self._say(connect(self.site.address("sql")), first)

    def login(self) -> None:
        self._say(logged_in(self.site), self.chance.choice((BEGIN + QUERY, QUERY * 3, SLEEP, BEGIN * 2)))

    def datagram(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect(("127.0.0.1", self.site.ports["game"]))
            sock.send(b"x" * self.chance.randint(0, 1000))

    # -- how they end

    def _say(self, sock: socket.socket, data: bytes, cut: bool = True) -> None:
        end = self.chance.randint(0, len(data)) if cut else len(data)
        try:
            sock.settimeout(TIMEOUT)
            sock.sendall(data[:end])
            if self.chance.random() < 0.1:
                sock.settimeout(0.001)
                sock.recv(1 << 12)
        except TimeoutError:
            pass
        except BaseException:
            sock.close()
            raise
        if self.chance.random() < 0.3:
            self._kept.append(sock)
            if len(self._kept) > KEPT:
                self._end(self._kept[self.chance.randrange(KEPT)])
        else:
            self._end(sock)

    def _end(self, sock: socket.socket) -> None:
        try:
            self._kept.remove(sock)
        except ValueError:
            pass
        way = self.chance.random()
        try:
            if way < 0.4:
                reset(sock)
            elif way < 0.6:
                sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        finally:
            sock.close()


# What they are, and their share.
KINDS: Mapping[str, tuple[Callable[[Killer], None], int]] = {
    "stream": (Killer.stream, 35),
    "plain": (Killer.plain, 20),
    "introduced": (Killer.introduced, 4),
    "hello": (Killer.hello, 6),
    "tls": (Killer.tls, 6),
    "startup": (Killer.startup, 18),
    "login": (Killer.login, 1),
    "datagram": (Killer.datagram, 10),
}
