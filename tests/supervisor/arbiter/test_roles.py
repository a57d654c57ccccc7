"""Which processes a configuration asks for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from supervisor.arbiter.roles import Role, count, wanted
from supervisor.ground.config import Bind, Config, Workers, load_bytes
from supervisor.ground.config.tables import MAX_WORKERS
from supervisor.ground.tier import ListenerSpec, Tier, TierService, Worker


@attrs.frozen(kw_only=True)
class Listener:
    bind: Bind


@attrs.frozen(kw_only=True)
class Table:
    workers: Workers | None = None
    listeners: Mapping[str, Listener] = attrs.Factory(dict)


async def service(worker: Worker) -> None: ...


def needs_two_workers(config: Config) -> bool:
    return config.supervisor.workers == 2


def tier(name: str, **services: TierService) -> Tier:
    def listeners(config: Config) -> list[ListenerSpec]:
        return [ListenerSpec(key, table.bind) for key, table in config.tier(name).listeners.items()]

    def start(worker: Worker) -> Any: ...

    return Tier(name=name, table=Table, listeners=listeners, rows=lambda config: (), start=start, services=services)


TIERS = (tier("edge"), tier("gateway", jwks=TierService(service), lone=TierService(service, needs_two_workers)))


def roles(text: str, **adjustments: int) -> list[Role]:
    config = load_bytes(text.encode(), "x.toml", Path("/"), {tier.name: tier.table for tier in TIERS})
    return wanted(config, TIERS, adjustments)


EDGE = '[edge.listeners.a]\nbind = "127.0.0.1:1"\n'
GATEWAY = '[gateway.listeners.a]\nbind = "127.0.0.1:2"\n'
POOL = '[pools.p]\nservers = ["127.0.0.1:1"]\n'


def test_nothing_configured_is_nobody() -> None:
    assert roles("[supervisor]\nworkers = 2\n") == []


def test_each_tier_with_listeners_has_its_workers_and_services() -> None:
    text = "[supervisor]\nworkers = 2\n[edge]\nworkers = 1\n" + EDGE + GATEWAY
    services = [Role("gateway-jwks"), Role("gateway-lone")]
    assert roles(text) == [Role("edge", 1), Role("gateway", 1), Role("gateway", 2), *services]


def test_a_service_that_the_configuration_does_not_ask_for_is_not_there() -> None:
    text = "[supervisor]\nworkers = 1\n" + GATEWAY
    assert roles(text) == [Role("gateway", 1), Role("gateway-jwks")]


def test_pools_have_a_prober_and_an_address_has_an_admin() -> None:
    assert roles('[supervisor]\nadmin = "127.0.0.1:9"\n' + POOL) == [Role("prober"), Role("admin")]


def test_signals_add_and_take_workers_within_bounds() -> None:
    text = "[supervisor]\nworkers = 2\n" + EDGE
    assert count(roles(text, edge=1), "edge") == 3
    assert count(roles(text, edge=-5), "edge") == 1
    assert count(roles(text, edge=100), "edge") == MAX_WORKERS


def test_titles_have_the_number_and_the_count_where_there_are_several() -> None:
    assert Role("edge", 2).title(4) == "edge 2/4"
    assert Role("prober").title(1) == "prober"
