"""What a route does with a request beyond forwarding it. Routes that only forward have none of it.

It comes last in a request's admission, when who asks is known and the lines for the server are complete.
"""

from __future__ import annotations

import hashlib
import random
from bisect import bisect
from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING

import attrs

from gateway.edits import Edits
from gateway.errors import PeerError
from gateway.guard import Judged
from gateway.permissions import Permissions
from gateway.replies import FixedReply
from gateway.tokens import Verified

if TYPE_CHECKING:
    from gateway.admission import Admission
    from gateway.plan import Route


class SplitBy(Enum):
    """What a split keeps together: all requests of a user, of an address, or none."""

    USER = "user"
    CLIENT_IP = "client_ip"
    RANDOM = "random"


@attrs.frozen(eq=False)
class Split:
    """`routes` differ in their pools alone; `bounds` are the sums of their weights up to each."""

    by: SplitBy
    salt: bytes  # the route's name: two routes divide users differently
    bounds: Sequence[int]
    routes: Sequence[Route]

    def choose(self, user: bytes, ip: str) -> Route:
        """The route for this request: the same one for the same user, or address, as long as the weights stay."""
        total = self.bounds[-1]
        if self.by is SplitBy.RANDOM:
            point = random.randrange(total)
        else:
            key = user if self.by is SplitBy.USER else ip.encode()
            digest = hashlib.blake2b(key, digest_size=8, key=self.salt[:64]).digest()
            point = int.from_bytes(digest, "big") * total >> 64
        return self.routes[bisect(self.bounds, point)]


@attrs.frozen
class Treatment:
    """Everything that one route does so."""

    permissions: Permissions | None = None
    max_body: int | None = None
    reply: FixedReply | None = None
    split: Split | None = None
    host: bytes = b""  # the Host line for the server; b"": as it came
    edits: Edits | None = None

    def apply(
        self, admission: Admission, judged: Judged, verified: Verified | None, out: list[bytes]
    ) -> list[bytes]:  # fmt: skip
        """The lines for the server; may put another route into the admission. Raises PeerError, and a Reply where no
        server is asked."""
        length = judged[3]
        if self.permissions is not None and verified is not None:
            self.permissions.check(verified.claims)
        if self.max_body is not None and length > self.max_body:
            raise PeerError("body_too_large", f"the body exceeds {self.max_body} bytes")
        if self.reply is not None:
            assert admission.decision is not None
            raise self.reply.to(admission.decision.location)
        if self.split is not None:
            admission.route = self.split.choose(b"" if verified is None else verified.user, admission.ip)
        if self.host and judged[4] is not None:
            out = [self.host if line[:5].lower() == b"host:" else line for line in out]
        if self.edits is not None:
            out = self.edits.apply(out)
        return out
