"""How servers are spoken to, by what the configuration says of their pool."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.transport import Transport, transport
from supervisor.ground.config import PoolTable, PoolTlsTable


def of(**keys: Any) -> Transport:
    return transport(PoolTable(servers=(), **keys))


@pytest.mark.parametrize(
    ("keys", "multiplexes", "scheme"),
    [
        ({}, False, b"http"),
        ({"protocol": "http1"}, False, b"http"),
        ({"protocol": "h2c"}, True, b"http"),
        ({"tls": PoolTlsTable()}, True, b"https"),
        ({"tls": PoolTlsTable(), "protocol": "h2"}, True, b"https"),
        ({"tls": PoolTlsTable(), "protocol": "http1"}, False, b"https"),
    ],
)
def test_what_a_pool_says_is_what_its_servers_get(keys: dict[str, Any], multiplexes: bool, scheme: bytes) -> None:
    one = of(**keys)
    assert (one.multiplexes, one.scheme) == (multiplexes, scheme)


def test_connections_outlive_a_reload_that_changes_nothing_of_theirs() -> None:
    assert of(balance="maglev").same(of())
    assert of(tls=PoolTlsTable(sni="a.b")).same(of(tls=PoolTlsTable(sni="a.b")))
    assert not of(tls=PoolTlsTable(sni="a.b")).same(of(tls=PoolTlsTable(sni="a.c")))
    assert not of(protocol="h2c").same(of())
