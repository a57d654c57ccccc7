"""One connection that listens for all clients of a database."""

from __future__ import annotations

from collections.abc import Callable

from pooler import listening
from pooler.errors import PeerError, decode
from pooler.messages import SYNC, message, query
from supervisor.plane.layout import Admin, Database, Kind, LeasePoolState
from tests.pooler.fake_postgres import Backend
from tests.pooler.stage import Player, Stage
from tests.pooler.test_drain import take_out

Make = Callable[..., Stage]


def ask(player: Player, sql: str) -> str:
    """The answer, and what came with it or behind it."""
    player.send(query(sql))
    player.stage.lane.advance(0.1)
    return player.kinds()


def heard(player: Player) -> list[str]:
    player.stage.lane.advance(0.1)
    return [payload[4:].decode().strip("\0") for kind, payload in player.receive() if kind == "A"]


def listener(playing: Stage) -> Backend:
    found = playing.postgres.listener
    assert found is not None
    return found


def listens(playing: Stage) -> list[str]:
    """What the shared connection listens to."""
    return sorted(listener(playing).channels)


def test_many_clients_listen_by_one_connection_and_share_the_others(stage: Make) -> None:
    playing = stage()
    one, two, three = (playing.client() for _ in range(3))
    assert [ask(client, "LISTEN a") for client in (one, two)] == ["CI", "CI"]
    assert ask(two, "LISTEN b") == "CI"
    assert ask(three, "SELECT 1") == "DCI"
    assert (len(playing.postgres.alive), listens(playing)) == (2, ["a", "b"])
    assert not playing.postgres.backends[0].channels
    playing.postgres.notify("a")
    playing.postgres.notify("b")
    assert [heard(client) for client in (one, two, three)] == [["a"], ["a", "b"], []]
    assert ask(two, "UNLISTEN *") == "CI"
    assert listens(playing) == ["a"]
    one.send(message(b"X"))
    playing.lane.advance(11)
    assert playing.postgres.listener is None
    row = playing.plane.row(Kind.DATABASE, "app")
    assert playing.plane.total(Kind.DATABASE, row, Database.NOTIFICATIONS) == 3
    assert playing.plane.total(Kind.DATABASE, row, Database.LISTENING) == 0


def test_answers_have_their_own_tags_and_ordinary_errors(stage: Make) -> None:
    client = stage().client()
    client.send(query("LISTEN a; UNLISTEN a; UNLISTEN *"))
    assert [payload for kind, payload in client.receive() if kind == "C"] == [b"LISTEN\0", b"UNLISTEN\0", b"UNLISTEN\0"]
    client.send(message(b"P", b"l\0LISTEN a\0\0\0") + message(b"D", b"Sl\0") + SYNC)
    assert client.kinds() == "1nI"
    for _ in range(2):
        client.send(message(b"B", b"\0l\0" + bytes(6)) + message(b"E", bytes(5)) + SYNC)
        assert client.kinds() == "2CI"
    ask(client, "BEGIN")
    ask(client, "FAIL")
    assert ask(client, "LISTEN b") == "EE"


def test_nothing_comes_inside_a_transaction_or_an_answer(stage: Make) -> None:
    playing = stage(database="pool_size = 2")
    client = playing.client()
    ask(client, "LISTEN a")
    assert ask(client, "BEGIN") == "CT"
    playing.postgres.notify("a")
    assert ask(client, "SELECT 1") == "DCT"
    assert ask(client, "COMMIT") == "CIA"


def test_what_is_rolled_back_was_never_heard(stage: Make) -> None:
    playing = stage(database="pool_size = 2")
    client = playing.client()
    for ending, found in (("ROLLBACK", []), ("COMMIT", ["a"])):
        ask(client, "BEGIN")
        ask(client, "LISTEN a")
        playing.postgres.notify("a")  # may be from a transaction that committed behind this one
        client.send(query(ending))
        playing.lane.advance(0.1)
        assert [payload[4:] for kind, payload in client.receive() if kind == "A"] == [b"a\0\0" for _ in found]
        assert listens(playing) == found
    ask(client, "BEGIN")
    ask(client, "UNLISTEN a")
    ask(client, "ROLLBACK")
    playing.postgres.notify("a")
    assert heard(client) == ["a"]


