"""What a server says about a request, whatever its protocol: interim answers, the head, content, the end.

HTTP/1.1 and HTTP/2 to servers meet here, as HTTP/1.1 and HTTP/2 of clients meet in the exchange that reads these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import attrs

from gateway.errors import PeerError

MAX_INTERIM: Final = 16  # 1xx answers before the final one; more is no HTTP


@attrs.frozen
class Interim:
    """A 1xx answer; `lines` begin with its status line."""

    lines: list[bytes]


@attrs.frozen
class Head:
    """The final answer's head. `length` is -1 where none is given; `bodiless`: no content follows, whatever it says;
    `ends`: nothing at all does."""

    status: int
    lines: list[bytes]
    length: int
    dated: bool
    bodiless: bool
    ends: bool


@attrs.frozen
class Content:
    """A piece of the answer's body, without its framing."""

    data: bytes


@attrs.frozen
class End:
    """The answer is complete, with these trailer lines."""

    trailers: list[bytes]


@attrs.frozen
class Switch:
    """101: from here on the bytes are the two ends' own; `data` came already. `end` is the server's, as a tunnel takes
    it; `moved` is to be told the bytes that went up and down."""

    lines: list[bytes]
    data: bytes
    end: Any
    moved: Callable[[int, int], None]


Message: TypeAlias = Interim | Head | Content | End | Switch


class Lost(PeerError):
    """The connection or stream to the server ended before the answer did. `unprocessed`: the server has said that it
    did nothing with the request (RFC 9113 §8.7), so whoever sends it again does not do it twice."""

    __slots__ = ("unprocessed",)

    def __init__(self, detail: str, *, unprocessed: bool = False) -> None:
        super().__init__("answer_cut", detail)
        self.unprocessed = unprocessed
