"""Prepared statements and SQL of the session, through a pooler with one server connection that all clients share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pooler.messages import message, query
from tests.pooler.stage import Player, Stage

Make = Callable[..., Stage]
SYNC = message(b"S")
EXECUTE = message(b"E", bytes(5))


def parse(name: str, sql: str) -> bytes:
    return message(b"P", f"{name}\0{sql}\0\0\0".encode())


def bind(name: str) -> bytes:
    return message(b"B", f"\0{name}\0".encode() + bytes(6))


def run(name: str) -> bytes:
    return bind(name) + EXECUTE + SYNC


def error(client: Player) -> tuple[str, str]:
    found = client.error()
    return found["C"], found["M"]


@pytest.mark.parametrize("piece", [1, 1 << 16])
def test_a_statement_is_prepared_once_and_used_by_all(stage: Make, piece: int) -> None:
    playing = stage()
    clients = [playing.client() for _ in range(3)]
    for number, client in enumerate(clients):
        client.send(parse(f"mine{number}", "SELECT shared") + message(b"D", f"Smine{number}\0".encode()) + SYNC, piece)
        assert client.kinds() == "1nI"
    for _ in range(2):
        for number, client in enumerate(clients):
            client.send(run(f"mine{number}"), piece)
            assert client.kinds() == "2DCI"
    (backend,) = playing.postgres.backends
    assert backend.queries == ["SELECT shared"] * 6
    assert len(backend.statements) == 1
    assert backend.parses == 1


def test_what_a_server_lacks_is_prepared_in_passing(stage: Make) -> None:
    playing = stage(database="pool_size = 2")
    one, two = playing.client(), playing.client()
    one.send(parse("a", "SELECT 1") + SYNC)
    assert one.kinds() == "1I"
    two.ask("BEGIN")  # takes the server that has it
    one.send(run("a") + run("a"))
    assert one.kinds() == "2DCI2DCI"
    assert [backend.parses for backend in playing.postgres.backends] == [1, 1]


def test_errors_are_those_of_postgres_and_end_nobody(stage: Make) -> None:
    playing = stage()
    client = playing.client()
    client.send(parse("a", "SELECT 1") + parse("a", "SELECT 2") + run("a"))
    said = client.receive()
    assert [kind for kind, _ in said] == ["1", "E", "Z"]
    assert b'C42P05\0Mprepared statement "a" already exists' in said[1][1]
    client.send(run("a"))
    assert client.kinds() == "2DCI"  # the first is there all the same
    client.send(run("nosuch"))
    assert error(client) == ("26000", 'prepared statement "nosuch" does not exist')
    client.send(message(b"C", b"Sa\0") + message(b"C", b"Snever\0") + run("a"))
    assert client.kinds() == "33EI"
    assert playing.client().ask("SELECT 1") == "DCI"
    assert len(playing.postgres.backends) == 1


@pytest.mark.parametrize("kind", [b"D", b"C"])
@pytest.mark.parametrize("body", [b"", b"S", b"Sname", b"S\0more\0"])
def test_a_describe_or_close_that_is_cut_short_ends_its_session_alone(stage: Make, kind: bytes, body: bytes) -> None:
    playing = stage()
    client = playing.client()
    client.send(message(kind, body) + SYNC)
    assert error(client) == ("08P01", "invalid string in message")
    assert client.ended
    assert playing.client().ask("SELECT 1") == "DCI"


def test_what_an_error_skips_was_never_prepared(stage: Make) -> None:
    client = stage().client()
    client.send(parse("a", "SELECT a") + SYNC)
    assert client.kinds() == "1I"
    client.send(bind("nosuch") + parse("b", "SELECT b") + message(b"C", b"Sa\0") + SYNC)
    assert client.kinds() == "EI"
    client.send(run("b"))
    assert client.kinds() == "EI"
    client.send(run("a"))
    assert client.kinds() == "2DCI"
    client.send(parse("b", "SELECT b") + run("b"))
    assert client.kinds() == "12DCI"


def test_a_server_keeps_a_bounded_number(stage: Make) -> None:
    playing = stage(pooler="max_prepared_statements = 3")
    client = playing.client()
    for number in range(8):
        client.send(parse(f"s{number}", f"SELECT {number}") + run(f"s{number}"))
        assert client.kinds() == "12DCI"
    (backend,) = playing.postgres.backends
    assert len(backend.statements) == 3
    client.send(run("s0") + run("s7"))
    assert client.kinds() == "2DCI2DCI"
    assert backend.queries[-2:] == ["SELECT 0", "SELECT 7"]


def test_sql_prepare_execute_deallocate(stage: Make) -> None:
    playing = stage()
    one, two = playing.client(), playing.client()
    assert one.ask("PREPARE a AS SELECT one") == "CI"
    assert two.ask("PREPARE a AS SELECT two") == "CI"
    for client, said in ((one, "SELECT one"), (two, "SELECT two"), (one, "SELECT one")):
        client.send(query("EXECUTE a"))
        assert [payload[6:] for kind, payload in client.receive() if kind == "D"] == [said.encode()]
        client.send(run("a"))
        assert client.kinds() == "2DCI"
    one.send(query("PREPARE a AS SELECT again"))
    assert error(one)[0] == "42P05"
    one.send(query("DEALLOCATE a"))
    assert [payload for kind, payload in one.receive() if kind == "C"] == [b"DEALLOCATE\0"]
    one.send(query("EXECUTE a"))
    assert error(one) == ("26000", 'prepared statement "a" does not exist')
    assert two.ask("EXECUTE a") == "DCI"
    assert two.ask("DEALLOCATE ALL") == "CI"
    assert two.ask("EXECUTE a") == "EI"


def test_several_statements_in_a_query(stage: Make) -> None:
    client = stage().client()
    assert client.ask("PREPARE a AS SELECT 1; EXECUTE a; DEALLOCATE a; SELECT 2") == "CDCCDCI"
    assert client.ask("PREPARE a AS SELECT 1; FAIL; DEALLOCATE a") == "CEI"
    assert client.ask("EXECUTE a") == "DCI"


def test_discard_all_forgets_this_clients_statements(stage: Make) -> None:
    playing = stage()
    one, two = playing.client(), playing.client()
    for client in (one, two):
        client.send(parse("a", "SELECT 1") + run("a"))
        assert client.kinds() == "12DCI"
    assert one.ask("DISCARD ALL") == "CI"
    one.send(run("a"))
    assert one.kinds() == "EI"
    two.send(run("a"))
    assert two.kinds() == "2DCI"


def test_a_statement_without_a_name_outlives_its_sync_and_is_nobody_elses(stage: Make) -> None:
    playing = stage()
    one, two = playing.client(), playing.client()
    one.send(parse("", "SELECT one") + message(b"D", b"S\0") + SYNC)
    assert one.kinds() == "1nI"
    two.send(bind("") + EXECUTE + SYNC)
    assert error(two) == ("26000", "unnamed prepared statement does not exist")
    two.send(two.batch("SELECT two"))
    assert two.kinds() == "12DCI"
    for _ in range(2):
        one.send(bind("") + EXECUTE + SYNC)
        assert one.kinds() == "2DCI"
    one.send(one.batch("SELECT other") + bind("") + EXECUTE + SYNC)
    assert one.kinds() == "12DCI2DCI"
    assert playing.postgres.backends[0].queries == ["SELECT two", "SELECT one", "SELECT one"] + ["SELECT other"] * 2


def test_a_named_statement_behind_messages_without_a_sync(stage: Make) -> None:
    playing = stage()
    client = playing.client()
    client.send(client.batch("SELECT 1", sync=False) + parse("a", "SELECT 2") + bind("a") + EXECUTE + SYNC)
    assert client.kinds() == "12DC12DCI"
    client.send(client.batch("FAIL", sync=False) + parse("b", "SELECT 2") + bind("b") + EXECUTE + SYNC)
    assert client.kinds() == "12EI"
    client.send(run("b"))
    assert client.kinds() == "EI"


def test_a_statement_whose_tables_changed_is_prepared_anew(stage: Make) -> None:
    playing = stage()
    one, two = playing.client(), playing.client()
    one.send(parse("a", "SELECT 1") + run("a"))
    assert one.kinds() == "12DCI"
    playing.postgres.backends[0].outdated = True
    one.send(run("a"))
    assert error(one)[0] == "0A000"
    two.send(parse("a", "SELECT 1") + run("a"))
    assert two.kinds() == "12DCI"


def test_a_large_bind_to_a_named_statement_is_streamed(stage: Make) -> None:
    client = stage().client()
    client.send(parse("a", "SELECT 1") + SYNC)
    assert client.kinds() == "1I"
    big = message(b"B", b"\0a\0" + b"\0\0\0\1" + (300_000).to_bytes(4, "big") + b"x" * 300_000 + b"\0\0")
    for at in range(0, len(big), 1 << 15):
        client.send(big[at : at + (1 << 15)], 1000)
    client.send(EXECUTE + SYNC)
    assert client.kinds() == "2DCI"


def test_a_client_that_leaves_in_the_middle_leaves_nothing(stage: Make) -> None:
    playing = stage()
    for sent in (
        parse("a", "SLEEP") + bind("a") + EXECUTE + SYNC,
        query("PREPARE a AS SELECT 1; SLEEP"),
        query("SET x = 1; SLEEP"),
    ):
        client = playing.client()
        client.send(sent)
        client.conn.abort()
        playing.lane.advance(0.3)
        other = playing.client()
        other.send(parse("a", "SELECT 1") + run("a"))
        assert other.kinds() == "12DCI"
        other.send(message(b"X"))
        assert playing.postgres.backends[-1].queries[-2:] == ["DISCARD ALL", "SELECT 1"]
    playing.settled()


@pytest.mark.parametrize("piece", [50, 1 << 16])
def test_what_hangs_on_an_earlier_batch_waits_for_it(stage: Make, piece: int) -> None:
    playing = stage()
    for _ in range(2):
        client = playing.client()
        sent = parse("a", "SELECT 1") + run("a") + client.batch("SELECT 2", sync=False) + parse("a", "SELECT 3")
        client.send(sent + bind("a") + EXECUTE + client.batch("SELECT 4") + run("a"), piece)
        assert client.kinds() == "12DCI12DCEI2DCI"


def test_a_flush_between_is_answered_by_nothing(stage: Make) -> None:
    client = stage().client()
    client.send(parse("", "SELECT 1") + message(b"H"))
    client.send(bind("") + message(b"H") + EXECUTE + message(b"H") + query("SELECT 2"))
    assert client.kinds() == "12DCDCI"


@pytest.mark.parametrize("piece", [1, 7, 1 << 16])
def test_a_statement_in_pieces_inside_of_a_transaction_is_seen(stage: Make, piece: int) -> None:
    playing = stage()
    client = playing.client()
    client.ask("BEGIN")
    client.send(query("SELECT 1; SET x = 1"), piece)
    assert client.kinds() == "DCCT"
    client.conn.abort()
    playing.lane.advance(0.3)
    assert playing.client().ask("SELECT 2") == "DCI"
    assert playing.postgres.backends[0].queries[-2:] == ["DISCARD ALL", "SELECT 2"]


def test_a_statement_too_long_to_be_read_passes(stage: Make) -> None:
    client = stage().client()
    text = "/* " + "x" * 1_100_000 + " */ SELECT 1"
    for sent in (query(text), client.batch(text)):
        for at in range(0, len(sent), 1 << 15):
            client.send(sent[at : at + (1 << 15)])
        assert client.kinds() in ("DCI", "12DCI")
