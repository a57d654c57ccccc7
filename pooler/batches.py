"""The batches by which drivers send one statement: Parse, Bind, Describe, Execute, Sync, all of them without names; and
the same without the Parse, where the statement has been prepared and has a name.

Nearly all extended messages come in batches like these, with a Parse that came before. Such a batch is known at one
look, where its messages one by one take four times as long.
"""

from __future__ import annotations

from pooler.messages import HEAD, HEAD_SIZE

MAX_KNOWN = 4096  # Parse messages; then all are forgotten
MAX_KNOWN_SIZE = 1024  # bytes of one

_PARSE, _BIND = b"PB"
_EXECUTE = b"E\0\0\0\x09\0\0\0\0\0" + b"S\0\0\0\x04"  # the portal without a name, all of its rows
_END = b"D\0\0\0\x06P\0" + _EXECUTE
_ENDS = frozenset((_END, _EXECUTE))
_NAMES = b"\0\0"  # of the portal and the statement

_unpack = HEAD.unpack_from
_known: set[bytes] = set()


def remember(parse: bytes) -> None:
    """A whole Parse without a name whose statement can't matter to the session (see `glance`)."""
    if len(parse) <= MAX_KNOWN_SIZE:
        if len(_known) >= MAX_KNOWN:
            _known.clear()
        _known.add(parse)


def usual(data: bytes) -> bool:
    """Whether this is one such batch, whole, with a Parse that is remembered."""
    if not data.endswith(_END):
        return False
    kind, length = _unpack(data)
    bind = length + 1
    if kind != _PARSE or bind + HEAD_SIZE > len(data):
        return False
    kind, length = _unpack(data, bind)
    return (
        kind == _BIND
        and bind + length + 1 + len(_END) == len(data)
        and data[bind + HEAD_SIZE : bind + HEAD_SIZE + 2] == _NAMES
        and data[:bind] in _known
    )


def executed(data: bytes) -> bytes:
    """The name of the prepared statement that this batch, whole, executes; b"" if it is no such batch. `data` has a
    header at least."""
    kind, length = _unpack(data)
    if kind != _BIND or data[length + 1 :] not in _ENDS or data[HEAD_SIZE]:
        return b""
    return data[HEAD_SIZE + 1 : data.find(b"\0", HEAD_SIZE + 1)]
