"""Where the frames of a WebSocket begin and end, by their heads alone (RFC 6455 §5.2).

Followed so that a frame of our own can be put between two of the server's. What the frames carry is nobody's business
here; bytes that are no frames of a server are noticed at the first head, and then there is nothing to put in between.
"""

from __future__ import annotations

from typing import Final

GOING_AWAY: Final = b"\x88\x02\x03\xe9"  # §5.5.1, §7.4.1: a close frame with 1001, "such as a server going down"

_OPCODES: Final = frozenset({0, 1, 2, 8, 9, 10})
_CLOSE: Final = 8
_LONGEST_HEAD: Final = 10  # bytes; a server does not mask


class Frames:
    """One direction, from the server to the client."""

    __slots__ = ("_head", "_left", "closed", "strange")

    def __init__(self) -> None:
        self._head = b""  # of a frame, as far as it has come
        self._left = 0  # bytes of the frame's payload that are still to come
        self.closed = False  # the server has sent its own close frame
        self.strange = False  # these are no frames

    @property
    def between(self) -> bool:
        """Whether the last frame is complete and no other has begun."""
        return not self._left and not self._head and not self.strange

    def follow(self, data: bytes | memoryview, to_border: bool = False) -> int:
        """Go along these bytes, all of them, or only to the first border between two frames; how many that were."""
        at, size = 0, len(data)
        while at < size and not self.strange:
            if to_border and self.between:
                return at
            if self._left:
                step = min(self._left, size - at)
                self._left -= step
                at += step
            else:
                at += self._begin(data[at : at + _LONGEST_HEAD - len(self._head)])
        return size if self.strange else at

    def _begin(self, data: bytes | memoryview) -> int:
        """Take bytes of a head; how many of these belonged to it."""
        known = len(self._head)
        head = self._head + bytes(data)
        if head[0] & 0x30 or head[0] & 0x0F not in _OPCODES or (len(head) > 1 and head[1] & 0x80):
            self.strange = True  # RSV1 is an extension's (compression); the client masks, the server does not
            return len(data)
        length = head[1] & 0x7F if len(head) > 1 else 0
        size = 2 if length < 126 else 4 if length == 126 else 10
        if len(head) < size:
            self._head = head
            return len(data)
        self._head = b""
        self._left = length if length < 126 else int.from_bytes(head[2:size], "big")
        if head[0] & 0x0F == _CLOSE:
            self.closed = True
        return size - known
