"""Clients that take their time, in every form there is, hold no worker: others are served as if they were not there."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator

import attrs
import pytest

from supervisor.cli.demo.ports import free_tcp_port
from tests.system.support.backends import Backend
from tests.system.support.clients import Client, connect
from tests.system.support.daemon import Daemon
from tests.system.support.poll import until

CONFIG = """
[supervisor]
workers = 1
[pools.web]
servers = ["{server}"]
[gateway.listeners.web]
bind = "{web}"
http2 = true
[gateway.routes.web]
pool = "web"
"""
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SHUT = bytes.fromhex("000006 04 00 00000000 0004 00000000".replace(" ", ""))  # SETTINGS: no window for any stream


def head(sock: socket.socket) -> None:
    sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ")


def body(sock: socket.socket) -> None:
    sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nx")


def reading(sock: socket.socket) -> None:
    sock.sendall(b"GET /?size=2000000 HTTP/1.1\r\nHost: a\r\n\r\n")


def window(sock: socket.socket) -> None:
    block = b"\x82\x86\x84\x41\x01a"
    sock.sendall(PREFACE + SHUT + len(block).to_bytes(3, "big") + b"\x01\x05\x00\x00\x00\x01" + block)


def settings(sock: socket.socket) -> None:
    sock.sendall(PREFACE[:-1])


FORMS: tuple[Callable[[socket.socket], None], ...] = (head, body, reading, window, settings)


@attrs.define(eq=False)
class Site:
    daemon: Daemon
    web: str

    def p99(self, requests: int) -> float:
        """Seconds, of so many requests of somebody else, one after the other."""
        took = []
        with Client(self.web) as client:
            for _ in range(requests):
                began = time.perf_counter()
                assert client.get("/").status == 200
                took.append(time.perf_counter() - began)
        return sorted(took)[int(0.99 * len(took))]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    backend = Backend("http", "one", 0, ()).start()
    web = f"127.0.0.1:{free_tcp_port()}"
    daemon = Daemon.start(tmp_path_factory.mktemp("slow"), CONFIG.format(server=backend.address, web=web))
    yield Site(daemon, web)
    daemon.stop()
    backend.stop()


@contextlib.contextmanager
def slow(site: Site, number: int) -> Iterator[list[socket.socket]]:
    """So many of each form, all at it."""
    with contextlib.ExitStack() as stack:
        socks = []
        for form in FORMS:
            for _ in range(number):
                sock = stack.enter_context(connect(site.web))
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                form(sock)
                socks.append(sock)
        until(lambda: site.daemon.metric("portway_listener_active") >= len(socks), "all of them to be there")
        yield socks


def test_the_slow_hold_up_nobody_and_cost_nothing(site: Site) -> None:
    with slow(site, 20) as socks:
        assert site.p99(100) < 5
        assert sum(1 for sock in socks if sock.fileno() >= 0) == len(socks)
    until(lambda: not site.daemon.metric("portway_server_in_flight"), "nothing of them to be left", 20)


@pytest.mark.soak
def test_soak_others_wait_no_longer_for_all_the_slow(site: Site) -> None:
    requests = 2000
    site.p99(200)
    pairs = []
    for _ in range(3):
        alone = site.p99(requests)
        with slow(site, 200):
            pairs.append((site.p99(requests) / alone, alone))
        until(lambda: not site.daemon.metric("portway_server_in_flight"), "nothing of them to be left", 90)
    ratio, alone = sorted(pairs)[1]
    print(f"p99 beside {200 * len(FORMS)} slow clients: {ratio:.2f} times that without ({alone * 1e3:.2f} ms)")
    assert ratio < 2
