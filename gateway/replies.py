"""Answers that a route gives by itself: redirects, and fixed responses.

They take the way of refusals, since nothing of the request goes on: raised where everything else about the request is
decided, sent and accounted for where a problem would be.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from gateway.errors import PeerError


class Reply(PeerError):
    """`fields` are whole header lines, `body` goes out as it is."""

    __slots__ = ("body",)

    def __init__(self, code: str, status: int, fields: Sequence[bytes], body: bytes) -> None:
        super().__init__(code, close=False, fields=fields)
        self.status = status
        self.body = body


@attrs.frozen
class FixedReply:
    """What `respond` or `redirect` says; of a redirect each request line has its own Location."""

    code: str  # "responded" or "redirected"
    status: int
    fields: tuple[bytes, ...]
    body: bytes = b""

    def to(self, location: bytes) -> Reply:
        fields = (b"Location: " + location, *self.fields) if location else self.fields
        return Reply(self.code, self.status, fields, self.body)
