"""Database clients that are malformed, half there, wrong or impatient: each gets an error or a close, alone."""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import psycopg
import pytest

from tests.system.support.abused import PATIENCE, Abused, rest_of, said
from tests.system.support.clients import connect, reset
from tests.system.support.killed import BEGIN, QUERY, SASL, SSL_REQUEST, STARTUP, client_hello, logged_in, message
from tests.system.support.poll import until
from tests.system.support.site import POOL_SIZE, Site

PROTOCOL_3 = b"\0\x03\0\0"


def first(body: bytes) -> bytes:
    """A first packet."""
    return message(b"", body)


# Before the login: the SQLSTATE of the error; "" where a close without a word is right.
STARTUPS: dict[str, tuple[bytes, str]] = {
    "a length of 0": (b"\0\0\0\0", "08P01"),
    "a length of 7": (b"\0\0\0\x07" + bytes(3), "08P01"),
    "a length of 10 KB and one": ((10_001).to_bytes(4, "big"), "08P01"),
    "a length of 2 GiB": (b"\x7f\xff\xff\xff" + bytes(100), "08P01"),
    "a negative length": (b"\xff\xff\xff\xff" + bytes(100), "08P01"),
    "HTTP": (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "08P01"),
    "TLS": (client_hello(), "08P01"),
    "protocol 2": (first(b"\0\x02\0\0user\0app\0\0"), "0A000"),
    "protocol 4": (first(b"\0\x04\0\0user\0app\0\0"), "0A000"),
    "no terminator": (first(PROTOCOL_3 + b"user\0app\0"), "08P01"),
    "a name without a value": (first(PROTOCOL_3 + b"user\0app\0database\0\0"), "08P01"),
    "something behind the terminator": (first(PROTOCOL_3 + b"user\0app\0\0more\0"), "08P01"),
    "no user": (first(PROTOCOL_3 + b"database\0app\0\0"), "28000"),
    "no UTF-8": (first(PROTOCOL_3 + b"user\0\xff\xfe\0\0"), "08P01"),
    "replication of what": (first(PROTOCOL_3 + b"user\0app\0replication\0perhaps\0\0"), "22023"),
    "a switch of the server program": (first(PROTOCOL_3 + b"user\0app\0options\0-d 5\0\0"), "0A000"),
    "words behind an SSLRequest": (SSL_REQUEST + STARTUP, "08P01"),
    "a cancel without a key": (first((80877102).to_bytes(4, "big") + bytes(4)), "08P01"),
    "a cancel with a wrong key": (first((80877102).to_bytes(4, "big") + bytes(8)), ""),
    "a query instead of a password": (STARTUP + QUERY, "08P01"),
    "another mechanism": (STARTUP + message(b"p", b"PLAIN\0\0\0\0\x03a\0b"), "08P01"),
    "a mechanism and nothing else": (STARTUP + message(b"p", b"SCRAM-SHA-256\0"), "08P01"),
    "a password of 1 MiB": (STARTUP + b"p" + (1 << 20).to_bytes(4, "big") + bytes(2000), "08P01"),
    "SASL without a nonce": (STARTUP + message(b"p", b"SCRAM-SHA-256\0\0\0\0\x08n,,n=app"), "08P01"),
    "a proof of nothing": (STARTUP + SASL + message(b"p", b"c=biws,r=x,p=AAAA"), "28P01 08P01"),
}


@pytest.fixture(autouse=True)
def neighbour(abused: Abused) -> Iterator[None]:
    """Whatever a test does, the neighbour goes on."""
    yield
    abused.undisturbed()


def error_of(answer: bytes) -> str:
    """The SQLSTATE of the error that ends an answer; "" if there is none."""
    at = 1 if answer[:1] in (b"N", b"S") and answer[1:2] in (b"E", b"R", b"") else 0
    found = ""
    while at < len(answer):
        kind, size = answer[at : at + 1], int.from_bytes(answer[at + 1 : at + 5], "big")
        assert at + 1 + size <= len(answer), "a message that is cut"
        if kind == b"E":
            fields = answer[at + 5 : at + 1 + size].split(b"\0")
            found = next(field[1:].decode() for field in fields if field[:1] == b"C")
        at += 1 + size
    return found


@pytest.mark.parametrize("what", STARTUPS)
def test_a_first_packet_that_is_wrong_gets_its_error(abused: Abused, what: str) -> None:
    data, expected = STARTUPS[what]
    with connect(abused.site.address("sql")) as sock:
        answer = said(sock, data)
    assert error_of(answer) in (expected.split() or [""]), answer


@pytest.mark.parametrize("data", [SSL_REQUEST, STARTUP, STARTUP + SASL, QUERY], ids=["ssl", "startup", "sasl", "query"])
def test_whatever_is_cut_anywhere_costs_nothing(abused: Abused, data: bytes) -> None:
    for end in range(0, len(data), 3):
        with connect(abused.site.address("sql")) as sock:
            answer = said(sock, data[:end], half_close=True)
            assert answer[:1] in (b"", b"N", b"R", b"E"), answer


