"""Addresses have one way to be written, and one to be counted."""

from __future__ import annotations

import ipaddress

import pytest

from supervisor.ground.config import Network
from supervisor.ground.net.addresses import address_key, plain_address, within


@pytest.mark.parametrize(("given", "expected"), [
    ("::ffff:192.0.2.1", "192.0.2.1"), ("fe80::1%eth0", "fe80::1"), ("192.0.2.1", "192.0.2.1"), ("::1", "::1"),
])  # fmt: skip
def test_addresses_are_plain(given: str, expected: str) -> None:
    assert plain_address(given) == expected


@pytest.mark.parametrize(("one", "other", "same"), [
    ("10.0.0.1", "10.0.0.2", False), ("10.0.0.1", "::ffff:10.0.0.1", True), ("2001:db8::1", "2001:db8::ffff:1", True),
    ("2001:db8::1", "2001:db8:0:1::1", False), ("fe80::1%eth0", "fe80::2", True),
])  # fmt: skip
def test_an_ipv6_network_counts_as_one_client(one: str, other: str, same: bool) -> None:
    assert (address_key(one) == address_key(other)) is same


def test_a_mapped_address_lies_in_its_ipv4_network() -> None:
    networks = [Network(ipaddress.ip_network("127.0.0.0/8")), Network(ipaddress.ip_network("fe80::/10"))]
    assert within("::ffff:127.0.0.1", networks)
    assert within("fe80::1%eth0", networks)
    assert not within("::1", networks)
    assert not within("127.0.0.1", [])
