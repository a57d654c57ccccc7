"""Saying no: the problem answer for a PeerError, its account, and whether the connection can go on.

It can when the client is not to blame for broken framing and the whole request was read; else what still comes would be
taken for the next request. Then the connection is closed with lingering: closing on unread bytes would reset it, and
the reset would destroy the answer on its way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.connection import Connection
from gateway.errors import PeerError
from gateway.plan import Plan, Route
from gateway.problems import answer
from gateway.shared import Shared
from supervisor.ground.lane import Overdue

if TYPE_CHECKING:
    from collections.abc import Sequence

LINGER_SECONDS: Final = 2.0  # for the client to stop sending what will not be read
LINGER_BYTES: Final = 1 << 20
SEND_SECONDS: Final = 10.0  # for an answer of under 1 KiB


async def refuse(
    shared: Shared,
    connection: Connection,
    plan: Plan,
    error: PeerError,
    *,
    rest: bytes | None,
    head_request: bool,
    before: bytes,
    route: Route | None,
    asked: str,
    client: str,
    user: str,
    server: str,
    request_id: bytes,
    bytes_in: int,
    began_ns: int,
) -> bytes | None:
    """Answer `error`. `rest` is what was read beyond the request, None if its end is not known; `before` are bytes that
    are still to go out first. Returns what is left to serve, or None if the connection has to end. Raises OSError."""
    lane, stream = shared.lane, connection.stream
    close = error.close or rest is None or connection.listener.draining
    fields: Sequence[bytes] = (plan.served_by,) if plan.served_by else ()
    reply = answer(error, request_id, lane.wall, close=close, head_request=head_request, fields=fields)
    shared.account(
        connection.listener.counters, route, asked, client, user, server, error.status, error.code, request_id,
        bytes_in, len(reply), began_ns,
    )  # fmt: skip
    lane.current.deadline = lane.now + SEND_SECONDS
    await stream.send(before + reply)
    if not close:
        return rest
    await linger(connection)
    return None


async def linger(connection: Connection) -> None:
    """End our side, and read away what the client still sends, for a while."""
    stream = connection.stream
    session = stream.lane.current
    stream.shutdown_write()
    session.expire_in(LINGER_SECONDS)
    left = LINGER_BYTES
    try:
        while left > 0:
            data = await stream.recv()
            if not data:
                return
            left -= len(data)
    except (OSError, Overdue):
        return
