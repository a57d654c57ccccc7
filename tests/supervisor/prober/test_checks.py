"""Checks against servers on ports of their own; what is said over HTTP is tested without a socket."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import h11
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from supervisor.cli.demo.credentials import write_certificate
from supervisor.ground.config import Bind, Duration, File, HealthTable, PoolTlsTable
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


async def pong(stream: trio.SocketStream) -> None:
    async with stream:
        assert await stream.receive_some(65536) == b"*1\r\n$4\r\nPING\r\n"
        await stream.send_all(b"+PONG\r\n")


def test_redis_is_asked_over_its_connection() -> None:
    assert trio.run(against, pong, HealthTable(type="redis")) is None
    assert trio.run(against, answering, HealthTable(type="redis")) == "PING: not RESP"


def test_grpc_is_asked_over_its_connection() -> None:
    cause = trio.run(against, answering, HealthTable(type="grpc")) or ""
    assert cause.startswith("not HTTP/2")


def test_tls_shakes_hands_and_does_not_judge_the_certificate(tmp_path: Path) -> None:
    made = write_certificate(tmp_path, "somebody.example")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(made.cert, made.key)
    names: list[str | None] = []
    context.sni_callback = lambda connection, name, base: names.append(name)

    async def shaking(stream: trio.SocketStream) -> None:
        async with trio.SSLStream(stream, context, server_side=True) as tls:
            with contextlib.suppress(trio.BrokenResourceError):
                await tls.receive_some(1)

    assert trio.run(against, shaking, HealthTable(type="tls")) is None
    assert trio.run(against, shaking, HealthTable(type="tls", host="somebody.example")) is None
    assert names == [None, "somebody.example"]


def test_what_speaks_no_tls_fails_as_such() -> None:
    assert (trio.run(against, garbage, HealthTable(type="tls")) or "").startswith("tls: ")


async def datagrams(answer: bytes | None, check: HealthTable) -> tuple[bytes, str | None]:
    """What was asked of a server that answers so, and how the check failed."""
    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        await sock.bind(("127.0.0.1", 0))
        asked = b""

        async def serve() -> None:
            nonlocal asked
            asked, source = await sock.recvfrom(65535)
            if answer is not None:
                await sock.sendto(answer, source)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            cause = await attempt(Bind("127.0.0.1", sock.getsockname()[1]), check)
            nursery.cancel_scope.cancel()
        return asked, cause


@pytest.mark.parametrize(
    ("answer", "expect", "cause"),
    [
        (b"pong 1", "pong", None),
        (b"", None, None),
        (b"gone", "pong", "the answer doesn't begin with 'pong'"),
        (None, "pong", "no answer within 100ms"),
    ],
)
def test_udp_sends_and_expects(answer: bytes | None, expect: str | None, cause: str | None) -> None:
    check = HealthTable(type="udp", send="ping", expect=expect, timeout=Duration(0.1))
    assert trio.run(datagrams, answer, check) == (b"ping", cause)


def test_a_closed_udp_port_is_named_so() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    assert trio.run(attempt, Bind("127.0.0.1", port), HealthTable(type="udp")) == "connection refused"


@pytest.mark.parametrize(
    ("sni", "verify", "cause"),
    [
        ("user.internal", True, None),
        (None, True, None),
        ("other.internal", True, "tls: certificate_verify_failed"),
        ("other.internal", False, None),
    ],
)
def test_a_pool_with_tls_is_asked_under_it(tmp_path: Path, sni: str | None, verify: bool, cause: str | None) -> None:
    shown = write_certificate(tmp_path, ["user.internal", "127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(shown.cert, shown.key)

    async def serve(stream: trio.SocketStream) -> None:
        secure = trio.SSLStream(stream, context, server_side=True)
        with contextlib.suppress(trio.BrokenResourceError):
            assert bytes(await secure.receive_some(65536)).startswith(b"GET / HTTP/1.1")
            await secure.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    tls = PoolTlsTable(sni=sni, ca=File(shown.authority, shown.authority.read_bytes()), verify=verify)
    assert trio.run(checked_under, tls, serve) == cause


async def checked_under(tls: PoolTlsTable, serve: Serve) -> str | None:
    """What the http check says of a server at 127.0.0.1 under this TLS."""
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        cause = await attempt(Bind("127.0.0.1", listener.socket.getsockname()[1]), http(), tls=tls)
        nursery.cancel_scope.cancel()
    return cause


@given(
    st.one_of(
        st.binary(max_size=80),
        st.tuples(
            st.sampled_from([b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 204 X\r\n", b"HTTP/1.1 101 X\r\n"]),
            st.binary(max_size=80),
        ).map(b"".join),
    ),
    st.integers(1, 30),
)
def test_property_any_answer_is_a_pass_or_a_failed_check(answer: bytes, step: int) -> None:
    for check in (http(), http(body="ready")):
        judge(answer, check, step)
