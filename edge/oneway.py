"""UDP datagrams that nobody answers: each goes to a server of its own over a socket that all share (syslog, statsd).

A socket for each server, whatever the number of clients, and nothing to remember of any of them. What a server sends is
read and thrown away; only the network's complaints count.
"""

from __future__ import annotations

import socket
from functools import partial
from typing import Any

import attrs

from edge import outbound
from edge.sessionless import Sessionless, buffer, view
from supervisor.ground.lane import Listening
from supervisor.ground.pools import Server
from supervisor.plane import layout


@attrs.define(eq=False)
class Way:
    """The socket to one server."""

    server: Server
    sockaddr: tuple[str, int]  # as it was connected to: a name may come to mean another
    sock: socket.socket
    listening: Listening | None = None
    quiet: bool = True  # no complaint since the last sweep

    def close(self) -> None:
        if self.listening is not None:
            self.listening.close()
        self.sock.close()


@attrs.define(eq=False)
class OneWaySlot(Sessionless):
    """One SO_REUSEPORT socket of the listener, and its ways to the servers."""

    ways: dict[Server, Way] = attrs.field(factory=dict)

    def send(self, address: Any, size: int) -> bool:
        """Send what was read to a server; to a second one if word comes that the first is not there."""
        listener = self.listener
        header = listener.header(self.sock, address)
        tried: tuple[Server, ...] = ()
        for _ in range(2):
            server = listener.pool.pick(address[0], tried)
            if server is None:
                return False
            tried = (server,)
            try:
                way = self.ways.get(server) or self.open(server)
            except OSError:
                continue
            try:
                way.sock.send(header + view[:size] if header else view[:size])
            except OSError as error:
                self.complained(way, error)
                continue
            server.started()
            server.ended()
            listener.cells[server.base + layout.Server.BYTES_OUT] += size
            return True
        return False

    def open(self, server: Server) -> Way:
        """Raises OSError."""
        way = Way(server, server.sockaddr, outbound.towards(server))
        way.listening = self.listener.lane.watch(way.sock, partial(self.heard, way))
        self.ways[server] = way
        return way

    def heard(self, way: Way) -> None:
        """Something came the other way: a complaint, or what nobody asked for."""
        try:
            way.sock.recv_into(buffer)
        except OSError as error:
            self.complained(way, error)

    def complained(self, way: Way, error: OSError) -> None:
        if outbound.is_gone(way.sock, error):
            way.quiet = False
            way.server.failed(self.listener.lane.now_ns)

    def leave(self) -> None:
        """Another worker polls this slot from now on."""
        if self.listening is not None:
            self.listening.close()
        for way in self.ways.values():
            way.close()
        self.ways.clear()

    def waiting(self) -> int:
        return 0

    def sweep(self, now: float) -> None:
        """A second without a complaint is all the success there is; ways to servers that are gone are closed."""
        for server, way in list(self.ways.items()):
            if way.quiet:
                server.succeeded()
            way.quiet = True
            if server not in self.listener.pool.servers or way.sockaddr != server.sockaddr:
                way.close()
                del self.ways[server]
