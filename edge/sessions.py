"""UDP sessions: one for each client address, kept on its server while it lives.

A session is a socket of its own towards the server, so the answers find their way back by the port they come to. When
another worker is to poll the slot, it gets the sockets themselves (`handover`). A session's row in the plane (client,
server, that port) outlives even a worker that was killed: whoever polls the slot next binds the same port again. Either
way neither end sees a new peer. The server is picked by the client's address, so that every worker and every restart
picks the same one.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from edge import outbound
from edge.handover import Flow
from supervisor.ground.lane import Listening
from supervisor.ground.pools import Server
from supervisor.plane import layout
from supervisor.plane.flows import FlowSegment

if TYPE_CHECKING:
    from edge.udp import UdpListener

_IN, _OUT = layout.Listener.DATAGRAMS_IN, layout.Listener.DATAGRAMS_OUT
_BYTES_IN, _BYTES_OUT = layout.Listener.BYTES_IN, layout.Listener.BYTES_OUT
_SESSIONS, _DROPPED = layout.Listener.SESSIONS, layout.Listener.DROPPED

TOUCHES = 4  # times a session's timeout that the plane learns that its flow is alive
MAX_REFUSED = 1024  # clients of a slot that are remembered to have lost their server; beyond, all are forgotten
PORTS_PATIENCE = 0.5  # seconds that a slot is not polled because flows of it still have their ports elsewhere
PORTS_LOOK = 0.02  # seconds between looks whether they are here, or free

_buffer = bytearray(outbound.LARGEST)  # one for the process: a datagram is sent on before the next is read
_view = memoryview(_buffer)


@attrs.define(eq=False)
class Session:
    """One client's flow through this worker."""

    slot: SessionsSlot
    client: Any  # its address, as the socket gave it
    server: Server
    sock: socket.socket
    seen: float  # lane seconds of the last datagram, either way
    send: Callable[[memoryview | bytes], object]  # to the server
    listening: Listening | None = None

    def answered(self) -> None:
        """The server's socket has something: a datagram for the client, or word that the server's port is closed."""
        slot = self.slot
        listener = slot.listener
        try:
            size = self.sock.recv_into(_buffer)
        except OSError as error:
            if outbound.is_gone(self.sock, error):  # the client's next datagram picks another
                self.server.failed(listener.lane.now_ns)
                slot.end(self)
                slot.refused[self.client] = self.server
            return
        self.seen = listener.lane.now
        cells, row = listener.cells, listener.row
        try:
            slot.sock.sendto(_view[:size], self.client)
        except OSError:
            cells[row + _DROPPED] += 1
            return
        cells[row + _OUT] += 1
        cells[row + _BYTES_OUT] += size
        cells[self.server.base + layout.Server.BYTES_IN] += size


