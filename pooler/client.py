"""One client: from its first byte to its last.

Owns its connection, what it has set, and which server it holds. A session reads: admit, serve, take leave; the errors
of both peers end up here, and become an ErrorResponse where the client can still read one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import attrs

from pooler import admission, recovery, replication
from pooler.console import session as console
from pooler.encodings import UTF8
from pooler.errors import PROTOCOL_VIOLATION, ClientLeft, PeerError, ServerError, shutting_down
from pooler.journal import Journal
from pooler.messages import parameter_status
from pooler.parameters import EMPTY, Values
from pooler.relay import serve
from pooler.sql import Pin
from pooler.states import UNBOUND, Outstanding
from pooler.translation import Translation
from pooler.walsender import Walsender
from supervisor.ground.lane import Overdue
from supervisor.plane.layout import Listener as Counter

if TYPE_CHECKING:
    from pooler.listener import Listener
    from pooler.listening import Listening
    from pooler.pool import ServerPool
    from pooler.runtime import PoolerRuntime
    from pooler.server import ServerConnection
    from supervisor.ground.lane import Session, Stream
    from supervisor.ground.net.tlsconn import TlsConn

FAREWELL = 5.0  # seconds for a client to take the last of what it is sent


@attrs.define(eq=False)
class Client:
    """A client in this worker."""

    conn: Stream
    session: Session
    address: Any
    listener: Listener
    counters: int  # of its listener in this column
    secured: TlsConn | None = None  # `conn`, once it is encrypted
    user: str = ""
    database: str = ""
    pool: ServerPool | None = None  # once it is logged in; that of its transaction, where these are routed
    home: ServerPool | None = None  # of its database and user
    wrote: bool = False  # its last transaction went to the primary, where transactions are routed
    written_ns: int = 0  # monotonic: later than its last transaction there; 0: it has made none
    insists: bool = False  # a replica has refused what it asks: the primary must answer
    needs: int = 0  # how far a replica must be to show that; 0: not known yet
    server: ServerConnection | None = None  # that it holds, or has just been given
    settings: Values = EMPTY  # what it believes to be set
    base: Values = EMPTY  # what it asked for at startup: RESET brings it back
    translation: Translation | None = None  # once it has sent what matters beyond a transaction
    unnamed: int = UNBOUND  # of `Outstanding.unnamed`, when it gets a server
    unsettled: bool = False  # its journal has something
    pins: Pin = Pin.NONE  # why it keeps its server
    listening: Listening | None = None  # once it has sent a LISTEN
    replicating: Walsender | None = None  # its server connection sends WAL, or might
    ticket: int = 0  # monotonic ns at which it began to wait
    data: bytes = b""  # what it waits with, for whoever gives it a server to send
    unsent: bytes = b""  # of that, what has been noted as sent, but the server has not taken yet
    early: bytes = b""  # what it sent while it waited
    rest: bytes = b""  # what it has not taken yet of its answers, when its session breaks off
    graceful: bool = False  # it said Terminate, or has ended its side in good order
    ended: bool = False  # that: it sends no more, and waits for the answers
    asked: bool = False  # whether it is still there, since then
    midway: bool = False  # it has the beginning of a message: nothing else may come before the rest
    key: int = 0  # process id of its cancel key
    told: bool = False  # that it has to wait, once in its life
    connected: float = 0.0  # wall clock

    @property
    def server_encoding(self) -> str:
        """Of its database."""
        reported = self.home.reported if self.home is not None else None
        return UTF8 if reported is None else reported.get("server_encoding", UTF8)

    def translate(self, server: ServerConnection) -> Translation:
        """Its translation, for the messages to this server."""
        pool = self.pool
        assert pool is not None
        if self.translation is None:
            journal = Journal(self)
            self.translation = Translation(journal, pool.settings.max_prepared_statements, pool.settings.refuses)
        self.translation.place = "\0".join(self.settings.get(name, "") for name in ("search_path", "role")).encode()
        self.translation.enter(server.outstanding, server.statements)
        return self.translation

    def listen(self, limit: int, out: Outstanding | None = None, rest: bytes = b"") -> None:
        """While it waits: take what it sends, up to about `limit` bytes. Raises ClientLeft; see `end`."""
        while len(self.early) < limit:
            data = self.conn.recv_nowait()
            if data is None:
                return
            if not data:
                self.end(out, rest)
                return
            self.early += data

    def end(self, out: Outstanding | None = None, rest: bytes = b"") -> None:
        """It has ended its side. Like PostgreSQL, we answer what it sent before, if it is still there to hear it; `out`
        is of its server, `rest` what it has not taken yet of its answers. Raises ClientLeft.

        The end of the stream looks the same of one that is gone, but that one's machine answers what we send by a
        reset: so it is told a parameter that it knows, which PostgreSQL may do at any time (55.2.7 "Asynchronous
        Operations"). By TLS nobody ends one side only.
        """
        owed = out is None or rest or (out.fifo and not (out.copy_in or out.unknown or out.client_left))
        if not owed or self.home is None or self.secured is not None:
            raise ClientLeft
        question = b""
        if self.conn.writable and not self.asked and not rest and (out is None or not out.server_left):
            self.asked = True
            question = parameter_status("application_name", self.settings.get("application_name", ""))
        try:
            heard = self.conn.send_nowait(question) == len(question)
        except OSError:
            heard = False
        if not heard:
            self.graceful = False
            raise ClientLeft
        self.ended = self.graceful = True

    def take_early(self) -> bytes:
        early, self.early = self.early, b""
        return early


async def run(runtime: PoolerRuntime, conn: Stream, address: Any, listener: Listener) -> None:
    """The session of a client."""
    cells, counters = runtime.cells, listener.counters
    client = Client(conn, runtime.lane.current, address, listener, counters, connected=runtime.lane.wall)
    runtime.enter(client)
    try:
        early = await admission.admit(runtime, client)
        if early is not None and client.pool is not None:
            client.session.deadline = math.inf
            if client.replicating is None:
                await serve(client, client.pool, early)
            else:
                await replication.serve(client, client.replicating, early)
        elif early is not None:
            await console.serve(runtime, client, early)
    except PeerError as error:
        if error.sqlstate == PROTOCOL_VIOLATION:
            cells[counters + Counter.PROTOCOL_ERRORS] += 1
        await _say(client, error)
    except ServerError as error:
        client.midway |= not error.message
        await _say(client, PeerError(error.sqlstate, error.message))
    except Overdue:
        cells[counters + Counter.TIMEOUTS] += 1
        timeout = "client_login_timeout" if client.pool is None else "client_idle_timeout"
        await _say(client, attrs.evolve(shutting_down(), message=f"terminating connection due to {timeout}"))
    except ClientLeft:
        pass
    except OSError:
        cells[counters + Counter.RESETS] += 1
    finally:
        _give_back(client)
        runtime.forget(client)
        client.conn.close()


async def _say(client: Client, error: PeerError) -> None:
    """The last word, if the client can hear it."""
    client.graceful = False  # it is not the client who ends this
    _give_back(client)
    if client.midway:
        return
    try:
        client.session.expire_in(FAREWELL)
        await client.conn.send(client.rest + error.encode())
        client.conn.shutdown_write()
    except (OSError, Overdue):
        pass


def _give_back(client: Client) -> None:
    server, client.server = client.server, None
    if server is not None and client.pool is not None:
        translation = client.translation
        server.spoiled |= bool(client.pins) or client.unsettled or (translation is not None and translation.active)
        client.pins, client.unsettled = Pin.NONE, False
        recovery.recover(client.pool, server, client.graceful)
