"""The edge across network namespaces: the client's own address kept, and servers that vanish without a word."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bench.namespaces import Namespace, Network, missing, network
from tests.system.support.daemon import ROOT
from tests.system.support.poll import until

REASON = missing()
pytestmark = pytest.mark.skipif(bool(REASON), reason=f"NOT TESTED ACROSS NETWORK NAMESPACES: {REASON}")

CONFIGURATION = """
[supervisor]
workers = 2
drain_timeout = "1s"
{user}
[pools.both]
servers = ["10.91.0.2:9000", "10.91.1.2:9000"]
outlier = {{ consecutive_failures = 1000 }}
[pools.six]
servers = ["[fd91:0::2]:9000"]
[edge.listeners.transparent]
bind = "10.90.0.1:80"
pool = "both"
transparent = true
[edge.listeners.six]
bind = "[fd90::1]:80"
pool = "six"
transparent = true
[edge.listeners.plain]
bind = "10.90.0.1:81"
pool = "both"
connect_timeout = "500ms"
idle_timeout = "1s"
"""
# What net.core has to know for answers to come back: docs/edge.md prints the same.
ROUTES = """
ip -4 rule add fwmark 1 lookup 100
ip -4 route add local 0.0.0.0/0 dev lo table 100
ip -6 rule add fwmark 1 lookup 100
ip -6 route add local ::/0 dev lo table 100
nft add table inet transparent
nft add chain inet transparent answers { type filter hook prerouting priority mangle \\; }
nft add rule inet transparent answers socket transparent 1 meta mark set 1
"""


class Teller:
    """Accepts on port 9000 and tells each client the address that it saw, then echoes."""

    def __init__(self, space: Namespace) -> None:
        self.sock = space.call(self._listen)
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    @staticmethod
    def _listen() -> socket.socket:
        return socket.create_server(("::", 9000), family=socket.AF_INET6, dualstack_ipv6=True)

    def _serve(self) -> None:
        while True:
            try:
                conn, address = self.sock.accept()
            except OSError:
                return
            threading.Thread(target=self._tell, args=(conn, address[0]), daemon=True).start()

    @staticmethod
    def _tell(conn: socket.socket, host: str) -> None:
        with conn:
            try:
                conn.sendall(host.removeprefix("::ffff:").encode() + b"\n")
                while data := conn.recv(65536):
                    conn.sendall(data)
            except OSError:
                pass

    def close(self) -> None:
        self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        self.thread.join()


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    with network(2) as made:
        tellers = [Teller(space) for space in made.servers]
        yield made
        for teller in tellers:
            teller.close()


def daemon(net: Network, folder: Path, user: str = "") -> subprocess.Popen[bytes]:
    """A daemon in the balancer's namespace, with its errors in a pipe."""
    config = folder / "portway.toml"
    config.write_text(CONFIGURATION.format(user=user))
    command = ["ip", "netns", "exec", net.balancer.name, sys.executable, "-m", "supervisor", "run", config]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, start_new_session=True)


def connected(net: Network, address: tuple[str, int]) -> socket.socket:
    return net.client.call(lambda: socket.create_connection(address, 10))


def told(net: Network, address: tuple[str, int]) -> str:
    with connected(net, address) as sock:
        return sock.makefile().readline().strip()


def test_without_the_routes_it_does_not_start_and_says_which(net: Network, tmp_path: Path) -> None:
    process = daemon(net, tmp_path)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert b"edge.listeners.transparent.transparent: the servers' answers would not be delivered here" in errors


@pytest.fixture(scope="module")
def running(net: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    for command in ROUTES.strip().splitlines():
        net.balancer.run("sh", "-c", command)
    folder = tmp_path_factory.mktemp("netns")
    folder.chmod(0o755)
    process = daemon(net, folder, 'user = "nobody"')
    try:
        until(lambda: told(net, ("10.90.0.1", 81)), "the daemon to serve")
        yield net
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors.decode()
    assert b"Traceback" not in errors, errors.decode()


def test_servers_see_the_clients_own_address(running: Network) -> None:
    assert {told(running, ("10.90.0.1", 80)) for _ in range(4)} == {"10.90.0.2"}
    assert told(running, ("fd90::1", 80)) == "fd90::2"
    assert told(running, ("10.90.0.1", 81)).startswith("10.91.")


def test_bulk_passes_transparently(running: Network) -> None:
    with connected(running, ("10.90.0.1", 80)) as sock:
        data = bytes(range(256)) * 8192
        sender = threading.Thread(target=lambda: (sock.sendall(data), sock.shutdown(socket.SHUT_WR)))
        sender.start()
        received = b"".join(iter(lambda: sock.recv(1 << 20), b""))
        sender.join()
    assert received == b"10.90.0.2\n" + data


def test_a_server_that_vanishes_costs_new_connections_a_try_and_its_own_their_silence(running: Network) -> None:
    space = running.servers[0]
    with ExitStack() as stack:
        seen: dict[str, socket.socket] = {}
        while len(seen) < 2:
            sock = stack.enter_context(connected(running, ("10.90.0.1", 81)))
            seen.setdefault(sock.recv(100).decode().strip(), sock)
        cut, well = seen["10.91.0.1"], seen["10.91.1.1"]
        space.run("nft", "add", "table", "inet", "cut")
        stack.callback(space.run, "nft", "delete", "table", "inet", "cut")
        space.run("nft", "add chain inet cut drops { type filter hook prerouting priority 0; policy drop; }")
        cut.sendall(b"lost")
        cut.settimeout(0.2)

        def closed() -> bool:
            well.sendall(b"still here")
            assert well.recv(100) == b"still here"
            try:
                return cut.recv(100) == b""
            except TimeoutError:
                return False

        until(closed, "idle_timeout to close what leads nowhere", 10)
        # After connect_timeout, the other server.
        assert {told(running, ("10.90.0.1", 81)) for _ in range(3)} == {"10.91.1.1"}
