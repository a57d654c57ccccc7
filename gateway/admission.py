"""What is decided about a request before it goes anywhere: who asks, which route takes it, whether it may pass.

HTTP/1.1 and HTTP/2 meet here: both bring a judged head, and what comes out are the lines for the server. An Admission
also keeps what the account and a refusal need to know, as far as it was found out when something was refused.
"""

from __future__ import annotations

from typing import Final

from gateway.connection import Connection
from gateway.decisions import Decision, undecided_words
from gateway.errors import PeerError
from gateway.fields import NAMED, WANTED, Bearer, Field
from gateway.forwarded import ID_LINES, Client, from_proxy
from gateway.guard import Judged, without_named
from gateway.limits import Key, Limit
from gateway.plan import ListenerPlan, Route
from gateway.shared import Shared
from gateway.tokens import Verified
from supervisor.ground.net.addresses import address_key
from supervisor.plane.layout import Tier

UNREAD: Final = '"method":null,"host":null,"path":null'

_CACHED: Final = Tier.TOKENS_CACHED


class Admission:
    """One request. What is JSON is ready for the access log."""

    __slots__ = ("asked", "decision", "ip", "request_id", "route", "shown", "span", "user")

    def __init__(self) -> None:
        self.route: Route | None = None
        self.decision: Decision[Route] | None = None
        self.asked = UNREAD  # the request in the log's words, JSON
        self.ip = ""  # the client's address, as far as it can be believed
        self.shown = "null"  # the same as JSON
        self.user = "null"  # JSON
        self.request_id = b""
        self.span = b""

    def begin(self, shared: Shared, client: Client) -> None:
        """A new request of this client, of which nothing is known yet."""
        self.route = self.decision = None
        self.asked = UNREAD
        self.ip = client.ip
        self.shown = client.json
        self.user = "null"
        self.request_id, self.span = (shared.identities.ready or shared.identities.more()).pop()

    def admit(self, shared: Shared, connection: Connection, here: ListenerPlan, judged: Judged) -> list[bytes]:
        """The head's lines for the server, without the empty one at the end. Raises PeerError if it may not pass."""
        line, out, flags, _, host, bearer, extras = judged
        lane, client = shared.lane, connection.client
        if client.proxy:
            introduced, self.request_id, self.ip = from_proxy(
                client, host or here.fallback_host, extras or (), here.trusts, (self.request_id, self.span)
            )
            self.shown = f'"{self.ip}"'
        lines = here.decisions.by_host.get(host)
        decision = None if lines is None else lines.get(line)
        if decision is None:
            self.asked = undecided_words(line, host)
            decision = here.decisions.decide(line, host)
        self.asked = decision.log
        route = decision.route
        if route is None:
            decision = decision.choose(extras, client.peer)
            route = decision.route
            assert route is not None
        self.decision = decision
        self.route = route
        if route.guarded:
            admit_anybody(shared, connection, route, self.ip, extras)
        verified: Verified | None = None
        verifier = route.verifier
        if verifier is not None:
            if bearer is not None:
                verified = verifier.remembered.get(bearer.digest)
            if verified is not None and verified.expires > lane.wall:
                shared.cells[shared.tier + _CACHED] += 1
            else:
                verified = verify(shared, route, bearer)
            self.user = verified.user_json
            for limit in route.after:
                digest = verified.digests.get(limit.row)
                if digest is None:
                    digest = verified.digests[limit.row] = verified.digest(limit)
                admitted, _, wait = shared.admit(digest, limit.interval_ns, limit.burst, lane.now_ns, limit.counters)
                if not admitted and not limit.shadow:
                    raise limit.refusal(wait)
        # In this order: dropped (by the guard), injected, told.
        if flags & NAMED and extras is not None:
            out = without_named(out, extras)
        out[0] = decision.line
        if verified is not None and verified.lines:
            out.append(verified.lines)
        if bearer is not None and (verified is None or route.forward_token):
            out.append(bearer.forward)
        if client.proxy:
            out += introduced
        else:
            told = host or here.fallback_host
            out.append(client.introduction if told == client.host else client.introduce(told))
            request_id = self.request_id
            out.append(ID_LINES % (request_id, request_id, self.span))
        if route.treatment is not None:
            return route.treatment.apply(self, judged, verified, out)
        return out


def admit_anybody(shared: Shared, connection: Connection, route: Route, ip: str, extras: list[Field] | None) -> None:
    """What needs no identity: whether the route sheds, and limits. Raises PeerError("overloaded"), ("limited")."""
    client, lane = connection.client, shared.lane
    if route.sheds_on and shared.cells[route.sheds_on] > lane.now_ns:
        raise PeerError("overloaded", fields=(b"Retry-After: 1",))
    if route.shedding is not None:
        route.shedding.check(shared.cells)
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
