from __future__ import annotations

from typing import Any

import attrs
import pytest

from supervisor.ground.candidates import FIRST_SHARE, candidates, share
from supervisor.ground.config import Bind, Percent, PoolTable, ServerTable
from supervisor.ground.health import Health
from supervisor.plane import layout

UP, DOWN, EJECTED = Health.UP, Health.DOWN, Health.EJECTED


@attrs.define(eq=False)
class FakeServer:
    """Of a server what decides whether it takes work."""

    zone: str = ""
    backup: bool = False


def table(**more: Any) -> PoolTable:
    return PoolTable(servers=(ServerTable(address=Bind("127.0.0.1", 80)),), **more)


def who(servers: list[Any], healths: list[Health], zone: str = "", **more: Any) -> tuple[list[int], int | None]:
    found, counted = candidates(table(**more), zone, servers, healths)
    return [servers.index(server) for server in found], counted


def test_without_a_zone_of_the_site_zones_mean_nothing() -> None:
    assert who([FakeServer("a"), FakeServer("b")], [UP, UP]) == ([0, 1], None)


def test_servers_of_the_own_zone_go_first() -> None:
    servers: list[Any] = [FakeServer("a"), FakeServer("a"), FakeServer("b"), FakeServer("b")]
    assert who(servers, [UP, UP, UP, UP], "b") == ([2, 3], None)


def test_other_zones_take_part_when_too_few_of_the_own_are_up() -> None:
    servers: list[Any] = [FakeServer("a"), FakeServer("a"), FakeServer("a"), FakeServer("b")]
    assert who(servers, [UP, UP, DOWN, UP], "a") == ([0, 1], None)
    assert who(servers, [UP, DOWN, EJECTED, UP], "a") == ([0, 3], layout.Pool.OTHER_ZONE)
    assert who(servers, [UP, DOWN, EJECTED, UP], "a", min_zone_up=Percent(0.3)) == ([0], None)
    assert who(servers, [DOWN, DOWN, DOWN, UP], "a", min_zone_up=Percent(0)) == ([3], layout.Pool.OTHER_ZONE)


def test_a_server_without_a_zone_is_near_to_everybody() -> None:
    servers: list[Any] = [FakeServer(), FakeServer("b")]
    assert who(servers, [UP, UP], "a") == ([0], None)
    assert who(servers, [UP, UP], "b") == ([0, 1], None)


def test_backups_come_after_the_other_zones() -> None:
    servers: list[Any] = [FakeServer("a"), FakeServer("b"), FakeServer("a", backup=True)]
    assert who(servers, [DOWN, UP, UP], "a") == ([1], layout.Pool.OTHER_ZONE)
    assert who(servers, [DOWN, DOWN, UP], "a") == ([2], layout.Pool.BACKUP)


def test_what_is_taken_out_or_has_no_address_is_not_tried() -> None:
    servers: list[Any] = [FakeServer() for _ in range(5)]
    healths = [DOWN, Health.DRAINING, Health.MAINTENANCE, Health.UNRESOLVED, EJECTED]
    assert who(servers, healths) == ([0, 4], layout.Pool.FAIL_OPEN)
    assert who(servers, healths, on_all_down="refuse") == ([], None)


def test_a_share_grows_in_a_line_from_a_tenth() -> None:
    assert share(0, 5, 10) == 1  # never away
    assert share(100, 100, 0) == 1  # not configured
    assert share(100, 100, 1000) == FIRST_SHARE
    assert share(100, 600, 1000) == pytest.approx(0.5)
    assert share(100, 5000, 1000) == 1
