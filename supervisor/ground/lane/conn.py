"""A stream socket on the lane.

Owns the socket, what epoll last said of it, and the session to resume. `readable` and `writable` are kept because
trying a socket that has nothing costs more than knowing: a short read means that the buffer is drained (epoll(7),
edge-triggered), and until the next edge nobody tries again. TLS puts the same methods over the socket (net/tls.py).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from supervisor.ground.lane.sessions import PARK, Session

if TYPE_CHECKING:
    from supervisor.ground.lane.epoll import Lane

KIB = 1024
READ_SIZE = 64 * KIB  # one read: large enough for bulk, small enough to be freed at once
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER, no time: close sends RST


class Stream(Protocol):
    """What a session sees of a connection: plain, TLS, or a test's memory."""

    readable: bool
    writable: bool
    waiter: Session | None

    def recv_nowait(self, size: int = READ_SIZE) -> bytes | None: ...
    async def recv(self, size: int = READ_SIZE) -> bytes: ...
    def send_nowait(self, data: bytes) -> int: ...
    async def send(self, data: bytes) -> None: ...
    def shutdown_write(self) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


class Conn:
    """A plain stream socket. Every method raises OSError when the peer is gone. One session at a time waits for it, the
    last that did: two, each for a direction, would lose wake-ups to each other. Both directions belong to one session
    that uses `wait_any`."""

    __slots__ = ("_recv", "_send", "fd", "lane", "last", "on_idle", "readable", "sock", "waiter", "writable")

    def __init__(self, lane: Lane, sock: socket.socket) -> None:
        self.lane = lane
        self.sock = sock
        self.fd = sock.fileno()
        self.readable = True  # unknown, so worth a try
        self.writable = True
        self.last = False  # the peer has ended or failed: no further edge will come, so keep reading
        self.waiter: Session | None = lane.current
        self.on_idle: Callable[[Conn], None] | None = None
        self._recv = sock.recv
        self._send = sock.send

    def recv_nowait(self, size: int = READ_SIZE) -> bytes | None:
        """What is there, b"" at the end of the stream, None when nothing is there now."""
        if not self.readable:
            return None
        try:
            data = self._recv(size)
        except BlockingIOError:
            self.readable = False
            return None
        if len(data) < size and not self.last:
            self.readable = False
        return data

    async def recv(self, size: int = READ_SIZE) -> bytes:
        """Up to `size` bytes, as soon as there are any; b"" at the end of the stream."""
        lane = self.lane
        lane.credit -= 1
        if lane.credit < 0:
            await lane.pause()
        self.waiter = lane.current
        while True:
            if self.readable:
                try:
                    data = self._recv(size)
                except BlockingIOError:
                    self.readable = False
                else:
                    if len(data) < size and not self.last:
                        self.readable = False
                    return data
            if self.fd < 0:
                raise closed_here()
            await PARK

    def send_nowait(self, data: bytes | memoryview) -> int:
        """How many bytes the kernel took; 0 when it takes none now."""
        if not self.writable:
            return 0
        try:
            sent = self._send(data)
        except BlockingIOError:
            self.writable = False
            return 0
        if sent < len(data):
            self.writable = False
        return sent

    async def send(self, data: bytes) -> None:
        """All of `data`, as fast as the peer takes it."""
        sent = self.send_nowait(data)
        if sent == len(data):
            return
        self.waiter = self.lane.current
        rest = memoryview(data)[sent:]
        while rest:
            if not self.writable:
                if self.fd < 0:
                    raise closed_here()
                await PARK
                continue
            rest = rest[self.send_nowait(rest) :]

    def attach(self) -> None:
        """Let the running session own it: its events resume that session from now on."""
        self.waiter = self.lane.current
        self.on_idle = None

    def idle(self, callback: Callable[[Conn], None]) -> None:
        """Let nobody own it: `callback(conn)` when something happens to it (to a pooled connection: it closed)."""
        self.waiter = None
        self.on_idle = callback

    def shutdown_write(self) -> None:
        """End our side: the peer reads to the end of the stream. One that is gone already is none the worse."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self) -> None:
        """Close at the end of this round. Twice is once; a session that waits for it gets an OSError."""
        if self.fd >= 0:
            lane = self.lane
            if lane.conns.pop(self.fd, None) is not None:
                lane.closing.append(self.sock)
            self._give_up()

    def abort(self) -> None:
        """Close with a reset, so that the peer learns that something was lost."""
        if self.fd >= 0:
            try:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            except OSError:
                pass
            self.close()

    def release(self) -> socket.socket:
        """Take it off the lane without ending it, to hand it to another worker. Returns a descriptor of its own: the
        number that events of this round may still name stays taken until the round ends."""
        if self.fd < 0:
            raise closed_here()
        # Not `dup`: what was accepted is of the C class, which has none.
        lane, sock = self.lane, socket.socket(fileno=os.dup(self.fd))
        lane.epoll.unregister(self.fd)
        del lane.conns[self.fd]
        lane.closing.append(self.sock)
        self._give_up()
        return sock

    def _give_up(self) -> None:
        waiter = self.waiter
        self.fd = -1
        self.readable = self.writable = False
        self.waiter = self.on_idle = None
        if waiter is not None:
            self.lane.wake(waiter)


def closed_here() -> OSError:
    """What who waits for a connection gets when this side has closed it."""
    return OSError(errno.EBADF, os.strerror(errno.EBADF))


async def wait_any(*conns: Any) -> None:
    """Park until something happens to one of `conns` (all owned by this session from now on). The caller has looked at
    each before, and looks again after."""
    for conn in conns:
        conn.waiter = conn.lane.current
    await PARK
