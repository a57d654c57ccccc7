"""WebSockets through the real edge and gateway: websockets on both ends, by HTTP/1.1 and HTTP/2 (with h2)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import h2.config
import h2.connection
import h2.events
import pytest

from supervisor.cli.demo.credentials import write_certificate
from supervisor.cli.demo.ports import free_tcp_port
from tests.system.support.clients import connect, trusting
from tests.system.support.daemon import Daemon
from tests.system.support.front import behind_edge, shows
from tests.system.support.poll import until

websockets: Any = pytest.importorskip("websockets", reason="websockets is not installed")
from websockets.exceptions import ConnectionClosed  # noqa: E402  # only where it is installed
from websockets.frames import Opcode  # noqa: E402
from websockets.protocol import Protocol, Side, State  # noqa: E402
from websockets.sync.client import connect as dial  # noqa: E402
from websockets.sync.server import ServerConnection, serve  # noqa: E402

MB = 1 << 20
CHROMIUM = shutil.which("chromium-headless-shell") or shutil.which("chromium")
CONFIG = """
[supervisor]
workers = 1
drain_timeout = "4s"
[log]
access = "access.log"
[pools.chat]
servers = ["{server}"]
{listeners}
[gateway.routes.chat]
pool = "chat"
[gateway.routes.page]
path = "/page"
respond = {{ content_type = "text/html", body = '{page}' }}
[gateway.routes.data]
path = "/data/*"
respond = {{ body = "data" }}
"""
# What a browser does: many requests at once, and a WebSocket. What it saw it reports by a path, which is logged.
PAGE = """<title>waiting</title><script>
const numbers = [...Array(20).keys()];
const asked = Promise.all(numbers.map(number => fetch("/data/" + number).then(answer => answer.text())));
const spoken = new Promise((done, failed) => {
  const socket = new WebSocket("wss://" + location.host + "/chat", "chat");
  socket.onopen = () => socket.send("hello");
  socket.onmessage = event => { done(event.data + "-" + socket.protocol); socket.close(4000, "bye"); };
  socket.onerror = failed;
});
Promise.all([asked, spoken]).then(([texts, word]) => {
  const how = new Set(performance.getEntriesByType("resource").map(one => one.nextHopProtocol));
  return texts.filter(text => text == "data").length + ":" + word + ":" + [...how];
}).catch(reason => "failed").then(report => fetch("/data/report:" + report));
</script>""".replace("\n", " ")


@attrs.define(eq=False)
class Site:
    daemon: Daemon
    plain: str
    tls: str
    context: Any
    codes: list[tuple[int | None, str | None]]  # with which the server's connections were closed


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("websocket")
    shown = write_certificate(folder)
    codes: list[tuple[int | None, str | None]] = []

    def echo(connection: ServerConnection) -> None:
        try:
            for message in connection:
                if message == "close me":
                    connection.close(4001, "as you wish")
                else:
                    connection.send(message)
        except ConnectionClosed:
            pass
        finally:
            connection.close()
            codes.append((connection.close_code, connection.close_reason))

    server = serve(echo, "127.0.0.1", 0, max_size=None, subprotocols=["chat"])
    port = server.socket.getsockname()[1]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    plain, tls, inner, inner_tls = (f"127.0.0.1:{free_tcp_port()}" for _ in range(4))
    listeners = behind_edge("plain", plain, inner) + behind_edge("tls", tls, inner_tls, shows(shown))
    daemon = Daemon.start(folder, CONFIG.format(server=f"127.0.0.1:{port}", listeners=listeners, page=PAGE))
    yield Site(daemon, plain, tls, trusting(shown.authority), codes)
    daemon.stop()
    server.shutdown()
    thread.join()


@pytest.mark.parametrize("secure", [False, True])
def test_messages_of_every_kind_come_back(site: Site, secure: bool) -> None:
    way = {"ssl": site.context, "server_hostname": "localhost"} if secure else {}
    address = f"wss://{site.tls}" if secure else f"ws://{site.plain}"
    with dial(address, max_size=None, subprotocols=["chat"], **way) as socket:
        assert socket.subprotocol == "chat"
        large = os.urandom(10 * MB)
        for message in ("hello", b"\x00\xff", "", "ä" * 70_000, large):
            socket.send(message)
            assert socket.recv(20) == message
        socket.send(iter(["frag", "ment", "ed"]))
        assert socket.recv(20) == "fragmented"
        assert socket.ping().wait(20)
        socket.close(4711, "enough")
    until(lambda: (4711, "enough") in site.codes, "the server to hear the client's code")


def test_the_servers_close_code_reaches_the_client(site: Site) -> None:
    with dial(f"ws://{site.plain}", subprotocols=["chat"]) as socket:
        socket.send("close me")
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(20)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "as you wish")


class Http2Socket:
    """One WebSocket on a connection of HTTP/2; the frames are websockets' own."""

    def __init__(self, site: Site) -> None:
        site.context.set_alpn_protocols(["h2"])
        self.sock = site.context.wrap_socket(connect(site.tls), server_hostname="localhost")
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="ascii"))
        self.h2.initiate_connection()
        self.frames = Protocol(Side.CLIENT, state=State.OPEN, max_size=None)
        self.got: list[Any] = []
        self.status = ""
        head = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"), (":path", "/"),
                (":authority", "a"), ("sec-websocket-version", "13"), ("sec-websocket-protocol", "chat")]  # fmt: skip
        self.h2.send_headers(1, head)
        self.move(lambda: bool(self.status))

    def move(self, done: Any) -> None:
        """Until `done`."""
        waiting = b"".join(self.frames.data_to_send())
        while waiting or not done():
            while waiting and (window := min(self.h2.local_flow_control_window(1), 16_384)):
                self.h2.send_data(1, waiting[:window])
                waiting = waiting[window:]
            self.sock.sendall(self.h2.data_to_send())
            data = self.sock.recv(1 << 16)
            assert data, "the connection ended"
            for event in self.h2.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived):
                    self.status = dict(event.headers)[":status"]
                elif isinstance(event, h2.events.DataReceived):
                    self.frames.receive_data(event.data)
                    self.h2.acknowledge_received_data(event.flow_controlled_length, 1)
                    self.got += self.frames.events_received()
            waiting += b"".join(self.frames.data_to_send())
        self.sock.sendall(self.h2.data_to_send())

    def echoed(self, data: bytes) -> bytes:
        self.frames.send_binary(data)
        self.move(lambda: bool(self.got) and self.got[-1].fin)
        frames, self.got = self.got, []
        return b"".join(frame.data for frame in frames)


