"""Settings that no server reports, and what pins a client: found out when its transaction is over."""

from __future__ import annotations

from collections.abc import Callable

from pooler.messages import message, query
from tests.pooler.stage import Player, Stage

Make = Callable[..., Stage]
ASKS = "SELECT pg_catalog.current_setting"


def done(playing: Stage) -> list[str]:
    """What the server got since the last look; what is asked of it is `?`, what is set of its own accord `!`."""
    queries = playing.postgres.backends[0].queries
    shown = ["?" if "current_setting" in sql or "EXISTS" in sql else "!" if "set_config" in sql else sql
             for sql in queries]  # fmt: skip
    queries.clear()
    return shown


def two(playing: Stage) -> tuple[Player, Player]:
    return playing.client(), playing.client()


def test_a_setting_follows_its_client_and_is_set_only_where_it_differs(stage: Make) -> None:
    playing = stage()
    one, other = two(playing)
    assert one.ask("SET work_mem = 77MB") == "CI"
    assert one.ask("SELECT 1") == "DCI"
    assert done(playing) == ["SET work_mem = 77MB", "?", "SELECT 1"]
    assert other.ask("SELECT 2") == "DCI"
    assert done(playing) == ['RESET "work_mem"', "SELECT 2"]
    assert one.ask("SELECT 3") == "DCI"
    assert done(playing) == ["!", "SELECT 3"]
    assert one.ask("RESET work_mem") == "CI"
    assert other.ask("SELECT 4") == "DCI"
    assert done(playing) == ["RESET work_mem", "SELECT 4"]


def test_what_a_transaction_takes_back_is_taken_back(stage: Make) -> None:
    playing = stage()
    client = playing.client()
    backend = playing.postgres
    for ending in ("COMMIT", "ROLLBACK"):
        client.ask("BEGIN")
        client.ask("SET work_mem = 1MB")
        if ending == "ROLLBACK":
            backend.backends[0].settings["work_mem"] = "4MB"  # as the server does it
        assert client.ask(ending) == "CI"
        assert done(playing)[-2:] == [ending, "?"]
    other = playing.client()
    other.ask("SET work_mem = 9MB")
    assert client.ask("SELECT 1") == "DCI"
    assert backend.backends[0].settings["work_mem"] == "4MB"


def test_set_local_costs_nothing(stage: Make) -> None:
    playing = stage()
    client = playing.client()
    assert client.ask("SET LOCAL x = 1") == "CI"
    assert done(playing) == ["SET LOCAL x = 1"]


def test_reset_brings_back_what_the_client_began_with(stage: Make) -> None:
    playing = stage()
    client = playing.client(geqo="off", application_name="mine")
    client.ask("SET geqo = on")
    client.ask("RESET geqo")
    client.send(query("SELECT 1"))
    client.receive()
    assert playing.postgres.backends[0].settings["geqo"] == "off"
    client.send(query("DISCARD ALL"))
    reports = [payload for kind, payload in client.receive() if kind == "S"]
    assert reports == [b"application_name\0\0", b"application_name\0mine\0"]
    assert client.ask("SELECT 1") == "DCI"
    assert playing.postgres.backends[0].settings["geqo"] == "off"
    assert playing.postgres.backends[0].parameters["application_name"] == "mine"


def test_a_pinned_client_keeps_its_server_until_the_reason_is_gone(stage: Make) -> None:
    playing = stage()
    one, other = two(playing)
    backend = playing.postgres
    one.ask("SELECT 0")
    backend.backends[0].kept = True
    assert one.ask("CREATE TEMP TABLE t (n int)") == "DCI"
    assert other.ask("SELECT other") == ""
    assert one.ask("SELECT mine") == "DCI"
    backend.backends[0].kept = False
    assert one.ask("DROP TABLE t") == "DCI"
    assert other.kinds() == "DCI"
    assert done(playing) == ["SELECT 0", "CREATE TEMP TABLE t (n int)", "?", "SELECT mine", "DROP TABLE t", "?",
                             "SELECT other"]  # fmt: skip


def test_what_a_pinned_client_leaves_is_discarded(stage: Make) -> None:
    playing = stage()
    one, other = two(playing)
    one.ask("SELECT 0")
    playing.postgres.backends[0].kept = True
    one.ask("SELECT pg_advisory_lock(1)")
    one.send(message(b"X"))
    playing.lane.advance(0.1)
    assert other.ask("SELECT 1") == "DCI"
    assert done(playing)[-2:] == ["DISCARD ALL", "SELECT 1"]


def test_what_would_pin_is_refused_where_the_database_says_so(stage: Make) -> None:
    playing = stage(database='session_state = "refuse"\npool_size = 1')
    client = playing.client()
    for sql in ("CREATE TEMP TABLE t (n int)", "SELECT pg_advisory_lock(1)"):
        for sent in (query(sql), client.batch(sql)):
            client.send(sent)
            assert client.error()["C"] == "0A000"
    assert client.ask("CREATE TEMP TABLE t (n int) ON COMMIT DROP") == "DCI"
    client.ask("BEGIN")
    assert client.ask("CREATE TEMP TABLE t (n int)") == "EE"  # its transaction has failed
