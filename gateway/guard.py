"""The guard: judges the head of every request before anything else sees it, and reads it in the same pass.

RFC 9112 leaves a receiver choices; request smuggling is two receivers that choose differently. The guard takes the
strict side of each: a repeated or malformed length, a length beside Transfer-Encoding, bare CR or LF, folded lines,
blanks before a colon, Transfer-Encoding on HTTP/1.0, control characters, a missing or repeated Host are all an error
that closes the connection. The law: whatever passes here, h11 accepts with the same meaning.

`find_end` looks for the end of the head, `Guard.judge` reads the fields, `parse_request_line` the line above them (the
caller remembers its outcome with the route it leads to), `Guard.read` does all three.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import filterfalse
from typing import Final, NamedTuple, TypeAlias

from gateway.errors import PeerError
from gateway.fields import (
    AUTHORIZATION,
    CHUNKED,
    CODING,
    CONNECTION,
    CONTINUE,
    EXPECT,
    FORWARDED,
    FROM_PROXY,
    HOST,
    LENGTH,
    LOOK,
    NAMED,
    OLD,
    TE,
    TRAILERS,
    UPGRADE,
    WANTED,
    WANTS_UPGRADE,
    WEBSOCKET,
    Bearer,
    Field,
    FieldParser,
)
from gateway.memo import VALUE_BYTES, LineMemo

KIB: Final = 1024
MAX_HEAD: Final = 32 * KIB  # bytes without the empty line; nginx 4 × 8 KiB, Envoy 60 KiB
MAX_FIELDS: Final = 100  # Envoy and HAProxy have about the same
MAX_TARGET: Final = 8 * KIB  # bytes; RFC 9112 §3 asks for 8,000 octets at least
MAX_METHOD: Final = 24  # bytes; the longest registered method has 17

_END: Final = b"\r\n\r\n"
_METHOD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,24}").fullmatch
_TARGET_BYTES: Final = bytes(range(0x21, 0x7F))
_VERSION = re.compile(rb"HTTP/[0-9]\.[0-9]").fullmatch
_RARE: Final = CHUNKED | TRAILERS
# RFC 9110 §10.1.4: we pass trailers on, so we may say so for the client; it is said of this hop alone.
_TAKES_TRAILERS: Final = (b"TE: trailers", b"Connection: TE")
_BARE = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)").search

# line, lines for the backend (the first, as it came, is the caller's to replace), flags, body length (-1: none given),
# Host, Authorization, and the fields that need a second look (None if no flag asks for one).
Judged: TypeAlias = tuple[bytes, list[bytes], int, int, bytes | None, Bearer | None, list[Field] | None]

CONNECT: Final = "CONNECT"


class RequestLine(NamedTuple):
    """RFC 9112 §3; `old` is HTTP/1.0."""

    method: str
    target: bytes
    old: bool


def find_end(data: bytes, start: int = 0) -> int:
    """Where the head ends (the index of its last CRLF's start), or -1 if it is not complete yet.

    Raises PeerError as soon as no continuation could make it a valid head; else a client that ends its lines with a
    bare LF would wait for an answer until the head's deadline. What stands before `start` was looked at already.
    """
    end = data.find(_END, max(0, start - 3))
    if end >= 0:
        return end
    line_end = data.find(b"\r\n")
    # A head of the largest legal size has its last CRLF within MAX_HEAD + 4 bytes.
    if line_end < 0 and len(data) > MAX_TARGET + MAX_METHOD + 16:
        if b" /" not in data[: MAX_METHOD + 2]:
            raise PeerError("bad_request_line", "no request line in the first 8 KiB")
        raise PeerError("target_too_long", f"the request target exceeds {MAX_TARGET} bytes")
    if len(data) > MAX_HEAD + len(_END):
        raise PeerError("head_too_large", f"the request head exceeds {MAX_HEAD} bytes")
    bare = _BARE(data, max(0, start - 1))
    if bare is not None:
        where = "bad_field" if 0 <= line_end < bare.start() else "bad_request_line"
        raise PeerError(where, "a line ends with a bare LF or contains a bare CR")
    if line_end >= 0:
        if line_end + 2 > start:
            parse_request_line(data[:line_end])
    elif data[:MAX_METHOD].translate(None, _TARGET_BYTES + b" \r"):
        raise PeerError("bad_request_line", "this is not HTTP")
    return -1


def parse_request_line(line: bytes) -> RequestLine:
    """Method, target and version of a request line without its CRLF; PeerError if it is none that we serve."""
    parts = line.split(b" ")
    if len(parts) != 3:
        raise PeerError("bad_request_line", "a request line is method, target and version with one space between them")
    method, target, version = parts
    if not _VERSION(version):
        raise PeerError("bad_request_line", "no HTTP version at the end of the request line")
    if not _METHOD(method):
        raise PeerError("bad_request_line", "the method is not a token")
    if len(target) > MAX_TARGET:
        raise PeerError("target_too_long", f"the request target exceeds {MAX_TARGET} bytes")
    if not target or target.translate(None, _TARGET_BYTES):
        raise PeerError("bad_request_line", "the target is not visible ASCII")
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise PeerError("bad_version", "this listener speaks HTTP/1.1 and HTTP/1.0")
    return RequestLine(method.decode("ascii"), target, version == b"HTTP/1.0")


class Guard:
    """Judges heads for one configuration. `fields` remembers lines for every connection of a worker."""

    __slots__ = ("_as_is", "_lookup", "_recall", "fields", "parser")

    def __init__(self, identity: Iterable[bytes] = (), wanted: Iterable[bytes] = ()) -> None:
        self.parser = FieldParser(identity, wanted)
        self.fields: LineMemo = LineMemo(self.parser)
        self._lookup = self.fields.__getitem__
        self._recall = self.fields.get
        self._as_is = self.fields.as_is.__contains__

    def judge(self, data: bytes, end: int) -> Judged:
        """The fields of the head `data[:end]`, or PeerError. The request line is only checked for its version."""
        if end > MAX_HEAD:
            raise PeerError("head_too_large", f"the request head exceeds {MAX_HEAD} bytes")
        return self.judge_lines(data[:end].split(b"\r\n"))

    def judge_lines(self, out: list[bytes]) -> Judged:
        """The same for a head whose lines are apart. The list becomes that of the lines for the backend."""
        if len(out) > MAX_FIELDS + 1:
            raise PeerError("too_many_fields", f"the request has more than {MAX_FIELDS} header fields")
        line = out[0]
        flags = 0 if line.endswith(b" HTTP/1.1") else _old_version(line)
        length = -1
        host = bearer = extras = None
        gone: list[bytes] = []
        recall, crowded = self._recall, self.fields.crowded
        rest = filterfalse(self._as_is, out)  # most lines of most heads go on as they came, and need no look here
        next(rest)  # the request line, which no field is equal to
        for raw in rest:
            field = recall(raw)
            if field is None:
                # What the parser would say of it, without the call: a plain line that is its own outcome.
                name, colon, value = raw.partition(b": ")
                if name in crowded and (
                    value.isalnum()  # the cheapest proof, good for most numbers and ids
                    or (colon and value.strip(b" \t") == value and not value.translate(None, VALUE_BYTES))
                ):
                    continue
                field = self._lookup(raw)
            kind, forward, detail = field
            if not kind:
                pass
            elif kind == HOST:
                if host is not None:
                    raise PeerError("bad_host", "Host is repeated")
                host = detail
            elif kind == AUTHORIZATION:
                if bearer is not None:
                    raise PeerError("bad_authorization", "Authorization is repeated")
                bearer = detail
                gone.append(raw)
                continue
            elif kind == LENGTH:
                # RFC 9112 §6.3: repeated equal lengths may be taken as one; whoever doesn't is smuggled to.
                if length >= 0:
                    raise PeerError("bad_length", "Content-Length is repeated")
                length = detail
            elif kind == WANTED:
                flags |= LOOK
                extras = [*(extras or ()), field]
            else:
                gone.append(raw)
                if kind == CONNECTION:
                    flags |= detail[0]
                    if detail[0] & NAMED:
                        extras = [*(extras or ()), field]
                elif kind == CODING:
                    if flags & CHUNKED:
                        raise PeerError("bad_coding", "Transfer-Encoding is repeated")
                    flags |= CHUNKED
                elif kind == FORWARDED:
                    flags |= FROM_PROXY
                    extras = [*(extras or ()), field]
                elif kind == EXPECT:
                    flags |= CONTINUE
                elif kind == TE:
                    flags |= TRAILERS if detail else 0
                elif kind == UPGRADE and detail == b"websocket":
                    # Other protocols are not offered, and an Upgrade that is not taken is ignored (RFC 9110 §7.8):
                    # passing h2c on would open a channel behind the guard's back.
                    flags |= WEBSOCKET
                continue
            if forward != raw:
                out[out.index(raw)] = forward
        for raw in gone:
            out.remove(raw)
        if flags & OLD:
            if flags & CHUNKED:
                # RFC 9112 §6.1: HTTP/1.0 has no chunks, so somebody on the way read this body differently.
                raise PeerError("bad_coding", "Transfer-Encoding on HTTP/1.0")
            flags &= ~(CONTINUE | WANTS_UPGRADE | TRAILERS)
        elif host is None:
            raise PeerError("bad_host", "Host is missing")
        if flags & _RARE:
            if flags & CHUNKED and length >= 0:
                # RFC 9112 §6.3: a length beside Transfer-Encoding is how requests are smuggled, so 400.
                raise PeerError("bad_length", "Content-Length beside Transfer-Encoding")
            if flags & TRAILERS:
                out += _TAKES_TRAILERS
        return line, out, flags, length, host, bearer, extras

    def read(self, data: bytes) -> tuple[RequestLine, Judged, int] | None:
        """The whole head at the start of `data` and its size, or None if it is not complete; PeerError as above."""
        end = find_end(data)
        if end < 0:
            return None
        judged = self.judge(data, end)
        return parse_request_line(judged[0]), judged, end + len(_END)


def _old_version(line: bytes) -> int:
    if line.endswith(b" HTTP/1.0"):
        return OLD
    parse_request_line(line)
    raise PeerError("bad_version", "this listener speaks HTTP/1.1 and HTTP/1.0")


def without_named(out: list[bytes], extras: list[Field]) -> list[bytes]:
    """The lines of `out` less those that Connection named. Host and the framing are not its to take away."""
    named: set[bytes] = set()
    for kind, _, detail in extras:
        if kind == CONNECTION:
            named |= detail[1]
    named -= {b"host", b"content-length"}
    return [out[0], *(line for line in out[1:] if line.partition(b":")[0].lower() not in named)]
