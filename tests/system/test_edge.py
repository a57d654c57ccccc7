"""The edge as its users meet it: real clients and servers, the daemon as a process."""

import json
import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable

import pytest

from tests.system.conftest import BackendMaker
from tests.system.support.clients import UdpClient, connect, raw, read_all, read_until, reset
from tests.system.support.daemon import Daemon
from tests.system.support.poll import until

Start = Callable[..., Daemon]
Port = Callable[[], int]

CLIENTS = 32


def configuration(port: int, servers: list[str], listener: str = "", pool: str = "", workers: int = 2) -> str:
    return f"""
[supervisor]
workers = {workers}
drain_timeout = "2s"
[pools.p]
servers = {json.dumps(servers)}
{pool}
[edge.listeners.l]
bind = "127.0.0.1:{port}"
pool = "p"
{listener}
"""


def test_bytes_go_both_ways_and_half_close_is_kept(
    daemon: Start, tcp_backend: BackendMaker, free_tcp_port: Port
) -> None:
    port = free_tcp_port()
    running = daemon(configuration(port, [tcp_backend("a").address]))
    payload = os.urandom(3 << 20)
    with connect(f"127.0.0.1:{port}", 20) as sock:
        sender = threading.Thread(target=lambda: (sock.sendall(payload), sock.shutdown(socket.SHUT_WR)))
        sender.start()
        assert read_all(sock) == payload
        sender.join()
    assert until(lambda: running.metric("portway_listener_bytes_in_total", listener="l") == len(payload))
    assert running.metric("portway_listener_bytes_out_total", listener="l") == len(payload)


def test_round_robin_spreads_over_the_servers(daemon: Start, tcp_backend: BackendMaker, free_tcp_port: Port) -> None:
    port = free_tcp_port()
    daemon(configuration(port, [tcp_backend("a", "report").address, tcp_backend("b", "report").address], workers=1))
    seen = Counter(json.loads(raw(f"127.0.0.1:{port}", b"", half_close=True))["server"] for _ in range(20))
    assert seen == {"a": 10, "b": 10}


def test_source_hash_keeps_a_client_on_its_server(
    daemon: Start, tcp_backend: BackendMaker, free_tcp_port: Port
) -> None:
    port = free_tcp_port()
    servers = [tcp_backend(name, "report").address for name in "abc"]
    running = daemon(configuration(port, servers, pool='balance = "source_hash"'))
    first = {json.loads(raw(f"127.0.0.1:{port}", b"", half_close=True))["server"] for _ in range(12)}
    assert len(first) == 1
    running.stop()
    daemon(configuration(port, servers, pool='balance = "source_hash"'))
    assert {json.loads(raw(f"127.0.0.1:{port}", b"", half_close=True))["server"] for _ in range(12)} == first


def test_a_refusing_server_costs_the_client_nothing(
    daemon: Start, tcp_backend: BackendMaker, free_tcp_port: Port
) -> None:
    port = free_tcp_port()
    running = daemon(configuration(port, [f"127.0.0.1:{free_tcp_port()}", tcp_backend("b", "report").address]))
    seen = [json.loads(raw(f"127.0.0.1:{port}", b"", half_close=True))["server"] for _ in range(20)]
    assert seen == ["b"] * 20
    assert running.metric("portway_listener_connect_failures_total", listener="l") >= 1


def test_no_server_at_all_is_a_reset(daemon: Start, free_tcp_port: Port) -> None:
    port = free_tcp_port()
    daemon(configuration(port, [f"127.0.0.1:{free_tcp_port()}"]))
    with pytest.raises(ConnectionResetError), connect(f"127.0.0.1:{port}") as sock:  # it may come as soon as that
        read_all(sock)


def test_a_reset_is_passed_on_as_a_reset(daemon: Start, tcp_backend: BackendMaker, free_tcp_port: Port) -> None:
    port = free_tcp_port()
    daemon(configuration(port, [tcp_backend("a", "reset").address]))
    with connect(f"127.0.0.1:{port}") as sock:
        sock.sendall(b"x")
        with pytest.raises(ConnectionResetError):
            read_all(sock)


@pytest.mark.parametrize(
    ("version", "start"), [("v1", b"PROXY TCP4 127.0.0.1 "), ("v2", b"\r\n\r\n\0\r\nQUIT\n\x21\x11")]
)
def test_the_proxy_header_names_the_client(
    daemon: Start, tcp_backend: BackendMaker, free_tcp_port: Port, version: str, start: bytes
) -> None:
    port = free_tcp_port()
    server = tcp_backend("a", "proxy", "report").address
    daemon(configuration(port, [server], listener=f'send_proxy_protocol = "{version}"'))
    with connect(f"127.0.0.1:{port}") as sock:
        sock.sendall(b"hello")
        told = json.loads(read_until(sock, b"\n").partition(b"\n")[0])
        header = bytes.fromhex(told["proxy"])
        assert header.startswith(start)
        own = sock.getsockname()[1]
        assert str(own).encode() in header or own.to_bytes(2, "big") in header


