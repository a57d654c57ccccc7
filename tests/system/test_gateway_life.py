"""The gateway while things change around it: reloads, drains, killed workers, clients that vanish."""

import contextlib
import json
import os
import random
import signal
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any

from supervisor.cli.demo.credentials import Certificate, write_certificate
from tests.system.conftest import BackendMaker
from tests.system.support.clients import Client, connect, read_all, read_until, reset, trusting
from tests.system.support.daemon import Daemon
from tests.system.support.front import behind_edge, shows
from tests.system.support.poll import until
from tests.system.support.processes import open_files
from tests.system.test_gateway import configuration

Start = Callable[..., Daemon]
Port = Callable[[], int]


class Load:
    """Clients that ask all the time, a few requests per connection; what they got, by status or error."""

    def __init__(self, address: str, target: str = "/") -> None:
        self.address = address
        self.target = target
        self.seen: Counter[str] = Counter()
        self.over = threading.Event()

    def ask(self) -> None:
        while not self.over.is_set():
            try:
                with Client(self.address) as client:
                    for _ in range(10):
                        answer = client.get(self.target)
                        self.seen[str(answer.status)] += 1
                        if answer.headers.get("connection") == "close":
                            break
            except (OSError, HTTPException) as error:
                self.seen[type(error).__name__] += 1

    @contextmanager
    def running(self, clients: int = 4) -> Iterator["Load"]:
        threads = [threading.Thread(target=self.ask) for _ in range(clients)]
        for thread in threads:
            thread.start()
        try:
            until(lambda: self.seen["200"] > 20, "the load to begin", 20)
            yield self
        finally:
            self.over.set()
            for thread in threads:
                thread.join(20)


def test_a_reload_loses_no_request_and_a_bad_one_changes_nothing(
    daemon: Start, http_backend: BackendMaker, free_tcp_port: Port
) -> None:
    port = free_tcp_port()
    first, second = http_backend("a"), http_backend("b")
    text = configuration(port, first.address)
    running = daemon(text)
    workers = running.pids("gateway")
    with Load(f"127.0.0.1:{port}").running() as load:
        for number in range(4):
            running.rewrite(configuration(port, (first, second)[number % 2].address))
            done = running.command("reload")
            assert done.status == 0, done.err
        running.rewrite(configuration(port, second.address).replace("pool =", "pol ="))
        bad = running.command("reload")
        assert bad.status != 0
        assert 'unknown key; did you mean "pool"?' in bad.err
        before = load.seen["200"]
        until(lambda: load.seen["200"] > before + 20, "requests after the bad reload", 10)
    assert set(load.seen) == {"200"}, load.seen
    assert running.pids("gateway") == workers
    with Client(f"127.0.0.1:{port}") as client:
        assert client.get("/").json()["server"] == "b"


def test_a_reload_swaps_certificates_under_running_workers(
    daemon: Start, http_backend: BackendMaker, free_tcp_port: Port, tmp_path: Path
) -> None:
    port = free_tcp_port()
    server = http_backend("a").address

    def text(folder: str) -> str:
        pair = f'{{ cert = "{folder}/cert.pem", key = "{folder}/cert-key.pem" }}'
        return configuration(port, server, listener=f"tls = {{ certificates = [{pair}] }}")

    authorities = {}
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        authorities[name] = trusting(write_certificate(tmp_path / name).authority)
    running = daemon(text("old"))
    with Client(f"127.0.0.1:{port}", authorities["old"]) as kept:
        assert kept.get("/").status == 200
        running.rewrite(text("new"))
        assert running.command("reload").status == 0
        for _ in range(4):
            with Client(f"127.0.0.1:{port}", authorities["new"]) as client:
                assert client.get("/").status == 200
        assert kept.get("/").status == 200


def test_certificates_that_change_on_disk_are_served_without_a_reload_and_bad_ones_never(
    daemon: Start, http_backend: BackendMaker, free_tcp_port: Port, tmp_path: Path
) -> None:
    port, address = free_tcp_port(), http_backend("a").address
    old = write_certificate(tmp_path)
    pair = f'{{ cert = "{old.cert}", key = "{old.key}" }}'
    running = daemon(configuration(port, address, listener=f"tls = {{ certificates = [{pair}] }}"))
    workers = running.pids("gateway")
    before = trusting(old.authority)
    with Client(f"127.0.0.1:{port}", before) as kept:
        assert kept.get("/").status == 200
        old.cert.write_bytes(b"rubbish")
        until(lambda: running.metric("portway_tier_certificates_refused_total"), "the bad pair to be noticed", 15)
        with Client(f"127.0.0.1:{port}", before) as client:
            assert client.get("/").status == 200
        after = trusting(write_certificate(tmp_path).authority)
        until(lambda: running.metric("portway_tier_certificates_renewed_total"), "the new pair to be noticed", 15)

        def served() -> bool:
            try:
                with Client(f"127.0.0.1:{port}", after) as client:
                    return client.get("/").status == 200
            except ssl.SSLCertVerificationError:
                return False

        until(served, "the new certificate")
        for _ in range(8):
            assert served(), "by every worker"
        assert kept.get("/").status == 200
        os.kill(workers[0], signal.SIGKILL)
        until(lambda: succeeded(running, workers[0]), "a successor", 10)
        for _ in range(8):
            assert served(), "by a successor, too"
    assert running.status()["portway"]["generation"] == 1
    assert running.command("reload").err.strip() == "portway: reloaded; nothing has changed"
    (line,) = [line for line in running.lines() if line["event"].startswith("certificate not taken")]
    assert "not a PEM certificate" in line["reason"]


