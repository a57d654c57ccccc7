"""HTTP/1.1: plain proxying, and the gateway's whole work (token, limit, 20 routes, access log).

One small GET at a time on 32 keep-alive connections, each request unique by one header.
"""

import json
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from bench.loads import BadRun, Load, head, wrk
from bench.proxies import Proxy, envoy, haproxy, nginx, nginx_http, portway
from bench.stage import Stage
from bench.workload import Workload, asking, per_operation
from supervisor.cli.demo.credentials import Issuer
from supervisor.cli.demo.ports import free_tcp_port

USERS = 8  # tokens that take turns
ROUTES = [f"/api/service{number:02d}/" for number in range(20)]
AMPLE = 1_000_000  # requests a second that each user may make: the limit is kept, and never reached

UPSTREAM = "upstream backend {{ server {address}; keepalive 256; keepalive_requests 100000000; }}"
# The same work for both sides: a gateway tells the server who asked, and client and server by which name to ask again.
PASS = """proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection "";
    proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Host $host;
    proxy_set_header Forwarded "for=$remote_addr;proto=$scheme;host=$host";
    proxy_set_header X-Request-Id $request_id; add_header X-Request-Id $request_id;"""


def nginx_plain(stage: Stage, folder: Path) -> Proxy:
    port = free_tcp_port()
    body = UPSTREAM.format(address=stage.backend.address)
    body += f"\nserver {{ listen 127.0.0.1:{port}; location / {{ {PASS} }} }}"
    return nginx(folder, nginx_http(folder, body), port)


def portway_http(stage: Stage, folder: Path, tls: bool = False) -> Proxy:
    port = free_tcp_port()
    config = f'[log]\naccess = "off"\n\n[pools.backend]\nservers = ["{stage.backend.address}"]\n\n'
    config += f'[gateway.listeners.api]\nbind = "127.0.0.1:{port}"\n'
    if tls:
        pair = f'{{ cert = "{stage.certificate.cert}", key = "{stage.certificate.key}" }}'
        config += f"tls = {{ certificates = [{pair}] }}\n"
    config += '\n[gateway.routes.all]\npath = "/*"\npool = "backend"\n'
    return portway(folder, config, port)


# -- the gateway's work ---------------------------------------------------------------------------------------------


def envoy_http(
    stage: Stage, folder: Path, port: int, manager: dict[str, Any], socket: dict[str, Any] | None = None
) -> Proxy:
    """Envoy with one listener, its http_connection_manager and, for TLS, its transport socket."""
    host, backend_port = stage.backend.address.split(":")
    endpoint = {"endpoint": {"address": {"socket_address": {"address": host, "port_value": int(backend_port)}}}}
    chain: dict[str, Any] = {"filters": [{"name": "http", "typed_config": manager}]}
    if socket is not None:
        chain["transport_socket"] = socket
    listener = {
        "name": "api",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [chain],
    }
    cluster = {
        "name": "backend",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "backend", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    config = {"static_resources": {"listeners": [listener], "clusters": [cluster]}}
    return envoy(folder, json.dumps(config), port)


def envoy_gateway(stage: Stage, folder: Path) -> Proxy:
    port = free_tcp_port()
    bucket = {"max_tokens": AMPLE, "tokens_per_fill": AMPLE, "fill_interval": "1s"}
    kinds = "type.googleapis.com/envoy.extensions.filters"
    provider = {
        "issuer": stage.issuer.name,
        "audiences": [stage.issuer.audience],
        "local_jwks": {"inline_string": json.dumps(stage.issuer.jwks())},
        "claim_to_headers": [{"header_name": "x-user-id", "claim_name": "sub"}],
        "jwt_cache_config": {"jwt_cache_size": 1000},
    }
    by_user = {"actions": [{"request_headers": {"header_name": "x-user-id", "descriptor_key": "user"}}]}
    filters: list[dict[str, Any]] = [
        {
            "name": "jwt",
            "typed_config": {
                "@type": f"{kinds}.http.jwt_authn.v3.JwtAuthentication",
                "providers": {"main": provider},
                "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "main"}}],
            },
        },
        {
            "name": "limit",
            "typed_config": {
                "@type": f"{kinds}.http.local_ratelimit.v3.LocalRateLimit",
                "stat_prefix": "limit",
                "token_bucket": bucket,
                "filter_enabled": {"default_value": {"numerator": 100}},
                "filter_enforced": {"default_value": {"numerator": 100}},
                "rate_limits": [by_user],
                # One bucket for each user that is seen, as many as the others keep.
                "descriptors": [{"entries": [{"key": "user"}], "token_bucket": bucket}],
                "max_dynamic_descriptors": 10000,
            },
        },
        {"name": "router", "typed_config": {"@type": f"{kinds}.http.router.v3.Router"}},
    ]
    fields = {
        "ts": "%START_TIME%", "ip": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "method": "%REQ(:METHOD)%",
        "path": "%REQ(:PATH)%", "route": "%ROUTE_NAME%", "user": "%REQ(X-USER-ID)%", "status": "%RESPONSE_CODE%",
        "bytes": "%BYTES_SENT%", "ms": "%DURATION%", "id": "%REQ(X-REQUEST-ID)%",
    }  # fmt: skip
    routes = [
        {"name": f"r{number}", "match": {"prefix": path}, "route": {"cluster": "backend"}}
        for number, path in enumerate(ROUTES)
    ]
    manager = {
        "@type": f"{kinds}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http",
        "http_filters": filters,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "access_log": [
            {
                "name": "file",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                    "path": str(folder / "access.log"),
                    "log_format": {"json_format": fields},
                },
            }
        ],
    }
    return envoy_http(stage, folder, port, manager)


