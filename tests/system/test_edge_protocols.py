"""One port for many protocols, with the clients and servers that people use, and TLS ended at the edge."""

import contextlib
import json
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import attrs
import pytest
from proxyprotocol.v2 import ProxyProtocolV2

from supervisor.cli.demo.credentials import write_certificate
from supervisor.cli.demo.ports import free_tcp_port
from supervisor.cli.demo.postgres import Cluster
from tests.system.conftest import PASSWORD
from tests.system.support.backends import Backend
from tests.system.support.clients import connect, read_until, trusting
from tests.system.support.daemon import Daemon, portway
from tests.system.support.edges import mariadb, nginx, redis, said, server, ssh
from tests.system.support.poll import until
from tests.system.support.programs import needed

CONFIGURATION = """
[supervisor]
workers = 2
drain_timeout = "1s"
[log]
access = "access.log"

[pools.postgres]
servers = ["{postgres}"]
[pools.bastion]
servers = ["127.0.0.1:{ssh}"]
[pools.redis]
servers = ["127.0.0.1:{redis}"]
[pools.mariadb]
servers = ["127.0.0.1:{mariadb}"]
[pools.web]
servers = ["127.0.0.1:{web}"]
[pools.proven]
servers = ["127.0.0.1:{proven}"]
tls = {{ sni = "localhost", ca = "cert-authority.pem" }}
[pools.unproven]
servers = ["127.0.0.1:{proven}"]
tls = {{ sni = "other.example", ca = "cert-authority.pem" }}
[pools.ingest]
servers = ["127.0.0.1:{rtmp}"]
[pools.iperf]
servers = ["127.0.0.1:{iperf}"]
[pools.dns]
servers = ["127.0.0.1:{names}"]
[pools.told]
servers = ["{told}"]
[pools.echo]
servers = ["{echo}"]

[edge.listeners.shared]
bind = "127.0.0.1:{shared}"
detect_timeout = "300ms"
routes = [
  {{ sni = "*.web.example", pool = "web" }},
  {{ detect = "ssh", pool = "bastion" }},
  {{ detect = "redis", pool = "redis" }},
  {{ detect = "rtmp", pool = "ingest" }},
  {{ detect = "postgres", pool = "postgres" }},
  {{ detect = "mysql", pool = "mariadb" }},
]

[edge.listeners.ended]
bind = "127.0.0.1:{ended}"
pool = "told"
send_proxy_protocol = "v2"
tls = {{ certificates = [{{ cert = "cert.pem", key = "cert-key.pem" }}], alpn = ["mqtt", "amqp"] }}

[edge.listeners.dns]
bind = "127.0.0.1:{dns}"
protocol = "udp"
kind = "stateless"
pool = "dns"

[edge.listeners.measured]
bind = "127.0.0.1:{measured}"
pool = "iperf"

[edge.listeners.encrypting]
bind = "127.0.0.1:{encrypting}"
pool = "proven"
send_proxy_protocol = "v2"

[edge.listeners.refusing]
bind = "127.0.0.1:{refusing}"
pool = "unproven"

[edge.listeners.named]
bind = "127.0.0.1:{named}"
accept_proxy_protocol = ["127.0.0.2"]
routes = [{{ sni = "localhost", pool = "echo" }}]
tls = {{ certificates = [{{ cert = "cert.pem", key = "cert-key.pem" }}] }}
"""
NAMES = (
    "shared", "ended", "named", "measured", "encrypting", "refusing", "ssh", "redis", "mariadb", "web", "proven",
    "rtmp", "iperf", "dns", "names",
)  # fmt: skip


@attrs.frozen
class Stage:
    folder: Path
    ports: dict[str, int]
    daemon: Daemon
    tls: ssl.SSLContext

    def address(self, listener: str) -> str:
        return f"127.0.0.1:{self.ports[listener]}"


