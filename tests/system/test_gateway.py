"""The gateway as its users meet it: requests through the real daemon, over plain sockets and TLS."""

import hashlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from supervisor.cli.demo.credentials import Certificate, Issuer
from tests.system.conftest import BackendMaker
from tests.system.support.clients import Client, connect, raw, read_until, trusting
from tests.system.support.daemon import Daemon
from tests.system.support.poll import until

Start = Callable[..., Daemon]
Port = Callable[[], int]


def configuration(port: int, *servers: str, listener: str = "", route: str = "", workers: int = 2) -> str:
    return f"""
[supervisor]
workers = {workers}
drain_timeout = "5s"
pop = "test1"
[log]
access = "access.log"
[pools.web]
servers = {json.dumps(servers)}
[gateway.listeners.web]
bind = "127.0.0.1:{port}"
{listener}
[gateway.routes.web]
pool = "web"
{route}
"""


def pieces(count: int) -> Iterator[bytes]:
    for number in range(count):
        yield bytes([number % 256]) * 30_000


def test_a_request_travels_there_and_back(daemon: Start, http_backend: BackendMaker, free_tcp_port: Port) -> None:
    port = free_tcp_port()
    running = daemon(configuration(port, http_backend("a").address))
    with Client(f"127.0.0.1:{port}") as client:
        for number in range(5):
            sent = {"X-User-Id": "forged", "X-Forwarded-For": "6.6.6.6", "X-A": "b"}
            answer = client.get(f"/x/../y?n={number}", sent)
            assert answer.status == 200
            assert answer.json()["target"] == f"/y?n={number}"
            assert answer.seen("X-A") == ["b"]
            assert answer.seen("X-User-Id") == []
            assert answer.seen("X-Forwarded-For") == ["127.0.0.1"]
            assert answer.seen("X-Request-Id") == [answer.headers["x-request-id"]]
            assert answer.headers["x-served-by"] == "test1"
    log = running.folder / "access.log"
    until(lambda: log.exists() and len(log.read_text().splitlines()) == 5, "the access log")
    line = json.loads(log.read_text().splitlines()[0])
    assert (line["status"], line["path"], line["route"], line["client"]) == (200, "/y", "web", "127.0.0.1")
    assert running.metric("portway_listener_accepted_total", listener="web") == 1


def test_large_bodies_go_both_ways(daemon: Start, http_backend: BackendMaker, free_tcp_port: Port) -> None:
    port = free_tcp_port()
    daemon(configuration(port, http_backend("a").address))
    body = b"".join(pieces(200))
    digest = hashlib.sha256(body).hexdigest()
    with Client(f"127.0.0.1:{port}") as client:
        answer = client.request("POST", "/", body=body)
        assert (answer.json()["length"], answer.json()["sha256"]) == (len(body), digest)
        answer = client.request("POST", "/", body=pieces(200))
        assert (answer.json()["length"], answer.json()["sha256"]) == (len(body), digest)
        assert len(client.get("/?size=5000000").body) == 5_000_000
        assert len(client.get("/?size=5000000&chunked=1").body) == 5_000_000
        assert client.request("HEAD", "/?size=5000000").headers["content-length"] == "5000000"
        assert client.get("/?status=204").status == 204
        assert client.get("/?pause=0.05&size=1000").body[:4] == b"0123"


def test_a_server_that_fails_gets_a_clear_answer(
    daemon: Start, http_backend: BackendMaker, free_tcp_port: Port
) -> None:
    port = free_tcp_port()
    daemon(configuration(port, http_backend("a").address, route='timeout = "1s"', workers=1))
    with Client(f"127.0.0.1:{port}") as client:
        for query, status, code in (
            ("drop=1", 502, "answer_cut"), ("reset=1", 502, "answer_cut"), ("garbage=1", 502, "bad_answer"),
            ("slow=3", 504, "answer_timeout"),
        ):  # fmt: skip
            answer = client.get(f"/?{query}")
            assert (answer.status, answer.json()["code"]) == (status, code)
            assert client.get("/").status == 200


