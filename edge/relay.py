"""Bytes both ways between two connections, until both have ended.

Each direction holds at most one read that the other side has not taken yet, and reads no more before that is gone: so a
slow reader slows its writer down, and a connection needs no other buffer. Half-close passes through: the end of one
side's stream ends only that direction. The two are written out beside each other: a call for each read and write is
what a connection's cost is made of.
"""

from __future__ import annotations

from edge.bulk import Pipes, bulk
from edge.connection import Connection
from supervisor.ground.lane import PARK, READ_SIZE, Session
from supervisor.plane import layout

_IN, _OUT = layout.Listener.BYTES_IN, layout.Listener.BYTES_OUT
_TO, _FROM = layout.Server.BYTES_OUT, layout.Server.BYTES_IN

BULK_AFTER = 8  # whole reads, half a MiB: a connection that moved as much is bulk until bulk.py finds that it is not
READS_A_TURN = 16  # of up to 64 KiB each: about 1 MiB, then the others have their turn


async def relay(
    session: Session, connection: Connection, cells: memoryview, at: int, to: int, pipes: Pipes | None = None
) -> None:
    """Carry bytes until both sides have ended theirs, beginning with those that were read already. Raises OSError as
    either side gives it, Overdue after the connection's idle timeout of silence. `at` and `to` are the listener's and
    the server's rows of counters in `cells`; what was read already is its reader's to count. With `pipes`, for plain
    sockets alone, bulk goes through the kernel."""
    lane = session.scheduler
    client, server, idle = connection.stream, connection.upstream, connection.idle_timeout
    read_client, read_server = client.recv_nowait, server.recv_nowait
    write_client, write_server = client.send_nowait, server.send_nowait
    up: bytes | memoryview = connection.first  # read from the client, not yet taken by the server
    connection.first = b""
    down: bytes | memoryview = b""
    asking = answering = True  # the client's stream, the server's stream have not ended
    reads = whole = 0
    while True:
        moved = False
        if up:
            sent = write_server(up)
            if sent:
                up = memoryview(up)[sent:]
                moved = True
        elif asking:
            data = read_client()
            if data:
                size = len(data)
                cells[at + _IN] += size
                cells[to + _TO] += size
                connection.bytes_in += size
                if size == READ_SIZE:
                    whole += 1
                sent = write_server(data)
                if sent < size:
                    up = memoryview(data)[sent:]
                moved = True
            elif data is not None:
                if not answering:
                    return
                asking = client.readable = False
                server.shutdown_write()
        elif client.readable:
            # Its stream has ended, and yet something happened to it: reading gives the end again, writing tells of a
            # reset (Linux makes it EPIPE in CLOSE_WAIT).
            client.readable = False
            write_client(b"")
        if down:
            sent = write_client(down)
            if sent:
                down = memoryview(down)[sent:]
                moved = True
        elif answering:
            data = read_server()
            if data:
                size = len(data)
                cells[at + _OUT] += size
                cells[to + _FROM] += size
                connection.bytes_out += size
                if size == READ_SIZE:
                    whole += 1
                sent = write_client(data)
                if sent < size:
                    down = memoryview(data)[sent:]
                moved = True
            elif data is not None:
                if not asking:
                    return
                answering = server.readable = False
                client.shutdown_write()
        elif server.readable:
            server.readable = False
            write_server(b"")
        if moved:
            # Another look only where there may be more: a short read has told that there is not.
            # A partial write is no sign of a full socket where TLS takes a record at a time.
            if ((client.readable if not up else server.writable) and (asking or up)) or (
                (server.readable if not down else client.writable) and (answering or down)
            ):
                reads += 1
                if reads == READS_A_TURN:
                    reads = 0
                    await lane.pause()
                if whole >= BULK_AFTER and pipes is not None and not up and not down:
                    whole = 0
                    asking, answering = await bulk(session, connection, cells, at, to, pipes, asking, answering)
                    if not asking and not answering:
                        return
                continue
            session.deadline = lane.now + idle
        reads = 0
        await PARK
