"""Request smuggling: every way known to us to have a request read as two, sent to the gateway before three servers that
read differently. Each is refused or neutral: what is hidden in one request never arrives as another, and whoever comes
next gets the answer to what was asked."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import attrs
import hpack
import pytest

from supervisor.cli.demo.ports import free_tcp_port
from tests.system.support.clients import Client, connect
from tests.system.support.daemon import Daemon
from tests.system.support.smuggled import KINDS, Reader

CONFIG = """
[supervisor]
workers = 1
[gateway.listeners.web]
bind = "{web}"
http2 = true
"""
ROUTE = """
[pools.{kind}]
servers = ["{address}"]
[gateway.routes.{kind}]
hosts = ["{kind}.test"]
pool = "{kind}"
"""

POST = b"POST /x HTTP/1.1\r\nHost: HOST\r\n"
GET = b"GET /x HTTP/1.1\r\nHost: HOST\r\n"
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: HOST\r\n\r\n"
SIZE = len(HIDDEN.replace(b"HOST", b"length.test"))
N, X = b"%d" % SIZE, b"%x" % SIZE
CHUNKED = b"Transfer-Encoding: chunked\r\n"
LAST = b"0\r\n\r\n"

# What goes out, and whether it must be refused (else the whole of it is one harmless request, or several).
CASES: dict[str, tuple[bytes, bool]] = {
    # CL.TE and TE.CL
    "CL.TE": (POST + b"Content-Length: 6\r\n" + CHUNKED + b"\r\n" + LAST + HIDDEN, True),
    "TE.CL": (POST + CHUNKED + b"Content-Length: 4\r\n\r\n" + X + b"\r\n" + HIDDEN + b"\r\n" + LAST, True),
    "CL.TE, the length first and right": (POST + b"Content-Length: 5\r\n" + CHUNKED + b"\r\n" + LAST + HIDDEN, True),
    "two lengths": (POST + b"Content-Length: 0\r\nContent-Length: " + N + b"\r\n\r\n" + HIDDEN, True),
    "a list of lengths": (POST + b"Content-Length: 0, " + N + b"\r\n\r\n" + HIDDEN, True),
    "a length with a sign": (POST + b"Content-Length: +0\r\n\r\n" + HIDDEN, True),
    "a length in hexadecimal": (POST + b"Content-Length: 0x0\r\n\r\n" + HIDDEN, True),
    "a length with an underscore": (POST + b"Content-Length: 1_0\r\n\r\n" + HIDDEN, True),
    "a length after a tab within": (POST + b"Content-Length: 0\t1\r\n\r\n" + HIDDEN, True),
    # TE.TE: a coding that only some see
    "TE.TE, x-chunked": (POST + b"Transfer-Encoding: xchunked\r\nContent-Length: 5\r\n\r\n" + LAST + HIDDEN, True),
    "TE.TE, twice": (POST + CHUNKED + b"Transfer-Encoding: x\r\n\r\n" + LAST + HIDDEN, True),
    "TE.TE, identity": (POST + b"Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\n" + LAST + HIDDEN, True),
    "TE.TE, a list": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + LAST + HIDDEN, True),
    "TE.TE, quoted": (POST + b'Transfer-Encoding: "chunked"\r\nContent-Length: 5\r\n\r\n' + LAST + HIDDEN, True),
    "TE.TE, after a vertical tab": (POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n" + LAST + HIDDEN, True),
    "TE.TE, a blank before the colon": (POST + b"Transfer-Encoding : chunked\r\n\r\n" + LAST + HIDDEN, True),
    "TE.TE, a blank before the name": (POST + b" Transfer-Encoding: chunked\r\n\r\n" + LAST + HIDDEN, True),
    "TE.TE, a null": (POST + b"Transfer-Encoding: chunked\0\r\n\r\n" + LAST + HIDDEN, True),
    "TE.TE, folded": (POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + LAST + HIDDEN, True),
    "TE.TE, by a line feed": (POST + b"X: y\nTransfer-Encoding: chunked\r\n\r\n" + LAST + HIDDEN, True),
    "TE.TE, by a carriage return": (POST + b"X: y\rTransfer-Encoding: chunked\r\n\r\n" + LAST + HIDDEN, True),
    "TE in HTTP/1.0": (b"POST /x HTTP/1.0\r\nHost: HOST\r\n" + CHUNKED + b"\r\n" + LAST + HIDDEN, True),
    "an underscore in the coding's name": (
        POST + b"Transfer_Encoding: chunked\r\nContent-Length: 5\r\n\r\n" + LAST, False),
    "an underscore in the length's name": (POST + CHUNKED + b"Content_Length: 5\r\n\r\n" + LAST, False),
    # CL.0: a body that somebody does not read
    "CL.0": (GET + b"Content-Length: " + N + b"\r\n\r\n" + HIDDEN, False),
    "CL.0 on HEAD": (
        b"HEAD /x HTTP/1.1\r\nHost: HOST\r\nContent-Length: " + N + b"\r\nConnection: close\r\n\r\n" + HIDDEN, False),
    "0.CL by Connection": (
        POST + b"Connection: content-length\r\nContent-Length: " + N + b"\r\n\r\n" + HIDDEN, False),
    "0.TE by Connection": (
        POST + b"Connection: transfer-encoding\r\n" + CHUNKED + b"\r\n" + X + b"\r\n" + HIDDEN + b"\r\n" + LAST,
        False),
    "an expectation, and the body at once": (
        POST + b"Expect: 100-continue\r\nContent-Length: " + N + b"\r\n\r\n" + HIDDEN, False),
    # Line ends and lines
    "bare line feeds": (b"GET /x HTTP/1.1\nHost: HOST\nContent-Length: 0\n\n" + HIDDEN, True),
    "a bare line feed at the end of the head": (GET + b"X: y\n\n" + HIDDEN, True),
    "a folded length": (GET + b"X: y\r\n Content-Length: " + N + b"\r\n\r\n" + HIDDEN, True),
    "a folded line before the fields": (b"GET /x HTTP/1.1\r\n X: y\r\nHost: HOST\r\n\r\n" + HIDDEN, True),
    "a request within the target": (b"GET /x HTTP/1.1\r\nX: y HTTP/1.1\r\nHost HOST\r\n\r\n" + HIDDEN, True),
    "a line feed in the target": (b"GET /x\nGET /hidden HTTP/1.1\r\nHost: HOST\r\n\r\n", True),
    "HTTP/0.9": (b"GET /x\r\n\r\n" + HIDDEN, True),
    "a version of its own": (b"GET /x HTTP/1.10\r\nHost: HOST\r\n\r\n" + HIDDEN, True),
    # Chunks
    "a size with a sign": (POST + CHUNKED + b"\r\n+0\r\n\r\n" + HIDDEN, True),
    "a size with 0x": (POST + CHUNKED + b"\r\n0x0\r\n\r\n" + HIDDEN, True),
    "a size with an underscore": (POST + CHUNKED + b"\r\n0_0\r\n\r\n" + HIDDEN, True),
    "a size that overflows": (POST + CHUNKED + b"\r\n10000000000000000\r\n\r\n" + LAST + HIDDEN, True),
    "a size after a blank": (POST + CHUNKED + b"\r\n 0\r\n\r\n" + HIDDEN, True),
    "a size line that ends with a line feed": (POST + CHUNKED + b"\r\n5;\nhello\r\n0\r\n\r\n" + HIDDEN, True),
    "an extension with a line feed": (POST + CHUNKED + b"\r\n2;a=\nxx\r\n4c\r\n" + LAST + HIDDEN, True),
    "an extension with a carriage return": (POST + CHUNKED + b"\r\n2;a=\rxx\r\nab\r\n" + LAST + HIDDEN, True),
    "a chunk longer than its size": (POST + CHUNKED + b"\r\n2\r\nabc\r\n" + LAST + HIDDEN, True),
    "a chunk that ends with a line feed": (POST + CHUNKED + b"\r\n2\r\nab\n" + LAST + HIDDEN, True),
    "a trailer that frames": (POST + CHUNKED + b"\r\n0\r\nContent-Length: " + N + b"\r\n\r\n", False),
    "a trailer with a line feed": (POST + CHUNKED + b"\r\n0\r\nX: y\n\r\n" + HIDDEN, True),
    "extensions that say nothing": (POST + CHUNKED + b"\r\n5;a=b;c\r\nhello\r\n0;x\r\n\r\n", False),
    "sizes with zeros": (POST + CHUNKED + b"\r\n0005\r\nhello\r\n000\r\n\r\n", False),
    # Hosts and ways around
    "two hosts": (b"GET /x HTTP/1.1\r\nHost: HOST\r\nHost: other\r\n\r\n" + HIDDEN, True),
    "a host in the target, another beside it": (b"GET http://other/x HTTP/1.1\r\nHost: HOST\r\n\r\n" + HIDDEN, True),
    "CONNECT": (b"CONNECT HOST:80 HTTP/1.1\r\nHost: HOST\r\n\r\n" + HIDDEN, True),
    "Upgrade to h2c": (
        GET + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n", False),
    "Upgrade with a body": (
        POST + b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: " + N + b"\r\n\r\n" + HIDDEN, False),
}  # fmt: skip

Fields = list[tuple[bytes, bytes]]
USUAL: Fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/x"), (b":authority", b"HOST")]


def changed(name: bytes, value: bytes) -> Fields:
    return [(key, value if key == name else old) for key, old in USUAL]


# Fields and DATA of a request by HTTP/2, for a server of HTTP/1.1 (H2.CL, H2.TE, and line ends where none can be).
DOWNGRADED: dict[str, tuple[Fields, bytes]] = {
    "H2.CL, too short": ([*USUAL, (b"content-length", b"0")], HIDDEN),
    "H2.CL, too long": ([*USUAL, (b"content-length", b"999")], HIDDEN),
    "H2.CL, twice": ([*USUAL, (b"content-length", N), (b"content-length", b"0")], HIDDEN),
    "H2.CL, no number": ([*USUAL, (b"content-length", b"+0")], HIDDEN),
    "H2.TE": ([*USUAL, (b"transfer-encoding", b"chunked")], LAST + HIDDEN),
    "H2.TE behind a line end": ([*USUAL, (b"x", b"y\r\ntransfer-encoding: chunked")], LAST + HIDDEN),
    "a head behind a line end": ([*USUAL, (b"x", b"y\r\n\r\n" + HIDDEN)], b""),
    "a head behind a line feed": ([*USUAL, (b"x", b"y\n\n" + HIDDEN)], b""),
    "a null": ([*USUAL, (b"x", b"y\0z")], b""),
    "a line end in a name": ([*USUAL, (b"x: y\r\ntransfer-encoding", b"chunked")], LAST + HIDDEN),
    "a colon in a name": ([*USUAL, (b"transfer-encoding: chunked\r\nx", b"y")], LAST + HIDDEN),
    "a blank in a name": ([*USUAL, (b"content-length ", b"0")], HIDDEN),
    "capitals": ([*USUAL, (b"Transfer-Encoding", b"chunked")], LAST + HIDDEN),
    "a line end in the path": (changed(b":path", b"/x HTTP/1.1\r\nHost: a\r\n\r\nGET /hidden"), b""),
    "a blank in the path": (changed(b":path", b"/x HTTP/1.1"), b""),
    "a line end in the method": (changed(b":method", b"GET /hidden HTTP/1.1\r\n\r\nPOST"), b""),
    "a line end in the authority": (changed(b":authority", b"HOST\r\nX: y\r\n\r\n" + HIDDEN), b""),
    "a line end in the scheme": (changed(b":scheme", b"http\r\nx: y"), b""),
    "another host": ([*USUAL, (b"host", b"other")], b""),
    "connection": ([*USUAL, (b"connection", b"content-length")], HIDDEN),
    "upgrade": ([*USUAL, (b"upgrade", b"websocket")], b""),
    "a line end in a cookie": ([*USUAL, (b"cookie", b"a=1"), (b"cookie", b"b=2\r\n\r\n" + HIDDEN)], b""),
    "an unknown pseudo-header": ([*USUAL, (b":hidden", b"y")], b""),
    "a pseudo-header after fields": ([*USUAL[:3], (b"x", b"y"), USUAL[3]], b""),
}


@attrs.define(eq=False)
class Site:
    web: str
    readers: dict[str, Reader]

    def after(self, kind: str) -> None:
        """Others get the answers to their own requests, and nothing hidden has arrived."""
        for number in range(2):
            with Client(self.web) as client:
                for turn in range(2):
                    target = f"/after/{number}/{turn}"
                    assert client.get(target, {"Host": f"{kind}.test"}).body == target.encode()
        assert [target for target in self.readers[kind].targets if "hidden" in target] == []


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with contextlib.ExitStack() as stack:
        readers = {kind: Reader(kind) for kind in KINDS}
        for reader in readers.values():
            stack.callback(reader.close)
        web = f"127.0.0.1:{free_tcp_port()}"
        routes = (ROUTE.format(kind=kind, address=reader.address) for kind, reader in readers.items())
        daemon = Daemon.start(tmp_path_factory.mktemp("smuggling"), CONFIG.format(web=web) + "".join(routes))
        stack.callback(daemon.stop)
        yield Site(web, readers)


def said(sock: socket.socket, enough: bytes = b"") -> bytes:
    """What comes until the end, or until `enough` has come."""
    found = b""
    with contextlib.suppress(ConnectionResetError, TimeoutError):
        while data := sock.recv(1 << 16):
            found += data
            if enough and enough in found:
                break
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CASES)
def test_what_is_hidden_in_a_request_stays_there(site: Site, kind: str, name: str) -> None:
    data, refused = CASES[name]
    host = f"{kind}.test".ljust(len("length.test"), ".").encode()  # a dot at the end names the same host
    with connect(site.web) as sock:
        sock.sendall(data.replace(b"HOST", host))
        if refused:
            answer = said(sock)
            *before, last = answer.split(b"HTTP/1.1 ")[1:]
            assert 400 <= int(last[:3]) < 600
            assert not before
        else:
            answer = said(sock, b"\r\n\r\n")
            assert answer.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 100 ")), answer
    site.after(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_no_line_end_comes_down_from_http_2(site: Site, kind: str) -> None:
    host = f"{kind}.test".ljust(len("length.test"), ".").encode()
    for name, (fields, body) in DOWNGRADED.items():
        block = hpack.Encoder().encode([(key, value.replace(b"HOST", host)) for key, value in fields], huffman=False)
        body = body.replace(b"HOST", host)
        frames = [(4, 0, 0, b""), (1, 4 | (not body), 1, block)] + ([(0, 1, 1, body)] if body else [])
        with connect(site.web, 5.0) as sock:
            sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"".join(
                len(payload).to_bytes(3, "big") + bytes([code, flags]) + stream.to_bytes(4, "big") + payload
                for code, flags, stream, payload in frames
            ))  # fmt: skip
            while True:  # until the stream is answered or reset, or the connection ends
                head = sock.recv(9, socket.MSG_WAITALL)
                if len(head) < 9:
                    break
                payload = sock.recv(int.from_bytes(head[:3], "big"), socket.MSG_WAITALL)
                if head[3] in (1, 3) and head[5:9] == b"\0\0\0\1":
                    if head[3] == 1:
                        status = hpack.Decoder().decode(payload)[0][1]
                        assert int(status) >= 400 or "hidden" not in name, (name, status)
                    break
        site.after(kind)
