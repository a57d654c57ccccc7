"""HTTP/2 at the real gateway, where it hurts: floods, malformed requests, streams that nobody reads, a drain. What the
clients that people use get is for test_gateway_clients.py."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import pytest

from gateway.http2 import frames as wire
from gateway.http2.errors import ENHANCE_YOUR_CALM
from supervisor.cli.demo.credentials import write_certificate
from supervisor.cli.demo.ports import free_tcp_port
from tests.gateway.http2.wire import GET, HELLO, POST, head, read_frames
from tests.system.support.backends import Backend
from tests.system.support.clients import connect, fetch, trusting
from tests.system.support.daemon import Daemon
from tests.system.support.front import shows
from tests.system.support.poll import until

MB = 1 << 20


@attrs.define(eq=False)
class Site:
    """A gateway with a TLS listener and a plain one that takes HTTP/2 by prior knowledge."""

    daemon: Daemon
    backend: Backend
    authority: Path
    tls: str
    plain: str

    def backend_requests(self) -> int:
        """How many requests the server has seen, this one among them."""
        return int(fetch(self.backend.address, "/").json()["requests"])


CONFIG = """
[supervisor]
workers = 1
drain_timeout = "5s"
[pools.web]
servers = ["{server}"]
[gateway.listeners.tls]
bind = "{tls}"
{shows}
[gateway.listeners.plain]
bind = "{plain}"
http2 = true
[gateway.routes.all]
path = "/*"
pool = "web"
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("http2")
    shown = write_certificate(folder)
    backend = Backend("http", "one").start()
    tls, plain = (f"127.0.0.1:{free_tcp_port()}" for _ in range(2))
    daemon = Daemon.start(folder, CONFIG.format(server=backend.address, tls=tls, plain=plain, shows=shows(shown)))
    yield Site(daemon, backend, shown.authority, tls, plain)
    daemon.stop()
    backend.stop()


class Http2:
    """A client of one connection, by h2."""

    def __init__(self, address: str, authority: Path | None = None) -> None:
        self.sock: socket.socket = connect(address)
        if authority is not None:
            context = trusting(authority)
            context.set_alpn_protocols(["h2"])
            self.sock = context.wrap_socket(self.sock, server_hostname="localhost")
            assert isinstance(self.sock, ssl.SSLSocket)
            assert self.sock.selected_alpn_protocol() == "h2"
        self.address = address
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.events: list[Any] = []
        self.next_id = 1
        self.flush()

    def request(self, path: str, method: str = "GET", end: bool = True) -> int:
        stream, self.next_id = self.next_id, self.next_id + 2
        head = [(":method", method), (":scheme", "http"), (":authority", self.address), (":path", path)]
        self.h2.send_headers(stream, head, end_stream=end)
        return stream

    def flush(self) -> None:
        self.sock.sendall(self.h2.data_to_send())

    def read(self) -> bool:
        """Read once; False at the end of the stream."""
        data = self.sock.recv(1 << 16)
        for event in self.h2.receive_data(data) if data else []:
            self.events.append(event)
            if isinstance(event, h2.events.DataReceived) and event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        self.flush()
        return bool(data)

    def until(self, kind: type, stream: int | None = None) -> Any:
        """The first event of this kind (of this stream)."""
        while True:
            for event in self.events:
                if isinstance(event, kind) and (stream is None or event.stream_id == stream):
                    return event
            assert self.read(), f"the connection ended before {kind.__name__}: {self.events}"

    def answer(self, stream: int) -> tuple[int, bytes]:
        self.until(h2.events.StreamEnded, stream)
        head = self.until(h2.events.ResponseReceived, stream)
        body = b"".join(
            one.data for one in self.events if isinstance(one, h2.events.DataReceived) and one.stream_id == stream
        )
        return int(dict(head.headers)[":status"]), body

    def ended(self) -> Any:
        """The GOAWAY, once the gateway has closed."""
        try:
            while self.read():
                pass
        except (ConnectionError, h2.exceptions.ProtocolError):
            pass
        self.sock.close()
        return next(one for one in self.events if isinstance(one, h2.events.ConnectionTerminated))


def floods(site: Site) -> float:
    """How many connections have ended as floods so far."""
    return site.daemon.metric("portway_route_reasons_total", reason="http2_flood")


def test_rapid_reset_ends_its_connection_and_no_other(site: Site) -> None:
    before = floods(site)
    quiet, rude = Http2(site.tls, site.authority), Http2(site.plain)
    try:
        for _ in range(600):
            stream = rude.request("/?slow=5")
            rude.h2.reset_stream(stream)
            rude.flush()
    except ConnectionError:
        pass  # it is quick to close
    ended = rude.ended()
    assert ended.error_code == h2.errors.ErrorCodes.ENHANCE_YOUR_CALM
    stream = quiet.request("/")
    quiet.flush()
    assert quiet.answer(stream)[0] == 200
    quiet.sock.close()
    assert floods(site) == before + 1


