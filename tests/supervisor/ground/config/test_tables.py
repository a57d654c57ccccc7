"""[supervisor], [log], [pools]: their defaults and their own checks."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from supervisor.ground.config import (
    Address,
    Config,
    ConfigError,
    Duration,
    HealthTable,
    Percent,
    Secret,
    load_bytes,
    worker_count,
)


def load(text: str) -> Config:
    return load_bytes(text.encode(), "a.toml", Path("/base"), {}, {})


def refusals(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(text)
    return str(caught.value).splitlines()


def health(text: str) -> HealthTable | None:
    return load(f'[pools.p]\nservers = ["1.2.3.4:5"]\nhealth = {{ {text} }}').pools["p"].health


def test_the_shared_defaults_are_those_of_the_contract() -> None:
    config = load('[pools.p]\nservers = ["1.2.3.4:5"]\nhealth = { type = "tcp" }')
    assert config.supervisor.workers == "auto"
    assert config.supervisor.admin is None
    assert config.supervisor.control == Path("/base/portway.sock")
    assert (config.supervisor.drain_timeout, config.supervisor.drain_delay) == (60, 0)
    assert attrs.astuple(config.log) == ("info", "json", "off")
    pool = config.pools["p"]
    assert (pool.balance, pool.on_all_down) == ("round_robin", "try_all")
    server = pool.servers[0]
    assert (server.address, server.weight, server.max_connections, server.backup) == (
        Address("1.2.3.4", 5),
        1,
        1024,
        False,
    )
    assert pool.health is not None
    check = pool.health
    assert (check.interval, check.timeout, check.fall, check.rise, check.initial) == (3, 2, 3, 2, "up")
    outlier = pool.outlier
    assert (outlier.consecutive_failures, outlier.eject, outlier.max_eject) == (5, 30, 300)
    assert outlier.max_ejected == Percent(0.5)


def test_no_health_means_no_active_check() -> None:
    assert load('[pools.p]\nservers = ["1.2.3.4:5"]').pools["p"].health is None


def test_a_check_has_the_keys_of_its_type() -> None:
    assert health('type = "http", path = "/healthz", status = [200, 204], host = "x", port = 81') == HealthTable(
        type="http", path="/healthz", status=(200, 204), host="x", port=81
    )
    assert health('type = "postgres", user = "u", password = "p", database = "d", interval = "1s"') == HealthTable(
        type="postgres", user="u", password=Secret("p"), database="d", interval=Duration(1)
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('type = "tcp", path = "/"', 'health.path: only a check of type "http" has this key'),
        ('type = "http", user = "u"', 'health.user: only a check of type "postgres" or "redis" has this key'),
        ('type = "http", path = "x"', 'health.path: must begin with "/"'),
        ('type = "tcp", interval = "0s"', "health.interval: must be at least 10ms"),
        ('type = "tcp", fall = 0', "health.fall: must be from 1 to 100, not 0"),
        ('type = "http", status = [99]', "health.status[0]: must be from 100 to 599, not 99"),
        ('path = "/"', "health.type: required key is missing"),
    ],
)
def test_a_wrong_check_is_said(text: str, message: str) -> None:
    assert refusals(f'[pools.p]\nservers = ["1.2.3.4:5"]\nhealth = {{ {text} }}') == [f"a.toml:3: pools.p.{message}"]


def test_a_server_stands_once_in_a_pool() -> None:
    assert refusals('[pools.p]\nservers = ["1.2.3.4:5",\n"1.2.3.4:6",\n{ address = "1.2.3.4:5" }]') == [
        "a.toml:4: pools.p.servers[2]: 1.2.3.4:5 is already server 0 of this pool"
    ]


def test_a_pool_needs_servers() -> None:
    assert refusals("[pools.p]\nservers = []") == ["a.toml:2: pools.p.servers: a pool needs at least one server"]
    assert refusals("[pools.p]") == ["a.toml:1: pools.p.servers: required key is missing"]


def test_ejections_only_grow() -> None:
    assert refusals('[pools.p]\nservers = ["1.2.3.4:5"]\noutlier = { eject = "10m" }') == [
        "a.toml:3: pools.p.outlier.max_eject: must be at least eject, 10m"
    ]


def test_a_control_socket_fits_its_address() -> None:
    (line,) = refusals(f'[supervisor]\ncontrol = "{"x" * 120}"')
    assert line.endswith("is longer than the 107 bytes of a socket's path")


def test_users_and_groups_exist() -> None:
    assert load('[supervisor]\nuser = "root"\ngroup = "root"').supervisor.user == "root"
    assert refusals('[supervisor]\nuser = "nobody-at-all"\ngroup = "none-at-all"') == [
        "a.toml:2: supervisor.user: there is no user nobody-at-all",
        "a.toml:3: supervisor.group: there is no group none-at-all",
    ]


def test_a_tier_may_have_its_own_number_of_workers() -> None:
    @attrs.frozen(kw_only=True)
    class Table:
        workers: int | None = None

    config = load_bytes(
        b"supervisor.workers = 3\none.workers = 1", "a.toml", Path("/"), {"one": Table, "two": Table}, {}
    )
    assert (config.workers("one"), config.workers("two")) == (1, 3)


def test_auto_is_the_usable_cpus() -> None:
    assert 1 <= worker_count("auto") <= 10
    assert worker_count(4) == 4
