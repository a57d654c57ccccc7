"""The postgres check against a server that says what the test scripts; a real one stands in tests/system."""

from __future__ import annotations

import struct
from functools import partial

import psycopg
import pytest
import trio

from supervisor.ground.config import Bind, Duration, HealthTable
from supervisor.prober.checks import attempt
from supervisor.prober.postgres import cause

OK = b"R" + struct.pack("!ii", 8, 0)
PASSWORD = b"R" + struct.pack("!ii", 8, 3)
READY = b"Z" + struct.pack("!i", 5) + b"I"
KEY = b"K" + struct.pack("!iii", 12, 4711, 99)
ROW = (
    b"T" + struct.pack("!ih", 33, 1) + b"?column?\0" + struct.pack("!ihihih", 0, 0, 23, 4, -1, 0)
    + b"D" + struct.pack("!ihi", 11, 1, 1) + b"1"
    + b"C" + struct.pack("!i", 13) + b"SELECT 1\0"
)  # fmt: skip


def error(code: str, text: str) -> bytes:
    body = b"SFATAL\0VFATAL\0C" + code.encode() + b"\0M" + text.encode() + b"\0\0"
    return b"E" + struct.pack("!i", len(body) + 4) + body


class Server:
    """Answers the startup, a password if it asked for one, and each query."""

    def __init__(self, startup: bytes, query: bytes = ROW + READY) -> None:
        self.startup, self.query = startup, query
        self.seen: list[bytes] = []

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            while data := await stream.receive_some(65536):
                self.seen.append(bytes(data))
                if data[4:8] == struct.pack("!i", 80877103):  # SSLRequest
                    await stream.send_all(b"N")
                elif data[:1] == b"p":
                    await stream.send_all(OK + KEY + READY)
                elif data[:1] == b"Q":
                    await stream.send_all(self.query)
                elif data[:1] != b"X":
                    await stream.send_all(self.startup)


def check(server: Server, **more: object) -> str | None:
    table = HealthTable(type="postgres", **more)  # type: ignore[arg-type]  # keys of the test's choice

    async def main() -> str | None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        address = Bind("127.0.0.1", listeners[0].socket.getsockname()[1])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(trio.serve_listeners, server.serve, listeners))
            result = await attempt(address, table)
            nursery.cancel_scope.cancel()
        return result

    return trio.run(main)


def test_a_login_and_a_query_pass() -> None:
    server = Server(OK + KEY + READY)
    assert check(server, user="probe", database="app") is None
    startup = next(data for data in server.seen if b"user\0" in data)
    assert b"user\0probe\0" in startup
    assert b"database\0app\0" in startup
    assert any(data.startswith(b"Q") and b"SELECT 1" in data for data in server.seen)


def test_the_password_is_given_when_asked_for() -> None:
    from supervisor.ground.config import Secret

    server = Server(PASSWORD)
    assert check(server, user="probe", password=Secret("hush")) is None
    assert any(data.startswith(b"p") and b"hush\0" in data for data in server.seen)


def test_a_server_that_is_starting_up_fails_with_its_words() -> None:
    assert "starting up" in (check(Server(error("57P03", "the database system is starting up"))) or "")


def test_a_missing_password_fails_and_no_file_is_asked_for_one() -> None:
    assert "no password supplied" in (check(Server(PASSWORD)) or "")


def test_a_query_that_fails_fails() -> None:
    server = Server(OK + KEY + READY, error("53200", "out of memory") + READY)
    assert "out of memory" in (check(server) or "")


def test_a_server_that_hangs_fails_at_its_timeout() -> None:
    assert check(Server(b""), timeout=Duration(0.1)) == "no answer within 100ms"
    assert check(Server(OK + KEY + READY, b""), timeout=Duration(0.2)) == "no answer within 200ms"


def test_a_server_that_is_none_fails() -> None:
    assert check(Server(b"HTTP/1.1 400 Bad Request\r\n\r\n")) is not None


def test_a_closed_port_fails() -> None:
    async def main() -> str | None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        address = Bind("127.0.0.1", listener.socket.getsockname()[1])
        await listener.aclose()
        return await attempt(address, HealthTable(type="postgres"))

    assert "refused" in (trio.run(main) or "").lower()


@pytest.mark.parametrize(
    ("text", "line"),
    [("connection failed: FATAL:  no\nmore", "FATAL:  no"), ("", "OperationalError")],
)
def test_a_cause_is_one_line(text: str, line: str) -> None:
    assert cause(psycopg.OperationalError(text)) == line
