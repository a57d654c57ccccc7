"""The kernel datapath over network namespaces: real clients, real servers, the daemon's rules between them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.namespaces import Network, missing, network
from supervisor.cli.control import ask
from tests.system.support.daemon import ROOT
from tests.system.support.poll import until

SERVERS = 3
FOREIGN = "table ip somebody { chain c { type filter hook forward priority 5; counter; }; }"

REASON = missing()
pytestmark = pytest.mark.skipif(bool(REASON), reason=f"THE KERNEL DATAPATH IS NOT TESTED: {REASON}")

CONFIGURATION = """
[supervisor]
workers = 1
user = "nobody"
[pools.rr]
servers = {v4}
health = {{ type = "tcp", interval = "200ms", timeout = "200ms", fall = 1, rise = 1 }}
[pools.hashed]
balance = "source_hash"
servers = {v4}
health = {{ type = "tcp", interval = "200ms", timeout = "200ms", fall = 1, rise = 1 }}
[pools.maglev6]
balance = "maglev"
servers = {v6}
{more}
[edge.listeners.web]
bind = "10.90.0.1:80"
pool = "rr"
datapath = "kernel"
[edge.listeners.game]
bind = "0.0.0.0:7777"
protocol = "udp"
pool = "hashed"
datapath = "auto"
masquerade = false
persist = true
[edge.listeners.six]
bind = "[fd90::1]:80"
pool = "maglev6"
datapath = "kernel"
[edge.listeners.second]
bind = "10.90.0.5:80"
pool = "rr"
datapath = "kernel"
[edge.listeners.counted]
bind = "10.90.0.1:81"
pool = "rr"
datapath = "auto"
idle_timeout = "5m"
"""


class Server:
    """TCP and UDP on port 9000, both families: answers its number and the address that it saw."""

    def __init__(self, net: Network, number: int) -> None:
        self.number = number
        self.net = net.servers[number]
        self.open()

    def open(self) -> None:
        self.socks = self.net.call(self._sockets)
        self.conns: list[socket.socket] = []
        for sock in self.socks:
            stream = sock.type == socket.SOCK_STREAM
            threading.Thread(target=self._accept if stream else self._answer, args=(sock,), daemon=True).start()

    def close(self) -> None:
        for sock in (*self.socks, *self.conns):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            sock.close()

    @staticmethod
    def _sockets() -> list[socket.socket]:
        made = []
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            sock = socket.socket(socket.AF_INET6, kind)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            sock.bind(("::", 9000))
            if kind == socket.SOCK_STREAM:
                sock.listen(100)
            made.append(sock)
        return made

    def _told(self, address: Any) -> bytes:
        return json.dumps([self.number, address[0].removeprefix("::ffff:")]).encode()

    def _accept(self, sock: socket.socket) -> None:
        while True:
            try:
                conn, address = sock.accept()
            except OSError:
                return
            self.conns.append(conn)
            threading.Thread(target=self._serve, args=(conn, address), daemon=True).start()

    def _serve(self, conn: socket.socket, address: Any) -> None:
        with conn:
            try:
                while conn.recv(1000):
                    conn.sendall(self._told(address))
            except OSError:
                pass

    def _answer(self, sock: socket.socket) -> None:
        while True:
            try:
                data, address = sock.recvfrom(2000)
            except OSError:
                return
            if not data:
                return
            sock.sendto(self._told(address), address)


class InNamespace:
    """The daemon inside of the balancer."""

    def __init__(self, net: Network, folder: Path, text: str) -> None:
        self.net, self.config = net.balancer, folder / "kernel.toml"
        self.config.write_text(text)
        self.log = folder / "log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", self.net.name, sys.executable, "-m", "supervisor", "run", str(self.config)],
                cwd=ROOT, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        try:
            until(self.told, "the kernel to be told", 30)
        except AssertionError:
            self.process.kill()
            raise AssertionError(self.log.read_text()) from None

    def told(self) -> bool:
        return '"kernel told"' in self.log.read_text()

    def status(self) -> Any:
        path = self.config.parent / tomllib.loads(self.config.read_text()).get("control", "portway.sock")
        return ask(path, {"command": "status"})["status"]

    def server(self, pool: str, number: int) -> Any:
        found = next(one for one in self.status()["pools"] if one["name"] == pool)
        return found["servers"][number]

    def listener(self, name: str) -> Any:
        return next(one for one in self.status()["listeners"] if one["name"] == name)

    def command(self, *words: str) -> None:
        subprocess.run([sys.executable, "-m", "supervisor", *words], cwd=ROOT, check=True, capture_output=True)

    def flows(self) -> int:
        """All that the kernel has counted as new."""
        listed = json.loads(self.net.run("nft", "-j", "list", "counters").stdout)["nftables"]
        counters = [item["counter"] for item in listed if "counter" in item]
        return sum(counter["packets"] for counter in counters if counter["name"].endswith("_new"))

    def rules(self) -> str:
        return self.net.run("nft", "list", "ruleset").stdout.decode()

    def stop(self) -> None:
        if self.process.poll() is None:
            # `ip netns exec` becomes the daemon itself.
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(20) == 0, self.log.read_text()
        assert "Traceback" not in self.log.read_text(), self.log.read_text()


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    with network(SERVERS) as made:
        made.balancer.run("nft", "-f", "-", input=FOREIGN.encode())
        made.balancer.run("ip", "addr", "add", "10.90.0.5/24", "dev", "c")
        yield made


@pytest.fixture(scope="module")
def servers(net: Network) -> Iterator[list[Server]]:
    made = [Server(net, number) for number in range(SERVERS)]
    yield made
    for server in made:
        server.close()


def configuration(more: str = "") -> str:
    v4 = json.dumps([f"10.91.{number}.2:9000" for number in range(SERVERS)])
    v6 = json.dumps([f"[fd91:{number}::2]:9000" for number in range(SERVERS)])
    return CONFIGURATION.format(v4=v4, v6=v6, more=more)


@pytest.fixture(scope="module")
def running(net: Network, servers: list[Server], tmp_path_factory: pytest.TempPathFactory) -> Iterator[InNamespace]:
    daemon = InNamespace(net, tmp_path_factory.mktemp("kernel"), configuration())
    yield daemon
    daemon.stop()


FRONT = ("10.90.0.1", 80)


def tcp(net: Network, address: tuple[str, int] = FRONT, timeout: float = 20.0) -> socket.socket:
    return net.client.call(lambda: socket.create_connection(address, timeout))


def asked(sock: socket.socket) -> tuple[int, str]:
    sock.sendall(b"who")
    number, host = json.loads(sock.recv(1000))
    return number, host


def who(
    net: Network, count: int = 9, address: tuple[str, int] = FRONT, timeout: float = 20.0
) -> Counter[tuple[int, str]]:
    found: Counter[tuple[int, str]] = Counter()
    for _ in range(count):
        with tcp(net, address, timeout) as sock:
            found[asked(sock)] += 1
    return found


def udp(net: Network, host: str = "10.90.0.2") -> socket.socket:
    def make() -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((host, 0))
        sock.connect(("10.90.0.1", 7777))
        sock.settimeout(20)
        return sock

    return net.client.call(make)


def test_round_robin_spreads_connections_and_the_source_becomes_ours(running: InNamespace, net: Network) -> None:
    assert who(net) == {(number, f"10.91.{number}.1"): 3 for number in range(SERVERS)}
    assert running.listener("web")["datapath"] == "kernel"


def test_maglev_keeps_a_client_on_its_server_over_ipv6(running: InNamespace, net: Network) -> None:
    found = who(net, 5, ("fd90::1", 80))
    assert len(found) == 1
    [(number, host)] = found
    assert host == f"fd91:{number}::1"


def test_datagrams_keep_their_source_where_that_is_wanted(running: InNamespace, net: Network) -> None:
    homes: dict[str, int] = {}
    for last in range(10, 40):
        host = f"10.90.0.{last}"
        net.client.run("ip", "addr", "add", f"{host}/32", "dev", "up0")
        for _ in range(2):
            with udp(net, host) as sock:
                number, seen = asked(sock)
            assert seen == host
            assert homes.setdefault(host, number) == number
    assert set(homes.values()) == set(range(SERVERS))


def test_what_the_kernel_cannot_serve_the_workers_do_and_the_log_says_why(running: InNamespace, net: Network) -> None:
    assert running.listener("counted")["datapath"] == "proxy"
    assert sum(who(net, 3, ("10.90.0.1", 81)).values()) == 3
    lines = [json.loads(line) for line in running.log.read_text().splitlines() if '"datapath"' in line]
    chosen = {line["listener"]: (line["datapath"], line["reason"]) for line in lines if line["event"] == "datapath"}
    assert chosen["web"] == ("kernel", 'datapath = "kernel", and the kernel can serve all it asks for')
    assert chosen["counted"] == ("proxy", "idle_timeout: the kernel looks at no byte and keeps its own time")


def test_two_listeners_on_one_port_are_counted_apart(running: InNamespace, net: Network) -> None:
    before = running.flows()
    assert sum(who(net, 6, ("10.90.0.5", 80)).values()) == 6
    assert running.flows() == before + 6
    until(lambda: running.listener("second")["accepted"] == 6, "its connections to be counted")


def test_only_the_service_keeps_a_capability_and_only_that_one(running: InNamespace) -> None:
    running.listener("web")  # works
    found = {}
    for process in running.status()["processes"]:
        status = dict(
            line.split(":\t")
            for line in Path(f"/proc/{process['pid']}/status").read_text().splitlines()
            if ":\t" in line
        )
        found[process["tier"]] = (int(status["Uid"].split()[0]) == 0, int(status["CapEff"], 16))
    assert found["edge-datapath"] == (False, 1 << 12)
    assert found["edge"] == found["prober"] == (False, 0)


def test_the_kernels_counts_are_in_the_status(running: InNamespace, net: Network) -> None:
    before = running.listener("web")
    with tcp(net) as sock:
        for _ in range(100):
            asked(sock)
    until(lambda: running.listener("web")["accepted"] > before["accepted"], "the connection to be counted")
    until(lambda: running.listener("web")["bytes_out"] - before["bytes_out"] > 100 * 60, "its bytes to be counted")
    assert running.listener("game")["datagrams_in"] >= 60
    assert sum(running.server("hashed", number)["requests"] for number in range(SERVERS)) >= 60


def test_a_drained_server_keeps_its_connections_and_gets_no_new_ones(running: InNamespace, net: Network) -> None:
    socks = [tcp(net) for _ in range(SERVERS)]
    at = {asked(sock)[0]: sock for sock in socks}
    running.command("drain", "rr/10.91.1.2:9000", str(running.config))
    until(lambda: 1 not in {number for number, _ in who(net, 4)}, "the drain")
    assert asked(at[1])[0] == 1
    running.command("up", "rr/10.91.1.2:9000", str(running.config))
    until(lambda: 1 in {number for number, _ in who(net, 4)}, "the end of the drain")
    for sock in socks:
        sock.close()


def test_the_flows_of_a_dead_server_go_elsewhere_within_a_check(
    running: InNamespace, net: Network, servers: list[Server]
) -> None:
    socks = [tcp(net) for _ in range(SERVERS)]
    at = {asked(sock)[0]: sock for sock in socks}
    with udp(net) as sock:
        victim = asked(sock)[0]
        net.servers[victim].run("ip", "link", "set", "up0", "down")  # a hole: nobody says that it is closed
        sock.settimeout(0.3)  # what is sent into the hole has no answer
        sock.send(b"lost")

        def elsewhere() -> bool:
            try:
                return asked(sock)[0] != victim
            except TimeoutError:
                return False

        until(elsewhere, "the flow to move")
    until(lambda: victim not in {number for number, _ in who(net, 4, timeout=1)}, "new connections to go elsewhere")
    for number, conn in at.items():
        if number != victim:
            assert asked(conn)[0] == number
        else:
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                asked(conn)
    net.servers[victim].run("ip", "link", "set", "up0", "up")
    net.servers[victim].run("ip", "route", "add", "default", "via", f"10.91.{victim}.1", check=False)
    net.servers[victim].run("ip", "addr", "add", f"fd91:{victim}::2/64", "dev", "up0", "nodad", check=False)
    net.servers[victim].run("ip", "-6", "route", "add", "default", "via", f"fd91:{victim}::1", check=False)
    until(lambda: victim in {number for number, _ in who(net, 4)}, "its return")
    for conn in socks:
        conn.close()


def test_a_reload_and_the_death_of_the_service_change_no_flow(running: InNamespace, net: Network) -> None:
    with tcp(net) as sock:
        number = asked(sock)[0]
        running.config.write_text(configuration('[pools.more]\nservers = ["10.91.0.2:9000"]\n'))
        running.command("reload", str(running.config))
        assert asked(sock)[0] == number
        service = next(one for one in running.status()["processes"] if one["tier"] == "edge-datapath")
        os.kill(service["pid"], signal.SIGKILL)
        assert asked(sock)[0] == number
        assert sum(who(net, 4).values()) == 4

        def again() -> bool:
            found = [one for one in running.status()["processes"] if one["tier"] == "edge-datapath"]
            return [one["state"] for one in found if one["pid"] != service["pid"]] == ["ready"]

        until(again, "its successor")
        assert asked(sock)[0] == number
        assert sum(who(net, 4).values()) == 4


def test_an_upgrade_changes_no_flow_and_leaves_the_rules(running: InNamespace, net: Network) -> None:
    with tcp(net) as sock:
        number = asked(sock)[0]
        running.net.run(sys.executable, "-m", "supervisor", "upgrade", str(running.config), cwd=ROOT)
        assert asked(sock)[0] == number
    until(lambda: running.log.read_text().count('"upgraded"') > 0, "the upgrade", 20)
    assert sum(who(net, 4).values()) == 4
    assert running.listener("web")["datapath"] == "kernel"


def test_at_the_end_only_what_persists_stays_and_nothing_foreign_was_touched(
    running: InNamespace, net: Network
) -> None:
    assert "table ip somebody" in running.rules()
    with udp(net) as sock:
        number = asked(sock)[0]
        running.stop()
        assert asked(sock)[0] == number
    rules = running.rules()
    assert "table ip somebody" in rules
    assert "7777" in rules
    assert "10.90.0.1" not in rules
    with udp(net) as sock:
        assert asked(sock)[0] == number  # by the same hash, without a daemon
