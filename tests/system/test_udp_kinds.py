"""UDP listeners of every kind in one daemon: datagrams that stand alone, those that nobody answers, PROXY headers."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from supervisor.cli.demo import ports
from tests.system.support.clients import UdpClient
from tests.system.support.daemon import Daemon
from tests.system.support.poll import until

NAMES = ("stateless", "sharded", "syslog", "every", "first", "small")
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V4_HEADER = 28  # bytes of a version 2 header for IPv4 without TLVs


class Server:
    """Answers a DNS question by its own number as an address, anything else by JSON of what came; keeps it all."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.got: list[bytes] = []
        self.port = 0
        self.open()

    def open(self) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", self.port))
        self.port = self.sock.getsockname()[1]
        self.thread = threading.Thread(target=self._run, args=(self.sock,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.sock.sendto(b"end", self.sock.getsockname())
        self.thread.join()
        self.sock.close()

    def _run(self, sock: socket.socket) -> None:
        while True:
            data, source = sock.recvfrom(65535)
            if data == b"end":
                return
            self.got.append(data)
            if b"silent" not in data:
                sock.sendto(self._answer(data, source), source)

    def _answer(self, data: bytes, source: tuple[str, int]) -> bytes:
        if b"\x07example" in data:  # RFC 1035 §4.1: the question again, and an A record that points to its name
            question = data[12 : data.index(b"\0\0\1\0\1", 12) + 5]
            record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + bytes((192, 0, 2, self.number))
            return data[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + question + record
        return json.dumps({"server": self.number, "source": source, "data": data.hex()}).encode()


@pytest.fixture(scope="module")
def servers() -> Iterator[list[Server]]:
    made = [Server(number) for number in (1, 2)]
    yield made
    for server in made:
        server.close()


@pytest.fixture(scope="module")
def at() -> dict[str, str]:
    return {name: f"127.0.0.1:{ports.free_udp_port()}" for name in NAMES}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, servers: list[Server], at: dict[str, str]) -> Iterator[Daemon]:
    addresses = json.dumps([f"127.0.0.1:{server.port}" for server in servers])
    text = f"""
[supervisor]
workers = 2
drain_timeout = "2s"
[pools.p]
servers = {addresses}
outlier = {{ consecutive_failures = 1000 }}
[pools.hashed]
balance = "source_hash"
servers = {addresses}
"""
    keys = {
        "stateless": 'kind = "stateless"\nanswer_timeout = "1s"\nsend_proxy_protocol = "off"',
        "sharded": 'kind = "stateless"\nsend_proxy_protocol = "v2"',
        "syslog": 'kind = "one_way"',
        "every": 'send_proxy_protocol = "v2"\nsend_proxy_protocol_every = true',
        "first": 'send_proxy_protocol = "v2"',
        "small": "max_sessions = 1",
    }
    for name, bind in at.items():
        pool = "hashed" if name == "sharded" else "p"
        text += f'[edge.listeners.{name}]\nbind = "{bind}"\nprotocol = "udp"\npool = "{pool}"\n{keys[name]}\n'
    daemon = Daemon.start(tmp_path_factory.mktemp("udp"), text)
    yield daemon
    daemon.stop()


def test_each_datagram_gets_a_server_and_a_port_of_its_own(running: Daemon, at: dict[str, str]) -> None:
    with UdpClient(at["stateless"]) as client:
        answers = [client.ask(b"%d" % number) for number in range(20)]
    assert Counter(answer["server"] for answer in answers) == {1: 10, 2: 10}
    assert len({str(answer["source"]) for answer in answers}) > 15
    until(lambda: running.metric("portway_listener_sessions", listener="stateless") == 0, "the sockets to be closed")


def test_many_at_once_find_their_own_answers(running: Daemon, at: dict[str, str]) -> None:
    with UdpClient(at["stateless"]) as client:
        asked = {b"%03d" % number for number in range(100)}
        for data in asked:
            client.sock.send(data)
        assert {bytes.fromhex(json.loads(client.sock.recv(1000))["data"]) for _ in asked} == asked


def test_a_datagram_without_an_answer_ends_in_its_time_and_harms_no_server(running: Daemon, at: dict[str, str]) -> None:
    failures = running.metric("portway_server_failures_total")
    with UdpClient(at["stateless"]) as client:
        client.sock.send(b"silent")
        until(lambda: running.metric("portway_listener_sessions", listener="stateless") == 1, "it to be waited for")
        until(lambda: running.metric("portway_listener_sessions", listener="stateless") == 0, "its end")
    assert running.metric("portway_server_failures_total") == failures


def test_each_datagram_that_stands_alone_names_its_client(running: Daemon, at: dict[str, str]) -> None:
    with UdpClient(at["sharded"]) as client:
        answers = [client.ask(b"x") for _ in range(4)]
        port = client.sock.getsockname()[1]
    assert len({answer["server"] for answer in answers}) == 1  # by the client's address
    for answer in answers:
        data = bytes.fromhex(answer["data"])
        assert data[:12] == SIGNATURE
        assert data[24:26] == port.to_bytes(2, "big")
        assert data[V4_HEADER:] == b"x"


@pytest.mark.parametrize(("name", "headers"), [("every", 3), ("first", 1)])
def test_a_sessions_header_stands_in_front_of_the_first_datagram_or_of_every_one(
    running: Daemon, at: dict[str, str], name: str, headers: int
) -> None:
    with UdpClient(at[name]) as client:
        data = [bytes.fromhex(client.ask(b"data %d" % number)["data"]) for number in range(3)]
    assert [one.startswith(SIGNATURE) for one in data] == [number < headers for number in range(3)]
    assert [one[-6:] for one in data] == [b"data 0", b"data 1", b"data 2"]


def test_what_nobody_answers_is_spread_over_the_servers(
    running: Daemon, servers: list[Server], at: dict[str, str]
) -> None:
    with UdpClient(at["syslog"]) as client:
        for number in range(40):
            client.sock.send(b"<13>silent line %d" % number)

    def lines() -> list[int]:
        return [len({data for data in server.got if data.startswith(b"<13>")}) for server in servers]

    until(lambda: sum(lines()) == 40, "all lines")
    assert lines() == [20, 20]
    assert running.metric("portway_listener_sessions", listener="syslog") == 0


def test_a_closed_port_costs_one_way_datagrams_little(
    running: Daemon, servers: list[Server], at: dict[str, str]
) -> None:
    servers[1].close()
    try:
        before = len(servers[0].got)
        with UdpClient(at["syslog"]) as client:
            for number in range(20):
                client.sock.send(b"<14>silent %d" % number)
        until(lambda: len(servers[0].got) - before >= 10, "the other server to get its share")
        until(lambda: running.metric("portway_server_failures_total", pool="p") > 0, "the complaints to be heard")
        with UdpClient(at["stateless"], 0.2) as client:
            answered = 0
            for _ in range(6):
                try:
                    answered += client.ask(b"x")["server"] == 1
                except TimeoutError:
                    pass
            assert answered >= 3
    finally:
        servers[1].open()


def who_is_full(running: Daemon) -> set[str]:
    def told() -> set[str]:
        return {line["limit"] for line in running.lines() if line["event"] == "no room for more clients"}

    return until(told, "the log to say so")


def test_a_full_table_refuses_says_so_and_harms_nobody_else(running: Daemon, at: dict[str, str]) -> None:
    clients = [UdpClient(at["small"], 0.2) for _ in range(6)]  # one has room in each worker
    try:
        served = []
        for client in clients:
            try:
                client.ask(b"x")
                served.append(client)
            except TimeoutError:
                pass
        assert 1 <= len(served) <= 2
        assert all(client.ask(b"again") for client in served)
        assert running.metric("portway_listener_refused_total", listener="small") == len(clients) - len(served)
        assert running.metric("portway_listener_sessions", listener="small") == len(served)
        assert who_is_full(running) == {"max_sessions"}
    finally:
        for client in clients:
            client.sock.close()


def test_dig_asks_through_a_stateless_listener(running: Daemon, at: dict[str, str]) -> None:
    if shutil.which("dig") is None:
        pytest.skip("THERE IS NO dig: apt-get install bind9-dnsutils")
    host, port = at["stateless"].split(":")
    command = [
        "dig",
        f"@{host}",
        "-p",
        port,
        "+noedns",
        "+short",
        "+tries=1",
        *(f"{name}.example.com" for name in "abc"),
    ]
    done = subprocess.run(command, capture_output=True, check=True, timeout=20)
    # Of three questions one worker gets two, and takes turns.
    assert set(done.stdout.split()) == {b"192.0.2.1", b"192.0.2.2"}


def test_a_reload_that_changes_the_kind_begins_anew(running: Daemon, at: dict[str, str]) -> None:
    text = running.config.read_text()
    running.rewrite(text.replace('kind = "one_way"', 'kind = "sessions"'))
    assert running.command("reload").status == 0
    with UdpClient(at["syslog"]) as client:
        first, second = client.ask(b"one"), client.ask(b"two")
    assert first["source"] == second["source"]


def test_of_ten_servers_one_goes_and_no_flow_of_the_others_moves(running: Daemon, servers: list[Server]) -> None:
    more = [Server(number) for number in range(10, 20)]
    bind, fresh = f"127.0.0.1:{ports.free_udp_port()}", []
    before = running.config.read_text()

    def text(some: list[Server]) -> str:
        addresses = json.dumps([f"127.0.0.1:{server.port}" for server in some])
        pool = f'[pools.ten]\nbalance = "maglev"\nservers = {addresses}\n'
        return f'{before}{pool}[edge.listeners.ten]\nbind = "{bind}"\nprotocol = "udp"\npool = "ten"\n'

    running.rewrite(text(more))
    assert running.command("reload").status == 0
    clients = [UdpClient(bind, 2, f"127.0.1.{number}") for number in range(1, 101)]
    try:
        first = [client.ask(b"one") for client in clients]
        gone = more[3]
        running.rewrite(text([server for server in more if server is not gone]))
        assert running.command("reload").status == 0
        assert [client.ask(b"two")["source"] for client in clients] == [one["source"] for one in first]  # flows live on
        fresh = [UdpClient(bind, 2, f"127.0.1.{number}") for number in range(1, 101)]
        again = [client.ask(b"three")["server"] for client in fresh]
        moved = [old["server"] for old, new in zip(first, again, strict=True) if old["server"] != new]
        assert moved.count(gone.number) == sum(one["server"] == gone.number for one in first) > 0
        assert len(moved) <= 20  # of a hundred clients about ten, and a few more: the price of an even table
    finally:
        for client in (*clients, *fresh):
            client.sock.close()
        for server in more:
            server.close()
