"""A listener at work in one worker: accepts connections, finds out who is there, ends TLS, hands over to the session.

A reload swaps `plan` and `here`; connections look at them anew for each request. Whatever goes wrong with a connection
ends here, counted, and costs nobody else anything.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from cryptography import x509
from OpenSSL import SSL

from gateway.admission import UNREAD
from gateway.connection import Connection
from gateway.errors import PeerError
from gateway.forwarded import Client
from gateway.http2.session import serve as serve_http2
from gateway.http2.session import spoken_http2
from gateway.plan import ListenerPlan, Plan, alpn
from gateway.problems import answer
from gateway.session import HEAD_SECONDS, serve
from gateway.shared import Shared
from gateway.transport import HTTP2
from supervisor.ground.lane import Listening, Overdue, Session
from supervisor.ground.net import proxy
from supervisor.ground.net.addresses import plain_address
from supervisor.ground.net.introduction import introduced, peeked
from supervisor.ground.net.peers import PeerPolicy
from supervisor.ground.net.tls import Acceptor
from supervisor.ground.net.tlsconn import PlainHttp, TlsConn
from supervisor.plane import layout

_L = layout.Listener
_DISCARDED: Final = 1 << 16  # bytes

MakeBase = Callable[[str, Sequence[bytes]], SSL.Context]  # by the listener's name and its protocols


class Listener:
    """One listener. `live` has its connections by session."""

    def __init__(
        self, shared: Shared, name: str, counters: int, plan: Plan, here: ListenerPlan, make_base: MakeBase
    ) -> None:
        self.shared = shared
        self.name = name
        self.counters = counters
        self.live: dict[Session, Connection] = {}
        self.draining = False  # connections end with their next answer
        self._make_base = make_base
        self._acceptor: Acceptor | None = None
        self._polled: dict[int, Listening] = {}
        self.take(plan, here)

    def take(self, plan: Plan, here: ListenerPlan) -> None:
        """Work by this plan from now on. Can't fail."""
        self.plan = plan
        self.here = here
        if here.certificates is None:
            self._acceptor = None
        elif self._acceptor is None:
            self._acceptor = Acceptor(self._make_base(self.name, alpn(here.table)), here.certificates)
        else:
            self._acceptor.certificates = here.certificates

    # -- slots

    def attach(self, slot: int, sock: socket.socket) -> None:
        self._polled[slot] = self.shared.lane.listen(sock, self.accepted)

    def detach(self, slot: int) -> None:
        listening = self._polled.pop(slot, None)
        if listening is not None:
            listening.close()

    # -- connections

    def opening(self) -> int:
        """Connections that still introduce themselves (PROXY header, TLS): a drain must not forget them."""
        return self.shared.cells[self.counters + _L.ACTIVE] - len(self.live)

    def accepted(self, sock: socket.socket, address: Any) -> Coroutine[Any, Any, None]:
        self.shared.cells[self.counters + _L.ACCEPTED] += 1
        return self.welcome(sock, plain_address(str(address[0])))

    async def welcome(self, sock: socket.socket, ip: str) -> None:
        """One connection from accept to close; `ip` is the peer's address."""
        shared, here = self.shared, self.here
        cells, counters, lane = shared.cells, self.counters, shared.lane
        session = lane.current
        conn = lane.adopt(sock)
        stream: Any = conn
        cells[counters + _L.ACTIVE] += 1
        try:
            session.deadline = lane.now + HEAD_SECONDS
            acceptor = self._acceptor
            data = b""
            if here.must_introduce(ip):
                if acceptor is None:
                    header, data = await introduced(conn)
                else:
                    header = await peeked(conn)
                if header.source is not None:
                    ip = header.source[0]
            peer = ""
            if acceptor is not None:
                tls: TlsConn = acceptor.wrap(conn)
                stream = tls
                try:
                    await tls.handshake()
                except (OSError, Overdue) as error:
                    cells[counters + _L.HANDSHAKE_FAILURES] += 1
                    if isinstance(error, PlainHttp):
                        self._say_https(sock, ip)
                    return
                if acceptor.certificates.peers is not None:
                    peer = name_of(acceptor.certificates.peers, tls)
            client = Client(ip, "http" if acceptor is None else "https", here.trusts(ip), peer, here.peer_header)
            connection = self.live[session] = Connection(self, stream, client, lane.now)
            if acceptor is not None:
                http2 = tls.alpn() == HTTP2
            else:
                http2, data = await spoken_http2(connection, data) if here.table.speaks_http2 else (False, data)
            await (serve_http2 if http2 else serve)(shared, connection, data)
        except proxy.ProxyError:
            cells[counters + _L.PROTOCOL_ERRORS] += 1
        except Overdue:
            cells[counters + _L.TIMEOUTS] += 1
        except OSError:
            cells[counters + _L.RESETS] += 1
        finally:
            self.live.pop(session, None)
            stream.close()
            cells[counters + _L.ACTIVE] -= 1

    def _say_https(self, sock: socket.socket, ip: str) -> None:
        """Tell a client that speaks plain HTTP what it has come to. What it sends is not read: so far nobody knows
        where its request ends."""
        shared, lane = self.shared, self.shared.lane
        request_id, _ = (shared.identities.ready or shared.identities.more()).pop()
        error = PeerError("plain_http", "this port speaks TLS: use https://")
        fields = (self.plan.served_by,) if self.plan.served_by else ()
        reply = answer(error, request_id, lane.wall, close=True, fields=fields)
        shared.account(self.counters, None, UNREAD, json.dumps(ip), "null", "", error.status, error.code, request_id,
                       0, len(reply), lane.now_ns)  # fmt: skip
        try:
            sock.send(reply)
            sock.shutdown(socket.SHUT_WR)
            sock.recv(_DISCARDED)  # what is there already would make closing a reset, which could overtake the answer
        except OSError:
            pass


def name_of(peers: PeerPolicy, tls: TlsConn) -> str:
    """What the client is called by its certificate; "" if it showed none."""
    certificate = tls.peer_certificate()
    return "" if certificate is None else peers.name_of(x509.load_der_x509_certificate(certificate)) or ""
