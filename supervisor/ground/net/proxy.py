"""The PROXY protocol, versions 1 and 2: who really connected, told in front of the first bytes.

Owns the format (haproxy's doc/proxy-protocol.txt, sections in the comments); whom to believe is for the listener.
Sans-I/O: bytes in, a header out, or None while more is needed.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterable

import attrs

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"  # §2.2
MAX_V1 = 107  # bytes, CRLF included (§2.1)
MAX_V2 = 16 + 4096  # the format allows 64 KiB of TLVs; nobody sends more than a certificate's worth

TLV_ALPN = 0x01
TLV_AUTHORITY = 0x02  # the host name of SNI
TLV_UNIQUE_ID = 0x05
TLV_SSL = 0x20  # §2.2.7: flags, whether a client certificate was verified, and TLVs of its own
TLV_SSL_VERSION = 0x21
TLV_SSL_CIPHER = 0x23
_CLIENT_SSL = 0x01  # PP2_CLIENT_SSL: the client connected over TLS
_NOT_VERIFIED = 1  # it showed no certificate that was verified

_FAMILY = {0x1: socket.AF_INET, 0x2: socket.AF_INET6}
_LENGTH = {socket.AF_INET: 12, socket.AF_INET6: 36}

Endpoint = tuple[str, int]


class ProxyError(ValueError):
    """Not a PROXY header, where one must stand."""


@attrs.frozen
class ProxyHeader:
    """What a header said. `source` is None for LOCAL and UNKNOWN: the connection is the proxy's own."""

    source: Endpoint | None
    destination: Endpoint | None
    tlvs: tuple[tuple[int, bytes], ...] = ()

    def tlv(self, kind: int) -> bytes | None:
        return next((value for what, value in self.tlvs if what == kind), None)


def encode_v1(source: Endpoint, destination: Endpoint) -> bytes:
    """A version 1 line (§2.1); UNKNOWN when the two are not of one family."""
    client, server = _bare(source[0]), _bare(destination[0])
    four, four_too = ":" not in client, ":" not in server
    if four is not four_too:
        return b"PROXY UNKNOWN\r\n"
    family = "TCP4" if four else "TCP6"
    return f"PROXY {family} {client} {server} {source[1]} {destination[1]}\r\n".encode("ascii")


def encode_v2(
    source: Endpoint | None,
    destination: Endpoint | None,
    kind: int = socket.SOCK_STREAM,
    tlvs: tuple[tuple[int, bytes], ...] = (),
) -> bytes:
    """A version 2 header (§2.2); LOCAL without addresses. Addresses of two families both go as IPv6."""
    tail = encode_tlvs(tlvs)
    if source is None or destination is None:
        return SIGNATURE + struct.pack("!BBH", 0x20, 0x00, len(tail)) + tail
    transport = 0x1 if kind == socket.SOCK_STREAM else 0x2
    client, server = _bare(source[0]), _bare(destination[0])
    if ":" in client or ":" in server:
        addresses = _sixteen(client) + _sixteen(server)
        family = 0x20
    else:
        addresses = socket.inet_aton(client) + socket.inet_aton(server)
        family = 0x10
    body = addresses + struct.pack("!HH", source[1], destination[1]) + tail
    return SIGNATURE + struct.pack("!BBH", 0x21, family | transport, len(body)) + body


def ssl_tlv(version: str, cipher: str) -> tuple[int, bytes]:
    """The TLV that tells of TLS which was ended here (§2.2.7): its version and its cipher suite."""
    told = encode_tlvs(((TLV_SSL_VERSION, version.encode()), (TLV_SSL_CIPHER, cipher.encode())))
    return TLV_SSL, struct.pack("!BI", _CLIENT_SSL, _NOT_VERIFIED) + told


def encode_tlvs(tlvs: Iterable[tuple[int, bytes]]) -> bytes:
    """Types and values one after another (§2.2)."""
    return b"".join(struct.pack("!BH", what, len(value)) + value for what, value in tlvs)


