"""Servers behind TLS and HTTP/2, with two real gateways: the second is the first one's server, in every way."""

from __future__ import annotations

import concurrent.futures
import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import pytest
from websockets.sync.client import connect as dial
from websockets.sync.server import serve

from supervisor.cli.demo.credentials import write_certificate
from supervisor.cli.demo.ports import free_tcp_port
from tests.system.support.backends import Backend
from tests.system.support.clients import Client, Response, connect, fetch, raw
from tests.system.support.daemon import Daemon
from tests.system.support.poll import until

MB = 1 << 20
INNER = """
[supervisor]
workers = 1
[pools.web]
servers = ["{backend}"]
[gateway.listeners.tls]
bind = "{tls}"
tls = {{ certificates = [{{ cert = "{cert}", key = "{key}" }}] }}
[gateway.listeners.plain]
bind = "{plain}"
http2 = true
[gateway.routes.all]
pool = "web"
[pools.chat]
servers = ["{chat}"]
[gateway.routes.chat]
path = "/chat"
pool = "chat"
"""
FRONT = """
[supervisor]
workers = 1
[gateway.listeners.web]
bind = "{web}"
http2 = true
[pools.auto]
servers = ["{tls}"]
tls = {{ sni = "localhost", ca = "{authority}" }}
[pools.http1]
servers = ["{tls}"]
protocol = "http1"
tls = {{ ca = "{authority}" }}
[pools.h2]
servers = ["{tls}"]
protocol = "h2"
tls = {{ verify = false }}
[pools.h2c]
servers = ["{plain}"]
protocol = "h2c"
[pools.stranger]
servers = ["{tls}"]
tls = {{ sni = "other.example", ca = "{authority}" }}
"""
ROUTE = '[gateway.routes.{name}]\nhosts = ["{name}.test"]\npool = "{name}"\n'
POOLS = ("auto", "http1", "h2", "h2c")


@attrs.define(eq=False)
class Chain:
    front: Daemon
    backend: Backend
    web: str

    def ask(self, pool: str, target: str = "/", method: str = "GET", body: bytes | None = None) -> Response:
        return fetch(self.web, target, method, {"Host": f"{pool}.test"}, body)


@contextmanager
def chat() -> Iterator[str]:
    """A server of WebSockets that says everything again; its address."""

    def echo(connection: Any) -> None:
        for message in connection:
            connection.send(message)

    with serve(echo, "127.0.0.1", 0, max_size=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def talker() -> Iterator[str]:
    with chat() as address:
        yield address


@pytest.fixture(scope="module")
def chain(talker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    folder = tmp_path_factory.mktemp("chain")
    shown = write_certificate(folder)
    backend = Backend("http", "one", 0, ()).start()
    tls, plain, web = (f"127.0.0.1:{free_tcp_port()}" for _ in range(3))
    inner = INNER.format(backend=backend.address, chat=talker, tls=tls, plain=plain, cert=shown.cert, key=shown.key)
    front = FRONT.format(web=web, tls=tls, plain=plain, authority=shown.authority)
    front += "".join(ROUTE.format(name=name) for name in (*POOLS, "stranger"))
    (folder / "inner").mkdir()
    behind = Daemon.start(folder / "inner", inner)
    before = Daemon.start(folder, front)
    yield Chain(before, backend, web)
    before.stop()  # first: its idle connections would hold the other's drain
    behind.stop()
    backend.stop()


@pytest.mark.parametrize("pool", POOLS)
def test_requests_and_answers_pass_whole(chain: Chain, pool: str) -> None:
    seen = chain.ask(pool, "/a?b=c").json()
    assert (seen["method"], seen["target"]) == ("GET", "/a?b=c")
    assert [value for name, value in seen["headers"] if name.lower() == "host"] == [f"{pool}.test"]
    body = b"0123456789abcdef" * (4 * MB // 16)
    seen = chain.ask(pool, "/up", "POST", body).json()
    assert (seen["length"], seen["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())
    assert chain.ask(pool, f"/down?size={len(body)}").body == body
    assert chain.ask(pool, f"/down?size={MB}&chunked=1").body == body[:MB]
    assert chain.ask(pool, "/?status=404").status == 404
    assert chain.ask(pool, "/?size=9", "HEAD").headers["content-length"] == "9"


@pytest.mark.parametrize("pool", POOLS)
def test_connections_are_kept(chain: Chain, pool: str) -> None:
    """Also those on which TLS itself has spoken since: tickets come after the handshake."""
    with Client(chain.web) as client:
        for _ in range(5):
            assert client.get("/", {"Host": f"{pool}.test"}).status == 200
    assert chain.front.metric("portway_server_connections_total", pool=pool) in range(1, 9)


@pytest.mark.parametrize("pool", ["auto", "h2c"])
def test_many_share_a_connection(chain: Chain, pool: str) -> None:
    with concurrent.futures.ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(lambda number: chain.ask(pool, f"/?slow=0.2&n={number}"), range(20)))
    assert sorted(one.json()["target"] for one in answers) == sorted(f"/?slow=0.2&n={n}" for n in range(20))


@pytest.mark.parametrize("pool", POOLS)
def test_websockets_pass_by_whichever_version(chain: Chain, pool: str) -> None:
    """By extended CONNECT where the pool is asked by HTTP/2 alone."""
    before = chain.front.metric("portway_server_connections_total", pool=pool)
    with dial(f"ws://{pool}.test/chat", sock=connect(chain.web), max_size=None) as socket:
        large = os.urandom(3 * MB)
        for message in ("hello", b"", large):
            socket.send(message)
            assert socket.recv(20) == message
        assert chain.ask(pool).status == 200  # beside it
        socket.send(iter(["frag", "ment", "ed"]))
        assert socket.recv(20) == "fragmented"
        assert socket.ping().wait(20)
        socket.close(4711, "enough")
        assert socket.close_code == 4711
    if pool.startswith("h2"):
        assert chain.front.metric("portway_server_connections_total", pool=pool) <= before + 1


def test_a_server_that_cannot_prove_its_name_gets_nothing(chain: Chain) -> None:
    answer = chain.ask("stranger")
    assert (answer.status, answer.json()["code"]) == (502, "tls_failed")
    until(lambda: "certificate verify failed" in chain.front.stderr, "the reason in the log")


def test_trailers_pass_over_http_2_in_between(chain: Chain) -> None:
    head = b"POST / HTTP/1.1\r\nHost: h2c.test\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    answer = raw(chain.web, head + b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n")
    assert b'"body": "hello"' in answer
