"""The kernel's table of flows, through ctnetlink: which flows go to a server, and their deletion.

A flow keeps its server for as long as its entry lives, whatever the rules have become. When a server is dead, its
entries must go: a UDP client would send into the void for ever, for each datagram keeps the entry alive.
The format: linux/netfilter/nfnetlink_conntrack.h, attributes as in netlink(7). Ports and addresses are in network
order, all else in the machine's.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Container, Iterator

import attrs

NETLINK_NETFILTER = 12
CTNETLINK = 1 << 8  # NFNL_SUBSYS_CTNETLINK
GET, DELETE = CTNETLINK | 1, CTNETLINK | 2
REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
ERROR, DONE = 2, 3
TUPLE_ORIG, TUPLE_REPLY, ZONE = 1, 2, 18
TUPLE_IP, TUPLE_PROTO = 1, 2
ADDRESSES = {1: "source", 2: "destination", 3: "source", 4: "destination"}  # IPv4, then IPv6
PROTO_NUM, PROTO_SRC, PROTO_DST = 1, 2, 3

RECEIVE = 1 << 20  # bytes; the kernel fills 32 KiB at most per datagram of a dump
PATIENCE = 5.0  # seconds for the next datagram of a dump: it comes at once, or something is wrong

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_FAMILY = struct.Struct("=BBH")  # struct nfgenmsg: family, version, resource
_ATTRIBUTE = struct.Struct("=HH")
_ERROR = struct.Struct("=i")
_TYPE_MASK = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER


class MalformedMessage(Exception):
    """Not what the kernel says in this format."""


@attrs.frozen
class Flow:
    """An entry: where it came to, and where it was sent."""

    family: int
    protocol: int
    port: int  # that the client's first packet was addressed to
    server: tuple[str, int]  # the source of the answers
    handle: bytes  # the attributes that name the entry to the kernel


Place = tuple[int, int, str, int]  # protocol, the listener's port, the server's address and port


def delete(places: Container[Place]) -> int:
    """Delete the entries of flows to these places; how many. Raises OSError, MalformedMessage. Needs CAP_NET_ADMIN."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER) as sock:
        sock.settimeout(PATIENCE)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE)
        doomed = []
        for family in (socket.AF_INET, socket.AF_INET6):
            sock.send(message(GET, REQUEST | DUMP, family, b""))
            doomed += [flow for flow in _dumped(sock) if (flow.protocol, flow.port, *flow.server) in places]
        for flow in doomed:
            sock.send(message(DELETE, REQUEST | ACK, flow.family, flow.handle))
            for _ in parse(sock.recv(RECEIVE)):
                pass
        return len(doomed)


def _dumped(sock: socket.socket) -> Iterator[Flow]:
    """The entries of a dump that was asked for."""
    while True:
        for item in parse(sock.recv(RECEIVE)):
            if item is None:
                return
            yield item


def message(kind: int, flags: int, family: int, attributes: bytes) -> bytes:
    body = _FAMILY.pack(family, 0, 0) + attributes
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, 0, 0) + body


def parse(data: bytes) -> Iterator[Flow | None]:
    """The entries in a datagram from the kernel; None where a dump or a request is over. Entries without ports are left
    out, and so is word that an entry to be deleted is gone. Raises OSError for another refusal, MalformedMessage."""
    at = 0
    while len(data) - at >= _HEADER.size:
        length, kind, _, _, _ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size or at + length > len(data):
            raise MalformedMessage(f"a message of {length} bytes, and {len(data) - at} are left")
        body = data[at + _HEADER.size : at + length]
        at += length + 3 & ~3
        if kind == DONE:
            yield None
        elif kind == ERROR:
            if len(body) < _ERROR.size:
                raise MalformedMessage("an error without its number")
            number = -_ERROR.unpack_from(body)[0]
            if number not in (0, errno.ENOENT):
                raise OSError(number, os.strerror(number) if number > 0 else "netlink")
            yield None
        elif kind & ~0xFF == CTNETLINK and len(body) >= _FAMILY.size:
            flow = _flow(body)
            if flow is not None:
                yield flow


def _flow(body: bytes) -> Flow | None:
    family, _, _ = _FAMILY.unpack_from(body)
    found = dict(_attributes(body[_FAMILY.size :]))
    original, reply = found.get(TUPLE_ORIG), found.get(TUPLE_REPLY)
    if original is None or reply is None:
        return None
    came, answered = _Tuple.of(original), _Tuple.of(reply)
    if came is None or answered is None:
        return None
    handle = attribute(TUPLE_ORIG | 0x8000, original)
    if ZONE in found:
        handle += attribute(ZONE, found[ZONE])
    return Flow(family, came.protocol, came.destination, (answered.host, answered.source), handle)


@attrs.frozen
class _Tuple:
    """One direction of a flow."""

    protocol: int
    host: str  # the source
    source: int
    destination: int

    @classmethod
    def of(cls, data: bytes) -> _Tuple | None:
        parts = dict(_attributes(data))
        proto = dict(_attributes(parts.get(TUPLE_PROTO, b"")))
        host = ""
        for kind, address in _attributes(parts.get(TUPLE_IP, b"")):
            if ADDRESSES.get(kind) == "source" and len(address) in (4, 16):
                host = socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)
        if not host or not {PROTO_NUM, PROTO_SRC, PROTO_DST} <= proto.keys():
            return None
        source, destination = (int.from_bytes(proto[key], "big") for key in (PROTO_SRC, PROTO_DST))
        return cls(proto[PROTO_NUM][0] if proto[PROTO_NUM] else 0, host, source, destination)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while len(data) - at >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size or at + length > len(data):
            raise MalformedMessage(f"an attribute of {length} bytes, and {len(data) - at} are left")
        yield kind & _TYPE_MASK, data[at + _ATTRIBUTE.size : at + length]
        at += length + 3 & ~3


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)
