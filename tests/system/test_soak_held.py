"""Thousands of silent connections and UDP sessions, held by two workers: a fresh small request hardly notices."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from supervisor.cli.demo.ports import free_tcp_port, free_udp_port
from tests.system.conftest import BackendMaker
from tests.system.support.daemon import Daemon
from tests.system.support.poll import until

REQUESTS = 500
ROUNDS = 3  # the best counts: the machine has other things to do
LEAST = 0.001  # s; below, the p99 of an idle daemon is the scheduler's
BATCH = 50  # datagrams under way at once: more would overflow a server's socket

Start = Callable[..., Daemon]


def p99(address: tuple[str, int]) -> float:
    """Seconds of a fresh connection with one small request and its answer."""
    best = float("inf")
    for _ in range(ROUNDS):
        took = []
        for _ in range(REQUESTS):
            began = time.perf_counter()
            with socket.create_connection(address, 10) as sock:
                sock.sendall(b"x" * 64)
                assert sock.recv(100)
            took.append(time.perf_counter() - began)
        best = min(best, sorted(took)[int(REQUESTS * 0.99)])
    return best


def connect(held: ExitStack, address: tuple[str, int], count: int) -> None:
    for _ in range(count):
        sock = held.enter_context(socket.create_connection(address, 10))
        sock.sendall(b"x")
        assert sock.recv(10) == b"x"


def begin_sessions(held: ExitStack, address: tuple[str, int], count: int) -> None:
    for _ in range(count // BATCH):
        batch = [held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(BATCH)]
        for sock in batch:
            sock.settimeout(10)
            sock.connect(address)
            sock.send(b"x")
        for sock in batch:
            sock.recv(1000)


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_thousands_of_silent_ones_cost_a_fresh_request_little(
    daemon: Start, tcp_backend: BackendMaker, udp_backend: BackendMaker
) -> None:
    count = 8000
    tcp, udp = ("127.0.0.1", free_tcp_port()), ("127.0.0.1", free_udp_port())
    running = daemon(f"""
[supervisor]
workers = 2
drain_timeout = "2s"
[pools.tcp]
servers = [{{ address = "{tcp_backend("a").address}", max_connections = 20000 }}]
[pools.udp]
servers = [{{ address = "{udp_backend("b").address}", max_connections = 20000 }}]
[edge.listeners.tcp]
bind = "{tcp[0]}:{tcp[1]}"
pool = "tcp"
[edge.listeners.udp]
bind = "{udp[0]}:{udp[1]}"
protocol = "udp"
pool = "udp"
session_timeout = "10m"
""")
    idle = p99(tcp)
    with ExitStack() as held:
        connect(held, tcp, count)
        begin_sessions(held, udp, count)
        assert running.metric("portway_listener_active", listener="tcp") == count
        assert running.metric("portway_listener_sessions", listener="udp") == count
        busy = p99(tcp)
        print(f"\np99 of a fresh request: idle {idle * 1000:.2f} ms, with {count} of each {busy * 1000:.2f} ms")
        assert busy < 3 * max(idle, LEAST)
    until(lambda: running.metric("portway_listener_active", listener="tcp") == 0, "the connections to end", 30)
