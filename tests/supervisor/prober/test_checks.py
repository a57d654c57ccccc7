"""Checks against servers on ports of their own; what is said over HTTP is tested without a socket."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import h11
import pytest
import trio
import trio.testing

from supervisor.ground.config import Bind, Duration, HealthTable
from supervisor.prober import checks
from supervisor.prober.checks import attempt, check_http
from supervisor.prober.failure import CheckFailed

Serve = Callable[[trio.SocketStream], Awaitable[None]]


async def ask(answer: bytes, check: HealthTable, step: int = 0) -> tuple[bytes, Exception | None]:
    """Run the http check against these bytes (in pieces of `step`), then the end of the stream: what was asked, and
    how it failed."""
    ours, theirs = trio.testing.memory_stream_pair()
    asked, failure = b"", None

    async def serve() -> None:
        nonlocal asked
        asked = bytes(await theirs.receive_some(65536))
        for at in range(0, len(answer), step or max(1, len(answer))):
            await theirs.send_all(answer[at : at + (step or len(answer))])
        await theirs.send_eof()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        try:
            await check_http(ours, check, "127.0.0.1:80")
        except (CheckFailed, h11.RemoteProtocolError) as error:
            failure = error
        nursery.cancel_scope.cancel()
    return asked, failure


def http(**more: Any) -> HealthTable:
    return HealthTable(type="http", **more)


def judge(answer: bytes, check: HealthTable, step: int = 0) -> str | None:
    """The cause of the failure, "protocol" if it wasn't HTTP, None for a pass."""
    _, failure = trio.run(ask, answer, check, step)
    if failure is None:
        return None
    return "protocol" if isinstance(failure, h11.RemoteProtocolError) else str(failure)


def test_the_request_asks_for_the_path_and_the_host_and_ends_the_connection() -> None:
    asked, _ = trio.run(ask, b"HTTP/1.1 200 OK\r\n\r\n", http(path="/healthz?full=1", host="api.example"))
    lines = asked.split(b"\r\n")
    assert lines[0] == b"GET /healthz?full=1 HTTP/1.1"
    assert b"Host: api.example" in lines
    assert b"Connection: close" in lines
    assert asked.endswith(b"\r\n\r\n")
    assert b"Host: 127.0.0.1:80" in trio.run(ask, b"HTTP/1.1 200 OK\r\n\r\n", http())[0]


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize(
    ("answer", "check", "cause"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", http(), None),
        (b"HTTP/1.0 204 No Content\r\n\r\n", http(), None),
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", http(), None),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", http(), None),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", http(), "status 503"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", http(), "status 404"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", http(status=(404, 410)), None),
        (b"HTTP/1.1 200 OK\r\n\r\n", http(status=(204,)), "status 200"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nall ok\n", http(body="ok"), None),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n", http(body="ok"), None),
        (b"HTTP/1.1 200 OK\r\n\r\nall ok", http(body="ok"), None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nloved", http(body="ok"), "the body has no 'ok'"),
        (b"HTTP/1.1 200 OK\r\n\r\nx", http(body="ok"), "the body has no 'ok'"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", http(), "protocol"),
    ],
)
def test_answers_are_judged(answer: bytes, check: HealthTable, cause: str | None, step: int) -> None:
    assert judge(answer, check, step) == cause


@pytest.mark.parametrize(
    "answer",
    [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\n", b"\0" * 100, b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20000],
)
def test_what_is_not_http_fails_as_such(answer: bytes) -> None:
    assert judge(answer, http()) == "protocol"


def test_a_body_is_not_looked_through_for_ever() -> None:
    answer = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (2 * checks.MAX_BODY)
    assert judge(answer, http(body="ok")) == "no 'ok' in the first 64 KiB of the body"


async def against(serve: Serve, check: HealthTable, host: str = "127.0.0.1") -> str | None:
    """One check of a server that treats its connections so."""
    listeners = await trio.open_tcp_listeners(0, host=host)
    address = Bind(host, listeners[0].socket.getsockname()[1])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, serve, listeners))
        cause = await attempt(address, check)
        nursery.cancel_scope.cancel()
    return cause


async def answering(stream: trio.SocketStream) -> None:
    async with stream:
        await stream.receive_some(65536)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


async def silent(stream: trio.SocketStream) -> None:
    await trio.sleep_forever()


async def garbage(stream: trio.SocketStream) -> None:
    async with stream:
        await stream.receive_some(65536)
        await stream.send_all(b"+PONG\r\n")


async def resetting(stream: trio.SocketStream) -> None:
    await stream.receive_some(1)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    stream.socket.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("check", [HealthTable(type="tcp"), http()])
def test_a_server_that_answers_passes(host: str, check: HealthTable) -> None:
    assert trio.run(against, answering, check, host) is None


def closed_port() -> Bind:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return Bind("127.0.0.1", sock.getsockname()[1])


@pytest.mark.parametrize("kind", ["tcp", "http"])
def test_a_closed_port_is_named_so(kind: str) -> None:
    check = HealthTable(type=kind)
    assert trio.run(attempt, closed_port(), check) == "connection refused"


def test_a_silent_server_fails_at_its_timeout() -> None:
    assert trio.run(against, silent, http(timeout=Duration(0.05))) == "no answer within 50ms"


@pytest.mark.parametrize(("serve", "cause"), [(garbage, "not HTTP"), (resetting, "connection reset")])
def test_a_strange_server_fails_with_its_cause(serve: Serve, cause: str) -> None:
    assert (trio.run(against, serve, http()) or "").startswith(cause)
