"""Layer 4, TLS and PROXY headers under abuse: streams to dead and full servers, broken handshakes, forged headers."""

import json
import random
import socket
import ssl
import struct
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from supervisor.ground.net import proxy
from tests.system.support.abused import PATIENCE, Abused, buffers, rest_of, said
from tests.system.support.clients import connect, reset
from tests.system.support.killed import client_hello
from tests.system.support.poll import until

MIB = 1 << 20
HELLO = client_hello()
HEADER = proxy.encode_v2(("192.0.2.1", 1234), ("192.0.2.2", 443))


def record(kind: int, body: bytes, version: bytes = b"\x03\x03") -> bytes:
    """A TLS record."""
    return bytes([kind]) + version + struct.pack("!H", len(body)) + body


# Instead of a TLS hello. What comes back is nothing, or an alert.
HANDSHAKES: dict[str, bytes] = {
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "zeros": bytes(1000),
    "SSL 2": b"\x80\x2e\x01\0\2\0\x15\0\0\0\x10\1\0\x80\2\0\x80" + bytes(32),
    "half a hello": HELLO[: len(HELLO) // 2],
    "a record that is too long": b"\x16\x03\x01\xff\xff" + bytes(70_000),
    "a hello of another length": HELLO[:6] + b"\xff\xff\xff" + HELLO[9:],
    "a hello with a broken extension": HELLO[:-20] + b"\xff" * 20,
    "an alert": record(0x15, b"\x02\x28"),
    "data": record(0x17, b"x" * 100),
    "empty records": record(0x16, b"") * 1000,
    "hello, hello": HELLO + HELLO,
    "hello and garbage": HELLO + bytes(range(256)) * 20,
    "an unknown record": record(0x63, b"x" * 100),
    "heartbeats": record(0x18, b"\x01\xff\xff") * 10,
}

# Instead of a PROXY header, to who must send one.
HEADERS: dict[str, bytes] = {
    "half a header": HEADER[:20],
    "TLS without a header": HELLO,
    "HTTP": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "another version": proxy.SIGNATURE + b"\x31\x11\0\x0c" + bytes(12),
    "an unknown command": proxy.SIGNATURE + b"\x2f\x11\0\x0c" + bytes(12),
    "too short for its family": proxy.SIGNATURE + b"\x21\x11\0\x04" + bytes(4),
    "64 KiB of TLVs": proxy.SIGNATURE + b"\x21\x11\xff\xff" + bytes(65535),
    "a v1 line without an end": b"PROXY TCP4 " + b"1" * 500,
    "a v1 line with other words": b"PROXY TCP9 a b c d\r\n",
    "a v1 line with bad addresses": b"PROXY TCP4 999.1.1.1 1.1.1.1 1 2\r\n",
    "a v1 line with a bad port": b"PROXY TCP4 1.1.1.1 1.1.1.1 1 99999\r\n",
    "random bytes": random.Random(9).randbytes(300),
}


@pytest.fixture(autouse=True)
def neighbour(abused: Abused) -> Iterator[None]:
    """Whatever a test does, the neighbour goes on."""
    yield
    abused.undisturbed()


def judge(answer: bytes) -> None:
    """Nothing, or what a TLS server says of its own: hello, alert."""
    assert answer[:1] in (b"", b"\x15", b"\x16"), answer[:100]
    assert b"HTTP/" not in answer


@pytest.mark.parametrize("what", HANDSHAKES)
def test_a_broken_handshake_ends_with_an_alert_or_a_close(abused: Abused, what: str) -> None:
    with connect(abused.site.address("https")) as sock:
        judge(said(sock, HANDSHAKES[what], half_close=True))
    with connect(abused.site.address("gateway")) as sock:
        judge(said(sock, HEADER + HANDSHAKES[what], half_close=True))


@pytest.mark.parametrize("what", HEADERS)
def test_a_missing_or_broken_proxy_header_is_a_close_without_a_word(abused: Abused, what: str) -> None:
    began = time.monotonic()
    with connect(abused.site.address("gateway")) as sock:
        assert said(sock, HEADERS[what], half_close=True) == b""
    assert time.monotonic() - began < PATIENCE, "at once, not by a deadline"


def test_plain_http_on_a_tls_port_is_told_so(abused: Abused) -> None:
    for address, before in ((abused.site.address("https"), b""), (abused.site.address("gateway"), HEADER)):
        with connect(address) as sock:
            answer = said(sock, before + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", half_close=True)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"plain_http" in answer


def test_the_header_may_come_in_single_bytes(abused: Abused) -> None:
    with connect(abused.site.address("gateway")) as sock:
        for byte in HEADER:
            sock.sendall(bytes([byte]))
        with abused.site.tls.wrap_socket(sock, server_hostname="localhost") as secure:
            secure.sendall(b"GET /quiet/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            answer = rest_of(secure)
    headers = dict(json.loads(answer.partition(b"\r\n\r\n")[2])["headers"])
    assert headers["X-Forwarded-For"] == "192.0.2.1"


@pytest.mark.parametrize("what", ["old versions only", "a foreign authority"])
def test_a_client_that_can_not_agree_is_told_by_an_alert(abused: Abused, what: str) -> None:
    context = ssl.create_default_context()
    if what == "old versions only":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings(action="ignore"):  # they are deprecated, that is the point
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = ssl.TLSVersion.TLSv1_1
    with connect(abused.site.address("https")) as sock, pytest.raises(ssl.SSLError):
        context.wrap_socket(sock, server_hostname="localhost")


def test_garbage_inside_a_tls_connection_costs_that_connection(abused: Abused) -> None:
    site = abused.site
    for data in (bytes(100), record(0x17, b"x" * 50), record(0x16, b"\0\0\0\0"), record(0x15, b"\x01\0")):
        with connect(site.address("https")) as sock:
            copy = sock.dup()  # the TCP connection under the TLS
            with site.tls.wrap_socket(sock, server_hostname="localhost"), copy:
                copy.settimeout(20)
                rest = said(copy, data)
                assert b"HTTP/" not in rest


def test_a_thousand_handshakes_that_never_end_hold_nobody_up(abused: Abused) -> None:
    with ExitStack() as stack:
        for number in range(1000):
            sock = stack.enter_context(connect(abused.site.address("https")))
            sock.sendall(HELLO[: number % len(HELLO)])
        abused.undisturbed()
    until(lambda: abused.site.counts()["edge/https active"] < 50, "them to be gone")


# -- streams


def test_a_dead_server_is_a_reset(abused: Abused) -> None:
    def attempt() -> bytes:
        with connect(abused.site.address("edge_dead")) as sock:
            return sock.recv(1)

    for _ in range(20):
        with pytest.raises(ConnectionResetError):
            attempt()


def test_a_server_whose_queue_is_full_is_passed_over(abused: Abused) -> None:
    """By the first few; then it is left out for a while."""
    for _ in range(8):
        with connect(abused.site.address("edge_full")) as sock:
            sock.sendall(b"hello")
            assert sock.recv(5) == b"hello"


def test_streams_that_nobody_reads_cost_no_more_than_their_buffers(abused: Abused) -> None:
    site = abused.site
    most = 4 * buffers() + 8 * MIB  # to the server and back; and what the two processes hold in between
    sent = []
    with ExitStack() as stack:
        for _ in range(8):
            sock = stack.enter_context(connect(site.address("rtmp")))
            sock.settimeout(0.2)
            total = 0
            try:
                while total <= most:
                    total += sock.send(bytes(1 << 16))
            except TimeoutError:
                pass
            sent.append(total)
        abused.undisturbed()
        assert max(sent) <= most, "somebody has to stop taking it"


def test_half_open_streams_are_carried_until_the_other_half_ends(abused: Abused) -> None:
    with ExitStack() as stack:
        halves = [stack.enter_context(connect(abused.site.address("rtmp"))) for _ in range(100)]
        for sock in halves:
            sock.sendall(b"last words")
            sock.shutdown(socket.SHUT_WR)
        assert [rest_of(sock) for sock in halves] == [b"last words"] * 100


def test_a_storm_of_resets_leaves_the_listener_alone(abused: Abused) -> None:
    for number in range(500):
        sock = connect(abused.site.address("rtmp"))
        if number % 2:
            sock.sendall(b"x" * 100)
        reset(sock)
    until(lambda: abused.site.counts()["edge/rtmp active"] < 10, "them to be gone")


def test_datagrams_of_any_size_and_number_are_taken(abused: Abused) -> None:
    """Empty ones, the largest, and many at once: some may be lost, none may harm."""
    with abused.site.player("127.0.0.99", timeout=0.2) as player:

        def answered() -> bool:
            return bool(player.ask(b"last")["data"])  # a TimeoutError means: not yet

        for size in (0, 1, 1472, 1473, 9000, 65507):
            player.sock.send((b"silent " + bytes(size))[:size])
            until(answered, "an answer after it")
        for _ in range(100):
            player.sock.send(b"silent flood")
        until(answered, "an answer after the flood")