def test_a_lost_connection_is_replaced_and_the_gap_told(stage: Make) -> None:
    playing = stage()
    client = playing.client()
    ask(client, "LISTEN a")
    listener(playing).conn.close()
    playing.lane.advance(3)
    ((kind, said),) = client.receive()
    assert (kind, decode(said)["C"]) == ("N", "01000")
    playing.postgres.notify("a")
    assert heard(client) == ["a"]


def test_a_server_that_is_silent_for_long_is_asked_and_given_up(stage: Make) -> None:
    playing = stage()
    client = playing.client()
    ask(client, "LISTEN a")
    before = listener(playing)
    playing.lane.advance(60)
    assert listener(playing) is before
    before.sleeping = True
    assert before.session is not None
    before.session.cancel()  # its socket stays open on our side: nobody says that it is gone
    playing.lane.advance(60)
    assert listener(playing) is not before


def test_a_listen_that_cannot_be_had_is_an_error_of_its_statement(stage: Make) -> None:
    playing = stage()
    client = playing.client()
    ask(client, "SELECT 1")
    playing.postgres.refusal = PeerError("53300", "too many connections")
    for sent in (query("LISTEN a"), client.batch("LISTEN a")):
        client.send(sent)
        playing.lane.advance(3)
        assert client.error()["M"] == "server login failed: too many connections"
    assert ask(client, "SELECT 1") == "DCI"
    playing.postgres.refusal = None
    assert ask(client, "SELECT 2") == "DCI"
    playing.lane.advance(3)
    assert ask(client, "LISTEN a") == "CI"


def test_a_paused_database_has_no_connection_that_listens(stage: Make) -> None:
    playing = stage()
    client = playing.client()
    ask(client, "LISTEN a")
    paused = playing.pool.state + LeasePoolState.PAUSED
    playing.plane.cells[paused] = 1
    playing.lane.advance(6)
    assert playing.postgres.listener is None
    playing.plane.cells[paused] = 0
    playing.lane.advance(3)
    assert listens(playing) == ["a"]
    assert client.kinds() == "N"


def test_who_does_not_read_is_ended_and_nobody_else(stage: Make) -> None:
    playing = stage(database="pool_size = 2")
    slow, quick = playing.client(), playing.client()
    for client in (slow, quick):
        ask(client, "LISTEN a")
    ask(slow, "BEGIN")
    rounds = listening.MAX_WAITING // 40_000
    for _ in range(rounds + 100):
        for _ in range(5):
            playing.postgres.notify("a", "x" * 7_990)
        assert len(heard(quick)) == 5
    assert slow.error()["C"] == "54000"
    assert slow.ended
    assert ask(quick, "SELECT 1") == "DCI"


def test_another_statement_mode_listens_too(stage: Make) -> None:
    playing = stage(database='pool_mode = "statement"')
    client = playing.client()
    assert ask(client, "LISTEN a") == "CI"
    playing.postgres.notify("a")
    assert heard(client) == ["a"]


def test_a_server_that_is_taken_out_by_hand_is_left_at_once(stage: Make) -> None:
    playing = stage()
    client = playing.client()
    ask(client, "LISTEN a")
    take_out(playing, Admin.DRAINING)
    playing.lane.advance(3)
    assert playing.postgres.listener is None
    take_out(playing, Admin.NORMAL)
    playing.lane.advance(3)
    assert listens(playing) == ["a"]
    assert client.kinds() == "N"


def test_a_channel_that_the_server_refuses_is_an_error_with_its_words_and_others_go_on(stage: Make) -> None:
    playing = stage()
    one, other = playing.client(), playing.client()
    ask(other, "LISTEN b")
    playing.postgres.refuses['LISTEN "a"'] = "25006"
    one.send(query("LISTEN a"))
    playing.lane.advance(1)
    error = one.error()
    assert (error["C"], error["M"], error["S"]) == ("25006", "refused", "ERROR")
    assert ask(one, "LISTEN b") == "CI"
    playing.postgres.notify("b")
    assert [heard(client) for client in (one, other)] == [["b"], ["b"]]
