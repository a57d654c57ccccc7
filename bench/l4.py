"""Layer 4: small messages, a new connection for each, bulk, datagrams.

The bytes are HTTP, because wrk and nginx are the cheapest ends to be had; the proxies don't look into them.
"""

import socket
from pathlib import Path

from bench.loads import Load, udp
from bench.proxies import Proxy, haproxy, nginx, portway
from bench.stage import Stage
from bench.workload import Workload, asking, per_gigabyte, per_operation
from supervisor.arbiter.holder import held
from supervisor.cli.demo.ports import free_tcp_port, free_udp_port
from supervisor.cli.demo.waiting import until


def haproxy_tcp(stage: Stage, folder: Path) -> Proxy:
    port = free_tcp_port()
    config = f"listen tcp\n mode tcp\n bind 127.0.0.1:{port} backlog 4096\n server s {stage.backend.address}\n"
    return haproxy(folder, config, port)


def portway_tcp(stage: Stage, folder: Path) -> Proxy:
    port = free_tcp_port()
    config = f'[pools.backend]\nservers = ["{stage.backend.address}"]\n\n'
    config += f'[edge.listeners.tcp]\nbind = "127.0.0.1:{port}"\nprotocol = "tcp"\npool = "backend"\n'
    return portway(folder, config, port)


def nginx_udp(stage: Stage, folder: Path) -> Proxy:
    port = free_udp_port()
    server = f"listen 127.0.0.1:{port} udp; proxy_pass 127.0.0.1:{stage.echo}; proxy_timeout 60s;"
    config = f"stream {{ server {{ {server} }} }}"
    return nginx(folder, config, port, stream=True, ready=lambda: held(port, socket.SOCK_DGRAM))


def portway_udp(stage: Stage, folder: Path) -> Proxy:
    port = free_udp_port()
    config = f'[pools.backend]\nbalance = "source_hash"\nservers = ["127.0.0.1:{stage.echo}"]\n\n'
    config += f'[edge.listeners.udp]\nbind = "127.0.0.1:{port}"\nprotocol = "udp"\npool = "backend"\n'
    proxy = portway(folder, config, port, udp=True)
    until(lambda: held(port, socket.SOCK_DGRAM), "Portway's UDP listener")
    return proxy


def udp_load(stage: Stage, proxy: Proxy, seconds: float) -> Load:
    return udp(proxy.port, seconds)


TCP = {"haproxy": haproxy_tcp, "portway": portway_tcp}

WORKLOADS = [
    Workload(
        name="l4",
        title="L4, small messages on open connections",
        unit="CPU µs/message pair",
        goals={"haproxy": 1.3},
        sides=TCP,
        measure=per_operation(asking("/hello")),
    ),
    Workload(
        name="connections",
        title="L4, a new connection for each message",
        unit="CPU µs/connection",
        goals={"haproxy": 1.4},
        sides=TCP,
        measure=per_operation(asking("/hello", Connection="close")),  # the backend closes, wrk connects again
    ),
    Workload(
        name="bulk",
        title="L4, bulk (16 MiB answers)",
        unit="CPU ms/GB",
        goals={"haproxy": 0.7},
        sides=TCP,
        measure=per_gigabyte(asking("/bulk", connections=4)),
    ),
    Workload(
        name="udp",
        title="UDP, 64-byte echo, 32 clients",
        unit="CPU µs/datagram pair",
        goals={"nginx": 1.3},
        sides={"nginx": nginx_udp, "portway": portway_udp},
        measure=per_operation(udp_load),
    ),
]
