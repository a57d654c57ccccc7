from __future__ import annotations

import errno
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.kernel import conntrack
from edge.kernel.conntrack import Flow, MalformedMessage, attribute, message, parse

TCP, UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP
NESTED = 0x8000


def one_way(protocol: int, source: tuple[str, int], destination: tuple[str, int]) -> bytes:
    six = ":" in source[0]
    family = socket.AF_INET6 if six else socket.AF_INET
    kinds = (3, 4) if six else (1, 2)
    address = b"".join(
        attribute(kind, socket.inet_pton(family, host))
        for kind, (host, _) in zip(kinds, (source, destination), strict=True)
    )
    proto = attribute(1, bytes((protocol,)))
    proto += attribute(2, source[1].to_bytes(2, "big")) + attribute(3, destination[1].to_bytes(2, "big"))
    return attribute(1 | NESTED, address) + attribute(2 | NESTED, proto)


CLIENT, FRONT, SERVER, US = ("10.0.0.9", 4000), ("192.0.2.1", 80), ("10.1.0.1", 9000), ("10.1.0.254", 4000)
ORIGINAL = one_way(TCP, CLIENT, FRONT)
ENTRY = attribute(1 | NESTED, ORIGINAL) + attribute(2 | NESTED, one_way(TCP, SERVER, US)) + attribute(3, bytes(4))


def entry(attributes: bytes = ENTRY, family: int = socket.AF_INET) -> bytes:
    return message(conntrack.CTNETLINK, 2, family, attributes)


def netlink_error(number: int) -> bytes:
    return struct.pack("=IHHIIi", 20, conntrack.ERROR, 0, 0, 0, -number)


def test_an_entry_says_where_it_came_to_and_which_server_answers() -> None:
    [flow] = parse(entry())
    assert flow == Flow(socket.AF_INET, TCP, 80, SERVER, attribute(1 | NESTED, ORIGINAL))


def test_an_entry_of_ipv6_in_a_zone_keeps_its_zone() -> None:
    client, front, server = ("fd00::9", 4000), ("fd01::1", 7777), ("fd02::1", 9000)
    original = one_way(UDP, client, front)
    zone = attribute(18, b"\0\5")
    both = attribute(1 | NESTED, original) + attribute(2 | NESTED, one_way(UDP, server, client)) + zone
    [flow] = parse(entry(both, socket.AF_INET6))
    assert flow == Flow(socket.AF_INET6, UDP, 7777, server, attribute(1 | NESTED, original) + zone)


def test_entries_of_other_protocols_are_left_out() -> None:
    icmp = attribute(1 | NESTED, attribute(1, bytes(4))) + attribute(2 | NESTED, attribute(1, b"\1"))
    assert [*parse(entry(attribute(1 | NESTED, icmp) + attribute(2 | NESTED, icmp)))] == []
    assert [*parse(entry(b""))] == []


def test_several_messages_stand_in_one_datagram() -> None:
    done = struct.pack("=IHHIIi", 20, conntrack.DONE, 2, 0, 0, 0)
    assert [item is None for item in parse(entry() + entry() + done)] == [False, False, True]


def test_an_entry_that_is_gone_already_is_fine_and_other_refusals_are_errors() -> None:
    assert [*parse(netlink_error(0))] == [None]
    assert [*parse(netlink_error(errno.ENOENT))] == [None]
    with pytest.raises(PermissionError):
        [*parse(netlink_error(errno.EPERM))]


@given(st.binary(max_size=300))
def test_only_malformed_messages_and_refusals_escape(data: bytes) -> None:
    try:
        [*parse(data)]
    except (MalformedMessage, OSError):
        pass


@given(st.data())
def test_a_damaged_entry_costs_itself_only(data: st.DataObject) -> None:
    damaged = bytearray(entry())
    at = data.draw(st.integers(0, len(damaged) - 1))
    damaged[at] = data.draw(st.integers(0, 255))
    try:
        [*parse(bytes(damaged))]
    except (MalformedMessage, OSError):
        pass
