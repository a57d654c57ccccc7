"""Heads of answers as the express lane of HTTP/2 gives them to clients: known by their bytes, or read.

Within a second answers often differ in nothing above their bodies. A head is remembered when it comes again, so that
heads that always differ fill nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from gateway.answers import MAX_HEADS, AnswerReader
from gateway.fields import CHUNKED, CLOSE, OLD
from gateway.http2.blocks import encode_field, encode_integer

if TYPE_CHECKING:
    from gateway.shared import Shared

NAME_SIZE: Final = 32  # of a request id that is ours
_NAME: Final = encode_field(b"x-request-id", b"")[:-1]
_OURS: Final = _NAME + encode_integer(NAME_SIZE, 7)
_SLOW: Final = CHUNKED | CLOSE | OLD


# What an answer with some head becomes if it is whole: its status, its block up to the request id, which is the last
# field, and the size of its body, below 0 if nothing is said of it.
Reply: TypeAlias = tuple[int, bytes, int]


class Replies(dict[bytes, Reply]):
    """Those of all routes that read answers alike. What is found here is for requests other than HEAD, with request ids
    of ours."""

    __slots__ = ("_reader", "_served_by")

    def __init__(self, reader: AnswerReader, served_by: bytes) -> None:
        super().__init__()
        self._reader = reader
        self._served_by = served_by

    def read(self, head: bytes, shared: Shared, name: bytes, head_request: bool) -> Reply | None:
        """The reply with this head, without its empty line, for a request id like this; None if it is not for the
        express lane. Raises PeerError."""
        again = self._reader.remembers(head)
        status, lines, kind, size, dated = self._reader.recall(head)
        if status < 200 or status == 204 or kind & _SLOW:
            return None
        bodiless = head_request or status == 304
        block = shared.blocks.heads[lines] + tail(shared, self._served_by, name, dated)
        reply = (status, block, 0 if bodiless else size)
        if again and dated and not head_request and len(name) == NAME_SIZE:
            if len(self) >= MAX_HEADS:
                self.clear()
            self[head] = reply
        return reply


def tail(shared: Shared, served_by: bytes, name: bytes, dated: bool) -> bytes:
    """The end of any answer's block, what the gateway itself says, up to the request id."""
    block = _OURS if len(name) == NAME_SIZE else _NAME + encode_integer(len(name), 7)
    if served_by:
        block = shared.blocks.lines[served_by] + block
    return block if dated else shared.blocks.lines[shared.date_line()] + block
