"""OCSP responses as real clients are shown them, and as files that change under a running daemon."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import attrs
import pytest

from supervisor.cli.demo.ports import free_tcp_port
from tests.responder import Responder
from tests.system.support.daemon import Daemon
from tests.system.support.poll import until
from tests.system.support.programs import needed

CONFIG = """
[supervisor]
workers = 2
[pools.sink]
servers = ["127.0.0.1:1"]
[edge.listeners.mail]
bind = "127.0.0.1:{edge}"
pool = "sink"
tls = {{ certificates = [{{ cert = "a.pem", key = "a.key", ocsp = "a.ocsp" }}] }}
[gateway.listeners.web]
bind = "127.0.0.1:{gateway}"
[[gateway.listeners.web.tls.certificates]]
cert = "a.pem"
key = "a.key"
ocsp = "a.ocsp"
[[gateway.listeners.web.tls.certificates]]
cert = "b.pem"
key = "b.key"
[gateway.routes.hello]
respond = {{ body = "hello" }}
"""


@attrs.define(eq=False)
class Site:
    daemon: Daemon
    authority: Responder
    cert: bytes
    ports: dict[str, int]

    def seen(self, tier: str, name: str, *how: str) -> str | None:
        """When the response ends that a client is shown; None if there is none."""
        done = subprocess.run(
            ["openssl", "s_client", "-connect", f"127.0.0.1:{self.ports[tier]}", "-servername", name, "-status", *how],
            input=b"", capture_output=True, check=False, timeout=30,
        )  # fmt: skip
        said = done.stdout.decode(errors="replace")
        assert "BEGIN CERTIFICATE" in said, done.stderr
        ends = re.search(r"Next Update: (.*)", said)
        assert ends or "OCSP response: no response sent" in said
        return None if ends is None else ends[1]

    def write(self, data: bytes) -> None:
        path = self.daemon.folder / "a.ocsp"
        path.with_suffix(".new").write_bytes(data)
        path.with_suffix(".new").rename(path)

    def lasting(self, days: int) -> tuple[bytes, str]:
        """A response that lasts so long, and how openssl writes its end."""
        lasts = timedelta(days=days)
        return self.authority.response(self.cert, lasts=lasts), f"{self.authority.began + lasts:%b %e %H:%M:%S %Y GMT}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    needed("openssl")
    folder: Path = tmp_path_factory.mktemp("staples")
    authority = Responder()
    ports = {"edge": free_tcp_port(), "gateway": free_tcp_port()}
    made = {}
    for number, name in enumerate("ab"):
        made[name], key = authority.certificate(f"{name}.example", serial=number + 2)
        (folder / f"{name}.pem").write_bytes(made[name])
        (folder / f"{name}.key").write_bytes(key)
    (folder / "a.ocsp").write_bytes(authority.response(made["a"], lasts=timedelta(days=5)))
    daemon = Daemon.start(folder, CONFIG.format(**ports))
    yield Site(daemon, authority, made["a"], ports)
    daemon.stop()


def test_clients_that_ask_are_shown_the_response_of_their_certificate(site: Site) -> None:
    _, end = site.lasting(5)
    for version in ("-tls1_2", "-tls1_3"):
        assert site.seen("gateway", "a.example", version) == end
        assert site.seen("gateway", "b.example", version) is None
        assert site.seen("edge", "a.example", version) == end


def test_one_that_changes_on_disk_is_shown_until_it_is_old(site: Site) -> None:
    data, end = site.lasting(6)
    site.write(data)
    until(lambda: site.daemon.metric("portway_tier_certificates_renewed_total") == 2, "both tables to have it", 30)
    until(lambda: {site.seen(tier, "a.example") for tier in site.ports for _ in range(4)} == {end}, "all workers", 30)
    site.write(b"Service Unavailable")
    assert "not an OCSP response in DER" in site.daemon.command("check").err
    assert site.seen("gateway", "a.example") == end
    site.write(site.authority.response(site.cert, began=site.authority.began - timedelta(days=9)))
    until(lambda: site.seen("gateway", "a.example") is None, "an old one not to be shown", 30)
    checked = site.daemon.command("check")
    assert checked.status == 0
    assert "the OCSP response has expired" in checked.out + checked.err
