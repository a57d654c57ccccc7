"""Who gets into the pooler and how: passwords, TLS, cancel requests, bad input."""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from supervisor.cli.demo.credentials import Certificate
from supervisor.cli.demo.postgres import Cluster
from tests.system.support.pooler import (
    BOUND,
    MakePooler,
    Pooler,
    Port,
    Start,
    check_cancel,
    poolers,
)


@pytest.fixture
def pooler(daemon: Start, tmp_path: Path, free_tcp_port: Port, postgres: Cluster) -> Iterator[MakePooler]:
    """`pooler(**options)` starts one before the cluster."""
    with poolers(daemon, tmp_path, free_tcp_port, postgres) as start:
        yield start


def test_a_wrong_password_is_refused(pooler: MakePooler) -> None:
    running = pooler()
    for user, password in (("app", "wrong"), ("nobody", "secret"), ("app", "")):
        with pytest.raises(psycopg.OperationalError, match=r"password authentication failed|no password supplied"):
            running.connect(user=user, password=password)


def test_a_database_that_is_not_listed_does_not_exist(pooler: MakePooler) -> None:
    with pytest.raises(psycopg.OperationalError, match='database "nosuch" does not exist'):
        pooler().connect("nosuch")


@pytest.mark.parametrize("stored", ["plain", "md5", "scram"])
@pytest.mark.parametrize("method", ["auto", "md5", "scram-sha-256"])
def test_every_kind_of_stored_password(pooler: MakePooler, postgres: Cluster, stored: str, method: str) -> None:
    """Both sides with the same entry: `legacy` is md5 in PostgreSQL, `app` is SCRAM there."""
    user = "legacy" if stored == "md5" else "app"
    entries = {
        "plain": "secret",
        "md5": "md5" + hashlib.md5(b"secretlegacy", usedforsecurity=False).hexdigest(),
        "scram": str(postgres.execute("SELECT rolpassword FROM pg_authid WHERE rolname = 'app'")[0][0]),
    }
    running = pooler(users={user: entries[stored]}, auth=f'type = "{method}"', workers=1)
    if stored == "md5" and method == "scram-sha-256":
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            running.connect(user=user)
        return
    assert running.connect(user=user).execute("SELECT current_user").fetchone() == (user,)


def test_a_password_that_the_server_refuses_is_said_so(pooler: MakePooler) -> None:
    running = pooler(users={"app": "other"})
    with pytest.raises(psycopg.OperationalError, match="server login failed: password authentication failed"):
        running.connect(password="other")


def test_protocol_3_2_and_its_long_cancel_keys(pooler: MakePooler) -> None:
    running = pooler(workers=1)
    connection = running.connect(max_protocol_version="latest")
    assert connection.info.server_version
    assert connection.pgconn.protocol_version == 3
    check_cancel(connection)


def test_cancel_reaches_the_query_through_any_worker(pooler: MakePooler) -> None:
    running = pooler()
    connection = running.connect()
    for _ in range(6):  # a cancel request arrives at either worker
        check_cancel(connection)


def test_cancel_takes_a_waiting_client_out_of_the_queue(pooler: MakePooler) -> None:
    running = pooler(database="pool_size = 1")
    holder, waiter = running.connect(), running.connect()
    holder.execute("BEGIN")
    for query in ("SELECT 1", "SELECT %s::int"):
        timer = threading.Timer(0.5, waiter.cancel_safe)
        timer.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            waiter.execute(query, [1] if "%" in query else None)
        timer.join()
    holder.execute("COMMIT")
    assert waiter.execute("SELECT 1").fetchone() == (1,)


