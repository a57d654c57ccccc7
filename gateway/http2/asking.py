"""Requests and answers of HTTP/2 servers as HTTP/1.1 has them: one head into a block, fields into the other head.

What leaves for a server was rebuilt from parsed lines already; here they change their dress alone. What comes back is
made a head of HTTP/1.1, so that answers are judged by one reader, whichever way they came.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from gateway.fields import MAX_LENGTH_DIGITS
from gateway.http2.blocks import Memo, encode_field, encode_line
from gateway.http2.errors import PROTOCOL_ERROR, StreamFault
from gateway.http2.fields import BAD, LENGTH, PATH, STATUS, Entry
from gateway.problems import PHRASES

# RFC 9113 §8.2.2: what speaks of an HTTP/1.1 connection has no place here.
_LEFT_OUT: Final = (b"connection:", b"transfer-encoding:", b"upgrade:", b"te:")
_ALWAYS_NEW: Final = (b"X-Request-Id:", b"traceparent:")  # not worth remembering
_STATUS = re.compile(rb"[1-5][0-9][0-9]").fullmatch
_NUMBER = re.compile(rb"[0-9]{1,%d}" % MAX_LENGTH_DIGITS).fullmatch


class AskedHead(NamedTuple):
    """An answer's head. `head` is what HTTP/1.1 would have said, without the empty line; `length` -1 if not given."""

    status: int
    head: bytes
    length: int


def _start(line: bytes) -> bytes:
    """The part of a block that a request line becomes."""
    method, path, _ = line.split(b" ")
    return encode_field(b":method", method) + encode_field(b":path", path)


def _field(line: bytes) -> bytes:
    """The part of a block that a header line becomes; b"" for one that HTTP/2 has no place for."""
    return b"" if line[:18].lower().startswith(_LEFT_OUT) else encode_line(line)


_starts: Final = Memo(_start)
_fields: Final = Memo(_field)
_SCHEMES: Final = {scheme: encode_field(b":scheme", scheme) for scheme in (b"http", b"https")}
_TE: Final = encode_field(b"te", b"trailers")
_CONNECT: Final = encode_field(b":method", b"CONNECT") + encode_field(b":protocol", b"websocket")
_KEY: Final = b"sec-websocket-key:"


def request_block(head: bytes, scheme: bytes, *, trailers: bool) -> bytes:
    """The header block for a request's head of HTTP/1.1 (without its empty line); `trailers`: who asks takes them."""
    lines = iter(head.split(b"\r\n"))
    parts = [_starts[next(lines)], _SCHEMES[scheme], b""]
    remembered = _fields
    for line in lines:
        if line[4:5] == b":" and line[:4].lower() == b"host":
            parts[2] = encode_field(b":authority", line[5:].strip(b" \t"))
        elif line.startswith(_ALWAYS_NEW):
            parts.append(encode_line(line))
        else:
            parts.append(remembered[line])
    if trailers:
        parts.append(_TE)
    return b"".join(parts)


def socket_block(head: bytes, scheme: bytes) -> bytes:
    """The header block that opens a WebSocket (RFC 8441 §4), for the head by which HTTP/1.1 does. The key stays here,
    for nobody would answer it (§5)."""
    line, *lines = head.split(b"\r\n")
    parts = [_CONNECT, encode_field(b":path", line.split(b" ")[1]), _SCHEMES[scheme], b""]
    for line in lines:
        if line[:5].lower() == b"host:":
            parts[3] = encode_field(b":authority", line[5:].strip(b" \t"))
        elif line[: len(_KEY)].lower() != _KEY:
            parts.append(_field(line))
    return b"".join(parts)


def answer_head(entries: list[Entry]) -> AskedHead:
    """The head of an answer. Raises StreamFault where RFC 9113 §8.3.2 calls it malformed."""
    status = b""
    length = -1
    lines: list[bytes] = [b""]
    for line, kind, name in entries:
        if kind == STATUS:
            if status or len(lines) > 1:
                raise StreamFault(PROTOCOL_ERROR, ":status is repeated, or stands after fields")
            status = line[len(name) + 2 :]
        elif kind >= BAD or 0 < kind <= PATH:
            raise StreamFault(PROTOCOL_ERROR, "a field that no answer has")
        else:
            if kind == LENGTH:
                value = line[len(name) + 2 :]
                if length >= 0 or not _NUMBER(value):
                    raise StreamFault(PROTOCOL_ERROR, "content-length is repeated or no number")
                length = int(value)
            lines.append(line)
    if not _STATUS(status) or status == b"101":  # RFC 9113 §8.6
        raise StreamFault(PROTOCOL_ERROR, "no status that HTTP/2 has")
    # HTTP/2 has no reason phrases; some clients of HTTP/1.1 (h2load) take none for no answer.
    lines[0] = b"HTTP/1.1 " + status + b" " + PHRASES.get(int(status), b"")
    return AskedHead(int(status), b"\r\n".join(lines), length)
