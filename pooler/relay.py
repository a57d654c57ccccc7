"""The hot path: a client's statements to a server connection, the answers back, transaction after transaction.

A client holds a server from the first message of a transaction to the ReadyForQuery that leaves nothing outstanding
(`states`); in session mode, to its end. Both directions are pumped at once, each as fast as its far side takes it, so
that neither a pipeline nor a COPY can lock up; nothing is gathered beyond what one read brought. It is one long
function because each call in it would be paid with every transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pooler.errors import FEATURE_NOT_SUPPORTED, PROTOCOL_VIOLATION, ClientLeft, PeerError, ServerError, shutting_down
from pooler.fanout import open_channels
from pooler.messages import FLUSH, HEAD, HEAD_SIZE, READY_IDLE, parameter_status
from pooler.parameters import changed, differences, set_statement
from pooler.refusal import Canceled, NoReplica, Refusal
from pooler.renaming import execute
from pooler.routing import route
from pooler.settling import settle
from pooler.states import IDLE, MAX_MESSAGE, TERMINATE
from supervisor.ground.lane import PARK, Overdue
from supervisor.plane.layout import LeasePool

if TYPE_CHECKING:
    from pooler.client import Client
    from pooler.pool import ServerPool
    from pooler.server import ServerConnection
    from pooler.translation import Translation

# A client gets a server when its first message is whole, so that a slow sender holds none; a message larger than this
# is streamed from its beginning.
GATHER = 64 * 1024  # bytes: one read

# What a message means to a client that holds no server: it begins something, or is left over from a COPY.
_BEGINS, _LATE = 1, 2
_FIRST = bytes(_BEGINS if kind in b"BCDEFHPQS" else _LATE if kind in b"cdf" else 0 for kind in range(256))
_READY_BUSY = (READY_IDLE[:-1] + b"T", READY_IDLE[:-1] + b"E")  # ReadyForQuery, in a transaction
_NEVER = float("inf")
NO_TRANSACTIONS = "transactions don't exist in statement pooling mode"
_unpack = HEAD.unpack_from


async def serve(client: Client, pool: ServerPool, data: bytes) -> None:
    """Until the client says Terminate or closes. `data` is what it has sent already."""
    lane, session, conn = pool.lane, client.session, client.conn
    cells, idle, idle_cell = pool.cells, pool.idle, pool.base + LeasePool.IDLE
    receive, send = conn.recv_nowait, conn.send_nowait
    home, routed = pool, pool.readers is not None
    conn.waiter = session
    rest = b""  # of the last answers, what the client has not taken yet
    answer: bytes | None = None
    listening = client.listening
    while True:
        # What does the client want?
        while True:
            size = len(data)
            if size >= HEAD_SIZE:
                kind, length = _unpack(data)
                first = _FIRST[kind]
                if first == _BEGINS and 4 <= length < size:
                    break
                if first == _LATE:
                    data = await _drop(client, data)
                    continue
                if kind == TERMINATE:
                    client.graceful = True
                    return
                if not first:
                    raise PeerError(PROTOCOL_VIOLATION, f"invalid frontend message type {kind}")
                if not 4 <= length <= MAX_MESSAGE:
                    raise PeerError(PROTOCOL_VIOLATION, "invalid message length")
                if size >= GATHER:
                    break
            if listening is not None and not rest:
                rest = listening.take()
            if rest:  # who does not read its answers gets no others
                rest = rest[send(rest) :]
                if conn.writable:
                    continue  # all of it, or a TLS record
                more = None
            else:
                more = receive() if conn.readable else None
            if more is None:
                if pool.unusual and not data and not rest:
                    if pool.leaving:
                        raise shutting_down()
                    session.deadline = lane.now + pool.settings.client_idle_timeout
                await PARK
            elif more:
                data = data + more if data else more
            else:
                return

        unsent = b""  # noted as sent, not taken by the server yet
        noticed = False  # `data` begins with what may matter beyond its transaction
        trial = None  # of all that is sent, at a replica
        if routed:
            pool, trial = route(client, home, data)
            client.pool = pool
            idle, idle_cell = pool.idle, pool.base + LeasePool.IDLE

        # A server for it. What waiting costs when it is short is all here; what it does when it is not, in the pool.
        if idle:
            server = idle.pop()
            if not idle:
                cells[idle_cell] = 0
            if server.conn.readable and not pool.examine(server):
                server = await pool.wait(client)
            server.outstanding.unnamed = client.unnamed
        else:
            session.deadline = lane.now + pool.first_look
            client.data = data
            try:
                pool.enqueue(client)
                try:
                    await PARK
                except Overdue:
                    pass
                server = client.server or await pool.keep(client)
            except NoReplica:
                pool.leave(client)
                data += client.take_early()
                client.insists = True
                continue
            except Canceled:
                pool.leave(client)
                data = await _refuse(client, data + client.take_early())
                continue
            except BaseException:
                pool.leave(client)
                raise
            data, unsent, noticed = client.data, client.unsent, server.outstanding.noticed
            client.data = client.unsent = b""
        if client.early and trial is None:
            data += client.take_early()
        session.deadline = _NEVER
        client.server = server
        server.listener = client.counters
        out, upstream = server.outstanding, server.conn
        if server.settings is not client.settings:
            await _adapt(client, server)
        upstream.waiter = session
        sticky, statement = pool.sticky, pool.statement
        peculiar = statement or routed  # answers are more than passed on

        # Both directions, until the server is free.
        held = tail = b""  # of the client's and of the server's: less than a header, or a ReadyForQuery not all there
        translation = None  # of both directions, from what matters beyond the transaction to the end of its answers
        stopped = False  # what is held back waits for the server to have answered everything
        try:
            while True:
                if data:
                    server.asked = data
                    try:
                        if translation is not None:
                            data, held = await _translated(client, translation, data, out.client_left)
                            stopped = translation.waits
                        cut = 0 if noticed else out.sent(data)
                        if cut == len(data):
                            unsent = unsent + data if unsent else data
                        else:
                            unsent, held = unsent + data[:cut], data[cut:] + held
                            client.graceful, out.terminated = out.terminated, False
                            if out.noticed:
                                noticed = out.noticed = False
                                if renamed := execute(client, server, held):
                                    unsent, held = unsent + renamed, b""
                                else:
                                    translation, data, held, stopped = await _attend(client, server, held)
                                    unsent += data
                    except PeerError:
                        out.unknown = True  # noted in part, and none of it sent
                        raise
                    if translation is not None:
                        said = translation.take_said()
                        rest += said if trial is None else trial.received(said)
                    data = b""
                if unsent:
                    try:
                        cut = upstream.send_nowait(unsent)
                    except OSError:  # it may have said why before it closed
                        out.unknown = upstream.readable = True
                        cut = len(unsent)
                    unsent = b"" if cut == len(unsent) else unsent[cut:]
                if upstream.readable and not rest:
                    try:
                        answer = upstream.recv_nowait()
                    except OSError:
                        answer = b""
                    if answer is not None:
                        if not answer:
                            raise _lost(out.failing and (trial is None or trial.judged))
                        if tail:
                            answer = tail + answer
                        cut = out.received(answer)
                        if cut == len(answer):
                            tail = b""
                        else:
                            tail = answer[cut:]
                            answer = answer[:cut]
                        if translation is not None:
                            answer = translation.answers.received(answer)
                            if not translation.active:
                                translation, out.watching = None, True
                        if peculiar:
                            if trial is not None:
                                answer = trial.received(answer)
                                if out.free and not trial.judged:
                                    held = trial.again(client)
                            if statement and out.status != IDLE:
                                # Instead of the ReadyForQuery: behind it, a client would take the error for a notice.
                                rest = answer[: -len(READY_IDLE)] if answer.endswith(_READY_BUSY) else answer
                                raise PeerError(FEATURE_NOT_SUPPORTED, NO_TRANSACTIONS)
                        if answer:
                            cut = send(answer)
                            if cut != len(answer):
                                rest = answer[cut:]
                        if out.parameters:
                            _note(client, server)
                        if not out.free:
                            lane.credit -= 1
                            if lane.credit < 0:
                                await lane.pause()
                            continue
                if not unsent and out.free:
                    if client.unsettled:
                        await settle(client, server)
                        listening = client.listening
                        sticky = pool.sticky or bool(client.pins)
                        if sticky and server.settings is not client.settings:
                            await _adapt(client, server)
                    if not sticky:
                        break
                    if pool.leaving:
                        raise shutting_down()
                    session.deadline = lane.now + pool.settings.client_idle_timeout
                    if listening is not None and not rest:
                        rest = listening.take()
                if rest:
                    rest = rest[send(rest) :]
                    if conn.writable:
                        continue
                if stopped:
                    if conn.readable and trial is None:  # it may leave before the answer is there
                        client.listen(GATHER, out, rest)
                    if out.quiet and not (unsent or tail):
                        data, held, stopped = held if trial is not None else held + client.take_early(), b"", False
                        continue
                elif client.graceful:  # only the answers are still to come, unless the server waits for the client
                    if not unsent and not rest and (not out.fifo or out.copy_in or out.unknown):
                        break
                    if client.ended:
                        client.end(out, rest)
                elif trial is not None:
                    client.listen(GATHER, out, rest)
                elif conn.readable and not unsent:
                    more = receive()
                    if more is not None:
                        if not more:
                            client.end(out, rest)
                            continue
                        data = held + more if held else more
                        held = b""
                        session.deadline = _NEVER
                        lane.credit -= 1
                        if lane.credit < 0:
                            await lane.pause()
                        continue
                await PARK
        except BaseException:
            if unsent:
                out.unknown = True
            server.tail = tail
            client.rest = rest
            client.midway = out.server_left > 0 and (trial is None or trial.judged)
            raise
        if sticky or not out.free:
            server.tail = tail
            return
        if translation is not None:
            translation.end()
            out.watching = True
        client.server = answer = None  # a large answer must not stay with an idle client
        pool.release(server)
        data = held + client.take_early() if stopped or trial is not None else held


def _lost(told: bool) -> ServerError:
    """The server is gone; if it has said so itself, the client knows."""
    return ServerError("" if told else "server closed the connection unexpectedly")


def _note(client: Client, server: ServerConnection) -> None:
    """The server reported parameters, and the client has read them too."""
    news = server.note(server.outstanding.parameters)
    client.settings = changed(client.settings, {name: news[name] for name in news if name in client.settings})


async def _attend(
    client: Client, server: ServerConnection, data: bytes
) -> tuple[Translation | None, bytes, bytes, bool]:
    """`data` begins with what may matter beyond its transaction. Its translation, if all up to the answers has to pass
    it; what to send, noted already; what to hold back, and whether that waits until the server has answered."""
    out = server.outstanding
    translation = client.translate(server)
    renamed, held = translation.rename(data), b""
    out.watching = False
    if renamed is None and not out.quiet:
        renamed, held = FLUSH if out.unsynced else b"", data
        stopped = True
    else:
        stopped = False
        if renamed is None:
            translation.begin()
            renamed, held = await _translated(client, translation, data, 0)
            stopped = translation.waits
    client.unnamed = translation.remembered
    cut = out.sent(renamed)
    if cut != len(renamed):
        renamed, held = renamed[:cut], renamed[cut:] + held
        client.graceful, out.terminated = out.terminated, False
    if translation.active:
        return translation, renamed, held, stopped
    out.watching = True
    return None, renamed, held, stopped


async def _translated(client: Client, translation: Translation, data: bytes, left: int) -> tuple[bytes, bytes]:
    """What to send, and what to hold back. The first `left` bytes belong to a message that has passed already."""
    sent, held = translation.take(data, left)
    while translation.wants:
        denied = await open_channels(client, translation.wants)
        more, held = translation.take(held, 0, denied)
        sent += more
    client.unnamed = translation.remembered
    return sent, held


async def _adapt(client: Client, server: ServerConnection) -> None:
    """Set what the client has set; what the server makes of the values, the client is told."""
    differing = differences(client.settings, server.settings, server.greeting)
    if differing:
        try:
            await server.command(set_statement(differing))
        except ServerError as error:
            if server.outstanding.free:
                raise PeerError(error.sqlstate, error.message) from None
            raise
        server.keep(differing)
        settled = {name: server.settings.get(name, value) for name, value in differing.items() if value is not None}
        told = [parameter_status(name, value) for name, value in settled.items() if value != differing[name]]
        if told:
            await client.conn.send(b"".join(told))
        client.settings = changed(client.settings, settled)
    if not differences(client.settings, server.settings, server.greeting):
        client.settings = server.settings


async def _refuse(client: Client, data: bytes) -> bytes:
    """Answer the statement that `data` begins with: canceled. What is left over."""
    refusal = Refusal()
    while True:
        answer, data = refusal.take(data)
        if answer:
            await client.conn.send(answer)
        if refusal.done:
            return data
        data += await _more(client)


async def _drop(client: Client, data: bytes) -> bytes:
    """CopyData, CopyDone or CopyFail outside of a COPY that has failed meanwhile: ignored, as PostgreSQL does. The
    rest."""
    _, length = _unpack(data)
    if not 4 <= length <= MAX_MESSAGE:
        raise PeerError(PROTOCOL_VIOLATION, "invalid message length")
    left = length + 1
    while left > len(data):
        left -= len(data)
        data = await _more(client)
    return data[left:]


async def _more(client: Client) -> bytes:
    data = await client.conn.recv()
    if not data:
        raise ClientLeft
    return data
