"""IP addresses as people write them, as networks hold them, and as what one customer counts as."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from supervisor.ground.config import Network


def plain_address(ip: str) -> str:
    """An address as people write it: one mapped into IPv6 as the IPv4 address that it is, and without a zone."""
    if ip.startswith("::ffff:") and "." in ip:
        return ip.removeprefix("::ffff:")
    return ip.partition("%")[0]


def address_key(ip: str) -> bytes:
    """What an address counts as: a customer gets an IPv6 /64, so it counts as one."""
    address = _parsed(ip)
    return address.packed[:8] if address.version == 6 else address.packed


def within(ip: str, networks: Sequence[Network]) -> bool:
    """Whether an address lies in one of `networks`; a v4 address mapped into v6 counts as the v4 one."""
    if not networks:
        return False
    address = _parsed(ip)
    return any(address in network.value for network in networks)


def _parsed(ip: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(ip.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
