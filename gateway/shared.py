"""What all connections of a worker share: the lane, the plane's cells, the upstreams, the access log; and the account.

Every request ends in one call of `account`: one line in the access log, and adds to its route's tally. What may
contain anything (paths, users) comes here already as JSON, made once where it is remembered.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from gateway.answers import AnswerReader
from gateway.errors import REASONS
from gateway.forwarded import Identities
from gateway.http2.blocks import BlockEncoder
from gateway.http2.trunks import Trunks
from gateway.plan import Route
from gateway.problems import http_date
from gateway.tally import Tally
from gateway.tunnel import Farewell
from gateway.upstreams import Upstreams
from supervisor.ground.lane import Lane, Session
from supervisor.ground.log import AccessLog
from supervisor.ground.pools import Server
from supervisor.ground.queues import Queues
from supervisor.plane import layout
from supervisor.plane.quotas import Quotas

_LATENCY, _REASONS = layout.Route.LATENCY, layout.Route.REASONS
_LAST_BUCKET: Final = layout.Route.LATENCY_BUCKETS - 1
REASON_NUMBERS: Final = {code: number for number, code in enumerate(REASONS)}
UNDECIDED: Final = '"route":null,"pool":null'


class Shared:
    """One per worker."""

    __slots__ = (
        "_date", "_second", "_time", "_unrouted", "_wall", "access", "admit", "answers", "blocks", "cells",
        "identities", "lane", "queues", "tier", "trunks", "tunnels", "upstreams",
    )  # fmt: skip

    def __init__(
        self, lane: Lane, cells: memoryview[int], access: AccessLog, quotas: Quotas, tier: int, no_route: int,
        queues: Queues, complain: Callable[[str, str], None],
    ) -> None:  # fmt: skip
        self.lane = lane
        self.cells = cells
        self.access = access
        self.admit = quotas.admit
        self.queues = queues  # for places on servers that are full
        self.tier = tier  # base of this tier's cells in this worker's column
        self._unrouted = Tally(cells, no_route)  # of what reached no route
        self.answers = AnswerReader()
        self.blocks = BlockEncoder()
        self.upstreams = Upstreams(lane, cells, complain)
        self.trunks = Trunks(self)
        self.tunnels: dict[Session, tuple[Server, Farewell]] = {}  # WebSockets, and where they lead
        self.identities = Identities(random.Random().randbytes)
        self._second = -1
        self._date = b""
        self._wall = -1.0
        self._time = ""

    def date_line(self) -> bytes:
        """A Date field for an answer that has none (RFC 9110 §6.6.1)."""
        second = int(self.lane.wall)
        if second != self._second:
            self._second = second
            self._date = b"Date: " + http_date(second)
        return self._date

    def account(
        self,
        listener: int,
        route: Route | None,
        asked: str,
        client: str,
        user: str,
        server: str,
        status: int,
        reason: str,
        request_id: bytes,
        bytes_in: int,
        bytes_out: int,
        began_ns: int,
    ) -> None:
        """One finished request. `listener` is the base of its listener's cells; `asked`, `client` and `user` are JSON;
        `server` is a name, "" for none; `reason` is a code of ours or ""."""
        lane = self.lane
        micros = (lane.now_ns - began_ns) // 1000
        tally = self._unrouted if route is None else route.tally
        if tally.listener != listener:
            tally.settle()
            tally.listener = listener
        if not tally.requests:
            lane.at_round_end.append(tally.settle)
        tally.requests += 1
        tally.bytes_in += bytes_in
        tally.bytes_out += bytes_out
        tally.micros += micros
        if not 200 <= status < 300:
            tally.other(status)
        bucket = micros.bit_length()
        self.cells[tally.route + _LATENCY + (bucket if bucket < _LAST_BUCKET else _LAST_BUCKET)] += 1
        if reason:
            self.cells[tally.route + _REASONS + REASON_NUMBERS[reason]] += 1
        if self.access.enabled:
            if lane.wall != self._wall:
                self._wall = lane.wall
                self._time = f"{lane.wall:.3f}"
            self.access.write(
                f'{{"ts":{self._time},"request_id":"{request_id.decode()}","client":{client},{asked},'
                f'{UNDECIDED if route is None else route.log},"server":"{server}","user":{user},"status":{status},'
                f'"reason":"{reason}","bytes_in":{bytes_in},"bytes_out":{bytes_out},"us":{micros}}}'
            )
