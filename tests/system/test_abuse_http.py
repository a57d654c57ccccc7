"""Requests that are malformed, oversized, slow, or meant to be read in two ways: each costs its own connection.

They go to the gateway as they are, and by TLS through the edge. Meanwhile an ordinary user of the site is served.
"""

import contextlib
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.system.support.abused import PATIENCE, Abused, buffers, rest_of, said
from tests.system.support.clients import connect, fetch, read_until, reset
from tests.system.support.killed import client_hello
from tests.system.support.poll import until
from tests.system.support.processes import resident
from tests.system.support.site import Site

KIB = 1024
MIB = 1024 * KIB
GET = b"GET /quiet/x HTTP/1.1\r\nHost: a\r\n"
POST = b"POST /quiet/x HTTP/1.1\r\nHost: a\r\n"
HIDDEN = b"GET /quiet/hidden HTTP/1.1\r\nHost: a\r\n\r\n"  # what smugglers want to arrive as a request of its own
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

# What must be refused at its head: the status of the answer, after which the connection ends.
REFUSED: dict[str, tuple[bytes, int]] = {
    "length beside coding": (POST + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN, 400),
    "coding beside length": (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 60\r\n\r\n0\r\n\r\n" + HIDDEN, 400),
    "two lengths": (POST + b"Content-Length: 0\r\nContent-Length: 40\r\n\r\n" + HIDDEN, 400),
    "the same length twice": (POST + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n" + HIDDEN, 400),
    "a list of lengths": (POST + b"Content-Length: 0, 0\r\n\r\n" + HIDDEN, 400),
    "a signed length": (POST + b"Content-Length: +0\r\n\r\n" + HIDDEN, 400),
    "a negative length": (POST + b"Content-Length: -1\r\n\r\n" + HIDDEN, 400),
    "a hexadecimal length": (POST + b"Content-Length: 0x0\r\n\r\n" + HIDDEN, 400),
    "an empty length": (POST + b"Content-Length: \r\n\r\n" + HIDDEN, 400),
    "an endless length": (POST + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n", 400),
    "a space before the colon": (POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + HIDDEN, 400),
    "a coding after a tab": (POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + HIDDEN, 400),
    "two codings": (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN, 400),
    "an unknown coding": (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + HIDDEN, 501),
    "a coding before chunked": (POST + b"Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n" + HIDDEN, 501),
    "a coding in HTTP/1.0": (
        b"POST /quiet/x HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
        400,
    ),
    "a folded line": (GET + b"X-A: b\r\n Content-Length: 40\r\n\r\n" + HIDDEN, 400),
    "a line before the fields": (b"GET /quiet/x HTTP/1.1\r\n Host: a\r\n\r\n", 400),
    "a bare line feed": (b"GET /quiet/x HTTP/1.1\nHost: a\n\n" + HIDDEN, 400),
    "a bare line feed in a value": (GET + b"X-A: b\nContent-Length: 40\r\n\r\n" + HIDDEN, 400),
    "a bare carriage return": (GET + b"X-A: b\rContent-Length: 40\r\n\r\n" + HIDDEN, 400),
    "a null in a value": (GET + b"X-A: b\0c\r\n\r\n", 400),
    "a null in a name": (GET + b"X\0A: b\r\n\r\n", 400),
    "a field without a colon": (GET + b"Content-Length\r\n\r\n", 400),
    "a field without a name": (GET + b": x\r\n\r\n", 400),
    "no host": (b"GET /quiet/x HTTP/1.1\r\n\r\n", 400),
    "two hosts": (GET + b"Host: b\r\n\r\n", 400),
    "a host with a path": (b"GET /quiet/x HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    "an encoded slash": (b"GET /quiet/x%2fy HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "a path above the root": (b"GET /quiet/../../x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "a malformed escape": (b"GET /quiet/%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "a space in the target": (b"GET /quiet/x y HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "HTTP/0.9": (b"GET /quiet/x\r\n\r\n", 400),
    "HTTP/2 without a word": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "HTTP/3.0": (b"GET /quiet/x HTTP/3.0\r\nHost: a\r\n\r\n", 505),
    "CONNECT": (b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 405),
    "a target of 9 KiB": (b"GET /quiet/" + b"x" * 9 * KIB + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    "a head of 40 KiB": (GET + b"X-A: " + b"x" * 40 * KIB + b"\r\n\r\n", 431),
    "a head of 1 MiB": (GET + b"X-A: " + b"x" * MIB, 431),
    "120 fields": (GET + b"X-A: b\r\n" * 120 + b"\r\n", 431),
    "garbage": (b"\x00\xff\x13\x37 is not a request\r\n\r\n", 400),
    "a TLS hello in clear text": (client_hello(), 400),
    "SQL": (b"\0\0\0\x08\x04\xd2\x16\x2f", 400),
    "a body that is too large": (POST + b"Content-Length: 70000\r\n\r\n" + b"x" * 70000, 413),
}

# What shows only in the body, when the backend may have been told already: it must never see a second request.
BROKEN_BODIES: dict[str, bytes] = {
    "a chunk longer than its size": b"5\r\nhello world\r\n0\r\n\r\n" + HIDDEN,
    "no size": b"\r\nhello\r\n0\r\n\r\n" + HIDDEN,
    "a signed size": b"+5\r\nhello\r\n0\r\n\r\n" + HIDDEN,
    "a prefixed size": b"0x5\r\nhello\r\n0\r\n\r\n" + HIDDEN,
    "a huge size": b"f" * 20 + b"\r\nhello\r\n0\r\n\r\n" + HIDDEN,
    "a size ended by a line feed": b"5\nhello\r\n0\r\n\r\n" + HIDDEN,
    "an endless extension": b"5;" + b"x" * 20 * KIB + b"\r\nhello\r\n0\r\n\r\n" + HIDDEN,
    "a line feed in an extension": b"5;a\nb\r\nhello\r\n0\r\n\r\n" + HIDDEN,
    "a length in the trailers, folded": b"5\r\nhello\r\n0\r\nX: y\r\n Content-Length: 9\r\n\r\n" + HIDDEN,
    "endless trailers": b"5\r\nhello\r\n0\r\n" + b"X: y\r\n" * 8000 + b"\r\n" + HIDDEN,
    "more than the route takes": (b"1000\r\n" + b"x" * 4096 + b"\r\n") * 20 + b"0\r\n\r\n" + HIDDEN,
}

Carry = Callable[[], socket.socket]


def secured(site: Site) -> socket.socket:
    """A TLS connection through the edge to the gateway."""
    return site.tls.wrap_socket(connect(site.address("https")), server_hostname="localhost")


@pytest.fixture(params=["plain", "tls"])
def carry(request: pytest.FixtureRequest, abused: Abused) -> Carry:
    """A connection to the gateway: as it is, or by TLS through the edge."""
    site = abused.site
    if request.param == "plain":
        return lambda: connect(site.address("plain"))
    return lambda: secured(site)


@pytest.fixture(autouse=True)
def neighbour(abused: Abused) -> Iterator[None]:
    """Whatever a test does, the neighbour goes on."""
    yield
    abused.undisturbed()


def asked(abused: Abused) -> int:
    """How many requests have reached the quiet backend."""
    requests: int = fetch(abused.quiet.address, "/count").json()["requests"]
    return requests


def judge(answer: bytes, *statuses: int) -> None:
    """One answer of the gateway's own with one of these statuses, and nothing behind it."""
    assert answer.startswith(tuple(b"HTTP/1.1 %d " % status for status in statuses)), answer[:300]
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"\r\nConnection: close" in head
    assert json.loads(body)["status"] in statuses
    assert b"\nHTTP/1.1 " not in answer


@pytest.mark.parametrize("what", REFUSED)
def test_a_head_that_must_be_refused_is_and_reaches_nobody(abused: Abused, what: str) -> None:
    data, status = REFUSED[what]
    before = asked(abused)
    with connect(abused.site.address("plain")) as sock:
        judge(said(sock, data), status)
    assert asked(abused) == before + 1


def test_a_head_that_must_be_refused_is_so_by_tls_through_the_edge(abused: Abused) -> None:
    before = asked(abused)
    for data, status in REFUSED.values():
        with secured(abused.site) as sock:
            judge(said(sock, data), status)
    assert asked(abused) == before + 1


@pytest.mark.parametrize("what", BROKEN_BODIES)
def test_a_body_that_can_be_read_in_two_ways_smuggles_nothing(abused: Abused, carry: Carry, what: str) -> None:
    before = asked(abused)
    with carry() as sock:
        judge(said(sock, CHUNKED + BROKEN_BODIES[what]), 413 if what.startswith("more") else 400)
    assert asked(abused) <= before + 2, "the broken request at most, and this question"


def test_random_bytes_are_told_that_they_are_no_request(abused: Abused, carry: Carry) -> None:
    chance = random.Random(3)
    before = asked(abused)
    for size in (1, 2, 3, 10, 100, 1000, 10_000, 60_000) * 3:
        with carry() as sock:
            judge(said(sock, chance.randbytes(size) + b"\r\n\r\n"), 400, 431)
    assert asked(abused) == before + 1


def test_a_request_in_single_bytes_is_served(abused: Abused, carry: Carry) -> None:
    data = POST + b"Content-Length: 5\r\n\r\nhello"
    with carry() as sock:
        for byte in data:
            sock.sendall(bytes([byte]))
        assert b'"body": "hello"' in read_until(sock, b"}")


def test_thousands_of_requests_in_one_breath_are_answered_in_order(abused: Abused, carry: Carry) -> None:
    """And while their answers are not read, they wait outside."""
    count = 1500
    with carry() as sock:
        for number in range(0, count, 100):
            requests = (b"GET /quiet/%d HTTP/1.1\r\nHost: a\r\n\r\n" % each for each in range(number, number + 100))
            sock.sendall(b"".join(requests))
        sock.sendall(b"GET /quiet/last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        answer = rest_of(sock)
    assert answer.count(b"HTTP/1.1 200 ") == count + 1
    targets = [part.split(b'"', 1)[0] for part in answer.split(b'"target": "/quiet/')[1:]]
    assert targets == [b"%d" % number for number in range(count)] + [b"last"]


def test_who_does_not_read_costs_no_memory(abused: Abused, carry: Carry) -> None:
    workers = abused.site.workers()
    pids = workers["gateway"] + workers["edge"]
    before = sum(resident(pid) for pid in pids)
    sent = abused.site.daemon.metric("portway_server_bytes_in_total", pool="quiet")
    greedy = [carry() for _ in range(4)]
    for sock in greedy:
        sock.sendall(b"GET /quiet/x?size=100000000 HTTP/1.1\r\nHost: a\r\n\r\n")
    carried: list[float] = []

    def stalled() -> bool:
        carried.append(abused.site.daemon.metric("portway_server_bytes_in_total", pool="quiet") - sent)
        return len(carried) > 3 and carried[-1] == carried[-3] > 0

    until(stalled, "the transfer to come to rest")
    assert carried[-1] < 4 * 2 * buffers(), "the kernel's, from gateway to edge to client, and no more"
    assert sum(resident(pid) for pid in pids) < before + 8 * MIB
    for sock in greedy:
        reset(sock)


def test_the_head_of_a_request_arrives_soon_or_never(abused: Abused) -> None:
    """Slow and silent clients of every listener at once, told or closed at their deadlines."""
    site = abused.site
    hello = client_hello()
    slow: dict[str, tuple[socket.socket, bytes, float]] = {}  # what it has sent, how its answer begins, by when

    def start(name: str, sock: socket.socket, data: bytes, answer: bytes, seconds: float) -> None:
        sock.sendall(data)
        slow[name] = (sock, answer, seconds)

    with contextlib.ExitStack() as stack:
        start("a silent client", connect(site.address("plain")), b"", b"", 13)
        start("half a head", connect(site.address("plain")), GET, b"HTTP/1.1 408 ", 13)
        start("half a head by TLS", secured(site), GET, b"HTTP/1.1 408 ", 13)
        start("half a body", connect(site.address("plain")), POST + b"Content-Length: 9\r\n\r\nx", b"HTTP/1.1 408 ", 13)
        start("half a chunk", secured(site), CHUNKED + b"9\r\nx", b"HTTP/1.1 408 ", 13)
        start("no hello", connect(site.address("https")), b"", b"", 13)
        start("half a hello", connect(site.address("https")), hello[:100], b"", 13)
        start("no PROXY header", connect(site.address("gateway")), b"", b"", 13)
        start("half a PROXY header", connect(site.address("gateway")), b"\r\n\r\n\0\r\nQUIT", b"", 13)
        start("half a startup packet", connect(site.address("sql")), b"\0\0\0\x20\0\x03\0\0user", b"E", 3)
        start("a silent database client", connect(site.address("sql")), b"", b"E", 3)
        start("half a login", connect(site.address("sql")), b"\0\0\0\x12\0\x03\0\0user\0app\0\0", b"R", 3)
        for sock, _, _ in slow.values():
            stack.enter_context(sock)
        began = time.monotonic()
        ends: dict[str, tuple[bytes, float]] = {}

        def watch(name: str, sock: socket.socket) -> None:
            answer = rest_of(sock)
            ends[name] = (answer, time.monotonic() - began)

        watchers = [threading.Thread(target=watch, args=(name, sock)) for name, (sock, _, _) in slow.items()]
        for watcher in watchers:
            watcher.start()
        for watcher in watchers:
            watcher.join()
    assert ends.keys() == slow.keys()
    for name, (_, expected, seconds) in slow.items():
        answer, took = ends[name]
        assert answer.startswith(expected), (name, answer[:200])
        assert took < seconds, name


# -- backends


def test_a_dead_backend_is_told_at_once(abused: Abused) -> None:
    answer = fetch(abused.site.address("plain"), "/dead/x")
    assert (answer.status, answer.json()["code"]) == (502, "connect_failed")


@pytest.mark.parametrize(("path", "code"), [("/frozen/x", "answer_timeout"), ("/full/x", "connect_timeout")])
def test_a_backend_that_says_nothing_is_told_in_time(abused: Abused, path: str, code: str) -> None:
    began = time.monotonic()
    answer = fetch(abused.site.address("plain"), path)
    assert (answer.status, answer.json()["code"]) == (504, code)
    assert time.monotonic() - began < PATIENCE  # half a second is what its route allows, 15 s what others have


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("garbage=1", 502, "bad_answer"),
        ("drop=1", 502, "answer_cut"),
        ("reset=1", 502, "answer_cut"),
        ("header=Content-Length:5", 502, "bad_answer"),
        ("header=Transfer-Encoding:gzip", 502, "bad_answer"),
        ("header=X-A:%00", 502, "bad_answer"),
    ],
)
def test_an_answer_that_can_not_be_read_is_told(abused: Abused, query: str, status: int, code: str) -> None:
    answer = fetch(abused.site.address("plain"), f"/quiet/x?{query}")
    assert (answer.status, answer.json()["code"]) == (status, code)


def test_an_answer_that_is_cut_ends_short_and_never_looks_whole(abused: Abused, carry: Carry) -> None:
    for query in (b"size=100000&truncate=1", b"size=100000&chunked=1&truncate=1"):
        with carry() as sock:
            answer = said(sock, b"GET /quiet/x?" + query + b" HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert len(answer) < 100_000
        assert not answer.endswith(b"0\r\n\r\n")


def test_many_requests_to_a_frozen_backend_hold_up_nobody(abused: Abused) -> None:
    def ask(found: list[int]) -> None:
        found.append(fetch(abused.site.address("plain"), "/frozen/x").status)

    found: list[int] = []
    threads = [threading.Thread(target=ask, args=(found,)) for _ in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [504] * 60
