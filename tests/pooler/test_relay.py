"""Transactions through the pooler: what a client sends, what it gets, and when its server goes to somebody else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pooler.messages import message, query
from tests.pooler.stage import Stage

Make = Callable[..., Stage]
TERMINATE = message(b"X")

CONVERSATIONS = {
    "a query": (query("SELECT 1"), "DCI"),
    "a query that fails": (query("FAIL"), "EI"),
    "queries in a row": (query("SELECT 1") * 3, "DCI" * 3),
    "a transaction": (query("BEGIN") + query("SELECT 1") + query("COMMIT"), "CTDCTCI"),
    "a failed transaction": (query("BEGIN") + query("FAIL") + query("ROLLBACK"), "CTEECI"),
    "a copy": (query("COPY") + message(b"d", b"data\n") + message(b"c"), "GCI"),
    "a copy that fails": (query("COPY") + message(b"d", b"bad\n") + message(b"d", b"more\n") + message(b"c"), "GEI"),
    "a large row": (query("BIG 300000"), "DCI"),
    "a large message": (query("SELECT " + "x" * 300_000), "DCI"),
}


@pytest.mark.parametrize(("sent", "answered"), CONVERSATIONS.values(), ids=CONVERSATIONS)
@pytest.mark.parametrize("piece", [1, 1 << 16])
def test_conversations_whole_and_in_pieces(stage: Make, sent: bytes, answered: str, piece: int) -> None:
    if piece == 1 and len(sent) > 1000:
        piece = 999
    playing = stage()
    for _ in range(2):
        client = playing.client()
        kinds = ""
        for at in range(0, len(sent), 1 << 15):
            client.send(sent[at : at + (1 << 15)], piece)
            kinds += client.kinds()
        assert kinds == answered
        client.send(TERMINATE)
        assert client.ended
    assert len(playing.postgres.backends) == 1
    playing.settled()


def test_extended_batches_and_their_errors(stage: Make) -> None:
    playing = stage()
    client, other = playing.client(), playing.client()
    client.send(client.batch("SELECT 1"))
    assert client.kinds() == "12DCI"
    client.send(client.batch("SELECT 1", sync=False))
    other.send(query("SELECT 2"))
    assert (client.kinds(), other.kinds()) == ("12DC", "")  # an Execute without Sync holds the server
    client.send(message(b"S"))
    assert (client.kinds(), other.kinds()) == ("I", "DCI")
    client.send(client.batch("FAIL", sync=False) + query("SELECT skipped") + message(b"S"))
    assert client.kinds() == "12EI"
    assert other.ask("SELECT 3") == "DCI"
    assert "SELECT skipped" not in playing.postgres.backends[0].queries


def test_a_server_changes_hands_between_transactions_only(stage: Make) -> None:
    playing = stage()
    one, two = playing.client(), playing.client()
    assert one.ask("BEGIN") == "CT"
    assert two.ask("SELECT 2") == ""
    assert one.ask("SELECT 1") == "DCT"
    assert one.ask("COMMIT") == "CI"
    assert two.kinds() == "DCI"
    assert playing.postgres.backends[0].queries == ["BEGIN", "SELECT 1", "COMMIT", "SELECT 2"]


def test_a_slow_sender_holds_no_server(stage: Make) -> None:
    playing = stage()
    slow, quick = playing.client(), playing.client()
    data = query("SELECT " + "x" * 100)
    slow.send(data[:50])
    assert quick.ask("SELECT 1") == "DCI"
    slow.send(data[50:])
    assert slow.kinds() == "DCI"


def test_late_copydone_is_dropped(stage: Make) -> None:
    playing = stage()
    client = playing.client()
    client.send(query("COPY") + message(b"d", b"bad\n"))
    assert client.kinds() == "GEI"
    client.send(message(b"d", b"x" * 100_000) + message(b"c"), 1000)
    assert client.ask("SELECT 1") == "DCI"
    playing.client().ask("SELECT 2")
    client.send(message(b"f", b"why\0") + query("SELECT 3"))
    assert client.kinds() == "DCI"


def test_a_client_that_does_not_read_holds_up_only_itself(stage: Make) -> None:
    playing = stage(database="pool_size = 2")
    slow, quick = playing.client(capacity=4096), playing.client()
    slow.send(query("BIG 1000000"))
    for _ in range(3):
        assert quick.ask("SELECT 1") == "DCI"
    assert slow.kinds() == "DCI"


def test_a_server_is_free_before_a_slow_client_has_read_everything(stage: Make) -> None:
    playing = stage()
    slow, quick = playing.client(capacity=1024), playing.client()
    slow.send(query("BIG 30000"))
    assert quick.ask("SELECT 1") == "DCI"
    assert slow.kinds() == "DCI"


def test_a_protocol_error_ends_the_client_and_not_the_server(stage: Make) -> None:
    playing = stage()
    for bad in (b"y\0\0\0\x04", b"Q\xff\xff\xff\xff", b"Q\0\0\0\x03", b"d\0\0\0\0"):
        client = playing.client()
        client.ask("SELECT 1")
        client.send(bad)
        assert client.error()["C"] == "08P01"
        assert client.ended
        assert playing.client().ask("SELECT 2") == "DCI"
    assert len(playing.postgres.backends) == 1


def test_a_protocol_error_inside_a_transaction_closes_the_server(stage: Make) -> None:
    playing = stage()
    client = playing.client()
    client.ask("BEGIN")
    client.send(query("SELECT 1") + b"y\0\0\0\x04")
    assert client.error()["C"] == "08P01"
    assert playing.client().ask("SELECT 2") == "DCI"
    assert [backend.closed for backend in playing.postgres.backends] == [True, False]


def test_terminate_behind_a_query_lets_it_finish(stage: Make) -> None:
    playing = stage()
    client = playing.client()
    client.send(query("SELECT 1") + TERMINATE)
    assert client.kinds() == "DCI"
    assert client.ended
    assert playing.client().ask("SELECT 2") == "DCI"
    playing.client().send(TERMINATE)


def test_parameters_are_set_again_only_when_they_differ(stage: Make) -> None:
    playing = stage()
    one, two = playing.client(TimeZone="CET", application_name="one"), playing.client()
    for client in (one, one, two, two, one):
        assert client.ask("SELECT 1") == "DCI"
    sets = [sql for sql in playing.postgres.backends[0].queries if "set_config" in sql]
    assert [sql.count("set_config") for sql in sets] == [2, 2, 2]


def test_a_setting_of_the_session_follows_the_client(stage: Make) -> None:
    playing = stage()
    one, two = playing.client(), playing.client()
    assert one.ask("SELECT set_config('TimeZone',E'CET',false)") == "SCI"
    assert two.ask("SELECT 1") == "DCI"
    assert playing.postgres.backends[0].parameters["TimeZone"] == "UTC"
    assert one.ask("SELECT 1") == "DCI"
    assert playing.postgres.backends[0].parameters["TimeZone"] == "CET"


def test_what_the_server_makes_of_a_value_is_told(stage: Make) -> None:
    client = stage().client(client_encoding="utf8")
    assert client.ask("SELECT 1") == "SDCI"
    assert client.ask("SELECT 1") == "DCI"


def test_an_invalid_setting_ends_the_client_and_not_the_server(stage: Make) -> None:
    playing = stage()
    client = playing.client(TimeZone="invalid")
    client.send(query("SELECT 1"))
    assert client.error()["C"] == "22023"
    assert playing.client().ask("SELECT 2") == "DCI"
    assert len(playing.postgres.backends) == 1


def test_session_mode_keeps_the_server_and_resets_it(stage: Make) -> None:
    playing = stage(database='pool_mode = "session"\npool_size = 1')
    one, two = playing.client(), playing.client()
    assert one.ask("SELECT set_config('TimeZone',E'CET',false)") == "SCI"
    assert two.ask("SELECT 2") == ""
    assert one.ask("SELECT 1") == "DCI"
    one.send(TERMINATE)
    assert two.kinds() == "DCI"
    assert playing.postgres.backends[0].queries[-2:] == ["DISCARD ALL", "SELECT 2"]
    assert playing.postgres.backends[0].parameters["TimeZone"] == "UTC"


def test_statement_mode_ends_a_transaction(stage: Make) -> None:
    playing = stage(database='pool_mode = "statement"\npool_size = 1')
    client = playing.client()
    assert client.ask("SELECT 1") == "DCI"
    client.send(query("BEGIN"))
    assert client.kinds() == "CE"  # no ReadyForQuery: behind one, a client takes an error for a notice
    assert playing.client().ask("SELECT 2") == "DCI"
    assert playing.postgres.backends[0].queries[-2:] == ["ROLLBACK", "SELECT 2"]


def test_a_dying_server_is_told_once(stage: Make) -> None:
    playing = stage()
    client = playing.client()
    client.send(query("DIE"))
    assert client.error()["C"] == "08006"
    assert client.ended
    other = playing.client()
    assert other.ask("SELECT 2") == "DCI"
    other.send(TERMINATE)
    playing.settled()


def test_a_server_that_dies_in_the_middle_of_a_row_is_a_close(stage: Make) -> None:
    playing = stage()
    client = playing.client()
    client.send(query("SLEEP"))
    backend = playing.postgres.backends[0]
    backend.conn.send_nowait(b"D\0\0\x01\0half")
    backend.conn.close()
    playing.lane.run()
    assert client.conn.take() == b"D\0\0\x01\0half"
    assert client.ended


def test_the_last_words_of_a_server_are_enough(stage: Make) -> None:
    playing = stage()
    client = playing.client()
    client.send(query("SLEEP"))
    backend = playing.postgres.backends[0]
    backend.conn.send_nowait(message(b"E", b"SFATAL\0C57P01\0Mgoing\0\0"))
    backend.conn.close()
    playing.lane.run()
    assert client.error()["M"] == "going"
    assert client.ended
