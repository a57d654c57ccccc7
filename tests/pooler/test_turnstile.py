"""Logins at one server, over all pools of a worker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from pooler.messages import query
from pooler.turnstile import LOGINS_AT_ONCE
from supervisor.plane.layout import ProcessState
from tests.pooler.fake_postgres import FakePostgres
from tests.pooler.stage import Player, Stage

Make = Callable[..., Stage]

NAMES = [f"d{number}" for number in range(8)]
ELSEWHERE = ("127.0.0.1", 5434)
HOMES = dict.fromkeys(NAMES, "pg") | {NAMES[-1]: "other"}
MANY = "pool_size = 30\n" + "".join(
    f'[pooler.databases.{name}]\nprimary = "{home}"\npool_size = 30\n' for name, home in HOMES.items()
)
MANY += f'[pools.other]\nservers = ["{ELSEWHERE[0]}:{ELSEWHERE[1]}"]\n'


@pytest.fixture
def playing(stage: Make) -> Stage:
    """Eight databases, the last of them elsewhere; nobody has logged in to a server yet."""
    return stage(database=MANY)


def storm(playing: Stage, databases: list[str], clients: int = 10) -> list[Player]:
    """So many clients of each want a server connection of their own, and no server answers."""
    everybody = []
    for name in databases:
        players = [playing.client(database=name) for _ in range(clients)]
        everybody += players
    playing.postgres.silent = True
    for player in everybody:
        player.send(query("BEGIN"))
    return everybody


def under_way(playing: Stage) -> int:
    return sum(pool.launching for pool in playing.runtime.pools.values())


def test_pools_together_log_in_no_more_than_a_server_takes(playing: Stage) -> None:
    everybody = storm(playing, NAMES[:-1])
    assert under_way(playing) == LOGINS_AT_ONCE
    playing.lane.advance(1)
    assert under_way(playing) == LOGINS_AT_ONCE
    playing.postgres.silent = False
    playing.postgres.wake()
    assert [player.kinds() for player in everybody] == ["CT"] * len(everybody)
    assert under_way(playing) == 0


def test_each_worker_has_its_share(playing: Stage) -> None:
    playing.plane.set_state(playing.plane.claim_column("pooler", 2), ProcessState.READY)
    playing.lane.advance(0.2)
    storm(playing, NAMES[:-1])
    assert under_way(playing) == LOGINS_AT_ONCE // 2


def test_pools_take_turns(playing: Stage) -> None:
    """The last to come gets its first connection long before the first has all that it wants."""
    everybody = storm(playing, NAMES[:-1], 20)
    greeted = len(NAMES) - 1  # connections that were there before the storm
    for number in range(greeted, greeted + 40):
        backend = playing.postgres.backends[number]
        assert backend.session is not None
        playing.postgres.silent = False
        playing.lane.step(backend.session)
        playing.postgres.silent = True
        playing.lane.run()
    served = Counter(number // 20 for number, player in enumerate(everybody) if player.kinds() == "CT")
    assert len(served) == len(NAMES) - 1
    assert max(served.values()) - min(served.values()) <= 5


def test_a_server_that_does_not_answer_keeps_nobody_from_another(playing: Stage) -> None:
    elsewhere = FakePostgres(playing.lane)
    playing.lane.servers[ELSEWHERE] = elsewhere.accept
    storm(playing, NAMES[:-1])
    assert under_way(playing) == LOGINS_AT_ONCE
    assert playing.client(database=NAMES[-1]).ask("SELECT 1") == "DCI"
    assert len(elsewhere.alive) == 1


def test_a_pool_whose_turn_comes_too_late_leaves_it_to_the_next(playing: Stage) -> None:
    everybody = storm(playing, NAMES[:-1])
    last = everybody[-10:]
    for player in everybody[:-10]:
        player.conn.close()
    playing.postgres.silent = False
    playing.postgres.wake()
    playing.lane.run()
    assert [player.kinds() for player in last] == ["CT"] * 10
