"""What is learnt from a client before a server is picked for it: who it is, and which route it takes.

In this order, as far as the listener asks for it: a PROXY header, the first bytes. What was read and is for the server
is kept in the connection; whoever carries it sends that first.
"""

from __future__ import annotations

from edge.connection import Connection
from edge.peek.sieve import MAX_PEEKED, End, Verdict
from edge.plan import Plan
from supervisor.ground.lane import Overdue, Session
from supervisor.ground.net.addresses import within
from supervisor.ground.net.introduction import introduced

INTRODUCTION = 5.0  # seconds for a PROXY header: the proxy that sends it is near, and sends it first


class Unrouted(Exception):
    """No route takes the connection."""


async def learn(plan: Plan, connection: Connection, session: Session) -> None:
    """Find out what the listener asks for. Raises Unrouted, PeekError, ProxyError, Overdue, OSError."""
    if within(connection.client[0], plan.table.accept_proxy_protocol):
        session.expire_in(INTRODUCTION)
        connection.header, connection.first = await introduced(connection.stream)
        if connection.header.source is not None and connection.header.destination is not None:
            connection.client, connection.local = connection.header.source, connection.header.destination
    if plan.sieve is not None:
        await _choose(plan, connection, session)


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
