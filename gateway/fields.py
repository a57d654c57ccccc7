"""One header line of a request: judged, named and made ready to leave for a backend.

`FieldParser` turns the bytes of a line into a `Field`: its kind (an int to dispatch by), the bytes to forward, rebuilt
from name and value, and what the kind needs beside them. It knows names; it does not know how fields of one head agree
with each other (that is the guard) nor whom the connection comes from. Syntax is RFC 9110 §5 without its leniencies:
what a neighbour might read differently is refused.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Final, TypeAlias

from gateway.errors import PeerError
from gateway.memo import PLAIN, VALUE_BYTES, Line

Field: TypeAlias = Line  # (kind, forward, detail)

ORDINARY: Final = PLAIN  # detail: None
HOST: Final = 1  # detail: the value
LENGTH: Final = 2  # detail: the number
CODING: Final = 3  # detail: None; the only coding that gets this far is chunked
CONNECTION: Final = 4  # detail: (flags, names of the fields it takes with it)
UPGRADE: Final = 5  # detail: the protocol in lower case
EXPECT: Final = 6  # detail: None; always 100-continue
AUTHORIZATION: Final = 7  # detail: Bearer
FORWARDED: Final = 8  # detail: (name, value); believed from trusted peers alone
DROPPED: Final = 9  # detail: None
WANTED: Final = 10  # detail: (name, value); forwarded, and a route or a limit looks at it
TE: Final = 11  # detail: whether the client takes trailers

# Flags of a head; the guard adds its own to those of Connection.
CLOSE: Final = 1
KEEP_ALIVE: Final = 2
NAMED: Final = 4  # Connection names other fields
WANTS_UPGRADE: Final = 8
WEBSOCKET: Final = 16
CHUNKED: Final = 32
CONTINUE: Final = 64
OLD: Final = 128  # HTTP/1.0
FROM_PROXY: Final = 256  # fields of kind FORWARDED are there
LOOK: Final = 512  # fields of kind WANTED are there
TRAILERS: Final = 1024  # it takes trailers

MAX_LENGTH_DIGITS: Final = 15  # a petabyte; h11 takes 20, many servers overflow at 19
MAX_NAME: Final = 256  # bytes; names in use have under 50
MAX_NAMES: Final = 1024  # remembered names

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_NAME = re.compile(_TOKEN).fullmatch
# RFC 9110 §5.5: visible ASCII, obs-text, and inner blanks. Control characters, legal to h11, are refused.
_HOST = re.compile(rb"(?:[A-Za-z0-9._\-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?").fullmatch
_DIGITS = re.compile(rb"[0-9]+").fullmatch
_CANONICAL: Final = bytes.maketrans(b"_.", b"--")

# RFC 9110 §7.6.1 and what clients add to it: they speak about this hop alone. Not so Trailer, since trailers pass.
HOP_BY_HOP: Final = frozenset({
    b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization", b"http2-settings",
})  # fmt: skip
# What a proxy in front may say about the client. Everything else that begins with x-forwarded- goes with them.
FROM_PROXIES: Final = frozenset({
    b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"forwarded", b"x-request-id", b"traceparent",
    b"tracestate", b"x-real-ip",
})  # fmt: skip
SPECIAL: Final = {
    b"host": HOST, b"content-length": LENGTH, b"transfer-encoding": CODING, b"connection": CONNECTION,
    b"upgrade": UPGRADE, b"expect": EXPECT, b"authorization": AUTHORIZATION, b"te": TE,
}  # fmt: skip
ALWAYS_IDENTITY: Final = frozenset({b"x-user-id"})  # behind the gateway it means verified, whatever the routes say


class Bearer:
    """An Authorization field: the digest under which a verified token is remembered, and the token itself.

    `token` is None where the scheme is not Bearer (RFC 6750 §2.1).
    """

    __slots__ = ("digest", "forward", "token")

    def __init__(self, value: bytes, forward: bytes) -> None:
        scheme, _, token = value.partition(b" ")
        self.token = token.strip(b" ") if scheme.lower() == b"bearer" else None
        self.digest = hashlib.blake2b(self.token or b"", digest_size=16).digest()
        self.forward = forward


def canonical(name: bytes) -> bytes:
    """The one spelling that backends may take a name for: CGI and its heirs know no difference between - and _."""
    return name.lower().translate(_CANONICAL)


def is_field_name(text: str) -> bool:
    """Whether a header can have this name (RFC 9110 §5.1)."""
    return len(text) <= MAX_NAME and text.isascii() and _NAME(text.encode()) is not None


def is_reserved(plain: bytes) -> bool:
    """Whether the gateway itself reads or writes the field; `plain` is canonical."""
    return plain in SPECIAL or plain in HOP_BY_HOP or plain in FROM_PROXIES or plain.startswith(b"x-forwarded-")


def split_line(line: bytes) -> tuple[bytes, bytes]:
    """Name and value of a header line; PeerError where the syntax has a second reading."""
    name, colon, value = line.partition(b":")
    if not colon or len(name) > MAX_NAME or not _NAME(name):
        if line[:1] in (b" ", b"\t"):
            # RFC 9112 §5.2: folded lines are obsolete, and two parsers unfold them differently.
            raise PeerError("bad_field", "folded header line")
        raise PeerError("bad_field", "a header line has no valid name before its colon")
    value = value.strip(b" \t")
    if value.translate(None, VALUE_BYTES):
        raise PeerError("bad_field", "a header value contains control characters")
    return name, value


def list_of(value: bytes) -> list[bytes]:
    """The members of a comma-separated list in lower case, empty ones left out (RFC 9110 §5.6.1)."""
    return [member for member in (part.strip(b" \t").lower() for part in value.split(b",")) if member]


class FieldParser:
    """Parses lines for one configuration: which names carry an identity, which ones routes and limits want to see."""

    __slots__ = ("identity", "kinds", "wanted")

    def __init__(self, identity: Iterable[bytes] = (), wanted: Iterable[bytes] = ()) -> None:
        self.identity = ALWAYS_IDENTITY | {canonical(name) for name in identity}
        self.wanted = frozenset(name.lower() for name in wanted)
        # Names that were judged once, as they were spelled: a line that is new most often differs in its value alone.
        self.kinds: dict[bytes, int] = {}

    def __call__(self, line: bytes) -> Field:
        """The field on this line (without its CRLF); PeerError if it is none."""
        name, colon, value = line.partition(b":")
        kind = self.kinds.get(name)
        if kind is None or not colon:
            kind = self._kind(line)
        value = value.strip(b" \t")
        if value.translate(None, VALUE_BYTES):
            raise PeerError("bad_field", "a header value contains control characters")
        forward = name + b": " + value
        if kind in (ORDINARY, DROPPED):
            return kind, forward, None
        if kind in (FORWARDED, WANTED):
            return kind, forward, (name.lower(), value)
        return _special(name.lower(), value, forward)

    def _kind(self, line: bytes) -> int:
        name, _ = split_line(line)
        kind = self._kind_of(name.lower())
        if len(self.kinds) >= MAX_NAMES:
            self.kinds.clear()
        self.kinds[name] = kind
        return kind

    def _kind_of(self, name: bytes) -> int:
        plain = canonical(name)
        if plain in self.identity or plain in HOP_BY_HOP:
            return DROPPED
        if plain in FROM_PROXIES or plain.startswith(b"x-forwarded-"):
            # Spelled otherwise, nobody in front of us wrote it.
            return FORWARDED if plain == name else DROPPED
        if plain in SPECIAL:
            # Content_Length is not Content-Length to us, but may be to the server behind us.
            return SPECIAL[plain] if plain == name else DROPPED
        return WANTED if name in self.wanted else ORDINARY


def _special(name: bytes, value: bytes, forward: bytes) -> Field:
    if name == b"host":
        if not _HOST(value):
            raise PeerError("bad_host", "Host is not a name or an address with an optional port")
        return HOST, forward, value
    if name == b"content-length":
        # RFC 9112 §6.3: a list of equal lengths may be taken as one; whoever takes the other choice is smuggled to.
        if not _DIGITS(value):
            raise PeerError("bad_length", "Content-Length is not a number")
        if len(value) > MAX_LENGTH_DIGITS:
            raise PeerError("bad_length", "Content-Length is out of range")
        return LENGTH, b"Content-Length: %d" % int(value), int(value)
    if name == b"transfer-encoding":
        if value.lower() != b"chunked":
            raise PeerError("coding_unknown", "the only transfer coding known here is chunked")
        return CODING, forward, None
    if name == b"connection":
        return CONNECTION, forward, _connection(value)
    if name == b"upgrade":
        return UPGRADE, forward, value.lower()
    if name == b"te":
        return TE, forward, b"trailers" in list_of(value)
    if name == b"expect":
        if value.lower() != b"100-continue":
            raise PeerError("expectation_unknown", "the only expectation known here is 100-continue")
        return EXPECT, forward, None
    return AUTHORIZATION, forward, Bearer(value, forward)


def _connection(value: bytes) -> tuple[int, frozenset[bytes]]:
    """Flags, and the names of ordinary fields that must not go further (RFC 9110 §7.6.1)."""
    flags = 0
    names = set()
    for option in list_of(value):
        if not _NAME(option):
            raise PeerError("bad_field", "Connection is not a list of names")
        if option == b"close":
            flags |= CLOSE
        elif option == b"keep-alive":
            flags |= KEEP_ALIVE
        elif option == b"upgrade":
            flags |= WANTS_UPGRADE
        elif option != b"te" and option not in HOP_BY_HOP:
            names.add(option)
            flags |= NAMED
    return flags, frozenset(names)