def test_a_drain_lets_what_runs_finish(daemon: Start, http_backend: BackendMaker, free_tcp_port: Port) -> None:
    port = free_tcp_port()
    running = daemon(configuration(port, http_backend("a").address))
    with connect(f"127.0.0.1:{port}") as busy, connect(f"127.0.0.1:{port}") as silent:
        silent.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        read_until(silent, b"}")
        busy.sendall(b"GET /?slow=1.5 HTTP/1.1\r\nHost: a\r\n\r\n")
        until(lambda: running.metric("portway_server_in_flight"), "the request to be under way")
        running.send(signal.SIGTERM)
        answer = read_until(busy, b"}")
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"\r\nConnection: close\r\n" in answer
        assert busy.recv(1) == b""
        assert silent.recv(1) == b""
    running.stop()


def test_websockets_are_told_to_go_elsewhere_while_health_checks_have_noticed_first(
    daemon: Start, free_tcp_port: Port
) -> None:
    port = free_tcp_port()
    text, half = b"\x81\x05hello", b"\x81\x05hel"
    closed: list[bytes] = []
    goes_on = threading.Event()
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        conn, _ = server.accept()
        with conn:
            read_until(conn, b"\r\n\r\n")
            head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
            conn.sendall(head + text + half)
            goes_on.wait(20)
            conn.sendall(b"lo")
            while data := conn.recv(1000):
                closed.append(data)

    thread = threading.Thread(target=serve)
    thread.start()
    with server:
        settings = configuration(port, f"127.0.0.1:{server.getsockname()[1]}")
        running = daemon(settings.replace("[supervisor]", '[supervisor]\ndrain_delay = "3s"'))
        with connect(f"127.0.0.1:{port}") as sock:
            sock.sendall(b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            read_until(sock, text + half)
            running.send(signal.SIGTERM)
            until(lambda: not running.healthy(), "the health to turn")
            with connect(f"127.0.0.1:{port}"):
                pass  # still accepted
            until(lambda: running.command("status").out.count("websocket web 127.0.0.1 at work") == 1, "the status", 10)
            until(lambda: running.status()["holding"], "the admin to be told")
            (held,) = running.status()["holding"]
            assert held["holding"] == ["websocket web 127.0.0.1 at work"]
            goes_on.set()
            assert read_until(sock, b"\xe9") == b"lo\x88\x02\x03\xe9", "the frame's end, then 1001"
            answer = b"\x88\x82\x00\x00\x00\x00\x03\xe9"
            sock.sendall(answer)
            until(lambda: closed == [answer], "the answer at the server")
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1) == b""
        thread.join(10)
        running.stop()
    assert not [line for line in running.lines() if line["event"] == "drain timeout"]


def succeeded(running: Daemon, victim: int) -> bool:
    pids = running.pids("gateway")
    return len(pids) == 2 and victim not in pids


def test_a_killed_worker_costs_its_own_requests_and_no_other(
    daemon: Start, http_backend: BackendMaker, free_tcp_port: Port
) -> None:
    port = free_tcp_port()
    running = daemon(configuration(port, http_backend("a").address))
    with Load(f"127.0.0.1:{port}").running() as load:
        for _ in range(3):
            victim = running.pids("gateway")[0]
            os.kill(victim, signal.SIGKILL)
            until(partial(succeeded, running, victim), "a successor", 10)
        before = load.seen["200"]
        until(lambda: load.seen["200"] > before + 100, "requests after the kills", 20)
    # What was under way in the killed workers is lost; nothing is refused, and nobody else notices.
    lost = sum(load.seen.values()) - load.seen["200"]
    assert lost <= 3 * 4 * 2, load.seen
    # A client may have its answer a moment before the gateway has done its books.
    until(lambda: running.metric("portway_server_in_flight") == 0, "the last request to be accounted for")