def test_a_silent_connection_ends_at_its_idle_timeout(
    daemon: Start, tcp_backend: BackendMaker, free_tcp_port: Port
) -> None:
    port = free_tcp_port()
    running = daemon(configuration(port, [tcp_backend("a").address], listener='idle_timeout = "300ms"'))
    with connect(f"127.0.0.1:{port}") as sock:
        assert sock.recv(1) == b""
    assert running.metric("portway_listener_timeouts_total", listener="l") == 1


def test_udp_keeps_each_client_on_its_server_through_two_workers(
    daemon: Start, udp_backend: BackendMaker, free_udp_port: Port
) -> None:
    port = free_udp_port()
    servers = [udp_backend(name).address for name in "abc"]
    running = daemon(configuration(port, servers, listener='protocol = "udp"'))
    clients = [UdpClient(f"127.0.0.1:{port}") for _ in range(CLIENTS)]
    try:
        first = [client.ask(b"one") for client in clients]
        again = [client.ask(b"two") for client in clients]
        for before, after in zip(first, again, strict=True):
            assert (after["server"], after["source"]) == (before["server"], before["source"])
        assert len({one["server"] for one in first}) == 3  # round robin by session
        assert running.metric("portway_listener_sessions", listener="l") == CLIENTS
    finally:
        for client in clients:
            client.sock.close()


def test_udp_flows_survive_the_death_of_their_worker(
    daemon: Start, udp_backend: BackendMaker, free_udp_port: Port
) -> None:
    port = free_udp_port()
    running = daemon(configuration(port, [udp_backend(name).address for name in "abc"], listener='protocol = "udp"'))
    clients = [UdpClient(f"127.0.0.1:{port}", 0.5) for _ in range(CLIENTS)]
    try:
        first = [client.ask(b"one") for client in clients]
        victim = running.pids("edge")[0]
        os.kill(victim, signal.SIGKILL)
        until(lambda: victim not in running.pids("edge") and len(running.pids("edge")) == 2)

        def asked(client: UdpClient) -> tuple[str, list[object]]:
            for _ in range(20):  # a datagram may be lost with the worker that had read it
                try:
                    answer = client.ask(b"two")
                except TimeoutError:
                    continue
                return answer["server"], answer["source"]
            raise AssertionError("no answer")

        assert [asked(client) for client in clients] == [(one["server"], one["source"]) for one in first]
    finally:
        for client in clients:
            client.sock.close()


@pytest.mark.parametrize("balance", ["round_robin", "source_hash"])
def test_a_dead_udp_server_loses_its_clients_to_another(
    daemon: Start, udp_backend: BackendMaker, free_udp_port: Port, balance: str
) -> None:
    port = free_udp_port()
    a, b = udp_backend("a"), udp_backend("b")
    pool = f'balance = "{balance}"'
    daemon(configuration(port, [a.address, b.address], listener='protocol = "udp"', pool=pool, workers=1))
    with UdpClient(f"127.0.0.1:{port}", 0.5) as client:
        name = client.ask(b"one")["server"]
        (a if name == "a" else b).stop()
        with pytest.raises(TimeoutError):
            client.ask(b"lost")  # it is this one that finds out
        assert client.ask(b"again")["server"] != name
        assert client.ask(b"and again")["server"] != name


def test_udp_sessions_end_when_silent(daemon: Start, udp_backend: BackendMaker, free_udp_port: Port) -> None:
    port = free_udp_port()
    listener = 'protocol = "udp"\nsession_timeout = "1s"'
    running = daemon(configuration(port, [udp_backend("a").address], listener=listener))
    with UdpClient(f"127.0.0.1:{port}") as client:
        client.ask(b"one")
        assert running.metric("portway_listener_sessions", listener="l") == 1
        until(lambda: running.metric("portway_listener_sessions", listener="l") == 0)


def test_large_datagrams_pass_whole(daemon: Start, udp_backend: BackendMaker, free_udp_port: Port) -> None:
    port = free_udp_port()
    daemon(configuration(port, [udp_backend("a").address], listener='protocol = "udp"'))
    with UdpClient(f"127.0.0.1:{port}") as client:
        client.sock.send(b"size 60000")
        assert len(client.sock.recv(65535)) == 60000


def test_clients_killed_at_random_points_leave_nothing_behind(
    daemon: Start, tcp_backend: BackendMaker, free_tcp_port: Port
) -> None:
    port = free_tcp_port()
    count = 20_000 if os.environ.get("PORTWAY_LONG") else 1_000
    running = daemon(configuration(port, [tcp_backend("a").address]))
    raw(f"127.0.0.1:{port}", b"warm", half_close=True)
    before = {pid: len(os.listdir(f"/proc/{pid}/fd")) for pid in running.pids("edge")}
    for number in range(count):
        sock = connect(f"127.0.0.1:{port}")
        if number % 3:
            sock.sendall(b"x" * (number % 5000))
        if number % 2:
            reset(sock)
        else:
            sock.close()
    until(lambda: running.metric("portway_listener_active", listener="l") == 0, seconds=20)
    until(lambda: {pid: len(os.listdir(f"/proc/{pid}/fd")) for pid in running.pids("edge")} == before, seconds=20)