def test_a_cancel_of_an_idle_client_hits_nobody(pooler: MakePooler) -> None:
    running = pooler(database="pool_size = 1")
    idle, busy = running.connect(), running.connect()
    idle.execute("SELECT 1")
    done = threading.Event()
    thread = threading.Thread(target=lambda: (busy.execute("SELECT pg_sleep(1)"), done.set()))
    thread.start()
    while not done.is_set():
        idle.cancel_safe()
    thread.join()


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00" + b"\x01" * 600,
        (20_000).to_bytes(4, "big") + bytes(19_996),
        (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big") + b"more",
        (8).to_bytes(4, "big") + (2 << 16).to_bytes(4, "big"),
        (9).to_bytes(4, "big") + (3 << 16).to_bytes(4, "big") + b"\0",
    ],
    ids=["http", "tls", "oversized", "behind-ssl-request", "protocol-2", "no-user"],
)
def test_bad_input_gets_an_error_and_a_close(pooler: MakePooler, sent: bytes) -> None:
    running = pooler(workers=1)
    with socket.create_connection(("127.0.0.1", running.port), BOUND) as sock:
        sock.sendall(sent)
        answer = b""
        try:
            while data := sock.recv(4096):
                answer += data
        except ConnectionResetError:
            pass
    assert answer == b"" or answer.startswith(b"E")
    assert running.connect().execute("SELECT 1").fetchone() == (1,)


def test_a_startup_that_never_ends_is_cut(pooler: MakePooler) -> None:
    running = pooler(workers=1, pooler='client_login_timeout = "500ms"')
    with socket.create_connection(("127.0.0.1", running.port), BOUND) as sock:
        sock.sendall(b"\0\0")
        assert b"client_login_timeout" in sock.recv(4096)
        assert sock.recv(4096) == b""


def test_ssl_and_gss_requests_are_answered_in_plain_text(pooler: MakePooler) -> None:
    running = pooler(workers=1)
    with socket.create_connection(("127.0.0.1", running.port), BOUND) as sock:
        for code in (80877104, 80877103):
            sock.sendall((8).to_bytes(4, "big") + code.to_bytes(4, "big"))
            assert sock.recv(10) == b"N"
    running.connect(sslmode="prefer", gssencmode="prefer").execute("SELECT 1")


@pytest.fixture
def secured(pooler: MakePooler, certificate: Certificate) -> MakePooler:
    """`secured(required=...)` starts one whose listener has a certificate for localhost."""

    def start(required: bool = False, **options: Any) -> Pooler:
        more = f"required = {str(required).lower()}"
        tls = f'tls = {{ certificates = [{{ cert = "{certificate.cert}", key = "{certificate.key}" }}], {more} }}'
        return pooler(listener=tls, **options)

    return start


@pytest.mark.parametrize("negotiation", ["postgres", "direct"])
def test_tls_with_verification(secured: MakePooler, certificate: Certificate, negotiation: str) -> None:
    running = secured()
    connection = running.connect(
        sslmode="verify-full", sslrootcert=str(certificate.authority), sslnegotiation=negotiation, host="localhost"
    )
    assert connection.pgconn.ssl_in_use
    row = connection.execute("SELECT length(%s::text), repeat('y', 10000000)", ["x" * 10_000_000]).fetchone()
    assert row is not None
    assert row[0] == len(row[1]) == 10_000_000
    check_cancel(connection)
    assert running.connect(sslmode="disable").execute("SELECT 1").fetchone() == (1,)


def test_tls_may_be_demanded(secured: MakePooler) -> None:
    running = secured(required=True)
    assert running.connect(sslmode="require").execute("SELECT 1").fetchone() == (1,)
    with pytest.raises(psycopg.OperationalError, match="must use TLS"):
        running.connect(sslmode="disable")


def test_direct_tls_for_another_protocol_is_refused(secured: MakePooler) -> None:
    running = secured()
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", running.port), BOUND) as sock,
        context.wrap_socket(sock, server_hostname="localhost") as secured_sock,
    ):
        assert b"without the ALPN protocol" in secured_sock.recv(4096)


def test_bytes_in_clear_behind_an_ssl_request_are_refused(secured: MakePooler) -> None:
    running = secured()
    with socket.create_connection(("127.0.0.1", running.port), BOUND) as sock:
        sock.sendall((8).to_bytes(4, "big") + (80877103).to_bytes(4, "big") + b"\0\0\0\x12")
        assert b"received unencrypted data after SSL request" in sock.recv(4096)
