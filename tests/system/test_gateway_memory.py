"""A hundred streams at once, up and down, with a client that reads slowly: what a worker holds of them is bounded."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator

import attrs
import pytest

from gateway.http2.asking import request_block
from gateway.http2.client import Http2Client
from supervisor.cli.demo.ports import free_tcp_port
from tests.system.support.clients import connect
from tests.system.support.daemon import Daemon
from tests.system.support.processes import resident

MB = 1 << 20
LONG = bool(os.environ.get("PORTWAY_LONG"))
STREAMS = 100
PIECE = b"0123456789abcdef" * 1024
BOUND = 150 * MB  # of one worker
CONFIG = """
[supervisor]
workers = 1
[pools.echo]
servers = ["{server}"]
{protocol}
[gateway.listeners.web]
bind = "{web}"
http2 = true
[gateway.routes.echo]
pool = "echo"
"""


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each request with its body, while it comes."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            while size:
                data = await reader.read(min(size, 1 << 16))
                if not data:
                    return
                size -= len(data)
                writer.write(data)
                await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


@attrs.define(eq=False)
class Chain:
    front: Daemon
    behind: Daemon
    web: str

    def held(self) -> int:
        """Bytes of the larger worker."""
        return max(resident(daemon.pids("gateway")[0]) for daemon in (self.front, self.behind))


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(echo, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    folder = tmp_path_factory.mktemp("memory")
    (folder / "behind").mkdir()
    web, inner = (f"127.0.0.1:{free_tcp_port()}" for _ in range(2))
    port = server.sockets[0].getsockname()[1]
    behind = Daemon.start(folder / "behind", CONFIG.format(server=f"127.0.0.1:{port}", protocol="", web=inner))
    front = Daemon.start(folder, CONFIG.format(server=inner, protocol='protocol = "h2c"', web=web))
    yield Chain(front, behind, web)
    front.stop()
    behind.stop()
    loop.call_soon_threadsafe(server.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def test_a_hundred_streams_both_ways_are_held_in_bounded_memory(chain: Chain) -> None:
    run(chain, 4, 0.5)


@pytest.mark.soak
def test_soak_a_gigabyte_up_and_a_gigabyte_down_are_held_in_bounded_memory(chain: Chain) -> None:
    run(chain, 1024, 10.0)


def run(chain: Chain, megabytes: int, seconds: float) -> None:
    """So much up and as much down, read slowly for so many seconds."""
    size = megabytes * MB // STREAMS // len(PIECE) * len(PIECE)
    head = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: %d" % size
    core = Http2Client()
    streams = [core.open(request_block(head, b"http", trailers=False), False) for _ in range(STREAMS)]
    up = dict.fromkeys(streams, 0)
    down = dict.fromkeys(streams, 0)
    most, looked = 0, 0.0
    began = time.monotonic()
    with connect(chain.web) as sock:
        sock.setblocking(False)
        waiting = b""
        while not all(stream.complete for stream in streams):
            now = time.monotonic()
            if now - looked > 0.05:
                looked, most = now, max(most, chain.held())
            for stream, sent in up.items():
                if sent < size and not stream.queued:
                    core.send_body(stream, PIECE)
                    up[stream] = sent + len(PIECE)
                    if up[stream] == size:
                        core.send_end(stream)
            try:
                waiting = waiting or core.data_to_send(now)
                core.output.drained.clear()
                waiting = waiting[sock.send(waiting) :]
            except BlockingIOError:
                pass
            slow = now - began < seconds
            try:
                data = sock.recv(1 << 14 if slow else 1 << 18)
            except BlockingIOError:
                time.sleep(0.001)
                continue
            if slow:
                time.sleep(0.005)
            assert data, "the connection ended"
            for stream in set(core.receive_data(data, now)):
                down[stream] += len(core.read_body(stream))  # type: ignore[index]
    assert set(down.values()) == {size}
    print(f"{STREAMS} streams, {megabytes} MB each way: at most {most // MB} MB resident in a worker")
    assert most < BOUND
