"""What a connection does not need is decided with the configuration, not on its way."""

from __future__ import annotations

import pytest

from tests.edge.house import House


@pytest.mark.parametrize(
    ("listener", "asks", "announces"),
    [
        ('pool = "a"', False, False),
        ('pool = "a"\nsend_proxy_protocol = "v1"', False, True),
        ('pool = "a"\naccept_proxy_protocol = ["10.0.0.0/8"]', True, False),
        ('pool = "a"\nmax_connections_per_client = 5', True, False),
        ('pool = "a"\nconnection_rate_per_client = "5/s"', True, False),
        ('routes = [{ pool = "a" }]', True, False),
    ],
)
def test_a_client_is_asked_only_for_what_is_configured(listener: str, asks: bool, announces: bool) -> None:
    house = House(listener)
    assert (house.listener.plan.asks, house.listener.plan.announces) == (asks, announces)
    house.close()


def test_routes_lead_to_pools_in_their_order() -> None:
    house = House('routes = [{ detect = "ssh", pool = "b" }, { pool = "a" }]')
    assert [pool.name for pool in house.listener.plan.pools] == ["b", "a"]
    assert house.listener.plan.connectors == (None, None)
    house.close()
