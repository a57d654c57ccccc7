"""The checks: one attempt each, nothing if it passed, else the cause in words.

tcp connects; tls shakes hands; http asks for a path and looks at the status, and at the body if that is configured;
grpc, redis and postgres ask as their clients do; udp sends a datagram and waits for its answer. A check has its own
connection and leaves none open.
"""

from __future__ import annotations

import os
import ssl

import h11
import psycopg
import trio

from supervisor.ground.config import Bind, HealthTable, PoolTlsTable
from supervisor.prober import postgres
from supervisor.prober.failure import CheckFailed
from supervisor.prober.grpc import check_grpc
from supervisor.prober.redis import check_redis
from supervisor.prober.secure import secured

MAX_HEAD = 16 * 1024  # bytes of a health answer's head; h11's own default
MAX_BODY = 64 * 1024  # bytes looked through for `body`; a health page is a line
MAX_DATAGRAM = 65535
CHUNK = 16 * 1024
_ALPN = {"http": "http/1.1", "grpc": "h2"}


async def attempt(
    address: Bind, check: HealthTable, noted: postgres.Noted | None = None,
    tls: PoolTlsTable | None = None, name: str = "",
) -> str | None:  # fmt: skip
    """One check, in at most its timeout: None if it passed, else the cause. With `tls`, http and grpc ask under it, and
    the server must prove this `name`, or its address."""
    try:
        with trio.fail_after(check.timeout):
            match check.type:
                case "postgres":
                    await postgres.check_postgres(address, check, noted)
                case "udp":
                    await check_udp(address, check)
                case _:
                    async with await connect(address) as stream:
                        if tls is not None and check.type in _ALPN:
                            await _ask(
                                await secured(stream, tls, name or address.host, _ALPN[check.type]), check, address
                            )
                        else:
                            await _ask(stream, check, address)
    except trio.TooSlowError:
        return f"no answer within {check.timeout}"
    except CheckFailed as error:
        return str(error)
    except h11.RemoteProtocolError as error:
        return f"not HTTP: {error}"
    except ssl.SSLError as error:
        return f"TLS: {error.reason or error}".lower()
    except (trio.BrokenResourceError, ConnectionResetError):
        return "connection reset"
    except psycopg.Error as error:
        return postgres.cause(error)
    except OSError as error:
        # trio's own text repeats the address, which the log line has already.
        return (os.strerror(error.errno) if error.errno else str(error)).lower()
    return None


async def _ask(stream: trio.abc.Stream, check: HealthTable, address: Bind) -> None:
    """What a check does on its connection; tcp has nothing more to ask."""
    match check.type:
        case "http":
            await check_http(stream, check, str(address))
        case "tls":
            await check_tls(stream, check)
        case "grpc":
            await check_grpc(stream, check, str(address))
        case "redis":
            await check_redis(stream, check)


async def connect(address: Bind) -> trio.SocketStream:
    """The tcp check, and the first step of those over a stream."""
    sock = trio.socket.socket(address.family, trio.socket.SOCK_STREAM)
    try:
        await sock.connect(address.sockaddr)
    except BaseException:
        sock.close()
        raise
    return trio.SocketStream(sock)


async def check_tls(stream: trio.abc.Stream, check: HealthTable) -> None:
    """A handshake. Whose the certificate is, is for those to judge who carry data. Raises ssl.SSLError."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    tls = trio.SSLStream(stream, context, server_hostname=check.host)
    try:
        await tls.do_handshake()
    except trio.BrokenResourceError as error:
        if isinstance(error.__cause__, ssl.SSLError):
            raise error.__cause__ from None
        raise


async def check_udp(address: Bind, check: HealthTable) -> None:
    """A datagram, and an answer that begins as expected. Without `expect` any answer will do. Raises CheckFailed."""
    with trio.socket.socket(address.family, trio.socket.SOCK_DGRAM) as sock:
        await sock.connect(address.sockaddr)
        await sock.send((check.send or "").encode())
        answer = await sock.recv(MAX_DATAGRAM)
    if check.expect is not None and not answer.startswith(check.expect.encode()):
        raise CheckFailed(f"the answer doesn't begin with {check.expect!r}")


async def check_http(stream: trio.abc.Stream, check: HealthTable, default_host: str) -> None:
    """Ask and judge. Raises CheckFailed, h11.RemoteProtocolError, trio.BrokenResourceError."""
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
    request = h11.Request(
        method="GET",
        target=check.path or "/",
        headers=[
            ("Host", check.host or default_host),
            ("User-Agent", "portway-health-check"),
            ("Accept", "*/*"),
            ("Connection", "close"),
        ],
    )
    await stream.send_all(http.send(request) + http.send(h11.EndOfMessage()))
    body = b""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(bytes(await stream.receive_some(CHUNK)))
        elif isinstance(event, h11.Response):
            _judge_status(event.status_code, check)
            if check.body is None:
                return
        elif isinstance(event, h11.Data):
            body = (body + event.data)[:MAX_BODY]
            if _contains(body, check):
                return
        elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
            raise CheckFailed(f"the body has no {check.body!r}")
        elif event is h11.PAUSED:
            raise CheckFailed("switched protocols")
        if len(body) >= MAX_BODY:
            raise CheckFailed(f"no {check.body!r} in the first {MAX_BODY // 1024} KiB of the body")


def _judge_status(status: int, check: HealthTable) -> None:
    """Without a list, 2xx and 3xx pass, as HAProxy has it."""
    if not (status in check.status if check.status is not None else 200 <= status < 400):
        raise CheckFailed(f"status {status}")


def _contains(body: bytes, check: HealthTable) -> bool:
    return check.body is not None and check.body.encode() in body