def _bare(host: str) -> str:
    """Without the zone, which is this machine's own; IPv4 as such, from a dual-stack socket too."""
    if ":" not in host:
        return host
    host = host.partition("%")[0]
    return host[7:] if host.startswith("::ffff:") and "." in host else host


def _sixteen(host: str) -> bytes:
    address = ipaddress.ip_address(host)
    if address.version == 4:
        return b"\0" * 10 + b"\xff\xff" + address.packed
    return address.packed


def decode(data: bytes) -> tuple[ProxyHeader, int] | None:
    """The header at the start of `data` and its length in bytes; None while it is incomplete. Raises ProxyError."""
    if data[:12] == SIGNATURE[: len(data)]:
        return _decode_v2(data) if len(data) >= 16 else None
    if data[:6] == b"PROXY "[: len(data)]:
        return _decode_v1(data)
    raise ProxyError("no PROXY header")


def _decode_v1(data: bytes) -> tuple[ProxyHeader, int] | None:
    end = data.find(b"\r\n", 0, MAX_V1)
    if end < 0:
        if len(data) >= MAX_V1:
            raise ProxyError("PROXY v1 line over 107 bytes")
        return None
    words = data[:end].split(b" ")
    if words[1:2] == [b"UNKNOWN"]:
        return ProxyHeader(None, None), end + 2
    if len(words) != 6 or words[1] not in (b"TCP4", b"TCP6"):
        raise ProxyError("malformed PROXY v1 line")
    version = 4 if words[1] == b"TCP4" else 6
    return ProxyHeader(_endpoint(words[2], words[4], version), _endpoint(words[3], words[5], version)), end + 2


def _endpoint(host: bytes, port: bytes, version: int) -> Endpoint:
    try:
        address = ipaddress.ip_address(host.decode("ascii"))
        number = int(port) if port.isdigit() and len(port) <= 5 else -1
    except ValueError:
        raise ProxyError("bad address in a PROXY v1 line") from None
    if address.version != version or "%" in str(address) or not 0 <= number <= 65535 or port != b"%d" % number:
        raise ProxyError("bad address in a PROXY v1 line")
    return _text(address), number


def _decode_v2(data: bytes) -> tuple[ProxyHeader, int] | None:
    command, family, length = struct.unpack_from("!BBH", data, 12)
    if command >> 4 != 2 or command & 15 > 1:
        raise ProxyError("unknown PROXY v2 version or command")
    if 16 + length > MAX_V2:
        raise ProxyError("PROXY v2 header over 4 KiB")
    if len(data) < 16 + length:
        return None
    body = data[16 : 16 + length]
    if command & 15 == 0:  # LOCAL: the receiver must use the real connection, whatever else it says (§2.2)
        return ProxyHeader(None, None), 16 + length
    if family >> 4 > 3 or family & 15 > 2:
        raise ProxyError("unknown PROXY v2 family or protocol")
    kind = _FAMILY.get(family >> 4)
    if kind is None or family & 15 == 0:  # Unix, or UNSPEC in either half: as with LOCAL
        return ProxyHeader(None, None), 16 + length
    size = _LENGTH[kind]
    if length < size:
        raise ProxyError("PROXY v2 addresses cut short")
    half = (size - 4) // 2
    ports = struct.unpack_from("!HH", body, size - 4)
    source = (_text(ipaddress.ip_address(body[:half])), ports[0])
    destination = (_text(ipaddress.ip_address(body[half : 2 * half])), ports[1])
    return ProxyHeader(source, destination, _tlvs(body[size:])), 16 + length


def _text(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """One client has one address, whether it is told of as IPv4 or mapped into IPv6."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


def _tlvs(data: bytes) -> tuple[tuple[int, bytes], ...]:
    found, at = [], 0
    while at < len(data):
        if at + 3 > len(data):
            raise ProxyError("PROXY v2 TLV cut short")
        what, length = struct.unpack_from("!BH", data, at)
        at += 3
        if at + length > len(data):
            raise ProxyError("PROXY v2 TLV cut short")
        found.append((what, data[at : at + length]))
        at += length
    return tuple(found)
