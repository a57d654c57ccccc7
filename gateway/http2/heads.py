"""A request's head, from decoded fields to what HTTP/1.1 would have said (RFC 9113 §8.2, §8.3).

Whatever HTTP/2 itself forbids is a StreamFault here. What HTTP/1.1 forbids too (a malformed Host, a repeated
Authorization) is left to the guard, which reads the lines that come out of here, so that it is judged once for both.
A head that is only too large has `refusal` set: its client gets an answer that says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, TypeAlias

from gateway.fields import MAX_LENGTH_DIGITS
from gateway.guard import MAX_FIELDS, MAX_HEAD, MAX_METHOD, Guard, Judged
from gateway.http2.errors import PROTOCOL_ERROR, StreamFault
from gateway.http2.fields import (
    AUTHORITY,
    BAD,
    COOKIE,
    HOST,
    METHOD,
    ORDINARY,
    OVERHEAD,
    PATH,
    PROTOCOL,
    SCHEME,
    STATUS,
    Entry,
)

if TYPE_CHECKING:
    from gateway.plan import ListenerPlan

MAX_KNOWN: Final = 64  # heads remembered on a connection
MAX_KNOWN_HEAD: Final = 4096  # bytes

_METHOD = re.compile(rb"[!#$%%&'*+\-.^_`|~0-9A-Za-z]{1,%d}" % MAX_METHOD).fullmatch
_TARGET_BYTES: Final = bytes(range(0x21, 0x7F))
_PATH_AT: Final = len(b":path: ")
_NUMBER = re.compile(rb"[0-9]{1,%d}" % MAX_LENGTH_DIGITS).fullmatch


# What unconditional routes of one plan make of a head: the plan, as the listener has it, the Host, and all from the end
# of the request line to where the request's own names stand.
Outline: TypeAlias = "tuple[ListenerPlan, bytes | None, bytes]"


class Head:
    """What requests that differ in their path alone have in common, and what the guard says of it.

    `length` is -1 where none is given, `size` in bytes as SETTINGS_MAX_HEADER_LIST_SIZE counts them, beyond those of
    the request line, `refusal` a reason code, or "" if nothing is wrong. `outline` is kept here by who forwards it.
    """

    __slots__ = ("_guard", "_judged", "length", "lines", "outline", "refusal", "size")

    def __init__(self, lines: list[bytes], length: int = -1, size: int = 0, refusal: str = "") -> None:
        self.lines = lines
        self.length = length
        self.size = size
        self.refusal = refusal
        self.outline: Outline | None = None
        self._guard: Guard | None = None
        self._judged: Judged | None = None

    def judge(self, guard: Guard, line: bytes) -> Judged:
        """The same as `guard.judge_lines` for the request line `line`, once for all. Raises PeerError."""
        judged = self._judged
        if judged is None or guard is not self._guard:
            self._judged = judged = guard.judge_lines([line, *self.lines])
            self._guard = guard
        _, out, flags, length, host, bearer, extras = judged
        out = out.copy()
        out[0] = line
        return line, out, flags, length, host, bearer, extras


def request_head(entries: list[Entry]) -> tuple[bytes, Head]:
    """A request, its line as HTTP/1.1 has it. Raises StreamFault where RFC 9113 calls it malformed."""
    method = scheme = authority = path = host = protocol = None
    length = -1
    cookies: list[bytes] | None = None
    size = 0
    lines: list[bytes] = []
    ordinary = lines.append
    began = False  # with the fields: no pseudo-header may follow (§8.3)
    for line, kind, name in entries:
        size += len(line) + OVERHEAD
        if not kind:
            began = True
            ordinary(line)
            continue
        value = line[len(name) + 2 :]
        if kind >= BAD:
            if kind != PROTOCOL or began or protocol is not None:
                raise StreamFault(PROTOCOL_ERROR, "a field that no request has")
            protocol = value
            continue
        if kind <= PATH:
            if began:
                raise StreamFault(PROTOCOL_ERROR, "a pseudo-header after fields")
            if kind == METHOD and method is None:
                method = value
            elif kind == PATH and path is None:
                path = value
            elif kind == AUTHORITY and authority is None:
                authority = value
            elif kind == SCHEME and scheme is None:
                scheme = value
            else:
                raise StreamFault(PROTOCOL_ERROR, "a pseudo-header is repeated")
            continue
        began = True
        if kind == COOKIE:
            cookies = [*(cookies or ()), value] if size <= MAX_HEAD else cookies
        elif kind == HOST:
            if host is not None:
                raise StreamFault(PROTOCOL_ERROR, "host is repeated")
            host = value
        else:
            # The length is the frames' to keep (§8.1.1), so it has to be one, and a number.
            if length >= 0 or not _NUMBER(value):
                raise StreamFault(PROTOCOL_ERROR, "content-length is repeated or no number")
            length = int(value)
            ordinary(b"content-length: %d" % length)
    if method is None or not _METHOD(method):
        raise StreamFault(PROTOCOL_ERROR, "no method")
    if protocol is not None:
        # RFC 8441 §4: from here on it is the Upgrade that HTTP/1.1 has for it.
        if method != b"CONNECT" or not authority:
            raise StreamFault(PROTOCOL_ERROR, ":protocol belongs to CONNECT, and to an authority")
        if not path or path[0] != 0x2F or scheme not in (b"https", b"http"):
            raise StreamFault(PROTOCOL_ERROR, "no scheme, or no path that begins with a slash")
        method = b"GET"
        lines += (b"connection: upgrade", b"upgrade: " + protocol)
    elif method == b"CONNECT":
        # §8.5; it is refused later, for what it is.
        if path is not None or scheme is not None or not authority:
            raise StreamFault(PROTOCOL_ERROR, "CONNECT has an authority and nothing else")
        path = authority
    elif not path or scheme is None or (path[0] != 0x2F and (path != b"*" or method != b"OPTIONS")):
        raise StreamFault(PROTOCOL_ERROR, "no scheme, or no path that begins with a slash")
    elif scheme != b"https" and scheme != b"http":
        raise StreamFault(PROTOCOL_ERROR, "a scheme that is not HTTP's")
    if path.translate(None, _TARGET_BYTES):
        raise StreamFault(PROTOCOL_ERROR, "the path is not visible ASCII")
    if authority is None:
        authority = host
    elif host is not None and host.lower() != authority.lower():
        # §8.3.1: whoever routes by one of two would be told another than whoever answers by the other.
        raise StreamFault(PROTOCOL_ERROR, "host and :authority differ")
    if authority is not None:
        lines.insert(0, b"Host: " + authority)
    if cookies is not None:
        ordinary(b"cookie: " + b"; ".join(cookies))  # §8.2.3
    # Of the pseudo-headers only :authority is a field in HTTP/1.1.
    refusal = "too_many_fields" if len(entries) > MAX_FIELDS + 3 else "head_too_large" if size > MAX_HEAD else ""
    if protocol is not None and protocol.lower() != b"websocket":
        refusal = "upgrade_unknown"
    line = method + b" " + path + b" HTTP/1.1"
    return line, Head(lines, length, size - len(line), refusal)


class HeadReader:
    """Reads the heads of one connection. Entries come from the decoder's tables, so the same fields are the same
    objects, and a head of which all but the path was met before is known by their identities."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        # The entries are held, so that nothing else gets their identities. With each, the method and a blank.
        self._known: dict[tuple[int, ...], tuple[list[Entry], bytes, Head]] = {}

    def read(self, entries: list[Entry]) -> tuple[bytes, Head]:
        """As `request_head`."""
        at = 0
        for one in entries:
            if one[1] == PATH:
                break
            at += 1
        else:
            return request_head(entries)
        rest = entries.copy()
        path = rest.pop(at)[0][_PATH_AT:]
        key = (at, *map(id, rest))
        known = self._known.get(key)
        if known is None:
            line, head = request_head(entries)
            if path.startswith(b"/") and not head.refusal and head.size + len(line) <= MAX_KNOWN_HEAD:
                if len(self._known) >= MAX_KNOWN:
                    self._known.clear()
                self._known[key] = rest, line.partition(b" ")[0] + b" ", head
            return line, head
        _, method, head = known
        line = method + path + b" HTTP/1.1"
        if not is_path(path) or head.size + len(line) > MAX_HEAD:
            return request_head(entries)
        return line, head


def is_path(path: bytes) -> bool:
    """Whether a request may have this path, whatever else it says."""
    return path.startswith(b"/") and not path.translate(None, _TARGET_BYTES)


def trailer_lines(entries: Iterable[Entry]) -> list[bytes]:
    """The lines of a trailer section (§8.1). Raises StreamFault."""
    lines = []
    for line, kind, _ in entries:
        if kind in (METHOD, SCHEME, AUTHORITY, PATH, BAD, STATUS, PROTOCOL):
            raise StreamFault(PROTOCOL_ERROR, "a pseudo-header or forbidden field in the trailers")
        if kind == ORDINARY:
            lines.append(line)
    return lines