def haproxy_gateway(stage: Stage, folder: Path) -> Proxy:
    port = free_tcp_port()
    key = stage.issuer.write_public_key("bench", folder / "public.pem")
    issuer, audience = stage.issuer.name, stage.issuer.audience
    rules = [
        "http-request set-var(txn.bearer) http_auth_bearer",
        "http-request set-var(txn.alg) var(txn.bearer),jwt_header_query('$.alg')",
        "http-request set-var(txn.iss) var(txn.bearer),jwt_payload_query('$.iss')",
        "http-request set-var(txn.aud) var(txn.bearer),jwt_payload_query('$.aud')",
        "http-request set-var(txn.exp) var(txn.bearer),jwt_payload_query('$.exp','int')",
        "http-request set-var(txn.sub) var(txn.bearer),jwt_payload_query('$.sub')",
        "http-request set-var(txn.now) date()",
        "http-request deny deny_status 401 unless { var(txn.alg) -m str RS256 }",
        f"http-request deny deny_status 401 unless {{ var(txn.iss) -m str {issuer} }}",
        f"http-request deny deny_status 401 unless {{ var(txn.aud) -m str {audience} }}",
        "http-request deny deny_status 401 unless { var(txn.exp),sub(txn.now) -m int gt 0 }",
        f'http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_verify(txn.alg,"{key}") -m int 1 }}',
        "http-request del-header X-User-Id",
        "http-request set-header X-User-Id %[var(txn.sub)]",
        "http-request del-header Authorization",
        "http-request track-sc0 var(txn.sub) table users",
        f"http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt {AMPLE} }}",
        "option forwardfor",
        "unique-id-format %{+X}o%ci:%cp_%Ts_%rt",
        "unique-id-header X-Request-Id",
        "log global",
        'log-format \'{"ts":%Ts,"ip":"%ci","method":"%HM","path":"%HP","route":"%b",'
        '"user":"%[var(txn.sub)]","status":%ST,"bytes":%B,"ms":%Ta,"id":"%ID"}\'',
        *(f"use_backend b{number} if {{ path_beg {path} }}" for number, path in enumerate(ROUTES)),
    ]
    config = f"frontend api\n mode http\n bind 127.0.0.1:{port}\n " + "\n ".join(rules) + "\n"
    config += "backend users\n stick-table type string len 64 size 100k expire 1h store http_req_rate(1s)\n"
    for number in range(len(ROUTES)):
        config += f"backend b{number}\n mode http\n http-reuse always\n server s {stage.backend.address}\n"
    return haproxy(folder, config, port)


def portway_gateway(stage: Stage, folder: Path) -> Proxy:
    port = free_tcp_port()
    jwks = stage.issuer.write_jwks(folder / "jwks.json")
    config = f'[log]\naccess = "{folder}/access.log"\n\n[pools.backend]\nservers = ["{stage.backend.address}"]\n\n'
    config += f'[gateway.listeners.api]\nbind = "127.0.0.1:{port}"\n\n'
    config += f'[gateway.auth.main]\ntype = "jwt"\nissuer = "{stage.issuer.name}"\n'
    config += f'audience = ["{stage.issuer.audience}"]\n'
    config += f'algorithms = ["RS256"]\njwks = "{jwks}"\nclaims_to_headers = {{ sub = "X-User-Id" }}\n\n'
    config += f'[gateway.limits.per_user]\nkey = "user"\nrate = "{AMPLE}/s"\nburst = {AMPLE}\n'
    for number, path in enumerate(ROUTES):
        config += f'\n[gateway.routes.r{number}]\npath = "{path}*"\npool = "backend"\n'
        config += 'auth = "main"\nlimits = ["per_user"]\n'
    return portway(folder, config, port)


def gateway_load(stage: Stage, proxy: Proxy, seconds: float) -> Load:
    tokens = [stage.issuer.token(f"user{number}") for number in range(USERS)]
    heads = [
        head("GET", f"{path}items/{number}", Authorization=f"Bearer {tokens[number % USERS]}")
        for number, path in enumerate(ROUTES * 2)
    ]
    return wrk(stage.folder, f"http://{proxy.address}", heads, seconds)


def gateway_check(stage: Stage, proxy: Proxy) -> None:
    """Without a token 401, with somebody else's token 401, with a good one the backend's answer."""
    forged = Issuer()
    forged.add_key("bench", "RS256")
    wanted = {"": 401, forged.token("mallory"): 401, stage.issuer.token("alice"): 200}
    for token, status in wanted.items():
        request = Request(f"http://{proxy.address}{ROUTES[7]}x", headers={"Authorization": f"Bearer {token}"})
        try:
            with urlopen(request, timeout=10) as answer:
                found = answer.status
        except HTTPError as error:
            error.close()
            found = error.code
        if found != status:
            raise BadRun(f"{proxy.name} answers {found} where {status} is due: it doesn't do the work")


WORKLOADS = [
    Workload(
        name="gateway",
        title="gateway work: RS256 JWT, limit by user, 20 routes, access log",
        unit="CPU µs/request",
        goals={"envoy": 0.75, "haproxy": 0.65},
        sides={"envoy": envoy_gateway, "haproxy": haproxy_gateway, "portway": portway_gateway},
        measure=per_operation(gateway_load),
        check=gateway_check,
        prepare=lambda stage: stage.issuer,
    ),
    Workload(
        name="plain",
        title="HTTP/1.1 proxying with X-Forwarded-* and X-Request-Id, keep-alive, small GET",
        unit="CPU µs/request",
        goals={"nginx": 1.3},
        sides={"nginx": nginx_plain, "portway": portway_http},
        measure=per_operation(asking("/hello")),
    ),
]
