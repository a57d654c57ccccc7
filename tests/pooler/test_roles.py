"""Which servers fit a role, as the plane says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pooler import roles
from pooler.errors import CANNOT_CONNECT, INVALID_PASSWORD, ServerError
from pooler.roles import ANY, PRIMARY, REPLICA, Unfit
from supervisor.plane.layout import Role, ServerState

WIDTH = 32


def unfit(role: str, *servers: tuple[int, int, int], max_lag: float = 10.0) -> list[int]:
    """The numbers of the servers (role, lag in ms, timeline) that `role` excludes."""
    cells = memoryview(bytearray(8 * WIDTH * len(servers))).cast("Q")
    group: Any = SimpleNamespace(servers=[SimpleNamespace(state=WIDTH * number) for number in range(len(servers))])
    for number, (is_now, lag, timeline) in enumerate(servers):
        for field, value in (
            (ServerState.ROLE, is_now), (ServerState.LAG_MS, lag), (ServerState.TIMELINE, timeline),
        ):  # fmt: skip
            cells[WIDTH * number + field] = value
    wrong = Unfit(cells, group, role, max_lag)
    return [number for number, server in enumerate(group.servers) if server in wrong]


def test_roles_exclude_others_and_not_the_unknown() -> None:
    servers = (Role.UNKNOWN, 0, 0), (Role.PRIMARY, 0, 1), (Role.REPLICA, 500, 0), (Role.REPLICA, 20_000, 0)
    assert unfit(PRIMARY, *servers) == [2, 3]
    assert unfit(REPLICA, *servers) == [1, 3]
    assert unfit(REPLICA, *servers, max_lag=float("inf")) == [1]


def test_of_two_primaries_the_later_timeline_is_it() -> None:
    assert unfit(PRIMARY, (Role.PRIMARY, 0, 4), (Role.PRIMARY, 0, 5)) == [0]


@pytest.mark.parametrize(
    ("role", "reported", "fine"),
    [
        (PRIMARY, {"in_hot_standby": "off"}, True),
        (PRIMARY, {"in_hot_standby": "on"}, False),
        (REPLICA, {"in_hot_standby": "off"}, False),
        (PRIMARY, {}, True),
        (ANY, {"in_hot_standby": "on"}, True),
    ],
)
def test_what_a_server_says_at_login(role: str, reported: dict[str, str], fine: bool) -> None:
    pool: Any = SimpleNamespace(settings=SimpleNamespace(role=role))
    server: Any = SimpleNamespace(name="pg/1")
    if fine:
        roles.check(pool, server, reported)
        return
    with pytest.raises(ServerError) as caught:
        roles.check(pool, server, reported)
    assert caught.value.sqlstate == CANNOT_CONNECT


def test_who_waits_for_another_server() -> None:
    def waits(role: str, servers: int, sqlstate: str) -> bool:
        pool: Any = SimpleNamespace(
            settings=SimpleNamespace(role=role), group=SimpleNamespace(servers=[None] * servers)
        )
        return roles.another_may_come(pool, ServerError("no", sqlstate))

    assert waits(PRIMARY, 2, CANNOT_CONNECT)
    assert not waits(PRIMARY, 1, CANNOT_CONNECT)
    assert not waits(PRIMARY, 2, INVALID_PASSWORD)
    assert not waits(ANY, 2, CANNOT_CONNECT)
