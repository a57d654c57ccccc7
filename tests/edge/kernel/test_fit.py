from __future__ import annotations

from typing import Any

import pytest

from edge.config import ListenerTable
from edge.kernel.fit import misfits
from supervisor.ground.config import Bind, Duration, PoolTable, ServerTable


def reasons(pool: dict[str, Any] | None = None, servers: tuple[Any, ...] = ("10.0.0.1:80",), **listener: Any) -> str:
    tables = tuple(one if isinstance(one, ServerTable) else ServerTable(address=bind(one)) for one in servers)
    keys = {"bind": bind("192.0.2.1:80"), "pool": "p", "datapath": "kernel", **listener}
    found = misfits(ListenerTable(**keys), {"p": PoolTable(servers=tables, **(pool or {}))})
    return "; ".join(f"{key}: {reason}" for key, reason in found)


def bind(text: str) -> Bind:
    host, _, port = text.rpartition(":")
    return Bind(host.strip("[]"), int(port))


@pytest.mark.parametrize("balance", ["round_robin", "source_hash", "maglev"])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_what_needs_no_look_inside_fits(balance: str, protocol: str) -> None:
    assert reasons({"balance": balance}, protocol=protocol, masquerade=False, persist=True) == ""


@pytest.mark.parametrize(
    ("listener", "key"),
    [
        ({"send_proxy_protocol": "v2"}, "send_proxy_protocol"),
        ({"idle_timeout": Duration(5)}, "idle_timeout"),
        ({"max_connections": 10}, "max_connections"),
        ({"retries": 0}, "retries"),
    ],
)
def test_what_needs_the_proxy_does_not(listener: dict[str, Any], key: str) -> None:
    assert reasons(**listener).startswith(f"{key}: ")


@pytest.mark.parametrize(
    ("pool", "reason"),
    [
        ({"balance": "least_connections"}, "can't balance by least_connections"),
        ({"balance": "random_two"}, "can't balance by random_two"),
        ({"max_queued": 5}, "nobody waits"),
    ],
)
def test_a_pool_that_counts_connections_does_not(pool: dict[str, Any], reason: str) -> None:
    assert reason in reasons(pool)


def test_a_server_must_be_reachable_by_routing() -> None:
    assert "loopback" in reasons(servers=("127.0.0.1:80",))
    assert reasons(servers=("127.0.0.1:80",), bind=bind("127.0.0.1:81")) == ""
    assert "IPv4 and IPv6" in reasons(servers=("[fd00::1]:80",))
    assert "max_connections" in reasons(servers=(ServerTable(address=bind("10.0.0.1:80"), max_connections=5),))