@attrs.define(eq=False)
class SessionsSlot:
    """One SO_REUSEPORT socket of the listener, with the sessions of the clients that the kernel hashes to it."""

    listener: UdpListener
    number: int
    sock: socket.socket
    flows: FlowSegment
    sessions: dict[Any, Session] = attrs.field(factory=dict)
    homeless: list[tuple[Any, int, int]] = attrs.field(factory=list)  # flows whose port is not free yet
    # Whom clients had when its port was closed, until they ask again: a hash would give them the same once more.
    refused: dict[Any, Server] = attrs.field(factory=dict)
    listening: Listening | None = None
    left: bool = False  # another's by now
    touched: float = 0.0  # lane seconds at which the plane's rows were last brought up to date

    def received(self) -> None:
        """Datagrams from clients, each to its session's server."""
        listener = self.listener
        lane, cells, row = listener.lane, listener.cells, listener.row
        receive, sessions = self.sock.recvfrom_into, self.sessions
        now = lane.now
        for _ in range(outbound.DATAGRAMS_A_WAKE):
            try:
                size, address = receive(_buffer)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error about an answer of ours
            cells[row + _IN] += 1
            cells[row + _BYTES_IN] += size
            session = sessions.get(address)
            if session is None or not session.server.usable():
                session = self.begin(address)
                if session is None:
                    cells[row + _DROPPED] += 1
                    continue
                header = listener.first_header(self.sock, address)
                if header:
                    self.introduce(session, header, bytes(_view[:size]))
                    continue
            session.seen = now
            try:
                session.send(_view[:size])
            except OSError as error:
                self.unsent(session, bytes(_view[:size]), error)
                continue
            cells[session.server.base + layout.Server.BYTES_OUT] += size

    def introduce(self, session: Session, header: bytes, data: bytes) -> None:
        """Send a session's first datagram."""
        try:
            session.send(header + data)
        except OSError as error:
            self.unsent(session, data, error)

    def unsent(self, session: Session, data: bytes, error: OSError) -> None:
        """A datagram could not be sent. If that is because the server is gone, as this send has just told of the one
        before: one more try, elsewhere."""
        listener = self.listener
        if outbound.is_gone(session.sock, error):
            session.server.failed(listener.lane.now_ns)
            again = self.begin(session.client, session.server)
            if again is not None:
                with contextlib.suppress(OSError):
                    again.send(listener.first_header(self.sock, session.client) + data)
                    return
        listener.cells[listener.row + _DROPPED] += 1

    def begin(self, address: Any, instead_of: Server | None = None) -> Session | None:
        """A session for a client that has none, or whose server is gone. None: refused, for want of room or servers."""
        old = self.sessions.get(address)
        if old is not None:
            instead_of = instead_of or old.server
            self.end(old)
        elif self.refused:
            instead_of = self.refused.pop(address, None) or instead_of
        listener = self.listener
        if listener.is_full():
            return None
        server = listener.pool.pick(address[0], () if instead_of is None else (instead_of,))
        if server is None and instead_of is not None:
            server = listener.pool.pick(address[0])
        if server is None:
            listener.no_server()
            return None
        try:
            return self._open(address, server, 0)
        except OSError:
            return None

    def _open(self, address: Any, server: Server, port: int) -> Session:
        """Open a session's own socket, from `port` if it had one. Raises OSError."""
        listener = self.listener
        sock = outbound.towards(server, port)
        session = self._have(address, server, sock, listener.lane.now)
        listener.cells[listener.row + layout.Listener.ACCEPTED] += 1
        return session

    def _have(self, address: Any, server: Server, sock: socket.socket, seen: float) -> Session:
        """A session of ours from now on."""
        listener = self.listener
        header = listener.every_header(self.sock, address)
        send = partial(_send_behind, sock, header) if header else sock.send
        session = Session(self, address, server, sock, seen, send)
        session.listening = listener.lane.watch(sock, session.answered)
        self.sessions[address] = session
        server.started()
        listener.cells[listener.row + _SESSIONS] += 1
        self.flows.put(address[0], address[1], server.row, sock.getsockname()[1], int(seen * 1e9))
        return session

    def adopt(self, handed: Iterable[tuple[Flow, socket.socket]]) -> None:
        """Sessions from the slot's last owner, their sockets included."""
        for flow, sock in handed:
            address = flow.address[: 2 if self.sock.family == socket.AF_INET else 4]
            server = self.listener.pool.by_row(flow.server_row)
            if server is None or address in self.sessions:
                sock.close()
            else:
                self._have(address, server, sock, flow.seen)
        if self.homeless:
            here = {address[:2] for address in self.sessions}
            self.homeless = [one for one in self.homeless if one[0] not in here]

    def poll(self, handed: Iterable[tuple[Flow, socket.socket]]) -> None:
        """Go on with the sessions that were `handed` over and those in the plane, and begin to receive. Not while flows
        of ours have their ports elsewhere: their sockets are on the way to us, and a datagram that came before them
        would move its flow. Meanwhile the kernel queues."""
        self.adopt(handed)
        self.restore()
        if not self.homeless:
            self.listening = self.listener.lane.watch(self.sock, self.received)
        else:
            self.listener.lane.spawn(self._poll_later())

    async def _poll_later(self) -> None:
        lane = self.listener.lane
        end = lane.now + PORTS_PATIENCE
        while self.homeless and lane.now < end:
            await lane.sleep(PORTS_LOOK)
            if self.left:
                return
            self.rehouse()
        self.listening = lane.watch(self.sock, self.received)

    def leave(self) -> None:
        """Another worker polls this slot from now on: it gets the sockets, or else finds the rows."""
        self.left = True
        if self.listening is not None:
            self.listening.close()
        sessions = list(self.sessions.values())
        for session in sessions:
            # Out of the epoll first: a socket that others hold would go on firing here.
            if session.listening is not None:
                session.listening.close()
        flows = [
            (Flow((*session.client, 0, 0)[:4], session.server.row, session.seen), session.sock.fileno())
            for session in sessions
        ]
        self.listener.hand_over(self.listener.name, self.number, flows)
        for session in sessions:
            self.end(session, forget=False)

    def end(self, session: Session, forget: bool = True) -> None:
        """Close a session; `forget` its row too, unless another worker is to go on with it."""
        if self.sessions.get(session.client) is session:
            del self.sessions[session.client]
        if session.listening is not None:
            session.listening.close()
            session.listening = None
            session.sock.close()
            session.server.ended()
            listener = self.listener
            listener.cells[listener.row + _SESSIONS] -= 1
            if forget:
                self.flows.remove(session.client[0], session.client[1])

    def end_all(self, server: Server) -> None:
        """Close the sessions of this server."""
        for session in [session for session in self.sessions.values() if session.server is server]:
            self.end(session)

    def restore(self) -> None:
        """Take up the flows that another worker left in the plane, and whose sockets it did not send."""
        listener = self.listener
        handed = {address[:2] for address in self.sessions}
        oldest = listener.lane.now_ns - int(listener.table.session_timeout * 1e9)
        for flow in list(self.flows):
            if flow.seen < oldest:
                self.flows.remove(flow.host, flow.port)
            elif (flow.host, flow.port) not in handed:
                self.homeless.append(((flow.host, flow.port), flow.server_row, flow.local_port))
        self.rehouse()

    def rehouse(self) -> None:
        """Bind the ports that the slot's last owner still held when we came."""
        waiting, self.homeless = self.homeless, []
        for address, server_row, port in waiting:
            server = self.listener.pool.by_row(server_row)
            if server is None:
                self.flows.remove(*address)
                continue
            if self.sock.family == socket.AF_INET6:
                address = (*address, 0, 0)
            if address in self.sessions:
                continue
            try:
                self._open(address, server, port)
            except OSError:
                self.homeless.append((address[:2], server_row, port))

    def waiting(self) -> int:
        """Nothing holds up a drain: the slot's next owner goes on with all of it."""
        return 0

    def sweep(self, now: float) -> None:
        """End the sessions that have been silent for too long."""
        timeout = self.listener.table.session_timeout
        if len(self.refused) > MAX_REFUSED:
            self.refused.clear()
        before, lately = now - timeout, now - timeout / TOUCHES
        for session in [session for session in self.sessions.values() if session.seen < before]:
            self.end(session)
        if lately >= self.touched:  # the plane's rows need not be newer than that
            for session in self.sessions.values():
                if session.seen >= self.touched:
                    self.flows.touch(session.client[0], session.client[1], int(session.seen * 1e9))
            self.touched = now
        if self.homeless:
            self.rehouse()


def _send_behind(sock: socket.socket, header: bytes, data: memoryview | bytes) -> None:
    """Send a datagram with the header in front."""
    sock.send(header + data)