@pytest.fixture(scope="module")
def stage(postgres: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("protocols")
    certificate = write_certificate(folder, ("localhost", "a.web.example"))
    ports = {name: free_tcp_port() for name in NAMES}
    with ExitStack() as stack:
        told = Backend("tcp", "told", modes=("proxy", "report")).start()
        stack.callback(told.stop)
        echo = Backend("tcp", "echo").start()
        stack.callback(echo.stop)
        text = CONFIGURATION.format(postgres=postgres.address, told=told.address, echo=echo.address, **ports)
        daemon = Daemon.start(folder, text)
        stack.callback(daemon.stop)
        yield Stage(folder, ports, daemon, trusting(certificate.authority))


def test_redis_cli_sets_and_gets(stage: Stage) -> None:
    with redis(stage.ports["redis"]):
        client = ("redis-cli", "-p", str(stage.ports["shared"]))
        assert said(*client, "SET", "key", "value").strip() == "OK"
        assert said(*client, "GET", "key").strip() == "value"


def test_psql_asks_and_its_cancel_arrives(stage: Stage) -> None:
    needed("psql")
    dsn = f"host=127.0.0.1 port={stage.ports['shared']} user=app dbname=app password={PASSWORD} sslmode=prefer"
    assert said("psql", dsn, "-AtXc", "SELECT 6 * 7").strip() == "42"
    slow = subprocess.Popen(["psql", dsn, "-AtXc", "SELECT pg_sleep(30)"], stderr=subprocess.PIPE)
    sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(30)' AND state = 'active'"
    try:
        until(lambda: said("psql", dsn, "-AtXc", sleeping).strip() == "1", "the query to run")
        slow.send_signal(2)  # psql sends a CancelRequest on a connection of its own
        _, errors = slow.communicate(timeout=10)
        assert b"canceling statement" in errors
    finally:
        slow.kill()
        slow.wait()


def test_an_ssh_client_reads_the_servers_key(stage: Stage) -> None:
    with ssh(stage.ports["ssh"], stage.folder):
        known = stage.folder / "known_hosts"
        said("ssh", "-F", "none", "-p", str(stage.ports["shared"]), "-o", f"UserKnownHostsFile={known}",
             "-o", "StrictHostKeyChecking=accept-new", "-o", "BatchMode=yes", "nobody@127.0.0.1")  # fmt: skip
        public = (stage.folder / "host_key.pub").read_text().split()[1]
        assert public in known.read_text()


def test_a_mysql_client_is_told_by_its_silence(stage: Stage) -> None:
    with mariadb(stage.ports["mariadb"], stage.folder):
        client = ("mariadb", "-h", "127.0.0.1", "-P", str(stage.ports["shared"]), "--skip-ssl", "-NBe")
        assert said(*client, "SELECT 6 * 7").strip() == "42"


def test_curl_passes_tls_through_by_its_name(stage: Stage) -> None:
    needed("curl")
    own = stage.folder / "web"
    own.mkdir()
    certificate = write_certificate(own, ("a.web.example",))
    port = stage.ports["web"]
    configuration = f"""http {{ access_log off; server {{ listen 127.0.0.1:{port} ssl http2;
        ssl_certificate {certificate.cert}; ssl_certificate_key {certificate.key};
        return 200 "for $ssl_server_name over $server_protocol"; }} }}"""
    with nginx(port, own, configuration):
        shared = stage.ports["shared"]
        command = ("curl", "-sS", "--cacert", str(certificate.authority), "--resolve")
        name = f"a.web.example:{shared}"
        said_to_it = said(*command, f"{name}:127.0.0.1", f"https://{name}/")
        assert said_to_it == "for a.web.example over HTTP/2.0"
        other = f"b.example:{shared}"
        assert "curl: (35)" in said(*command, f"{other}:127.0.0.1", f"https://{other}/")


def test_ffmpeg_publishes_a_stream_by_rtmp(stage: Stage) -> None:
    needed("ffmpeg")
    port, recorded = stage.ports["rtmp"], stage.folder / "recorded"
    recorded.mkdir()
    recorded.chmod(0o777)
    configuration = f"""rtmp {{ server {{ listen 127.0.0.1:{port};
        application live {{ live on; record all; record_path {recorded}; record_unique off; }} }} }}"""
    with nginx(port, stage.folder, configuration, "ngx_rtmp_module.so"):
        url = f"rtmp://{stage.address('shared')}/live/test"
        said("ffmpeg", "-nostdin", "-loglevel", "error", "-f", "lavfi", "-i", "sine=duration=2", "-c:a", "aac",
             "-f", "flv", url)  # fmt: skip
        (stream,) = until(lambda: [*recorded.iterdir()], "a recorded stream")
        until(lambda: stream.stat().st_size > 10_000, "the stream to be written")
        assert stream.read_bytes()[:3] == b"FLV"


def test_dig_asks_a_name_server(stage: Stage) -> None:
    needed("dig", "dnsmasq")
    port = stage.ports["names"]
    with server(port, "dnsmasq", "--keep-in-foreground", f"--port={port}", "--listen-address=127.0.0.1",
                "--bind-interfaces", "--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--pid-file=",
                "--address=/a.example/192.0.2.53"):  # fmt: skip
        for _ in range(3):
            assert (
                said("dig", "@127.0.0.1", "-p", str(stage.ports["dns"]), "+short", "a.example").strip() == "192.0.2.53"
            )


def test_iperf3_measures_both_ways(stage: Stage) -> None:
    needed("iperf3")
    client = ("iperf3", "-c", "127.0.0.1", "-p", str(stage.ports["measured"]), "-n", "64M", "-J")
    for direction in ((), ("-R",)):
        # A server for each: between two tests, one is for a moment not there.
        with server(stage.ports["iperf"], "iperf3", "-s", "-p", str(stage.ports["iperf"])):
            answer = json.loads(said(*client, *direction))
        assert "error" not in answer, answer["error"]
        assert answer["end"]["sum_received"]["bytes"] >= 16 << 20  # it stops counting before the last has arrived


def test_tls_ended_here_is_told_to_the_server(stage: Stage) -> None:
    stage.tls.set_alpn_protocols(["amqp"])
    with connect(stage.address("ended")) as sock, stage.tls.wrap_socket(sock, server_hostname="localhost") as client:
        assert client.selected_alpn_protocol() == "amqp"
        told = json.loads(read_until(client, b"\n").partition(b"\n")[0])
        client.sendall(b"hello")
        assert client.recv(100) == b"hello"
        found = ProxyProtocolV2().unpack(bytes.fromhex(told["proxy"]))
        assert found.source == (found.source[0], client.getsockname()[1])  # type: ignore[union-attr]
        assert (found.tlv.authority, found.tlv.alpn) == ("localhost", b"amqp")
        assert (found.tlv.ssl.has_ssl, found.tlv.ssl.version) == (True, "TLSv1.3")
        assert found.tlv.ssl.cipher == client.cipher()[0]  # type: ignore[index]


def test_large_bodies_pass_through_ended_tls(stage: Stage) -> None:
    payload = bytes(range(256)) * 8000
    with connect(stage.address("named")) as sock, stage.tls.wrap_socket(sock, server_hostname="localhost") as client:
        received = bytearray()
        sent = 0
        while len(received) < len(payload):
            sent += client.send(payload[sent : sent + 65536]) if sent < len(payload) else 0
            received += client.recv(1 << 20)
        assert bytes(received) == payload


def test_a_header_comes_before_tls(stage: Stage) -> None:
    with connect(stage.address("named"), source="127.0.0.2") as sock:
        sock.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.1 5 6\r\n")
        with stage.tls.wrap_socket(sock, server_hostname="localhost") as client:
            client.sendall(b"hello")
            assert client.recv(100) == b"hello"


def test_tls_is_begun_with_servers_that_prove_their_name(stage: Stage) -> None:
    port = stage.ports["proven"]
    configuration = f"""http {{ access_log off; server {{ listen 127.0.0.1:{port} ssl proxy_protocol;
        ssl_certificate {stage.folder}/cert.pem; ssl_certificate_key {stage.folder}/cert-key.pem;
        return 200 "$ssl_server_name for $proxy_protocol_addr"; }} }}"""
    with nginx(port, stage.folder, configuration):
        answer = said("curl", "-sS", f"http://{stage.address('encrypting')}/")
        assert answer == "localhost for 127.0.0.1"
        assert said("curl", "-sS", f"http://{stage.address('refusing')}/").startswith("curl: (")  # reset
    assert stage.daemon.metric("portway_listener_connect_failures_total", listener="refusing") >= 1


def test_each_connection_is_in_the_status_and_the_access_log(stage: Stage) -> None:
    def lines() -> list[dict[str, object]]:
        return [json.loads(line) for line in (stage.folder / "access.log").read_text().splitlines()]

    with connect(stage.address("named")) as sock, stage.tls.wrap_socket(sock, server_hostname="localhost") as client:
        client.sendall(b"hello")
        assert client.recv(100) == b"hello"
        own = client.getsockname()[1]
        shown = portway("status", "edge", stage.daemon.config).out
        assert f"tcp named 127.0.0.1:{own} on echo/" in shown
        assert "5 bytes in, 5 out" in shown
    (line,) = until(lambda: [line for line in lines() if line["port"] == own], "the line of a connection")
    assert (line["listener"], line["sni"], line["bytes_in"], line["bytes_out"]) == ("named", "localhost", 5, 5)


def test_who_speaks_no_tls_is_closed_and_counted(stage: Stage) -> None:
    with connect(stage.address("ended")) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            while sock.recv(100):  # an alert, perhaps
                pass
    assert stage.daemon.metric("portway_listener_handshake_failures_total", listener="ended") == 1


def test_a_renewed_certificate_is_shown_without_a_reload(stage: Stage) -> None:
    renewed = trusting(write_certificate(stage.folder, ("localhost", "a.web.example")).authority)

    def shown() -> bool:
        with connect(stage.address("ended")) as sock, renewed.wrap_socket(sock, server_hostname="localhost") as client:
            return client.version() == "TLSv1.3"

    until(shown, "the renewed certificate")
