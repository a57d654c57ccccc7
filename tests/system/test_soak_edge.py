"""Thousands of idle connections and sessions on two workers, while fresh requests go on as if they were not there."""

import socket
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from supervisor.cli.demo.ports import free_tcp_port, free_udp_port
from tests.system.support.backends import Backend
from tests.system.support.clients import connect
from tests.system.support.daemon import Daemon
from tests.system.support.poll import until
from tests.system.support.processes import resident

HELD = 8000  # connections, and as many sessions
FRESH = 500  # requests that are timed
KIB = 1024
MOST = 16 * KIB  # bytes of the workers' memory for a connection
NOISE = 0.002  # seconds: what a machine with other work adds to the slowest of a hundred
CONFIGURATION = """
[supervisor]
workers = 2
[pools.tcp]
servers = [{{ address = "{tcp}", max_connections = 20000 }}]
[pools.udp]
servers = [{{ address = "{udp}", max_connections = 20000 }}]
[edge.listeners.tcp]
bind = "127.0.0.1:{tcp_port}"
pool = "tcp"
[edge.listeners.udp]
bind = "127.0.0.1:{udp_port}"
protocol = "udp"
pool = "udp"
session_timeout = "10m"
"""


def slow(address: str) -> float:
    """What 99 of 100 fresh requests need less than, in seconds."""
    took = []
    for _ in range(FRESH):
        began = time.perf_counter()
        with connect(address) as sock:
            sock.sendall(b"fresh")
            assert sock.recv(100) == b"fresh"
        took.append(time.perf_counter() - began)
    return sorted(took)[FRESH * 99 // 100]


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_what_is_held_slows_nothing_down(tmp_path: Path) -> None:
    with ExitStack() as stack:
        backends = {kind: Backend(kind, kind).start() for kind in ("tcp", "udp")}
        for backend in backends.values():
            stack.callback(backend.stop)
        ports = {"tcp_port": free_tcp_port(), "udp_port": free_udp_port()}
        addresses = {kind: backend.address for kind, backend in backends.items()}
        daemon = Daemon.start(tmp_path, CONFIGURATION.format(**addresses, **ports))
        stack.callback(daemon.stop)
        address = f"127.0.0.1:{ports['tcp_port']}"
        idle = slow(address)
        before = sum(resident(pid) for pid in daemon.pids("edge"))
        for _ in range(HELD):
            stack.enter_context(connect(address))
        until(lambda: daemon.metric("portway_listener_active", listener="tcp") == HELD, "all connections", 60)
        grown = (sum(resident(pid) for pid in daemon.pids("edge")) - before) / HELD
        for _ in range(HELD):
            sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            sock.connect(("127.0.0.1", ports["udp_port"]))
            sock.send(b"mine")
            sock.settimeout(5)
            assert b"mine" in sock.recv(2048)
        until(lambda: daemon.metric("portway_listener_sessions", listener="udp") == HELD, "all sessions", 60)
        held = slow(address)
        print(
            f"\np99 of a fresh request: idle {idle * 1e3:.2f} ms, held {held * 1e3:.2f} ms; {grown / KIB:.1f} KiB each"
        )
        assert held < 3 * idle + NOISE
        assert grown < MOST
