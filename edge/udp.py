"""A UDP listener: its slots, of one of three kinds, and what all of them share.

Clients have `sessions`, or send datagrams that stand alone (`stateless`) or that nobody answers (`oneway`).
"""

from __future__ import annotations

import math
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import attrs

from edge.config import ListenerTable
from edge.handover import Flow
from edge.oneway import OneWaySlot
from edge.sessions import SessionsSlot
from edge.stateless import StatelessSlot
from supervisor.ground.lane import Lane
from supervisor.ground.net import proxy
from supervisor.ground.pools import Pool, Server
from supervisor.plane import layout
from supervisor.plane.flows import FlowSegment

TELL_EVERY = 60.0  # seconds between lines about clients that were refused

# listener, slot, the sessions with their descriptors: to the slot's next owner, if there is one
HandOver = Callable[[str, int, Sequence[tuple[Flow, int]]], None]

AnySlot = SessionsSlot | StatelessSlot | OneWaySlot


@attrs.define(eq=False)
class UdpListener:
    """One UDP listener in one worker. `table` and `pool` are swapped by a reload; sessions stay on their servers."""

    name: str
    lane: Lane
    cells: memoryview
    row: int
    table: ListenerTable
    pool: Pool
    segment: Callable[[int], FlowSegment]  # the plane's rows for a slot
    hand_over: HandOver
    tell_full: Callable[[int, str], None]  # that so many clients were refused since the last time, and by which limit
    polled: dict[int, AnySlot] = attrs.field(factory=dict)
    left: list[AnySlot] = attrs.field(factory=list)  # given up, and not yet at rest
    refused: Counter[str] = attrs.field(factory=Counter)  # clients since that was last told, by the limit
    told: float = -math.inf  # lane seconds
    answers: dict[int, int] = attrs.field(factory=dict)  # bytes from each server's row, at the last sweep

    def attach(self, slot: int, sock: socket.socket, handed: Iterable[tuple[Flow, socket.socket]] = ()) -> None:
        """Poll a slot, and go on with the sessions that its last owner `handed` over."""
        self.polled[slot] = one = self._slot(slot, sock)
        one.poll(handed)

    def _slot(self, slot: int, sock: socket.socket) -> AnySlot:
        match self.table.kind:
            case "stateless":
                return StatelessSlot(self, slot, sock)
            case "one_way":
                return OneWaySlot(self, slot, sock)
        return SessionsSlot(self, slot, sock, self.segment(slot))

    def detach(self, slot: int) -> None:
        """Give a slot and its sessions up to whoever polls it next."""
        one = self.polled.pop(slot, None)
        if one is not None:
            one.leave()
            if one.waiting():
                self.left.append(one)

    def take(self, table: ListenerTable, pool: Pool) -> None:
        """A reload's. Slots of another kind end what they hold and begin anew."""
        before, self.table, self.pool = self.table, table, pool
        if before.kind != table.kind:
            for slot, one in list(self.polled.items()):
                sock = one.sock
                self.detach(slot)
                self.attach(slot, sock)

    def waiting(self) -> int:
        """Datagrams whose answers a drain must wait for: they are all that nobody takes over."""
        return sum(one.waiting() for one in (*self.polled.values(), *self.left))

    def leave(self, server: Server) -> None:
        """End what this server has: its clients' next datagrams go to others."""
        for slot in self.polled.values():
            if isinstance(slot, SessionsSlot):
                slot.end_all(server)

    def sweep(self) -> None:
        now = self.lane.now
        for slot in (*self.polled.values(), *self.left):
            slot.sweep(now)
        self.left = [one for one in self.left if one.waiting()]
        self._notice_answers()
        if self.refused and now - self.told >= TELL_EVERY:
            self.told = now
            for limit, count in self.refused.items():
                self.tell_full(count, limit)
            self.refused.clear()

    def _notice_answers(self) -> None:
        """A server that has answered since the last time did its work: what failed before is forgiven. Looked at here
        and not with each answer, of which there may be a hundred thousand a second."""
        for server in self.pool.servers:
            count = self.cells[server.base + layout.Server.BYTES_IN]
            if count != self.answers.get(server.row, 0):
                self.answers[server.row] = count
                server.succeeded()

    def is_full(self) -> bool:
        """Whether another client has to be refused, which is then counted."""
        if self.cells[self.row + layout.Listener.SESSIONS] < self.table.max_sessions:
            return False
        self._refuse("max_sessions")
        return True

    def no_server(self) -> None:
        """The pool had no server for a client, which is a refusal if that is because all are full."""
        if self.pool.is_full():
            self._refuse("max_connections of the pool's servers")

    def _refuse(self, limit: str) -> None:
        self.cells[self.row + layout.Listener.REFUSED] += 1
        self.refused[limit] += 1

    def header(self, sock: socket.socket, address: Any) -> bytes:
        """What goes in front of a client's datagram, if anything does."""
        if self.table.send_proxy_protocol == "v2":
            return proxy.encode_v2(address[:2], sock.getsockname()[:2], socket.SOCK_DGRAM)
        return b""

    def first_header(self, sock: socket.socket, address: Any) -> bytes:
        """What goes in front of a session's first datagram alone."""
        return b"" if self.table.send_proxy_protocol_every else self.header(sock, address)

    def every_header(self, sock: socket.socket, address: Any) -> bytes:
        """What goes in front of every datagram of a session."""
        return self.header(sock, address) if self.table.send_proxy_protocol_every else b""
