"""Who may, where the hot path has no short answer: limits that need no identity, and tokens not seen before.

The session looks up remembered tokens and limits by user itself; everything that takes longer is here.
"""

from __future__ import annotations

from gateway.connection import Connection
from gateway.fields import WANTED, Bearer, Field
from gateway.limits import Key, Limit, address_key
from gateway.plan import Route
from gateway.shared import Shared
from gateway.tokens import Verified
from supervisor.plane.layout import Tier


def admit_anybody(
    shared: Shared, connection: Connection, route: Route, ip: str, extras: list[Field] | None
) -> None:
    """The limits that need no identity. Raises PeerError("limited")."""
    client, lane = connection.client, shared.lane
    for limit in route.before:
        if limit.key is Key.ROUTE:
            digest = limit.route_digest
        elif limit.key is Key.HEADER:
            digest = limit.digest(_header(limit, extras))
        elif ip is not client.ip:
            digest = limit.digest(address_key(ip))
        else:
            known = client.digests.get(limit.row)
            digest = client.digests[limit.row] = limit.digest(address_key(ip)) if known is None else known
        admitted, _, wait = shared.admit(digest, limit.interval_ns, limit.burst, lane.now_ns, limit.counters)
        if not admitted and not limit.shadow:
            raise limit.refusal(wait)


def _header(limit: Limit, extras: list[Field] | None) -> bytes:
    """What the header of a limit says; requests without it share one key, so that leaving it out gains nothing."""
    for kind, _, detail in extras or ():
        if kind == WANTED and detail[0] == limit.header:
            return bytes(detail[1])
    return b""


def verify(shared: Shared, route: Route, bearer: Bearer | None) -> Verified:
    """The slow way to a token's holder. Raises PeerError 401."""
    verifier = route.verifier
    assert verifier is not None
    before = verifier.verified
    try:
        return verifier.verify(bearer, shared.lane.wall)
    finally:
        shared.cells[shared.tier + Tier.TOKENS_VERIFIED] += verifier.verified - before
