"""Rate limits of a route: what each counts by, and what a client that is over hears.

The counting itself is the plane's (supervisor/plane/quotas.py), exact over all workers; here a limit of the
configuration is bound to a route, its key chosen, and the refusal written once, in the fields of
draft-ietf-httpapi-ratelimit-headers-10.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Final

import attrs

from gateway.config import LimitTable
from gateway.errors import PeerError

NS: Final = 1_000_000_000


class Key(IntEnum):
    """What a limit counts by. Those before USER need no identity and run before authentication."""

    CLIENT_IP = 0
    ROUTE = 1
    HEADER = 2
    USER = 3
    CLAIM = 4


@attrs.frozen(eq=False)
class Limit:
    """One limit on one route."""

    name: str
    row: int  # in the plane: what digests are remembered by
    key: Key
    header: bytes  # of Key.HEADER, in lower case; else b""
    claim: str  # of Key.CLAIM; else ""
    route_digest: bytes  # of Key.ROUTE, else b""
    digest: Callable[[bytes], bytes]
    interval_ns: int
    burst: int
    shadow: bool
    counters: int  # base of its cells
    policy: bytes

    def refusal(self, wait_ns: int) -> PeerError:
        """429, with the seconds until the next request would be admitted."""
        wait = max(1, math.ceil(wait_ns / NS))
        name = _quoted(self.name)
        return PeerError(
            "limited",
            f"the limit {self.name} admits the next request in {wait} s",
            close=False,
            fields=(
                b"Retry-After: %d" % wait,
                b"RateLimit-Policy: " + self.policy,
                b"RateLimit: %b;r=0;t=%d" % (name, wait),
            ),
        )


def bind(name: str, table: LimitTable, route: str, row: int, counters: int, digest: Callable[[bytes], bytes]) -> Limit:
    """The limit `name` as the route uses it. `digest` makes keys of this limit (Quotas.digests)."""
    header = table.header
    claim = table.claim
    key = Key.HEADER if header is not None else Key.CLAIM if claim is not None else Key[table.key.upper()]
    interval = table.rate.interval_ns
    burst = table.at_once
    # The draft's quota q within a window w: what GCRA admits at once, and how long that takes to come back.
    policy = b"%b;q=%d;w=%d" % (_quoted(name), burst, max(1, math.ceil(burst * interval / NS)))
    return Limit(
        name=name,
        row=row,
        key=key,
        header=b"" if header is None else header.lower().encode(),
        claim=claim or "",
        route_digest=digest(route.encode()) if key is Key.ROUTE else b"",
        digest=digest,
        interval_ns=interval,
        burst=burst,
        shadow=table.shadow,
        counters=counters,
        policy=policy,
    )


def split(limits: Iterable[Limit]) -> tuple[tuple[Limit, ...], tuple[Limit, ...]]:
    """Those that need no identity, and those by who the token says it is."""
    limits = list(limits)
    return (
        tuple(limit for limit in limits if limit.key < Key.USER),
        tuple(limit for limit in limits if limit.key >= Key.USER),
    )


def _quoted(name: str) -> bytes:
    """An RFC 9651 string; names may be any text, so what can't stand in one is replaced."""
    return b'"' + "".join(c if " " <= c <= "~" and c not in '"\\' else "?" for c in name).encode() + b'"'
