"""What is learnt from a client before a server is picked for it: its first bytes, and the route that they choose.

The bytes are read off the connection and kept; whoever carries the connection sends them to the server first.
"""

from __future__ import annotations

from edge.peek.sieve import MAX_PEEKED, End, Sieve, Verdict
from supervisor.ground.lane import Overdue, Session, Stream


class Unrouted(Exception):
    """No route takes the connection."""


async def choose(session: Session, stream: Stream, sieve: Sieve, patience: float) -> tuple[int, bytes]:
    """The number of the connection's route, and the bytes that were read to find it, for at most `patience` seconds.
    Raises Unrouted, PeekError, OSError."""
    session.expire_in(patience)
    data = b""
    end: End | None = None
    while True:
        verdict = sieve.look(data, end)
        if isinstance(verdict, int):
            return verdict, data
        if verdict is Verdict.NOBODY:
            raise Unrouted
        try:
            more = await stream.recv(MAX_PEEKED)
        except Overdue:
            end = End.SILENCE
        else:
            if not more:
                end = End.CLOSED
            data += more
