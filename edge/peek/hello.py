"""The ClientHello of TLS: the server's name (SNI) and the protocols (ALPN) that a client asks for.

RFC 8446 §4.1.2 and §5.1, RFC 6066 §3, RFC 7301 §3.1. A hello may be cut over several records, and these over any number
of segments. What a client greases (RFC 8701) is a value like any other: nothing here asks for known ones.
"""

from __future__ import annotations

import struct

import attrs

KIB = 1024
MAX_HELLO = 16 * KIB  # bytes, records included; post-quantum key shares make 2 KiB, OpenSSL takes 16 KiB too
MAX_RECORDS = 64  # of one hello: each may be parsed again with every byte that comes
MAX_RECORD = 16 * KIB  # RFC 8446 §5.1: the length must not exceed 2^14 bytes
_HANDSHAKE, _CLIENT_HELLO = 22, 1
_SERVER_NAME, _ALPN = 0, 16
_VERSION_AND_RANDOM = 34


class PeekError(ValueError):
    """The client's first bytes are not what they began to be; its connection is closed."""


@attrs.frozen
class Hello:
    """What a client asked for. `name` is in lower case, "" when it named none."""

    name: str = ""
    protocols: tuple[bytes, ...] = ()


def begins_tls(data: bytes) -> bool | None:
    """Whether this is the record of a ClientHello; None while it may be."""
    if data[:2] != b"\x16\x03"[: len(data)]:
        return False
    return None if len(data) < 6 else data[5] == _CLIENT_HELLO


def client_hello(data: bytes) -> Hello | None:
    """The hello that `data` begins with; None while it is incomplete. Raises PeekError."""
    message = _message(data[:MAX_HELLO])
    if message is None:
        if len(data) >= MAX_HELLO:
            raise PeekError("a ClientHello over 16 KiB")
        return None
    try:
        return _hello(message)
    except (struct.error, IndexError):
        raise PeekError("a ClientHello cut short") from None


def _message(data: bytes) -> bytes | None:
    """The handshake message out of its records, without its header; None while some of it is missing."""
    message = b""
    at = 0
    for _ in range(MAX_RECORDS):
        if len(data) < at + 5:
            return None
        kind, major, length = data[at], data[at + 1], data[at + 3] << 8 | data[at + 4]
        if kind != _HANDSHAKE or major != 3:
            raise PeekError("not a handshake record within a ClientHello")
        if not 0 < length <= MAX_RECORD:  # RFC 8446 §5.1: no empty fragments of handshake types
            raise PeekError("a handshake record of an impossible length")
        at += 5 + length
        if len(data) < at:
            return None
        message += data[at - length : at]
        if message[0] != _CLIENT_HELLO:
            raise PeekError("not a ClientHello")
        if len(message) >= 4:
            size = int.from_bytes(message[1:4], "big")
            if len(message) > 4 + size:
                raise PeekError("bytes behind the ClientHello")  # RFC 8446 §5.1: nothing may follow before the answer
            if len(message) == 4 + size:
                return message[4:]
    raise PeekError("a ClientHello in more than 64 records")


def _hello(message: bytes) -> Hello:
    """Raises PeekError, struct.error, IndexError."""
    at = _VERSION_AND_RANDOM
    at += 1 + message[at]  # legacy_session_id
    at += 2 + struct.unpack_from("!H", message, at)[0]  # cipher_suites
    at += 1 + message[at]  # legacy_compression_methods
    if at == len(message):
        return Hello()  # TLS 1.2 without extensions
    if struct.unpack_from("!H", message, at)[0] != len(message) - at - 2:
        raise PeekError("extensions of another length than the ClientHello")
    at += 2
    found: dict[int, bytes] = {}
    while at < len(message):
        kind, length = struct.unpack_from("!HH", message, at)
        at += 4
        if at + length > len(message):
            raise PeekError("an extension cut short")
        if kind in found:  # RFC 8446 §4.2: not more than one of a type
            raise PeekError("an extension twice")
        found[kind] = message[at : at + length]
        at += length
    return Hello(_server_name(found.get(_SERVER_NAME)), _protocols(found.get(_ALPN)))


def _server_name(data: bytes | None) -> str:
    if data is None:
        return ""
    size, kind, length = struct.unpack_from("!HBH", data)
    # RFC 6066 §3 knows one type of name, and no two of it; as OpenSSL, refuse what else could be hidden there.
    if size != len(data) - 2 or kind != 0 or length != size - 3 or not length:
        raise PeekError("a server name that RFC 6066 does not know")
    name = data[5:]
    if not all(0x21 <= byte <= 0x7E for byte in name):
        raise PeekError("a server name that is no host name")
    return name.decode("ascii").lower().rstrip(".")


def _protocols(data: bytes | None) -> tuple[bytes, ...]:
    if data is None:
        return ()
    if struct.unpack_from("!H", data)[0] != len(data) - 2 or len(data) == 2:
        raise PeekError("a list of protocols of another length")
    protocols = []
    at = 2
    while at < len(data):
        length = data[at]
        at += 1
        if not length or at + length > len(data):
            raise PeekError("a protocol's name cut short")
        protocols.append(data[at : at + length])
        at += length
    return tuple(protocols)
