"""What is learnt from a client before a server is picked for it: who it is, and which route it takes.

In this order, as far as the listener asks for it: a PROXY header, TLS that ends here, the first bytes. What was read
and is for the server is kept in the connection; whoever carries it sends that first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.connection import Connection
from edge.peek.hello import Hello
from edge.peek.sieve import MAX_PEEKED, End, Verdict
from edge.plan import Plan
from supervisor.ground.lane import Overdue, Session
from supervisor.ground.net.addresses import within
from supervisor.ground.net.introduction import introduced, peeked

if TYPE_CHECKING:
    from supervisor.ground.net.tls import Acceptor

INTRODUCTION = 5.0  # seconds for a PROXY header: the proxy that sends it is near, and sends it first
HANDSHAKE = 10.0  # seconds: two round trips, of clients however far


class Unrouted(Exception):
    """No route takes the connection."""


class HandshakeFailed(Exception):
    """TLS was not agreed on."""


async def learn(plan: Plan, acceptor: Acceptor | None, connection: Connection, session: Session) -> None:
    """What the listener asks for. Raises TooMany, Unrouted, HandshakeFailed, PeekError, ProxyError, and what the lane
    does."""
    if within(connection.client[0], plan.table.accept_proxy_protocol):
        session.expire_in(INTRODUCTION)
        if acceptor is None:
            header, connection.first = await introduced(connection.stream)
        else:
            header = await peeked(connection.stream)
        connection.header = header
        if header.source is not None and header.destination is not None:
            connection.client, connection.local = header.source, header.destination
    if plan.limits is not None:
        connection.place = plan.limits.enter(connection.client[0], session.scheduler.now_ns)
    if acceptor is not None:
        await _secure(acceptor, connection, session)
    if plan.sieve is not None:
        await _choose(plan, connection, session)


async def _secure(acceptor: Acceptor, connection: Connection, session: Session) -> None:
    """End TLS."""
    session.expire_in(HANDSHAKE)
    tls = connection.stream = acceptor.wrap(connection.stream)
    try:
        await tls.handshake()
    except (OSError, Overdue):
        raise HandshakeFailed from None
    agreed = tls.alpn()
    name = (tls.server_name() or b"").decode("ascii", "replace").lower()
    connection.hello = Hello(name, (agreed,) if agreed else ())
    connection.tls = (tls.version(), tls.cipher())


async def _choose(plan: Plan, connection: Connection, session: Session) -> None:
    """Read until the route is known, for at most `detect_timeout`."""
    assert plan.sieve is not None
    session.expire_in(plan.table.detect_timeout)
    end: End | None = None
    while True:
        verdict, connection.hello = plan.sieve.look(connection.first, end, connection.hello)
        if isinstance(verdict, int):
            connection.route = verdict
            return
        if verdict is Verdict.NOBODY:
            raise Unrouted
        try:
            more = await connection.stream.recv(MAX_PEEKED)
        except Overdue:
            end = End.SILENCE
        else:
            if not more:
                end = End.CLOSED
            connection.first += more
