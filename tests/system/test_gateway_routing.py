"""What a listener and its routes decide, by the real gateway and curl: rewrites, redirects, splits, mirrors, edits,
certificates by kind, mutual TLS; and that `portway explain` says of each what then happens."""

from __future__ import annotations

import json
import shlex
import socket
import ssl
import subprocess
import threading
from collections.abc import Container, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import attrs
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from supervisor.cli.demo.credentials import Issuer
from supervisor.cli.demo.ports import free_tcp_port
from tests.system.support.backends import Backend
from tests.system.support.clients import connect, fetch
from tests.system.support.daemon import Daemon, portway
from tests.system.support.poll import until
from tests.system.support.programs import needed

CUT = (35, 55, 56)  # how curl says it; in TLS 1.3 a client hears of its certificate after its first request

CONFIG = """
[supervisor]
workers = 1
[log]
access = "access.log"
[pools.one]
servers = ["{one}"]
[pools.two]
servers = ["{two}"]
[gateway.listeners.plain]
bind = "127.0.0.1:{plain}"
[gateway.listeners.tls]
bind = "127.0.0.1:{tls}"
tls = {{ certificates = [{{ cert = "ec.pem", key = "ec.key" }}, {{ cert = "rsa.pem", key = "rsa.key" }}] }}
[gateway.listeners.mutual]
bind = "127.0.0.1:{mutual}"
[gateway.listeners.mutual.tls]
certificates = [{{ cert = "ec.pem", key = "ec.key" }}]
client_certificates = {{ ca = "authority.pem", names = ["*.partner.example"] }}
[gateway.routes.all]
pool = "one"
[gateway.routes.api]
path = "/api/*"
pool = "one"
rewrite = {{ prefix = "/v2", host = "inner.example" }}
request_headers = {{ set = {{ X-Env = "prod" }}, remove = ["Cookie"] }}
response_headers = {{ remove = ["X-Server"], add = {{ X-Frame-Options = "DENY" }} }}
[gateway.routes.number]
path_regex = "/users/([0-9]+)"
pool = "two"
rewrite = {{ regex = "^/users/(.*)$", to = "/u-\\\\1" }}
[gateway.routes.beta]
path = "/api/*"
query = {{ beta = "1" }}
pool = "two"
[gateway.routes.partner]
path = "/partner"
client_certificates = ["a.partner.example"]
pool = "two"
[gateway.routes.old]
path = "/old/*"
redirect = {{ scheme = "https", port = {tls}, prefix = "/api" }}
[gateway.routes.away]
path = "/away"
respond = {{ status = 503, body = "Back at noon." }}
[gateway.routes.canary]
path = "/canary"
split = [{{ pool = "one", weight = 1 }}, {{ pool = "two", weight = 1 }}]
split_by = "random"
[gateway.auth.fetched]
type = "jwt"
algorithms = ["RS256", "ES256"]
jwks = "https://localhost:{keys}/jwks.json"
jwks_ca = "authority.pem"
[gateway.routes.guarded]
path = "/guarded"
pool = "one"
auth = "fetched"
scopes = ["read"]
[gateway.routes.mirrored]
path = "/mirrored"
pool = "one"
mirror = {{ pool = "two" }}
"""


class Authority:
    """Signs what servers and clients show."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.issue("authority", None, self.key)

    def issue(self, name: str, host: str | None, key: Any) -> None:
        """Write NAME.pem and NAME.key."""
        now = datetime.now(UTC)
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")])
        builder = (
            x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(1))
            .not_valid_after(now + timedelta(40))
            .add_extension(x509.BasicConstraints(host is None, None), critical=True)
        )  # fmt: skip
        if host is not None:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        signed = builder.sign(self.key, hashes.SHA256())
        (self.folder / f"{name}.pem").write_bytes(signed.public_bytes(Encoding.PEM))
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (self.folder / f"{name}.key").write_bytes(private)


def key_set(issuer: Issuer, *kids: str) -> bytes:
    """Some of the issuer's public keys."""
    return json.dumps({"keys": [key for key in issuer.jwks()["keys"] if key["kid"] in kids]}).encode()


