"""UDP datagrams that stand alone: each gets a server of its own, and an answer if there is one (DNS, NTP, RADIUS).

Every datagram goes out of a socket of its own, so an answer can't reach another client, and whoever guesses ports has
to guess anew each time. It ends with its answer, or after `answer_timeout`. Nothing of it is handed over: a worker that
gives its slot up waits for the answers that are still to come.
"""

from __future__ import annotations

import socket
from typing import Any

import attrs

from edge import outbound
from edge.sessionless import Sessionless, buffer, view
from supervisor.ground.lane import Listening
from supervisor.ground.pools import Server
from supervisor.plane import layout

_OUT, _BYTES_OUT = layout.Listener.DATAGRAMS_OUT, layout.Listener.BYTES_OUT
_SESSIONS, _DROPPED = layout.Listener.SESSIONS, layout.Listener.DROPPED


@attrs.define(eq=False)
class Query:
    """A datagram on its way, until its answer is there."""

    slot: StatelessSlot
    client: Any
    server: Server
    sock: socket.socket
    began: float  # lane seconds
    listening: Listening | None = None

    def answered(self) -> None:
        """The answer for the client, or word that the server is not there."""
        slot, server = self.slot, self.server
        listener = slot.listener
        cells, row = listener.cells, listener.row
        try:
            size = self.sock.recv_into(buffer)
        except OSError as error:
            if outbound.is_gone(self.sock, error):
                server.failed(listener.lane.now_ns)
                cells[row + _DROPPED] += 1
                slot.end(self)
            return
        server.succeeded()
        try:
            slot.sock.sendto(view[:size], self.client)
        except OSError:
            cells[row + _DROPPED] += 1
        else:
            cells[row + _OUT] += 1
            cells[row + _BYTES_OUT] += size
            cells[server.base + layout.Server.BYTES_IN] += size
        slot.end(self)


@attrs.define(eq=False)
class StatelessSlot(Sessionless):
    """One SO_REUSEPORT socket of the listener, and the datagrams of it that wait for an answer."""

    queries: set[Query] = attrs.field(factory=set)
    left: bool = False

    def send(self, address: Any, size: int) -> bool:
        """Send what was read to a server; to a second one if the first can't be sent to."""
        listener = self.listener
        if listener.is_full():
            return False
        tried: tuple[Server, ...] = ()
        header = listener.header(self.sock, address)
        for _ in range(2):
            server = listener.pool.pick(address[0], tried)
            if server is None:
                listener.no_server()
                return False
            try:
                sock = outbound.towards(server)
            except OSError:
                return False
            try:
                sock.send(header + view[:size] if header else view[:size])
            except OSError as error:
                if outbound.is_gone(sock, error):
                    server.failed(listener.lane.now_ns)
                sock.close()
                tried = (server,)
                continue
            self.begin(address, server, sock, size)
            return True
        return False

    def begin(self, address: Any, server: Server, sock: socket.socket, size: int) -> None:
        listener = self.listener
        query = Query(self, address, server, sock, listener.lane.now)
        query.listening = listener.lane.watch(sock, query.answered)
        self.queries.add(query)
        server.started()
        cells = listener.cells
        cells[listener.row + _SESSIONS] += 1
        cells[listener.row + layout.Listener.ACCEPTED] += 1
        cells[server.base + layout.Server.BYTES_OUT] += size

    def end(self, query: Query) -> None:
        """It has its answer, or will have none."""
        self.queries.discard(query)
        if query.listening is not None:
            query.listening.close()
        query.sock.close()
        query.server.ended()
        self.listener.cells[self.listener.row + _SESSIONS] -= 1
        if self.left and not self.queries:
            self.sock.close()

    def leave(self) -> None:
        """Another worker polls this slot from now on; the answers to what was sent still come here."""
        if self.listening is not None:
            self.listening.close()
        if self.queries:
            self.left = True
            self.sock = self.sock.dup()  # the worker closes its own when it drains

    def waiting(self) -> int:
        """Datagrams without an answer yet."""
        return len(self.queries)

    def sweep(self, now: float) -> None:
        """Give up those that got no answer in their time. That says nothing of the server: some need none."""
        before = now - self.listener.table.answer_timeout
        for query in [query for query in self.queries if query.began < before]:
            self.end(query)
