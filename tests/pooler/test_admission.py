"""How clients get in, from the first byte to the greeting."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pooler import scram
from pooler.errors import decode
from pooler.keys import column_of
from pooler.messages import message, query
from pooler.scram import ScramClient
from supervisor.plane.layout import Kind, Listener
from tests.pooler.fake_postgres import DEFAULTS
from tests.pooler.stage import Player, Stage

Make = Callable[..., Stage]
SSL = b"\0\0\0\x08\x04\xd2\x16\x2f"
GSS = b"\0\0\0\x08\x04\xd2\x16\x30"
START = b"\0\0\0\x12\0\x03\0\0user\0app\0\0"


def counter(playing: Stage, field: int) -> int:
    return playing.plane.total(Kind.LISTENER, playing.plane.row(Kind.LISTENER, "pooler/main"), field)


def test_the_greeting_is_a_servers_with_a_key_of_ours(stage: Make) -> None:
    playing = stage()
    client = playing.client(log_in=False)
    assert client.log_in(application_name="test") == {**DEFAULTS, "application_name": "test"}
    pid = int.from_bytes(client.key[:4], "big")
    assert column_of(pid) == playing.worker.column
    assert len(client.key) == 8
    assert len(playing.client(minor=2).key) == 36


@pytest.mark.parametrize("piece", [1, 1 << 16])
def test_encryption_is_declined_and_the_startup_goes_on(stage: Make, piece: int) -> None:
    playing = stage()
    client = playing.client(log_in=False)
    for request in (GSS, SSL):
        client.send(request, piece)
        assert client.conn.take() == b"N"
    client.send(START, piece)
    assert client.kinds().endswith("KI")


def test_encryption_is_asked_for_once(stage: Make) -> None:
    client = stage().client(log_in=False)
    client.send(SSL)
    client.send(SSL)
    assert client.conn.take()[1:2] == b"E"
    assert client.ended


@pytest.mark.parametrize("sent", [SSL + b"x", b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\x09\0\x03\0\0\0"])
def test_bad_startups_are_told_and_closed(stage: Make, sent: bytes) -> None:
    playing = stage()
    client = playing.client(log_in=False)
    client.send(sent)
    assert client.error()["S"] == "FATAL"
    assert client.ended
    assert not playing.runtime.clients
    assert not playing.postgres.backends


def test_a_newer_protocol_is_negotiated(stage: Make) -> None:
    playing = stage()
    client = playing.client(log_in=False)
    body = b"\0\x03\0\x09user\0app\0_pq_.future\0x\0\0"
    client.send((len(body) + 4).to_bytes(4, "big") + body)
    said = client.receive()
    assert said[0] == ("v", b"\0\x03\0\x02\0\0\0\x01_pq_.future\0")
    (key,) = [payload for kind, payload in said if kind == "K"]
    assert len(key) == 36


def scram_login(client: Player, password: str = "secret", user: bytes = b"app") -> None:
    body = b"\0\x03\0\0user\0" + user + b"\0database\0app\0\0"
    client.send((len(body) + 4).to_bytes(4, "big") + body)
    ((kind, asked),) = client.receive()
    assert (kind, asked) == ("R", b"\0\0\0\x0aSCRAM-SHA-256\0\0")
    exchange = ScramClient(password)
    first = exchange.first()
    client.send(message(b"p", b"SCRAM-SHA-256\0" + len(first).to_bytes(4, "big") + first), 7)
    ((_, challenge),) = client.receive()
    client.send(message(b"p", exchange.final(challenge[4:])), 7)


def test_scram_through_the_session(stage: Make) -> None:
    playing = stage(auth='type = "scram-sha-256"')
    client = playing.client(log_in=False)
    scram_login(client)
    assert client.kinds().startswith("RR")
    assert client.ask("SELECT 1") == "DCI"


@pytest.mark.parametrize(("password", "user"), [("wrong", b"app"), ("secret", b"nobody")])
def test_a_wrong_password_is_counted_and_told(stage: Make, password: str, user: bytes) -> None:
    playing = stage(auth='type = "scram-sha-256"')
    client = playing.client(log_in=False)
    scram_login(client, password, user)
    assert client.error()["C"] == "28P01"
    assert client.ended
    assert counter(playing, Listener.LOGINS_REFUSED) == 1
    assert not playing.postgres.backends


def test_a_database_that_is_not_there_is_told_to_those_who_may_know(stage: Make) -> None:
    playing = stage()
    client = playing.client(log_in=False)
    body = b"\0\x03\0\0user\0app\0database\0nosuch\0\0"
    client.send((len(body) + 4).to_bytes(4, "big") + body)
    said = client.error()
    assert (said["C"], said["M"]) == ("3D000", 'database "nosuch" does not exist')


def test_a_setting_that_is_not_reported_is_kept_and_an_ignored_one_forgotten(stage: Make) -> None:
    playing = stage()
    assert playing.client(extra_float_digits="2").ask("SELECT 1") == "DCI"
    assert playing.client(geqo="off").ask("SELECT 2") == "DCI"
    sets = [sql for sql in playing.postgres.backends[0].queries if "set_config" in sql]
    assert sets == ["SELECT pg_catalog.set_config(E'geqo',E'off',false)"]
    client = playing.client(log_in=False)
    client.send(b"\0\0\0\x1b\0\x03\0\0user\0app\0g'qo\0off\0\0")
    assert client.error()["M"] == "unsupported startup parameter: g'qo"


def test_who_waits_for_the_greeting_is_told_behind_the_proof(stage: Make) -> None:
    playing = stage(pooler='server_connect_timeout = "20s"')
    playing.postgres.silent = True
    client = playing.client(log_in=False)
    client.send(START)
    playing.lane.advance(6)
    assert client.kinds() == "RN"
    playing.postgres.silent = False
    playing.postgres.wake()
    assert client.kinds().endswith("KI")


def test_a_login_that_takes_too_long_is_ended(stage: Make) -> None:
    playing = stage(pooler='client_login_timeout = "3s"')
    client = playing.client(log_in=False)
    client.send(START[:7])
    playing.lane.advance(4)
    assert "client_login_timeout" in client.error()["M"]
    assert client.ended
    assert counter(playing, Listener.TIMEOUTS) == 1


def test_too_many_clients_are_refused_but_may_cancel(stage: Make) -> None:
    playing = stage(pooler="max_client_conn = 2")
    first, _ = playing.client(), playing.client()
    third = playing.client(log_in=False)
    third.send(START)
    assert third.error()["C"] == "53300"
    assert counter(playing, Listener.REFUSED) == 1
    request = playing.client(log_in=False)
    request.send(b"\0\0\0\x10\x04\xd2\x16\x2e" + first.key)
    assert request.ended
    first.send(message(b"X"))
    assert playing.client().ask("SELECT 1") == "DCI"


def test_a_client_that_leaves_during_its_login_leaves_nothing(stage: Make) -> None:
    playing = stage(auth='type = "scram-sha-256"')
    for sent in (b"", START[:5], START, START + message(b"p", b"x")[:3]):
        client = playing.client(log_in=False)
        client.send(sent)
        client.conn.close()
        playing.lane.run()
    assert not playing.runtime.clients
    assert counter(playing, Listener.ACTIVE) == 0
    assert counter(playing, Listener.ACCEPTED) == 4


def test_what_comes_behind_the_startup_is_the_first_query(stage: Make) -> None:
    client = stage().client(log_in=False)
    client.send(START + query("SELECT 1"))
    assert client.kinds().endswith("KIDCI")


def test_what_comes_while_the_first_server_is_awaited_is_not_lost(stage: Make) -> None:
    playing = stage()
    playing.postgres.silent = True
    client = playing.client(log_in=False)
    client.send(START + query("SELECT 1"))
    client.send(query("SELECT 2"))
    assert client.kinds() == "R"
    playing.postgres.silent = False
    client.send(query("SELECT 3"))
    playing.postgres.wake()
    assert client.kinds().endswith("KIDCIDCIDCI")
    assert playing.postgres.backends[0].queries == ["SELECT 1", "SELECT 2", "SELECT 3"]


def test_a_message_that_is_no_password_is_refused(stage: Make) -> None:
    client = stage(auth='type = "md5"').client(log_in=False)
    client.send(START)
    client.send(query("SELECT 1"))
    errors = [decode(payload)["C"] for kind, payload in client.receive() if kind == "E"]
    assert errors == ["08P01"]
    assert scram.MECHANISM == "SCRAM-SHA-256"
