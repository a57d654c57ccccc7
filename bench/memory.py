"""Memory of an idle client connection: private memory of the proxy's processes, before and after a thousand of them.

An idle connection is one that has been used: one request answered, one login done. What the kernel holds for its
sockets is not counted; it is the same for all. A client that is idle at the edge or in HTTP/1.1 stays connected, and
the proxy is started anew for each run, because allocators keep what they once had.
"""

import asyncio
import base64
import hashlib
import hmac
import os
import ssl
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.http import portway_http
from bench.l4 import haproxy_tcp, portway_tcp
from bench.loads import BadRun
from bench.proxies import Proxy, haproxy
from bench.sql import pgbouncer_pool, portway_pool
from bench.stage import Stage
from bench.tls import portway_tls
from bench.workload import Figure, Starter, Workload
from supervisor.cli.demo.ports import free_tcp_port
from supervisor.cli.demo.tree import resident, tree

CONNECTIONS = 1000
WARM_UP = 50  # connections first, so that code and caches that are made once don't count
AT_ONCE = 16  # connections that are being opened at a time
BOUND = 60.0  # s to open them all

REQUEST = b"GET /hello HTTP/1.1\r\nHost: bench.example\r\nUser-Agent: bench/1\r\nAccept: */*\r\n\r\n"


def private_memory(proxy: Proxy) -> int:
    """Bytes that belong to the proxy's processes alone."""
    return sum(resident(process.pid) for process in tree(proxy.child.pid))


async def http_client(port: int, tls: ssl.SSLContext | None) -> asyncio.StreamWriter:
    """A connection that got one answer."""
    name = "localhost" if tls else None
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=name)
    writer.write(REQUEST)
    head = await reader.readuntil(b"\r\n\r\n")
    if b" 200 " not in head[:20]:
        raise BadRun(f"an idle connection began with {head[:80]!r}")
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    await reader.readexactly(length)
    return writer


async def sql_client(port: int) -> asyncio.StreamWriter:
    """A connection that logged in with SCRAM-SHA-256 (RFC 5802) and is ready for a query."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    start = struct.pack(">i", 196608) + b"user\0bench\0database\0bench\0\0"
    writer.write(struct.pack(">i", len(start) + 4) + start)

    async def message() -> tuple[bytes, bytes]:
        kind, length = struct.unpack(">ci", await reader.readexactly(5))
        body = await reader.readexactly(length - 4)
        if kind == b"E":
            raise BadRun(f"login failed: {body!r}")
        return kind, body

    def say(body: bytes) -> None:
        writer.write(b"p" + struct.pack(">i", len(body) + 4) + body)

    await message()
    bare = b"n=,r=" + base64.b64encode(os.urandom(18))
    say(b"SCRAM-SHA-256\0" + struct.pack(">i", len(bare) + 3) + b"n,," + bare)
    first = (await message())[1][4:]
    fields = dict(part.split(b"=", 1) for part in first.split(b","))
    salted = hashlib.pbkdf2_hmac("sha256", b"bench", base64.b64decode(fields[b"s"]), int(fields[b"i"]))
    final = b"c=biws,r=" + fields[b"r"]
    key = hmac.digest(salted, b"Client Key", "sha256")
    signature = hmac.digest(hashlib.sha256(key).digest(), b",".join((bare, first, final)), "sha256")
    proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
    say(final + b",p=" + base64.b64encode(proof))
    while (await message())[0] != b"Z":
        pass
    return writer


async def opened(port: int, kind: str, count: int) -> list[asyncio.StreamWriter]:
    """That many idle connections."""
    tls = None
    if kind == "tls":
        tls = ssl.create_default_context()
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    gate = asyncio.Semaphore(AT_ONCE)

    async def one() -> asyncio.StreamWriter:
        async with gate:
            return await (sql_client(port) if kind == "sql" else http_client(port, tls))

    return list(await asyncio.gather(*(one() for _ in range(count))))


async def closed(writers: list[asyncio.StreamWriter]) -> None:
    """Close them all."""
    for writer in writers:
        writer.transport.abort()
    await asyncio.sleep(0.3)


def per_connection(kind: str, warm: int = WARM_UP, count: int = CONNECTIONS) -> Callable[[Stage, Proxy, float], Figure]:
    """KiB of private memory for each idle connection of that kind: http, tls or sql."""

    async def run(proxy: Proxy) -> Figure:
        async with asyncio.timeout(BOUND):
            await closed(await opened(proxy.port, kind, warm))
            before = private_memory(proxy)
            started = time.monotonic()
            writers = await opened(proxy.port, kind, count)
            rate = count / (time.monotonic() - started)
            grown = private_memory(proxy) - before
            await closed(writers)
        return Figure(grown / count / 1024, rate)

    def measure(stage: Stage, proxy: Proxy, seconds: float) -> Figure:
        return asyncio.run(run(proxy))

    return measure


def haproxy_http(stage: Stage, folder: Path, tls: bool = False) -> Proxy:
    port = free_tcp_port()
    bind = f"bind 127.0.0.1:{port} backlog 4096"
    if tls:
        pair = folder / "pair.pem"
        pair.write_bytes(stage.certificate.cert.read_bytes() + stage.certificate.key.read_bytes())
        bind += f" ssl crt {pair}"
    config = f"listen http\n mode http\n {bind}\n http-reuse always\n server s {stage.backend.address}\n"
    return haproxy(folder, config, port)


def haproxy_tls(stage: Stage, folder: Path) -> Proxy:
    return haproxy_http(stage, folder, tls=True)


def _idle(name: str, title: str, kind: str, peer: str, theirs: Starter, ours: Starter, **more: Any) -> Workload:
    return Workload(
        name=name,
        title=title,
        unit="KiB/connection",
        goals={},
        ceiling=32.0 if kind == "tls" else 16.0,
        sides={peer: theirs, "portway": ours},
        measure=per_connection(kind),
        warm_up=0,
        fresh=True,
        **more,
    )


WORKLOADS = [
    _idle("idle-edge", "idle connection, edge", "http", "haproxy", haproxy_tcp, portway_tcp),
    _idle("idle-gateway", "idle connection, gateway", "http", "haproxy", haproxy_http, portway_http),
    _idle("idle-tls", "idle connection, gateway with TLS", "tls", "haproxy", haproxy_tls, portway_tls),
    _idle("idle-pooler", "idle connection, pooler", "sql", "pgbouncer", pgbouncer_pool, portway_pool,
          prepare=lambda stage: stage.database),
]  # fmt: skip
