"""One field of an HTTP/2 message: judged when it is decoded, once for as long as it stays in the table.

An entry of the tables is the header line that HTTP/1.1 would have (so that the guard judges both versions by the same
memory), a kind to dispatch by, and the name that other entries may refer to. A field that no request may have is kept
all the same, as BAD: the table must not depend on what we think of its entries.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from hpack.table import HeaderTable

from gateway.fields import MAX_NAME, MAX_NAMES
from gateway.memo import VALUE_BYTES

Entry: TypeAlias = tuple[bytes, int, bytes]  # line, kind, name

ORDINARY: Final = 0
METHOD: Final = 1
SCHEME: Final = 2
AUTHORITY: Final = 3
PATH: Final = 4
COOKIE: Final = 5
HOST: Final = 6
LENGTH: Final = 7
BAD: Final = 8
STATUS: Final = 9  # of an answer; no request has it
PROTOCOL: Final = 10  # RFC 8441 §4

# RFC 7541 §4.1: an entry counts its name, its value and 32 bytes; a line has two bytes between the two.
OVERHEAD: Final = 32 - len(": ")

_KINDS: Final = {
    b":method": METHOD, b":scheme": SCHEME, b":authority": AUTHORITY, b":path": PATH,
    b":status": STATUS, b":protocol": PROTOCOL, b"cookie": COOKIE, b"host": HOST, b"content-length": LENGTH,
    # RFC 9113 §8.2.2: the connection's own fields are not HTTP/2's.
    b"connection": BAD, b"proxy-connection": BAD, b"keep-alive": BAD, b"transfer-encoding": BAD, b"upgrade": BAD,
}  # fmt: skip
# §8.2.1 forbids control characters and capitals; a token is what HTTP/1.1 behind us can carry as a name.
_NAME_BYTES: Final = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
_BLANKS: Final = b" \t"

_kinds: dict[bytes, int] = {}  # of names met before


def entry(name: bytes, value: bytes) -> Entry:
    """The entry for a field, judged."""
    kind = _kinds.get(name)
    if kind is None:
        kind = _judge_name(name)
    line = name + b": " + value
    if value:
        # RFC 9113 §8.2.1: no CR, LF or NUL, and no blanks at either end; other control characters go with them.
        if value.translate(None, VALUE_BYTES) or value[0] in _BLANKS or value[-1] in _BLANKS:
            return line, BAD, name
        if name == b"te" and value != b"trailers":  # §8.2.2
            return line, BAD, name
    return line, kind, name


def _judge_name(name: bytes) -> int:
    kind = _KINDS.get(name)
    if kind is None:
        kind = BAD if not name or len(name) > MAX_NAME or name.translate(None, _NAME_BYTES) else ORDINARY
    if len(name) <= MAX_NAME:
        if len(_kinds) >= MAX_NAMES:
            _kinds.clear()
        _kinds[name] = kind
    return kind


# RFC 7541, appendix A, by index from 1.
STATIC: Final[tuple[Entry, ...]] = (
    (b"", BAD, b""),
    *(entry(name, value) for name, value in HeaderTable.STATIC_TABLE),
)
STATIC_NAMES: Final = {one[2]: at for at, one in reversed(list(enumerate(STATIC)))}
