"""Pools as every tier has them: what limits, waits and the operator's word do, in a daemon with two workers."""

from __future__ import annotations

import os
import pwd
import select
import socket
import threading
from collections.abc import Iterator

import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from supervisor.cli.demo import ports
from tests.system.support.clients import connect, raw
from tests.system.support.daemon import Daemon, portway
from tests.system.support.poll import until

PLACES, CLIENTS = 3, 24


class Counting:
    """A TCP server that answers after a while, and knows how many it has held at once."""

    def __init__(self) -> None:
        self.sock = socket.create_server(("0.0.0.0", 0))
        self.port = self.sock.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.now = self.most = self.total = 0
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.sock.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock:
            with self._lock:
                self.now += 1
                self.total += 1
                self.most = max(self.most, self.now)
            sock.recv(100)
            with self._lock:
                self.now -= 1
            sock.sendall(self.address.encode())


class NameServer:
    """Answers every question for A by what `addresses` has, with a time to live of a second."""

    def __init__(self) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.sock.getsockname()[1]}"
        self.addresses: dict[str, list[str]] = {}
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                data, source = self.sock.recvfrom(4096)
            except OSError:
                return
            reply = dns.message.make_response(dns.message.from_wire(data))
            question = reply.question[0]
            listed = self.addresses.get(question.name.to_text(omit_final_dot=True), [])
            if question.rdtype == dns.rdatatype.A and listed:
                reply.answer.append(dns.rrset.from_text_list(question.name, 1, "IN", "A", listed))
            elif not listed:
                reply.set_rcode(dns.rcode.NXDOMAIN)
            self.sock.sendto(reply.to_wire(), source)


@pytest.fixture(scope="module")
def names() -> Iterator[NameServer]:
    server = NameServer()
    yield server
    server.sock.close()


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Counting, Counting]]:
    pair = Counting(), Counting()
    yield pair
    for one in pair:
        one.sock.close()


@pytest.fixture(scope="module")
def listeners() -> dict[str, str]:
    return {name: f"127.0.0.1:{ports.free_tcp_port()}" for name in ("queued", "two", "named", "slow")}


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory,
    servers: tuple[Counting, Counting],
    listeners: dict[str, str],
    names: NameServer,
) -> Iterator[Daemon]:
    one, two = (server.address for server in servers)
    text = f"""
[supervisor]
workers = 2
drain_timeout = "1s"
nameservers = ["{names.address}"]
[pools.queued]
servers = [{{ address = "{one}", max_connections = {PLACES} }}]
max_queued = {CLIENTS - PLACES}
queue_timeout = "20s"
[pools.two]
servers = ["{one}", "{two}"]
[pools.slow]
slow_start = "1h"
servers = ["{one}"]
[pools.named]
servers = ["app.test:{servers[0].port}", "nobody.test:80"]
"""
    for name, bind in listeners.items():
        text += f'[edge.listeners.{name}]\nbind = "{bind}"\npool = "{name}"\n'
    daemon = Daemon.start(tmp_path_factory.mktemp("pools"), text)
    yield daemon
    daemon.stop()


def test_a_server_never_has_more_connections_than_it_may_and_who_waits_is_served(
    running: Daemon, servers: tuple[Counting, Counting], listeners: dict[str, str]
) -> None:
    before = servers[0].total
    socks = [connect(listeners["queued"]) for _ in range(CLIENTS)]
    try:
        until(lambda: running.metric("portway_pool_waiting", pool="queued") == CLIENTS - PLACES, "the queue to fill")
        until(lambda: servers[0].now == PLACES, "the server to see those that have a place")
        with pytest.raises(ConnectionResetError), connect(listeners["queued"]) as late:
            late.recv(1)
        for sock in socks:
            sock.sendall(b"x")
        waiting = set(socks)
        while waiting:
            served = select.select(waiting, [], [], 10)[0]
            assert served
            for sock in served:
                assert sock.recv(100)
                sock.close()  # which gives the place back
            waiting.difference_update(served)
    finally:
        for sock in socks:
            sock.close()
    assert servers[0].most == PLACES
    assert servers[0].total - before == CLIENTS
    assert running.metric("portway_pool_waiting", pool="queued") == 0
    assert running.metric("portway_pool_queued_total", pool="queued") == CLIENTS - PLACES
    assert running.metric("portway_pool_queue_refused_total", pool="queued") == 1


def who(address: str, count: int = 8) -> set[str]:
    return {raw(address, b"x").decode() for _ in range(count)}


def set_by_hand(running: Daemon, verb: str, server: str) -> dict[str, str]:
    done = portway(verb, server, running.config)
    assert done.status == 0, done.err
    pools = {pool["name"]: pool for pool in running.status()["pools"]}
    found: dict[str, str] = next(one for one in pools["two"]["servers"] if f"two/{one['address']}" == server)
    return found


@pytest.mark.parametrize(("verb", "state"), [("drain", "draining"), ("maintenance", "maintenance")])
def test_the_operators_word_outlives_a_reload_and_names_who_gave_it(
    running: Daemon, servers: tuple[Counting, Counting], listeners: dict[str, str], verb: str, state: str
) -> None:
    one, two = (server.address for server in servers)
    assert who(listeners["two"]) == {one, two}
    told = set_by_hand(running, verb, f"two/{one}")
    me = pwd.getpwuid(os.getuid()).pw_name
    assert (told["state"], told["set_by"], told["cause"]) == (state, me, f"set by {me}")
    assert who(listeners["two"]) == {two}
    assert running.command("reload").status == 0
    assert who(listeners["two"]) == {two}
    assert set_by_hand(running, "up", f"two/{one}")["state"] == "up"
    assert who(listeners["two"]) == {one, two}


def test_a_server_given_by_name_follows_its_name_and_harms_no_other(
    running: Daemon, servers: tuple[Counting, Counting], listeners: dict[str, str], names: NameServer
) -> None:
    def server(number: int) -> tuple[str, str | None]:
        [pool] = [one for one in running.status()["pools"] if one["name"] == "named"]
        found = pool["servers"][number]
        return found["state"], found["resolved"]

    assert server(0) == ("unresolved", None)  # the daemon is ready all the same
    with pytest.raises(ConnectionResetError):
        raw(listeners["named"], b"x")
    port = servers[0].port
    names.addresses["app.test"] = ["127.0.0.1"]
    until(lambda: server(0) == ("up", f"127.0.0.1:{port}"), "the name to be found", 10)
    assert who(listeners["named"], 3) == {servers[0].address}
    names.addresses["app.test"] = ["127.0.0.2", "127.0.0.3"]
    until(lambda: server(0) == ("up", f"127.0.0.2:{port}"), "the new address", 10)
    assert who(listeners["named"], 3) == {servers[0].address}
    del names.addresses["app.test"]
    until(lambda: server(0)[0] == "unresolved", "the name to be gone", 10)
    assert server(1) == ("unresolved", None)


def test_a_server_that_a_reload_brings_starts_slowly(
    running: Daemon, servers: tuple[Counting, Counting], listeners: dict[str, str]
) -> None:
    one, two = (server.address for server in servers)
    assert who(listeners["slow"], 2) == {one}
    text = running.config.read_text()
    running.rewrite(
        text.replace(f'slow_start = "1h"\nservers = ["{one}"]', f'slow_start = "1h"\nservers = ["{one}", "{two}"]')
    )
    assert running.command("reload").status == 0
    served = [raw(listeners["slow"], b"x").decode() for _ in range(40)]
    assert 1 <= served.count(two) <= 10  # a tenth at first, in each worker's own turn; 20 would be its full share