def test_clients_that_vanish_leave_nothing_behind(
    daemon: Start, http_backend: BackendMaker, free_tcp_port: Port
) -> None:
    port = free_tcp_port()
    running = daemon(configuration(port, http_backend("a").address, workers=1))
    address = f"127.0.0.1:{port}"
    chance = random.Random(7)
    request = b"POST /?size=200000&pause=0.01 HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000

    def storm(count: int) -> None:
        for _ in range(count):
            sock = connect(address)
            sock.sendall(request[: chance.randrange(len(request) + 1)])
            if chance.random() < 0.3:
                sock.settimeout(0.01)
                try:
                    sock.recv(chance.randrange(1, 50_000))
                except OSError:
                    pass
            if chance.random() < 0.5:
                reset(sock)
            else:
                sock.close()

    def settled() -> bool:
        return running.metric("portway_listener_active", listener="web") == 0

    storm(100)
    until(settled, "the first storm to pass", 20)
    pid = running.pids("gateway")[0]
    before = open_files(pid)
    storm(800)
    until(settled, "the second storm to pass", 20)
    # Kept connections to the server come and go; nothing else may.
    until(lambda: open_files(pid) <= before + 20, "the descriptors to be given back", 20)
    assert running.metric("portway_server_in_flight") == 0
    with Client(address) as client:
        assert client.get("/").status == 200


def client_hello() -> bytes:
    handshake = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        trusting(None).wrap_bio(ssl.MemoryBIO(), handshake, server_hostname="localhost").do_handshake()
    return handshake.read()


def test_slow_clients_are_told_and_others_do_not_wait(
    daemon: Start, http_backend: BackendMaker, free_tcp_port: Port, certificate: Certificate
) -> None:
    port, secure = free_tcp_port(), free_tcp_port()
    text = configuration(port, http_backend("a").address, workers=1)
    running = daemon(f'{text}[gateway.listeners.tls]\nbind = "127.0.0.1:{secure}"\n{shows(certificate)}\n')
    address = f"127.0.0.1:{port}"
    slow = [connect(address) for _ in range(50)]
    for sock in slow:
        sock.sendall(b"GET / HTTP/1.1\r\nHost:")
    began = time.monotonic()
    hello = client_hello()
    shaking = [connect(f"127.0.0.1:{secure}") for _ in range(30)]
    for number, sock in enumerate(shaking):  # nothing at all, a part of the greeting, all of it
        sock.sendall((b"", hello[:100], hello)[number % 3])
    with Client(address) as client:
        for _ in range(50):
            assert client.get("/").status == 200
    assert time.monotonic() - began < 9
    for sock in slow:
        answer = read_until(sock, b"}")
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "head_timeout"
        sock.close()
    for sock in shaking:  # nobody is cut before the 10 s that a handshake has, nor much after
        read_all(sock)
        assert time.monotonic() - began > 9
        sock.close()
    assert running.metric("portway_listener_handshake_failures_total", listener="tls") == len(shaking)


def test_a_client_that_leaves_while_its_server_is_silent_takes_the_request_along(
    daemon: Start, http_backend: BackendMaker, free_tcp_port: Port, certificate: Certificate
) -> None:
    outer, inner, port = (f"127.0.0.1:{free_tcp_port()}" for _ in range(3))
    text = configuration(int(port.rpartition(":")[2]), http_backend("a").address, workers=1, route='timeout = "1m"')
    text += '[gateway.routes.patient]\npath = "/patient"\npool = "web"\nabort_on_close = false\n'
    running = daemon(text + behind_edge("tls", outer, inner, shows(certificate)))
    log = running.folder / "access.log"

    def logged(path: str) -> list[Any]:
        """What the gateway says of requests for this path; the edge has lines of its own there."""
        return [line for line in map(json.loads, log.read_text().splitlines()) if line.get("path") == path]

    context = trusting(certificate.authority)
    context.set_alpn_protocols(["http/1.1"])
    for way in ("closed", "shut", "reset", "tls"):
        sock = connect(outer if way == "tls" else port)
        if way == "tls":
            sock = context.wrap_socket(sock, server_hostname="localhost")
        sock.sendall(f"GET /{way}?slow=50 HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        until(lambda: running.metric("portway_server_in_flight", pool="web") == 1, "the request at the server")
        if way == "shut":
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1) == b""
        if way == "reset":
            reset(sock)
        sock.close()
        until(lambda: running.metric("portway_server_in_flight", pool="web") == 0, "the request to be given up")
        until(partial(logged, f"/{way}"), "the line in the access log")
        (line,) = logged(f"/{way}")
        assert (line["status"], line["reason"]) == (499, "client_gone")
    with connect(port) as sock:
        sock.sendall(b"GET /patient?slow=0.5 HTTP/1.1\r\nHost: a\r\n\r\n")
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock).startswith(b"HTTP/1.1 200 ")