def test_a_dead_server_is_passed_over_and_a_dead_pool_is_told(
    daemon: Start, http_backend: BackendMaker, free_tcp_port: Port
) -> None:
    port = free_tcp_port()
    alive = http_backend("alive")
    daemon(configuration(port, f"127.0.0.1:{free_tcp_port()}", alive.address))
    with Client(f"127.0.0.1:{port}") as client:
        assert {client.get("/").json()["server"] for _ in range(10)} == {"alive"}
        alive.stop()
        answer = client.get("/")
        assert (answer.status, answer.json()["code"]) in ((502, "connect_failed"), (502, "answer_cut"))
        alive.start()
        until(lambda: client.get("/").status == 200, "the server to come back")


def test_expect_continue_and_early_answers(daemon: Start, http_backend: BackendMaker, free_tcp_port: Port) -> None:
    port = free_tcp_port()
    daemon(configuration(port, http_backend("a").address))
    head = "POST /{} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    with connect(f"127.0.0.1:{port}") as sock:
        sock.sendall(head.format("").encode())
        assert read_until(sock, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"hello")
        assert b'"body": "hello"' in read_until(sock, b"}")
    with connect(f"127.0.0.1:{port}") as sock:
        sock.sendall(head.format("?early=1&status=403").encode())
        answer = read_until(sock, b"}")
        assert answer.startswith(b"HTTP/1.1 403")
        assert b"\r\nConnection: close\r\n" in answer


HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n"
BAD: list[tuple[bytes, int]] = [
    (HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n\r\n", 400),
    (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03", 400),
    (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    (HEAD + b"X: y\r\n" * 120 + b"\r\n", 431),
    (HEAD + b"X: " + b"y" * 40_000 + b"\r\n\r\n", 431),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    (b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 405),
]


def test_bad_input_gets_a_clear_answer_and_costs_only_its_connection(
    daemon: Start, http_backend: BackendMaker, free_tcp_port: Port
) -> None:
    port = free_tcp_port()
    daemon(configuration(port, http_backend("a").address, workers=1))
    with Client(f"127.0.0.1:{port}") as other:
        for data, status in BAD:
            answer = raw(f"127.0.0.1:{port}", data)
            assert answer.startswith(b"HTTP/1.1 %d " % status)
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["status"] == status
            assert other.get("/").status == 200


def test_a_websocket_is_passed_through(daemon: Start, free_tcp_port: Port) -> None:
    port = free_tcp_port()
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        conn, _ = server.accept()
        with conn:
            assert b"\r\nUpgrade: websocket\r\n" in read_until(conn, b"\r\n\r\n")
            conn.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello")
            while data := conn.recv(1000):
                conn.sendall(data.upper())

    thread = threading.Thread(target=serve)
    thread.start()
    with server:
        daemon(configuration(port, f"127.0.0.1:{server.getsockname()[1]}"))
        with connect(f"127.0.0.1:{port}") as sock:
            sock.sendall(b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            assert read_until(sock, b"hello").startswith(b"HTTP/1.1 101 ")
            sock.sendall(b"abc")
            assert read_until(sock, b"ABC") == b"ABC"
        thread.join(10)
    assert not thread.is_alive()


# -- TLS


def tls(certificate: Certificate) -> str:
    return f'tls = {{ certificates = [{{ cert = "{certificate.cert}", key = "{certificate.key}" }}] }}'


def test_https_by_both_versions_and_nothing_else(
    daemon: Start, http_backend: BackendMaker, free_tcp_port: Port, certificate: Certificate
) -> None:
    port = free_tcp_port()
    running = daemon(configuration(port, http_backend("a").address, listener=tls(certificate)))
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = trusting(certificate.authority)
        context.minimum_version = context.maximum_version = version
        context.set_alpn_protocols(["http/1.1"])  # HTTP/2 has tests of its own
        body = b"".join(pieces(60))
        with Client(f"127.0.0.1:{port}", context) as client:
            sock = client.connection.sock
            assert isinstance(sock, ssl.SSLSocket)
            assert (sock.version(), sock.selected_alpn_protocol()) == (version.name.replace("_", "."), "http/1.1")
            answer = client.request("POST", "/", body=body)
            assert answer.json()["sha256"] == hashlib.sha256(body).hexdigest()
            assert answer.seen("X-Forwarded-Proto") == ["https"]
            assert len(client.get("/?size=3000000").body) == 3_000_000
            assert client.get("/").status == 200
    with connect(f"127.0.0.1:{port}") as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        try:
            assert b"HTTP/1.1 200" not in read_until(plain, b"\r\n\r\n")
        except ConnectionResetError:
            pass
    until(
        lambda: running.metric("portway_listener_handshake_failures_total", listener="web") == 1,
        "the failed handshake to be counted",
        5,
    )


# -- through the edge, with tokens and limits

WHOLE = """
[supervisor]
workers = 2
drain_timeout = "5s"
[pools.gateway]
servers = ["127.0.0.1:{inner}"]
[pools.user]
servers = ["{server}"]
[edge.listeners.https]
bind = "127.0.0.1:{outer}"
pool = "gateway"
send_proxy_protocol = "v2"
[gateway.listeners.api]
bind = "127.0.0.1:{inner}"
accept_proxy_protocol = ["127.0.0.0/8"]
{tls}
[gateway.auth.main]
type = "jwt"
issuer = "https://issuer.example"
audience = ["api"]
algorithms = ["RS256", "ES256", "EdDSA"]
jwks = "jwks.json"
[gateway.limits.per_user]
key = "user"
rate = "1/m"
burst = 20
[gateway.routes.user]
path = "/api/user/*"
pool = "user"
auth = "main"
limits = ["per_user"]
"""


def start_whole(daemon: Start, server: str, port: Port, certificate: Certificate, issuer: Issuer, folder: Path) -> str:
    outer = port()
    issuer.write_jwks(folder / "jwks.json")
    daemon(WHOLE.format(inner=port(), outer=outer, server=server, tls=tls(certificate)))
    return f"127.0.0.1:{outer}"


def test_the_whole_path_says_200_401_404_and_429(
    daemon: Start, http_backend: BackendMaker, free_tcp_port: Port, certificate: Certificate, issuer: Issuer,
    tmp_path: Path,
) -> None:  # fmt: skip
    address = start_whole(daemon, http_backend("a").address, free_tcp_port, certificate, issuer, tmp_path)
    context = trusting(certificate.authority)
    with Client(address, context) as client:
        for kid in ("rsa", "ec", "ed"):
            token = {"Authorization": f"Bearer {issuer.token('u-' + kid, kid=kid)}", "X-User-Id": "forged"}
            answer = client.get("/api/user/me", token)
            assert answer.status == 200
            assert answer.seen("X-User-Id") == [f"u-{kid}"]
            assert answer.seen("Authorization") == []
            assert answer.seen("X-Forwarded-For") == ["127.0.0.1"]
            assert answer.seen("X-Forwarded-Proto") == ["https"]
        answer = client.get("/api/user/me")
        assert (answer.status, answer.json()["code"]) == (401, "token_missing")
        assert answer.headers["www-authenticate"] == 'Bearer realm="main"'
        for wrong in (issuer.token(kid="hmac"), issuer.token(aud="other"), issuer.token(lifetime=-3600)):
            answer = client.get("/api/user/me", {"Authorization": f"Bearer {wrong}"})
            assert answer.status == 401
            assert 'error="invalid_token"' in answer.headers["www-authenticate"]
        assert client.get("/other", {"Authorization": f"Bearer {issuer.token()}"}).json()["code"] == "no_route"
        statuses = [
            client.get("/api/user/me", {"Authorization": f"Bearer {issuer.token('greedy')}"}).status for _ in range(22)
        ]
        assert statuses == [200] * 20 + [429] * 2

        # A burst of 20 hit by 60 at once admits exactly 20, over both workers.
        burst(address, context, {"Authorization": f"Bearer {issuer.token('crowd')}"})


def burst(address: str, context: ssl.SSLContext, token: dict[str, str]) -> None:
    statuses: list[int] = []
    barrier = threading.Barrier(60)

    def ask() -> None:
        with Client(address, context) as client:
            barrier.wait(30)
            answer = client.get("/api/user/me", token)
            statuses.append(answer.status)
            if answer.status == 429:
                assert 1 <= int(answer.headers["retry-after"]) <= 60
                assert answer.headers["ratelimit"].startswith('"per_user";r=0;t=')
                assert answer.headers["ratelimit-policy"] == '"per_user";q=20;w=1200'

    threads = [threading.Thread(target=ask) for _ in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(statuses) == [200] * 20 + [429] * 40
