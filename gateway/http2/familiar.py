"""Header blocks of one connection that were met before.

While the decoder's table stays as it is, the same bytes are the same request. Most clients (nghttp2, browsers) write
the path as a literal that is not put into the table, and refer to all else: so a block is remembered without that
literal, and serves for every path. Request lines are remembered by the literal's bytes, for all connections.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from gateway.guard import MAX_HEAD
from gateway.http2.blocks import Memo, read_string
from gateway.http2.heads import Head, is_path
from gateway.http2.settings import KIB

MAX_FAMILIAR: Final = 64  # blocks of each kind remembered on a connection
MAX_BLOCK: Final = KIB  # bytes of such a block; with cookies most have a few hundred

_PATHS: Final = (0x04, 0x05)  # RFC 7541 §6.2.2: a literal without indexing, its name that of these static entries
_LONG: Final = 0x7F  # §5.1: the string's length needs more than its first byte
_LINE: Final = 256  # bytes, no request line of such a path is longer: 126 bytes of Huffman code are 201 characters
_METHODS: Final = (b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS")


def _line(method: bytes, literal: bytes) -> bytes:
    """The request line; b"" if no request may have such a path."""
    path, _ = read_string(literal, 0, len(literal))
    return b"%b %b HTTP/1.1" % (method, path) if is_path(path) else b""


_lines: Final = {method: Memo(partial(_line, method)) for method in _METHODS}


class Familiar:
    """What the blocks of a connection were found to be: a request line and what goes with it."""

    __slots__ = ("_alike", "_same")

    def __init__(self) -> None:
        self._same: dict[bytes, tuple[bytes, Head]] = {}
        self._alike: dict[bytes, tuple[Memo, Head]] = {}  # by the block without the path's literal but its first byte

    def find(self, block: bytes) -> tuple[bytes, Head] | None:
        """What the decoder and the reader would say, if it is known. Raises ConnectionFault for a malformed string."""
        at = _path_at(block)
        if at < 0:
            return self._same.get(block)
        end = at + 1 + (block[at] & 0x7F)
        alike = self._alike.get(block[:at] + block[end:])
        if alike is None or end > len(block):
            return None
        lines, head = alike
        line = lines[block[at:end]]
        return (line, head) if line else None

    def keep(self, block: bytes, line: bytes, head: Head) -> None:
        """Remember a block that has changed no table."""
        if len(block) > MAX_BLOCK:
            return
        at = _path_at(block)
        if at < 0:
            if len(self._same) >= MAX_FAMILIAR:
                self._same.clear()
            self._same[block] = line, head
            return
        method, _, rest = line.partition(b" ")
        if method in _lines and rest.startswith(b"/") and not head.refusal and head.size + _LINE <= MAX_HEAD:
            if len(self._alike) >= MAX_FAMILIAR:
                self._alike.clear()
            self._alike[block[:at] + block[at + 1 + (block[at] & 0x7F) :]] = _lines[method], head

    def forget(self) -> None:
        """The table has changed."""
        if self._same or self._alike:
            self._same.clear()
            self._alike.clear()


def _path_at(block: bytes) -> int:
    """Where the string of the path's literal begins, if only references of one byte stand before it; else -1."""
    for at, first in enumerate(block, 1):
        if first < 0x80:
            return at if first in _PATHS and at < len(block) and block[at] & 0x7F != _LONG else -1
        if first == 0xFF:
            break
    return -1