class KeyServer:
    """Serves a key set by https; `keys` can be exchanged, `asked` counts."""

    def __init__(self, folder: Path, keys: bytes) -> None:
        self.keys, self.asked = keys, 0
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked += 1
                self.send_response(200)
                self.send_header("Content-Length", str(len(site.keys)))
                self.end_headers()
                self.wfile.write(site.keys)

            def log_message(self, *words: Any) -> None:
                """Nothing to say."""

        self.server = HTTPServer(("localhost", 0), Handler)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(folder / "ec.pem", folder / "ec.key")
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    @property
    def port(self) -> int:
        return int(self.server.server_port)

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@attrs.define(eq=False)
class House:
    """A gateway with three listeners before two servers."""

    daemon: Daemon
    one: Backend
    two: Backend
    folder: Path
    ports: dict[str, int]
    keys: KeyServer

    def url(self, listener: str, path: str) -> str:
        return f"{'http' if listener == 'plain' else 'https'}://localhost:{self.ports[listener]}{path}"

    def curl(self, listener: str, path: str, *arguments: str, expected: Container[int] = (0,)) -> tuple[str, str]:
        """The answer's head and body."""
        needed("curl")
        done = subprocess.run(
            ["curl", "-sSi", "--http1.1", "--max-time", "20", "--cacert", str(self.folder / "authority.pem"),
             *arguments, self.url(listener, path)], capture_output=True, check=False, text=True,
        )  # fmt: skip
        assert done.returncode in expected, done
        head, _, body = done.stdout.replace("\r", "").partition("\n\n")
        return head, body

    def told(self, listener: str, path: str, *arguments: str) -> Any:
        """What the server that answered was told; `server` is which."""
        told = json.loads(self.curl(listener, path, *arguments)[1])
        told["fields"] = {name.lower(): value for name, value in told["headers"]}
        return told

    def explained(self, listener: str, path: str, *arguments: str) -> Any:
        done = portway("explain", self.daemon.config, "GET", self.url(listener, path), "--json", *arguments)
        assert done.status == 0, done.err
        found = json.loads(done.out)
        return {step["about"]: step["chosen"] for step in found["steps"]} | {"head": found["head"]}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, issuer: Issuer) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("routing")
    authority = Authority(folder)
    authority.issue("ec", "localhost", ec.generate_private_key(ec.SECP256R1()))
    authority.issue("rsa", "localhost", rsa.generate_private_key(65537, 2048))
    authority.issue("friend", "a.partner.example", ec.generate_private_key(ec.SECP256R1()))
    authority.issue("stranger", "a.stranger.example", ec.generate_private_key(ec.SECP256R1()))
    one, two = Backend("http", "one", 0, ()).start(), Backend("http", "two", 0, ()).start()
    ports = {name: free_tcp_port() for name in ("plain", "tls", "mutual")}
    keys = KeyServer(folder, key_set(issuer, "rsa"))
    running = Daemon.start(folder, CONFIG.format(one=one.address, two=two.address, keys=keys.port, **ports))
    try:
        yield House(running, one, two, folder, ports, keys)
    finally:
        running.stop()
        keys.stop()
        one.stop()
        two.stop()


def test_a_rewrite_and_edits_both_ways_as_explained(house: House) -> None:
    head, body = house.curl("plain", "/api/./user?x=1", "-H", "Cookie: a=b", "-H", "X-Env: test")
    told = json.loads(body)
    fields = {name.lower(): value for name, value in told["headers"]}
    assert (told["target"], fields["host"], fields["x-env"]) == ("/v2/user?x=1", "inner.example", "prod")
    assert "cookie" not in fields
    assert "x-server:" not in head.lower()
    assert "X-Frame-Options: DENY" in head
    found = house.explained("plain", "/api/./user?x=1", "-H", "Cookie: a=b", "-H", "X-Env: test")
    assert (found["route"], found["pool"], found["server"]) == ("api", "one", house.one.address)
    assert found["head"][:2] == ["GET /v2/user?x=1 HTTP/1.1", "Host: inner.example"]


def test_expressions_and_parameters_as_explained(house: House) -> None:
    assert house.told("plain", "/users/42")["target"] == "/u-42"
    assert house.told("plain", "/users/me")["target"] == "/users/me"
    assert house.told("plain", "/api/x?beta=1")["target"] == "/api/x?beta=1"
    routes = [house.explained("plain", path)["route"] for path in ("/users/42", "/users/me", "/api/x?beta=1")]
    assert routes == ["number", "all", "beta"]


def test_a_redirect_is_followed_to_the_other_listener(house: House) -> None:
    head, body = house.curl("plain", "/old/user?x=1", "-L")
    assert head.startswith("HTTP/1.1 308")
    assert f"Location: https://localhost:{house.ports['tls']}/api/user?x=1" in head
    assert '"/v2/user?x=1"' in body
    assert house.explained("plain", "/old/user")["answer"] == "308 redirected"


def test_a_fixed_answer(house: House) -> None:
    head, body = house.curl("plain", "/away")
    assert head.startswith("HTTP/1.1 503")
    assert body == "Back at noon."


def test_a_split_reaches_both_pools(house: House) -> None:
    servers = {fetch(f"127.0.0.1:{house.ports['plain']}", "/canary").json()["server"] for _ in range(40)}
    assert servers == {"one", "two"}


