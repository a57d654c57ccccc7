"""Who the client is, and what the server is told about it: X-Forwarded-*, Forwarded, request id, trace.

A client can write anything into these fields, so from outside they are replaced. From a proxy in front that is named in
`trusted_proxies` they are believed and extended, and the client is the nearest address in X-Forwarded-For that is not
such a proxy. The order of hops is RFC 7239's: the one next to us stands last.
"""

from __future__ import annotations

import ipaddress
import json
import re
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from gateway.fields import FORWARDED, Field, list_of

MAX_HOPS: Final = 32  # addresses looked at in X-Forwarded-For; more proxies than any real path has
ID_BLOCK: Final = 256  # request ids drawn at once

_INTRODUCTION: Final = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b\r\nForwarded: %b"
# Of a request id, the same as the trace's, and a span. The trace starts here, so it is sampled.
ID_LINES: Final = b"X-Request-Id: %b\r\ntraceparent: 00-%b-%b-01"
BEFORE_ID, BEFORE_TRACE, BEFORE_SPAN, BEHIND_SPAN = ID_LINES.split(b"%b")  # for those who join what is there already

_REQUEST_ID = re.compile(rb"[0-9A-Za-z._~:/+=@\-]{1,128}").fullmatch
# W3C Trace Context §3.2: version 00, and neither id all zeros.
_TRACEPARENT = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}").fullmatch
_HOST = re.compile(rb"[A-Za-z0-9._:\[\]\-]{1,300}").fullmatch


class Client:
    """The other end of a connection as far as requests care: its address, and lines that don't change between them."""

    __slots__ = ("certificate", "digests", "host", "introduction", "ip", "json", "peer", "proxy", "scheme")

    def __init__(self, ip: str, scheme: str, proxy: bool, peer: str = "", header: str = "") -> None:
        self.ip = ip
        self.json = json.dumps(ip)
        self.scheme = scheme
        self.proxy = proxy  # its word about the client is believed
        self.peer = peer  # the name in the client's certificate; "": it showed none
        self.certificate = f"{header}: {peer}".encode("ascii") if peer and header else b""  # the line that says so
        self.digests: dict[int, bytes] = {}  # of its address, by row of the limit
        self.host: bytes | None = None  # of the last request
        self.introduction = b""  # for that: see `introduce`

    def introduce(self, host: bytes) -> bytes:
        """X-Forwarded-For, -Proto, -Host and Forwarded for a request to `host`, and who the client is by its
        certificate, joined by CRLF."""
        if host != self.host:
            ip, scheme = self.ip.encode(), self.scheme.encode()
            self.introduction = (
                b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b\r\nForwarded: %b"
                % (
                    ip,
                    scheme,
                    host,
                    element(ip, scheme, host),
                )
            )
            if self.certificate:
                self.introduction += b"\r\n" + self.certificate
            self.host = host
        return self.introduction


def element(ip: bytes, scheme: bytes, host: bytes) -> bytes:
    """One hop of Forwarded (RFC 7239 §4). IPv6 and ports need quotes (§6)."""
    node = b'"[%b]"' % ip if b":" in ip else ip
    name = b'"%b"' % host if b":" in host or b"[" in host else host
    return b"for=%b;proto=%b;host=%b" % (node, scheme, name)


class Identities:
    """Names for requests: a random id of 128 bits that is the trace id too, and a span id of 64, in hexadecimal.

    `ready` is a stock of such pairs to `pop` from; `more` fills it again. Many are drawn at once, for drawing each
    alone costs twice as much.
    """

    __slots__ = ("_random", "ready")

    def __init__(self, random: Callable[[int], bytes]) -> None:
        self._random = random  # random.Random().randbytes, seeded after the fork
        self.ready: list[tuple[bytes, bytes]] = []

    def more(self) -> list[tuple[bytes, bytes]]:
        """The stock, no longer empty."""
        block = self._random(24 * ID_BLOCK).hex().encode("ascii")
        self.ready += struct.iter_unpack("32s16s", block)
        return self.ready


def from_proxy(
    client: Client, host: bytes, fields: Iterable[Field], trusted: Callable[[str], bool],
    identity: tuple[bytes, bytes],
) -> tuple[list[bytes], bytes, str]:  # fmt: skip
    """Lines for the server, the request id and the real client's address, where `client` is a trusted proxy.
    `identity` is the request's id and span, unless the proxy has named it already."""
    given: dict[bytes, list[bytes]] = {}
    for kind, _, detail in fields:
        if kind == FORWARDED:
            given.setdefault(detail[0], []).append(detail[1])
    peer, scheme = client.ip.encode(), client.scheme.encode()
    hops = [hop for value in given.pop(b"x-forwarded-for", []) for hop in list_of(value)]
    proto = _last(given.pop(b"x-forwarded-proto", []))
    if proto not in (b"http", b"https"):
        proto = scheme
    outer_host = _last(given.pop(b"x-forwarded-host", [])) or host
    if not _HOST(outer_host):
        outer_host = host
    elements = [value for value in given.pop(b"forwarded", []) if value]
    request_id, span = identity
    given_id = _last(given.pop(b"x-request-id", []))
    trace = _last(given.pop(b"traceparent", []))
    state = given.pop(b"tracestate", [])
    lines = [
        b"X-Forwarded-For: " + b", ".join([*hops, peer]),
        b"X-Forwarded-Proto: " + proto,
        b"X-Forwarded-Host: " + outer_host,
        b"Forwarded: " + b", ".join([*elements, element(peer, scheme, host)]),
    ]
    if client.certificate:
        lines.append(client.certificate)
    own = (ID_LINES % (request_id, request_id, span)).split(b"\r\n")
    if _REQUEST_ID(given_id):
        request_id = given_id
        own[0] = b"X-Request-Id: " + request_id
    if _TRACEPARENT(trace):
        own[1] = b"traceparent: " + trace
        lines += [b"tracestate: " + value for value in state]
    lines += own
    lines += [b"%b: %b" % (name, value) for name, values in given.items() for value in values]
    return lines, request_id, nearest_stranger(client.ip, hops, trusted)


def _last(values: Sequence[bytes]) -> bytes:
    """What the nearest proxy said: of a repeated field the last line counts."""
    return values[-1] if values else b""


def nearest_stranger(peer: str, hops: Sequence[bytes], trusted: Callable[[str], bool]) -> str:
    """The client: the last address in `hops` that is no trusted proxy; the first one if all are; `peer` if none is an
    address."""
    nearest = peer
    for hop in reversed(hops[-MAX_HOPS:]):
        ip = _address(hop)
        if ip is None:
            break  # nothing beyond something unreadable can be believed
        nearest = ip
        if not trusted(ip):
            break
    return nearest


def _address(hop: bytes) -> str | None:
    try:
        text = hop.decode("ascii").strip("[]")
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None