def test_a_websocket_by_http_2(site: Site) -> None:
    socket = Http2Socket(site)
    assert socket.status == "200"
    for data in (b"hello", b"", os.urandom(10 * MB)):
        assert socket.echoed(data) == data
    socket.frames.send_close(4711, "by two")
    socket.move(lambda: bool(socket.got))
    assert socket.got[0].opcode is Opcode.CLOSE
    socket.h2.end_stream(1)
    socket.sock.sendall(socket.h2.data_to_send())
    until(lambda: (4711, "by two") in site.codes, f"the code {site.codes}")
    socket.sock.close()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium-headless-shell")
def test_a_browser_speaks_http_2_and_websocket(site: Site, tmp_path: Path) -> None:
    assert CHROMIUM is not None
    log = site.daemon.folder / "access.log"
    browser = subprocess.Popen(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}",
         "--ignore-certificate-errors", "--remote-debugging-port=0", f"https://localhost:{site.tls[10:]}/page"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        until(lambda: "/data/report" in log.read_text(), "the browser's report", 30.0)
    finally:
        os.killpg(browser.pid, signal.SIGKILL)  # what was started is a script, and Chromium its child
        browser.wait(20)
    assert '"/data/report:20:hello-chat:h2"' in log.read_text()
    until(lambda: (4000, "bye") in site.codes, "the server to hear the browser's code")


def test_a_drain_tells_websockets_to_go_elsewhere(site: Site) -> None:
    """Last, for it ends the daemon."""
    with dial(f"ws://{site.plain}", subprotocols=["chat"]) as one:
        two = Http2Socket(site)
        site.daemon.send(signal.SIGTERM)
        with pytest.raises(ConnectionClosed) as closed:
            one.recv(20)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
        two.sock.settimeout(20)
        data = b""
        while b"\x88\x02\x03\xe9" not in data:
            more = two.sock.recv(1 << 16)
            assert more, "the connection ended without a farewell"
            data += more
        two.sock.close()
