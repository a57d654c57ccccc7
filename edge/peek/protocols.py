"""Protocols told by their first bytes. Each is a function of the bytes so far: True, False, or None while both may be.

The functions disagree pairwise on every input that is long enough, so that their order in a configuration matters only
to what several routes would take.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping

from edge.peek.hello import begins_tls

Detector = Callable[[bytes], bool | None]

# RFC 9110 §9, RFC 5789, WebDAV (RFC 4918) and PRI, with which HTTP/2 begins (RFC 9113 §3.4).
_METHODS = (
    b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH", b"PRI", b"PROPFIND",
    b"PROPPATCH", b"MKCOL", b"COPY", b"MOVE", b"LOCK", b"UNLOCK", b"REPORT", b"SEARCH", b"PURGE",
)  # fmt: skip
# RFC 9112 §3.2: the target begins with "/", "*" or a scheme; CONNECT's with a host. Redis takes "GET key" inline.
_REQUEST = re.compile(rb"(?:CONNECT [\[A-Za-z0-9]|[A-Z]+ (?:[/*]|https?://))").match
_REQUEST_MAY_BE = re.compile(rb"[A-Z]+ (?:h(?:t(?:t(?:p(?:s?(?::/?)?)?)?)?)?)?\Z").match

# PostgreSQL 55.7 "Message Formats": StartupMessage 3.0 and 3.2, SSLRequest, GSSENCRequest, CancelRequest.
_STARTUP = {196608, 196610}
_REQUESTS = {80877103: (8, 8), 80877104: (8, 8), 80877102: (16, 268)}  # code: least and greatest length
_MAX_STARTUP = 10_000  # bytes: PostgreSQL's MAX_STARTUP_PACKET_LENGTH

# The Redis protocol: a client's commands are arrays of bulk strings; PING alone is common inline, from health checks.
_RESP = re.compile(rb"\*[1-9][0-9]{0,6}\r\n\$").match
_RESP_MAY_BE = re.compile(rb"(?:\*(?:[1-9][0-9]{0,6}(?:\r\n?)?)?)?\Z").match

# RTMP 1.0 §5.2.2 and §5.2.3: C0 is the version, C1 has 1536 bytes; a client sends both before it waits. RDP begins with
# the same byte (RFC 1006), and waits after a few.
_RTMP_VERSION = 3
_C0_AND_C1 = 1 + 1536


def is_http(data: bytes) -> bool | None:
    """HTTP/1.x, or HTTP/2 by its preface."""
    method, space, _ = data.partition(b" ")
    if not space:
        return None if any(one.startswith(method) for one in _METHODS) else False
    if method not in _METHODS:
        return False
    if _REQUEST(data):
        return True
    return None if len(data) == len(method) + 1 or _REQUEST_MAY_BE(data) else False


def is_postgres(data: bytes) -> bool | None:
    """A startup message, or one of the requests that may stand before it, or a cancel."""
    if len(data) < 8:
        return None if data[:2] == b"\0\0"[: len(data)] else False
    length, code = struct.unpack_from("!II", data)
    if code in _STARTUP:
        return bool(9 <= length <= _MAX_STARTUP)
    least, greatest = _REQUESTS.get(code, (1, 0))
    return bool(least <= length <= greatest)


def is_ssh(data: bytes) -> bool | None:
    """RFC 4253 §4.2: a client's identification comes first, with no lines before it."""
    return _begins(data, b"SSH-")


def is_redis(data: bytes) -> bool | None:
    """RESP, or an inline PING."""
    if data[:1] in (b"P", b"p"):
        return _begins(data.upper(), b"PING\r\n")
    if _RESP(data):
        return True
    return None if _RESP_MAY_BE(data) else False


def is_rtmp(data: bytes) -> bool | None:
    """C0 and C1, whole."""
    if data[:1] and data[0] != _RTMP_VERSION:
        return False
    return True if len(data) >= _C0_AND_C1 else None


def is_amqp(data: bytes) -> bool | None:
    """AMQP 0-9-1 §4.2.2 and 1.0 §2.2: the protocol header."""
    return _begins(data, b"AMQP")


def _begins(data: bytes, with_: bytes) -> bool | None:
    if len(data) >= len(with_):
        return data.startswith(with_)
    return None if with_.startswith(data) else False


DETECTORS: Mapping[str, Detector] = {
    "tls": begins_tls,
    "http": is_http,
    "postgres": is_postgres,
    "ssh": is_ssh,
    "redis": is_redis,
    "rtmp": is_rtmp,
    "amqp": is_amqp,
}
SERVER_FIRST = frozenset({"mysql", "smtp"})  # their clients wait for the server's greeting, so silence tells them
