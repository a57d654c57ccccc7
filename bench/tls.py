"""TLS 1.3 in front: HTTP/1.1 and HTTP/2 over kept connections, and handshakes, full and resumed."""

from pathlib import Path

from bench.http import PASS, UPSTREAM, envoy_http, portway_http
from bench.loads import Load, h2load, handshakes
from bench.proxies import Proxy, nginx, nginx_http
from bench.stage import Stage
from bench.workload import Workload, asking, per_operation
from supervisor.cli.demo.ports import free_tcp_port


def nginx_tls(stage: Stage, folder: Path, options: str = "ssl; ssl_protocols TLSv1.3") -> Proxy:
    port = free_tcp_port()
    body = UPSTREAM.format(address=stage.backend.address)
    body += f"\nserver {{ listen 127.0.0.1:{port} {options}; ssl_certificate {stage.certificate.cert};"
    body += f" ssl_certificate_key {stage.certificate.key}; location / {{ {PASS} }} }}"
    return nginx(folder, nginx_http(folder, body), port)


def portway_tls(stage: Stage, folder: Path) -> Proxy:
    return portway_http(stage, folder, tls=True)


# -- HTTP/2 ---------------------------------------------------------------------------------------------------------


def nginx_h2(stage: Stage, folder: Path) -> Proxy:
    return nginx_tls(stage, folder, "ssl http2; http2_max_requests 100000000")


def envoy_h2(stage: Stage, folder: Path) -> Proxy:
    kinds = "type.googleapis.com/envoy.extensions"
    route = {"match": {"prefix": "/"}, "route": {"cluster": "backend"}}
    manager = {
        "@type": f"{kinds}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http",
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{kinds}.filters.http.router.v3.Router"}},
        ],
        "use_remote_address": True,  # X-Forwarded-For, as the others write it
        "always_set_request_id_in_response": True,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
    }
    certificate = {
        "certificate_chain": {"filename": str(stage.certificate.cert)},
        "private_key": {"filename": str(stage.certificate.key)},
    }
    socket = {
        "name": "tls",
        "typed_config": {
            "@type": f"{kinds}.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {"alpn_protocols": ["h2"], "tls_certificates": [certificate]},
        },
    }
    return envoy_http(stage, folder, free_tcp_port(), manager, socket)


def h2_load(stage: Stage, proxy: Proxy, seconds: float) -> Load:
    paths = [f"/hello/{number}" for number in range(200)]  # varied, so that no memory of one request answers for all
    return h2load(stage.folder, f"https://{proxy.address}", paths, seconds)


# -- handshakes -----------------------------------------------------------------------------------------------------


def full_load(stage: Stage, proxy: Proxy, seconds: float) -> Load:
    return handshakes(f"https://{proxy.address}/hello", seconds)


TLS = {"nginx": nginx_tls, "portway": portway_tls}

WORKLOADS = [
    Workload(
        name="tls",
        title="plain proxying with TLS 1.3 in front",
        unit="CPU µs/request",
        goals={"nginx": 1.5},
        sides=TLS,
        measure=per_operation(asking("/hello", "https")),
    ),
    Workload(
        name="h2",
        title="the same by HTTP/2 over TLS, 10 streams on each of 8 connections, 200 paths",
        unit="CPU µs/request",
        goals={"nginx": 1.2, "envoy": 0.7},
        sides={"nginx": nginx_h2, "envoy": envoy_h2, "portway": portway_tls},
        measure=per_operation(h2_load),
    ),
    Workload(
        name="full",
        title="a connection with a full TLS 1.3 handshake (ECDSA P-256) for each request",
        unit="CPU µs/connection",
        goals={"nginx": 1.3},
        sides=TLS,
        measure=per_operation(full_load),
    ),
    Workload(
        name="resumed",
        title="the same with a session resumed by its ticket",
        unit="CPU µs/connection",
        goals={"nginx": 1.5},
        sides=TLS,
        # wrk connects again after each answer, and presents the ticket that it was given.
        measure=per_operation(asking("/hello", "https", Connection="close")),
    ),
]
