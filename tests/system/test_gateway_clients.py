"""The clients that people use, through edge and gateway to a server: curl, nghttp, h2load, by HTTP/1.1 and HTTP/2."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from supervisor.cli.demo.credentials import write_certificate
from supervisor.cli.demo.ports import free_tcp_port
from tests.system.support.backends import Backend
from tests.system.support.daemon import Daemon
from tests.system.support.front import behind_edge, shows
from tests.system.support.poll import until
from tests.system.support.programs import needed

MB = 1 << 20
DATA = hashlib.sha256(b"seed").digest() * (8 * MB // 32)
DIGEST = hashlib.sha256(DATA).hexdigest()
# name -> whether to the TLS port, and by which version
WAYS = {
    "HTTP/1.1": (False, "--http1.1"),
    "HTTP/1.1 over TLS": (True, "--http1.1"),
    "HTTP/2 by prior knowledge": (False, "--http2-prior-knowledge"),
    "HTTP/2 by ALPN": (True, "--http2"),
}
CONFIG = """
[supervisor]
workers = 1
[log]
access = "access.log"
[pools.web]
servers = ["{server}"]
{listeners}
[gateway.limits.few]
key = "route"
rate = "2/h"
[gateway.routes.all]
path = "/*"
pool = "web"
[gateway.routes.few]
path = "/few/*"
pool = "web"
limits = ["few"]
[gateway.routes.small]
path = "/small"
pool = "web"
max_body = "1KiB"
"""


@attrs.define(eq=False)
class Site:
    daemon: Daemon
    authority: Path
    plain: str
    tls: str

    def url(self, way: str, path: str = "/") -> str:
        return f"https://{self.tls}{path}" if WAYS[way][0] else f"http://{self.plain}{path}"

    def curl(self, way: str, path: str, *arguments: str, given: bytes = b"") -> bytes:
        """What curl writes; it must succeed."""
        needed("curl")
        command = ["curl", "-sS", "--max-time", "60", "--cacert", str(self.authority), WAYS[way][1]]
        done = subprocess.run(
            [*command, *arguments, self.url(way, path)], input=given, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def told(self, way: str, path: str, *arguments: str, given: bytes = b"") -> Any:
        """What the server says that it got."""
        return json.loads(self.curl(way, path, *arguments, given=given))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("clients")
    shown = write_certificate(folder)
    backend = Backend("http", "one").start()
    plain, inner, inner_tls = (f"127.0.0.1:{free_tcp_port()}" for _ in range(3))
    tls = f"localhost:{free_tcp_port()}"
    listeners = behind_edge("plain", plain, inner, "http2 = true")
    listeners += behind_edge("tls", tls.replace("localhost", "127.0.0.1"), inner_tls, shows(shown))
    daemon = Daemon.start(folder, CONFIG.format(server=backend.address, listeners=listeners))
    yield Site(daemon, shown.authority, plain, tls)
    daemon.stop()
    backend.stop()


ways = pytest.mark.parametrize("way", WAYS)


@ways
def test_curl_asks(site: Site, way: str) -> None:
    secure, version = WAYS[way]
    out = site.curl(way, "/a?b=c", "-H", "Cookie: a=b; c=d", "-w", "\n%{http_version} %{http_code}")
    body, _, last = out.rpartition(b"\n")
    assert last == (b"1.1 200" if version == "--http1.1" else b"2 200")
    told = json.loads(body)
    assert (told["method"], told["target"]) == ("GET", "/a?b=c")
    fields = {name.lower(): value for name, value in told["headers"]}
    assert fields["host"] == (site.tls if secure else site.plain)
    assert fields["cookie"] == "a=b; c=d"
    assert fields["x-forwarded-proto"] == ("https" if secure else "http")
    assert fields["x-forwarded-for"] == "127.0.0.1"
    assert not any(name.startswith(":") for name in fields)


@ways
def test_curl_sends_and_gets_large_bodies(site: Site, way: str) -> None:
    told = site.told(way, "/up", "--data-binary", "@-", "-H", "Expect:", given=DATA)
    assert (told["length"], told["sha256"]) == (len(DATA), DIGEST)
    assert ["Content-Length", str(len(DATA))] in [[name.title(), value] for name, value in told["headers"]]
    told = site.told(way, "/up", "-T", "-", "-X", "POST", given=DATA)
    assert (told["length"], told["sha256"]) == (len(DATA), DIGEST)
    assert ["Transfer-Encoding", "chunked"] in told["headers"]
    for query in (f"size={8 * MB}", f"size={8 * MB}&chunked=1"):
        assert site.curl(way, f"/down?{query}") == b"0123456789abcdef" * (8 * MB // 16)


@ways
def test_curl_waits_for_the_servers_word(site: Site, way: str) -> None:
    said = ("-i", "-H", "Expect: 100-continue", "--expect100-timeout", "50", "-T", "-")
    out = site.curl(way, "/", *said, given=b"hello")
    assert json.loads(out.rpartition(b"\r\n\r\n")[2])["body"] == "hello"
    if WAYS[way][1] == "--http1.1":  # by HTTP/2, curl 7.88 sends a small body without waiting
        assert out.startswith(b"HTTP/1.1 100 ")


@ways
def test_curl_sees_interim_answers_and_trailers(site: Site, way: str, tmp_path: Path) -> None:
    heads = tmp_path / "heads"
    site.curl(way, "/?interim=1&chunked=1&trailer=X-Sum:1", "-D", str(heads))
    seen = heads.read_text().lower()
    assert seen.startswith(("http/1.1 103", "http/2 103"))
    assert "\nx-sum:" in seen.rpartition("200")[2]


@ways
def test_curl_gets_answers_without_a_body(site: Site, way: str) -> None:
    for arguments, status in ((["-I"], "200"), ([], "204"), ([], "304")):
        query = "" if arguments else f"?status={status}"
        out = site.curl(way, f"/{query}", *arguments, "-o", "/dev/null", "-w", "%{http_code} %{size_download}")
        assert out == f"{status} 0".encode()


@ways
def test_curl_gets_refusals(site: Site, way: str) -> None:
    codes = [site.curl(way, f"/few/{way[:6]}", "-o", "/dev/null", "-w", "%{http_code}") for _ in range(3)]
    assert codes[-1] == b"429"
    assert site.told(way, "/small", "--data-binary", "@-", given=b"x" * 2000)["code"] == "body_too_large"
    assert site.told(way, "/", "-H", f"X-Large: {'x' * 40_000}")["code"] == "head_too_large"
    many = [argument for number in range(120) for argument in ("-H", f"X-{number}: 1")]
    assert site.told(way, "/", *many)["code"] == "too_many_fields"
    log = site.daemon.folder / "access.log"

    def logged() -> set[str]:
        return {json.loads(line)["reason"] for line in log.read_text().splitlines()}

    until(lambda: {"limited", "body_too_large", "head_too_large"} <= logged(), "the access log")


@pytest.mark.parametrize("way", ["HTTP/2 by prior knowledge", "HTTP/2 by ALPN"])
def test_nghttp_with_many_streams_and_trailers(site: Site, way: str, tmp_path: Path) -> None:
    needed("nghttp")
    urls = [site.url(way, f"/{number}") for number in range(30)]
    done = subprocess.run(["nghttp", "-nv", *urls], capture_output=True, check=True, timeout=60)
    assert done.stdout.count(b":status: 200") == 30
    (tmp_path / "body").write_bytes(b"x" * 100_000)
    done = subprocess.run(
        ["nghttp", "--no-content-length", "--trailer", "x-sum: 1", "-d", str(tmp_path / "body"), site.url(way)],
        capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    told = json.loads(done.stdout)
    assert told["length"] == 100_000
    assert told["trailers"] == [["x-sum", "1"]]


@ways
def test_h2load_gets_every_answer(site: Site, way: str) -> None:
    needed("h2load")
    version = ["--h1"] if WAYS[way][1] == "--http1.1" else []
    command = ["h2load", *version, "-n", "2000", "-c", "5", "-m", "10", site.url(way)]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    assert b"2000 succeeded, 0 failed, 0 errored" in done.stdout, done.stdout
