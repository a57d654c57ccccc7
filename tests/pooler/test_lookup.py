"""Users by query."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pooler.messages import message
from supervisor.ground.orders import RowAnswer, RowWanted
from supervisor.plane.layout import Kind
from tests.pooler.stage import Player, Stage
from tests.pooler.test_admission import scram_login

Make = Callable[..., Stage]

AUTH = """query = "SELECT n, p FROM secrets WHERE n = $1"
query_user = "other"
"""


@pytest.fixture
def secrets() -> dict[str, str]:
    """What the server knows."""
    return {"found": "secret"}


@pytest.fixture
def asked() -> list[str]:
    """What it was asked."""
    return []


@pytest.fixture
def playing(stage: Make, monkeypatch: pytest.MonkeyPatch, secrets: dict[str, str], asked: list[str]) -> Stage:
    async def ask(server: Any, sql: str) -> list[str | None]:
        asked.append(sql)
        name = sql.partition("E'")[2][:-1].replace("''", "'")
        return [name, secrets[name]] if name in secrets else []

    monkeypatch.setattr("pooler.server.ServerConnection.ask", ask)
    return stage(auth=AUTH, database="pool_size = 2")


def enter(playing: Stage, user: str = "found", password: str = "secret") -> Player:
    player = playing.client(log_in=False)
    scram_login(player, password, user.encode())
    return player


def give_row(playing: Stage) -> str:
    """As the supervisor would."""
    _, order, _ = playing.mailbox.sent[-1]
    assert isinstance(order, RowWanted)
    playing.plane.allocate(Kind.LEASEPOOL, order.name)
    playing.runtime.receive(RowAnswer(order.number, ()), ())
    playing.lane.run()
    return order.name


def test_who_waits_to_be_looked_up_is_told_nothing_before_its_proof(stage: Make) -> None:
    playing = stage(auth=AUTH, pooler='server_connect_timeout = "20s"')
    playing.postgres.silent = True
    client = playing.client(log_in=False)
    client.send(b"\0\0\0\x21\0\x03\0\0user\0found\0database\0app\0\0")
    playing.lane.advance(8)
    assert client.kinds() == ""
    playing.postgres.silent = False
    playing.postgres.wake()
    assert client.kinds() == "R"  # the proof begins


def test_who_is_in_no_file_is_asked_for_once(playing: Stage, asked: list[str]) -> None:
    first = enter(playing)
    assert give_row(playing) == "app/found"
    assert first.kinds().endswith("KI")
    assert asked == ["SELECT n, p FROM secrets WHERE n = E'found'"]
    assert enter(playing).kinds().endswith("KI")
    assert len(asked) == 1
    assert first.ask("SELECT 1") == "DCI"
    playing.lane.advance(61)
    assert enter(playing).kinds().endswith("KI")
    assert len(asked) == 2


def test_a_changed_password_holds_at_once(playing: Stage, secrets: dict[str, str], asked: list[str]) -> None:
    enter(playing)
    give_row(playing)
    secrets["found"] = "changed"
    assert enter(playing, password="changed").error()["C"] == "28P01"
    assert enter(playing, password="changed").kinds().endswith("KI")
    assert len(asked) == 2


def test_an_unknown_name_fails_like_a_wrong_password_and_is_not_asked_for_again_and_again(
    playing: Stage, asked: list[str], secrets: dict[str, str]
) -> None:
    for _ in range(3):
        assert enter(playing, "it's").error()["C"] == "28P01"
    assert len(asked) <= 3
    assert "E'it''s'" in asked[0]
    secrets["it's"] = "secret"
    playing.lane.advance(2)
    player = enter(playing, "it's")
    give_row(playing)
    assert player.kinds().endswith("KI")


def test_a_user_of_the_file_is_not_asked_for(playing: Stage, asked: list[str]) -> None:
    assert enter(playing, "app").kinds().endswith("KI")
    assert asked == []


def test_a_plane_without_room_is_told(playing: Stage) -> None:
    player = enter(playing)
    _, order, _ = playing.mailbox.sent[-1]
    playing.runtime.receive(RowAnswer(order.number, ("the plane is full",)), ())
    playing.lane.run()
    assert player.error()["C"] == "53300"


def test_many_wait_for_one_answer(playing: Stage, asked: list[str]) -> None:
    playing.postgres.silent = True
    players = []
    for _ in range(5):
        player = playing.client(log_in=False)
        body = b"\0\x03\0\0user\0found\0database\0app\0\0"
        player.send((len(body) + 4).to_bytes(4, "big") + body)
        players.append(player)
    playing.postgres.silent = False
    playing.postgres.wake()
    assert [player.kinds() for player in players] == ["R"] * 5
    assert len(asked) == 1
    players[0].send(message(b"X"))


def test_a_reload_without_the_query_ends_who_came_by_it(playing: Stage) -> None:
    player = enter(playing)
    give_row(playing)
    player.kinds()
    playing.runtime.commit(playing.runtime.prepare(playing.configure(auth='type = "auto"')))
    playing.lane.run()
    assert player.error()["C"] == "57P01"