ATTACKS = {
    "PING": wire.frame(wire.PING, 0, 0, b"\0" * 8) * 250,
    "SETTINGS": wire.settings({}) * 60,
    "PRIORITY": wire.frame(wire.PRIORITY, 0, 9, b"\0\0\0\0\x10") * 1100,
    "WINDOW_UPDATE": wire.window_update(0, 1) * 1100,
    "empty DATA": head(1, POST, end=False) + wire.frame(wire.DATA, 0, 1) * 150,
    "CONTINUATION": wire.frame(wire.HEADERS, 0, 1, b"\x82") + wire.frame(wire.CONTINUATION, 0, 1) * 30,
    "malformed requests": b"".join(head(stream, GET[:2]) for stream in range(1, 1001, 2)),
}


def test_every_flood_ends_its_connection_and_costs_no_other(site: Site) -> None:
    before = floods(site)
    quiet = Http2(site.tls, site.authority)
    for name, attack in ATTACKS.items():
        sock = connect(site.plain)
        sock.sendall(HELLO + attack)
        said = b""
        try:
            while data := sock.recv(1 << 16):
                said += data
        except ConnectionError:
            pass  # what we sent beyond its patience made closing a reset
        sock.close()
        goaways = [payload for kind, _, _, payload in read_frames(said) if kind == wire.GOAWAY]
        assert int.from_bytes(goaways[-1][4:8], "big") == ENHANCE_YOUR_CALM, name
        stream = quiet.request("/")
        quiet.flush()
        assert quiet.answer(stream)[0] == 200
    quiet.sock.close()
    assert floods(site) == before + len(ATTACKS)


def test_a_malformed_request_resets_its_stream_alone(site: Site) -> None:
    client = Http2(site.plain)
    client.h2.config.validate_outbound_headers = False
    client.h2.config.normalize_outbound_headers = False
    client.h2.send_headers(1, [(":method", "GET"), (":scheme", "http"), (":path", "/"), ("Upper", "1")], True)
    client.next_id = 3
    good = client.request("/")
    client.flush()
    assert client.until(h2.events.StreamReset, 1).error_code == h2.errors.ErrorCodes.PROTOCOL_ERROR
    assert client.answer(good)[0] == 200
    client.sock.close()


def memory(pid: int) -> int:
    """Bytes resident."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def test_a_hundred_streams_that_nobody_reads_hold_bounded_memory(site: Site) -> None:
    [worker] = site.daemon.pids("gateway")
    before = memory(worker)
    client = Http2(site.plain)
    for _ in range(100):
        client.request(f"/?size={MB}")
    client.flush()
    client.until(h2.events.DataReceived)
    until(lambda: fetch(site.plain, "/").status == 200, "another client's answer", 10.0)
    assert memory(worker) - before < 40 * MB  # of 100 MiB
    client.sock.close()


def frames(sock: socket.socket) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, stream, payload) until the end: h2 takes no frame after a GOAWAY, though streams may go on."""
    data = b""
    while True:
        while len(data) < 9 or len(data) < 9 + int.from_bytes(data[:3], "big"):
            more = sock.recv(1 << 16)
            if not more:
                assert not data
                return
            data += more
        end = 9 + int.from_bytes(data[:3], "big")
        yield data[3], data[4], int.from_bytes(data[5:9], "big"), data[9:end]
        data = data[end:]


def test_a_drain_says_goaway_and_lets_streams_end(site: Site) -> None:
    """Last, for it ends the daemon."""
    client = Http2(site.tls, site.authority)
    first = client.request("/")
    client.flush()
    assert client.answer(first)[0] == 200
    requests = site.backend_requests()
    stream = client.request("/?slow=2")
    client.flush()
    until(lambda: site.backend_requests() > requests + 1, "the request at the server")
    stopping = threading.Thread(target=site.daemon.stop)
    stopping.start()
    goaways, headers = [], []
    try:
        for kind, _, number, payload in frames(client.sock):
            if kind == 0x7:
                goaways.append((int.from_bytes(payload[:4], "big"), int.from_bytes(payload[4:8], "big")))
            elif kind == 0x6:
                client.sock.sendall(b"\0\0\x08\x06\x01\0\0\0\0" + payload)  # PING, ACK
            elif kind == 0x1:
                headers.append(number)
    finally:
        stopping.join()
        client.sock.close()
    assert goaways == [(2**31 - 1, 0), (stream, 0)]
    assert headers == [stream]