def test_random_bytes_get_an_error_or_a_close(abused: Abused) -> None:
    chance = random.Random(5)
    for size in (1, 4, 8, 40, 1000, 50_000) * 5:
        with connect(abused.site.address("sql")) as sock:
            answer = said(sock, chance.randbytes(size), half_close=True)
            assert error_of(answer) in ("", "08P01", "0A000")


# After the login.
MESSAGES: dict[str, tuple[bytes, str]] = {
    "an unknown message": (message(b"z", b"what?"), "08P01"),
    "a message of the server's": (message(b"D", b""), "08P01"),
    "a length of 3": (b"Q\0\0\0\x03", "08P01"),
    "a length of 4 GiB": (b"Q\xff\xff\xff\xff", "08P01"),
    "an unknown message behind a query": (QUERY + message(b"z", b"what?"), "08P01"),
    "a query without its end": (message(b"Q", b"SELECT 1"), "08P01"),
    "a Bind without its end": (message(b"B", b"\0"), "08P01"),
    "a second startup packet": (STARTUP, "08P01"),
    "HTTP": (b"GET / HTTP/1.1\r\n\r\n", "08P01"),
}


@pytest.mark.parametrize("database", ["app", "sessions"])
@pytest.mark.parametrize("what", MESSAGES)
def test_a_message_that_is_wrong_costs_its_session(abused: Abused, what: str, database: str) -> None:
    data, expected = MESSAGES[what]
    with logged_in(abused.site, database) as sock:
        # PostgreSQL itself answers some of these, and goes on: then Terminate ends it.
        answer = said(sock, data + message(b"S", b"") + message(b"X", b""))
    assert error_of(answer) == expected, answer


def busy(site: Site) -> int:
    """Server connections that are in use, and clients that wait, by the gauges."""
    leases = site.daemon.status()["lease_pools"]
    return sum(one["busy"] + one["waiting"] for one in leases if one["user"] == "app" and one["database"] == "sessions")


def test_clients_that_stop_in_the_middle_of_a_message_hold_no_server(abused: Abused) -> None:
    with ExitStack() as stack:
        for _ in range(4 * POOL_SIZE):
            sock = stack.enter_context(logged_in(abused.site))
            sock.sendall(QUERY[:-3])
        abused.undisturbed()
        with abused.site.sql() as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


def test_clients_that_do_not_read_hold_nobody_up(abused: Abused) -> None:
    """Their servers are theirs until they read or go; the other pool has its own."""
    large = message(b"Q", b"SELECT repeat('x', 1000) FROM generate_series(1, 100000)\0")
    greedy = [logged_in(abused.site, "sessions") for _ in range(2)]
    for sock in greedy:
        sock.sendall(large)
    abused.undisturbed()
    for sock in greedy:
        reset(sock)
    until(lambda: not busy(abused.site), "their servers to come back")
    with abused.site.sql(database="sessions") as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_sessions_killed_in_their_transactions_leave_the_servers_clean(abused: Abused) -> None:
    for turn in range(3 * POOL_SIZE):
        sock = logged_in(abused.site)
        sock.sendall(BEGIN + message(b"Q", b"CREATE TABLE never (n int)\0") + QUERY * (turn % 3))
        if turn % 2:
            sock.recv(1)
        reset(sock)
    with abused.site.sql() as connection:
        until(lambda: connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE, "the connection")
        assert connection.execute("SELECT to_regclass('never')").fetchone() == (None,)
        for _ in range(2 * POOL_SIZE):
            assert connection.execute("SELECT pg_current_xact_id_if_assigned()").fetchone() == (None,)


def test_wrong_passwords_and_unknown_names_are_told_apart_by_nobody(abused: Abused) -> None:
    told: list[str] = []

    def attempt(user: str, password: str, database: str) -> None:
        try:
            abused.site.sql(user, database, password=password).close()
        except psycopg.OperationalError as error:
            told.append(str(error).strip().rpartition("FATAL:")[2].replace(user, "USER").strip())

    attempts = [("app", "wrong"), ("nobody", "wrong"), ("legacy", "wrong"), ("nobody", "secret")] * 8
    threads = [threading.Thread(target=attempt, args=(*one, "app")) for one in attempts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == len(attempts)
    assert set(told) == {'password authentication failed for user "USER"'}
    attempt("app", "secret", "nowhere")
    assert told[-1] == 'database "nowhere" does not exist'


@pytest.mark.parametrize(("database", "reason"), [("dead", "Connection refused"), ("silent", "in time")])
def test_a_dead_database_server_is_told_soon(abused: Abused, database: str, reason: str) -> None:
    began = time.monotonic()
    with pytest.raises(psycopg.OperationalError, match=reason):
        abused.site.sql(database=database)
    assert time.monotonic() - began < PATIENCE


def test_many_clients_of_a_silent_server_hold_nobody_up(abused: Abused) -> None:
    with ExitStack() as stack:
        waiting = [stack.enter_context(connect(abused.site.address("sql"))) for _ in range(40)]
        for sock in waiting:
            sock.sendall(first(PROTOCOL_3 + b"user\0app\0database\0silent\0\0"))
        abused.undisturbed()
        ends = [error_of(rest_of(sock)) for sock in waiting]
    assert len(ends) == 40
    assert all(ends), "cut by client_login_timeout, with a word"