def test_a_mirror_gets_its_copy(house: House) -> None:
    before = fetch(house.two.address, "/").json()["requests"]
    assert house.told("plain", "/mirrored")["server"] == "one"
    asked = 0

    def copied() -> bool:
        nonlocal asked
        asked += 1
        return bool(fetch(house.two.address, "/").json()["requests"] > before + asked)

    until(copied, "the copy")

    def sent() -> float:
        return house.daemon.metric("portway_server_bytes_out_total", pool="two")

    (house.folder / "body").write_bytes(b"x" * 300_000)
    sent_before = sent()
    told = house.told("plain", "/mirrored", "--data-binary", f"@{house.folder / 'body'}")
    assert (told["server"], told["length"]) == ("one", 300_000)
    until(lambda: sent() - sent_before > 300_000, "the body of the copy")


@pytest.mark.parametrize(("algorithms", "kind"), [("ECDSA+SHA256", "EC"), ("RSA-PSS+SHA256", "RSA")])
def test_certificates_are_shown_by_what_the_client_can_verify(house: House, algorithms: str, kind: str) -> None:
    needed("openssl")
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"localhost:{house.ports['tls']}", "-sigalgs", algorithms,
         "-CAfile", str(house.folder / "authority.pem"), "-servername", "localhost"],
        input=b"", capture_output=True, check=False, timeout=20,
    )  # fmt: skip
    shown = x509.load_pem_x509_certificate(done.stdout[done.stdout.index(b"-----BEGIN CERTIFICATE") :])
    assert isinstance(shown.public_key(), ec.EllipticCurvePublicKey) is (kind == "EC")
    assert b"Verify return code: 0 (ok)" in done.stdout


def test_a_client_with_a_certificate_is_named_to_the_server_and_none_can_forge_it(house: House) -> None:
    friend = ("--cert", str(house.folder / "friend.pem"), "--key", str(house.folder / "friend.key"))
    forged = ("-H", "X-Client-Certificate: admin", "-H", "x_client_certificate: admin")
    told = house.told("mutual", "/who", *friend, *forged)
    assert told["fields"]["x-client-certificate"] == "a.partner.example"
    assert "x_client_certificate" not in told["fields"]
    assert "x-client-certificate" not in house.told("tls", "/who", *forged)["fields"]
    assert "x-client-certificate" not in house.told("plain", "/who", *forged)["fields"]
    assert house.told("mutual", "/partner", *friend)["server"] == "two"
    assert house.told("tls", "/partner", *forged)["server"] == "one"
    assert house.explained("mutual", "/partner", "--certificate", "a.partner.example")["route"] == "partner"
    told = house.told("mutual", "/who", "--http2", *friend)
    assert told["fields"]["x-client-certificate"] == "a.partner.example"


def test_clients_without_the_right_certificate_are_turned_away(house: House) -> None:
    stranger = ("--cert", str(house.folder / "stranger.pem"), "--key", str(house.folder / "stranger.key"))
    failures = house.daemon.metric("portway_listener_handshake_failures_total", listener="mutual")
    assert house.curl("mutual", "/", *stranger, expected=CUT)[1] == ""
    assert house.curl("mutual", "/", expected=CUT)[1] == ""
    assert house.daemon.metric("portway_listener_handshake_failures_total", listener="mutual") == failures + 2


def test_plain_http_on_a_tls_port_is_told_so(house: House) -> None:
    done = subprocess.run(shlex.split(f"curl -sSi --max-time 20 http://localhost:{house.ports['tls']}/x"),
                          capture_output=True, check=False, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("HTTP/1.1 400 Bad Request")
    assert json.loads(done.stdout.splitlines()[-1])["code"] == "plain_http"
    until(lambda: '"reason":"plain_http"' in (house.folder / "access.log").read_text(), "the line in the access log")


def test_a_handshake_that_stalls_holds_nobody_up(house: House) -> None:
    stalled = [connect(f"127.0.0.1:{house.ports['tls']}") for _ in range(20)]
    for sock in stalled[::2]:
        sock.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")  # the beginning of a ClientHello
    assert house.told("tls", "/beside")["target"] == "/beside"
    for sock in stalled:
        sock.close()


def test_what_is_too_old_for_tls_is_refused(house: House) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("AES128-SHA")  # without forward secrecy
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(("127.0.0.1", house.ports["tls"]), timeout=10) as sock, pytest.raises(ssl.SSLError):
        context.wrap_socket(sock)


def test_keys_are_fetched_once_and_again_for_a_token_that_names_another(house: House, issuer: Issuer) -> None:
    def asked(kid: str, scope: str = "read write") -> str:
        token = issuer.token(kid=kid, scope=scope)
        return house.curl("plain", "/guarded", "-H", f"Authorization: Bearer {token}")[0].split()[1]

    until(lambda: asked("rsa") == "200", "the keys")
    assert house.keys.asked == 1
    assert asked("rsa", "write") == "403"
    house.keys.keys = key_set(issuer, "rsa", "ec")
    until(lambda: asked("ec") == "200", "the new key", 30.0)
    assert house.keys.asked == 2
    found = portway("explain", house.daemon.config, "GET", house.url("plain", "/guarded"))
    assert "401 token_missing" in found.out
