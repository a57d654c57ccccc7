"""The lane's engine: one edge-triggered epoll inside one trio task.

Every socket is registered once, for both directions, and stays registered. An event marks the socket readable or
writable and resumes the session that owns it, directly. Sockets are closed at the end of the round in which they are
given up, so a descriptor number is never reused while events of the same batch may still name it. Listeners are
level-triggered; one that meets EMFILE rests and is counted.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar, TypeVarTuple, cast

import trio

from supervisor.ground.lane.bridge import bridge
from supervisor.ground.lane.conn import Conn
from supervisor.ground.lane.sessions import PARK, PARKED, TURN_READS, Crashed, Scheduler

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

EVENTS_A_ROUND = 256
ROUNDS_A_VISIT = 64  # before trio's other tasks get their turn; most take some 10 µs, and a busy one 150
ACCEPTS_A_ROUND = 16  # per listener, so that a storm of connections does not starve those already here
# One round follows the other for so long, and the next event is waited for without trio for as long again: its other
# tasks may be late by both.
VISIT_SECONDS = LINGER_SECONDS = 0.002
SWEEP_SECONDS = 0.1
REST_SECONDS = 0.1  # how long a listener rests after EMFILE: descriptors come back as connections end

_EDGE = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
_READ = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_WRITE = select.EPOLLOUT | select.EPOLLHUP | select.EPOLLERR
_LAST = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_USUAL = select.EPOLLIN | select.EPOLLOUT  # something came, and the send buffer has room as ever
_STREAM = int(socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
_FULL = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

Prepare = Callable[[socket.socket], None]
Accept = Callable[[socket.socket, Any], Coroutine[Any, Any, None] | None]


def _nobody() -> None:
    """In the place of what polled a socket until it was closed."""


class Listening:
    """A listening socket on the lane, stream or datagram. `close` takes it out of the epoll; the socket stays open,
    for it belongs to the supervisor and to whichever worker polls it next."""

    __slots__ = ("_lane", "paused", "ready", "sock")

    def __init__(self, lane: Lane, sock: socket.socket, ready: Callable[[], None]) -> None:
        self._lane = lane
        self.sock = sock
        self.ready = ready
        self.paused = False

    def close(self) -> None:
        self._lane.forget(self)
        self.ready = _nobody  # its own refers back here: what it holds goes now, not when the collector comes

    def rest(self, seconds: float = REST_SECONDS) -> None:
        """Stop polling for a while."""
        self._lane.rest(self, seconds)


class Lane(Scheduler):
    """The scheduler over a real epoll. `run` is the one trio task; everything else is called by sessions."""

    def __init__(self, crashed: Crashed | None = None) -> None:
        super().__init__(time.monotonic(), crashed)
        self.wall = time.time()
        self.epoll = select.epoll()
        self.conns: dict[int, Conn] = {}
        self.listening: dict[int, Listening] = {}
        self.accept_paused = 0  # times a listener had to rest for want of descriptors or memory
        self.closing: list[socket.socket] = []
        self._resting: list[tuple[float, Listening]] = []
        self._asleep = False
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.epoll.register(self._bell, select.EPOLLIN)
        self._nursery: trio.Nursery | None = None

    # -- sockets

    def adopt(self, sock: socket.socket) -> Conn:
        """Take a connected (or connecting) socket onto the lane. The session that runs now owns it, until it waits in
        another (`Conn.attach`)."""
        sock.setblocking(False)
        conn = Conn(self, sock)
        self.conns[conn.fd] = conn
        self.epoll.register(conn.fd, _EDGE)
        return conn

    def listen(self, sock: socket.socket, accepted: Accept) -> Listening:
        """Poll a listening socket; `accepted(socket, address)` returns the coroutine that serves a connection, or None
        when it has refused it (and closed it). If it raises the connection is closed."""
        sock.setblocking(False)
        # `socket.accept` and the class it returns cost more than the system call; the C class under them does not.
        accept = sock._accept  # type: ignore[attr-defined]  # typeshed leaves it out
        spawn, make = self.spawn, socket.SocketType
        family, kind, protocol = int(sock.family), int(sock.type), sock.proto
        if family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # Linux: what it accepts inherits this
        expected = 1  # accepts worth trying: one that finds nothing costs as much as half of one that does

        def ready() -> None:
            nonlocal expected
            served = False
            for _ in range(expected):
                try:
                    fd, address = accept()
                except BlockingIOError:
                    expected = max(1, expected // 2)
                    return
                except OSError as error:
                    if error.errno in _FULL:
                        self.accept_paused += 1
                        listening.rest()
                        return
                    continue  # RFC 9293 §3.10.7: one aborted in the queue is its own affair
                served = True
                client = cast(socket.socket, make(family, kind, protocol, fd))
                try:
                    coro = accepted(client, address)
                except BaseException:
                    client.close()
                    raise
                if coro is not None:
                    spawn(coro)
            if not served and expected == ACCEPTS_A_ROUND:
                listening.rest()  # not single connections but the listener fails: don't spin
            expected = min(ACCEPTS_A_ROUND, 2 * expected)

        listening = self.watch(sock, ready)
        return listening

    def watch(self, sock: socket.socket, ready: Callable[[], None]) -> Listening:
        """Poll any socket level-triggered and call `ready` when it can be read: datagram sockets, chiefly."""
        listening = Listening(self, sock, ready)
        self.listening[sock.fileno()] = listening
        self.epoll.register(sock.fileno(), select.EPOLLIN)
        return listening

    def forget(self, listening: Listening) -> None:
        """Stop polling. Must come before the socket is closed: one that others share would go on firing."""
        fd = listening.sock.fileno()
        if self.listening.get(fd) is listening:
            del self.listening[fd]
            if not listening.paused:
                self.epoll.unregister(fd)
        self._resting = [(due, one) for due, one in self._resting if one is not listening]

    def rest(self, listening: Listening, seconds: float) -> None:
        """Stop polling a listener for `seconds`."""
        if not listening.paused and self.listening.get(listening.sock.fileno()) is listening:
            listening.paused = True
            self.epoll.unregister(listening.sock.fileno())
            self._resting.append((self.now + seconds, listening))

    async def connect(self, family: int, address: Any, prepare: Prepare | None = None) -> Conn:
        """A connection to `address`; `prepare` may do something to its socket before. Raises OSError; deadlines are the
        caller's."""
        sock = cast(socket.socket, socket.SocketType(family, _STREAM))
        try:
            if family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if prepare is not None:
                prepare(sock)
            failure = sock.connect_ex(address)
            if failure not in (0, errno.EINPROGRESS):
                raise OSError(failure, os.strerror(failure))
        except BaseException:
            sock.close()
            raise
        conn = self.adopt(sock)
        conn.waiter = self.current
        conn.readable = False  # whatever comes makes an event, from the first byte on
        if failure == 0:
            return conn
        try:
            conn.writable = False
            while not conn.writable:
                await PARK
            failure = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if failure:
                raise OSError(failure, os.strerror(failure))
        except BaseException:
            conn.close()
            raise
        return conn

    # -- the bridge to trio

    async def offload(self, function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
        """Run `function` as a real trio task and return its result or raise its error. Cancelling the session cancels
        the task."""
        if self._nursery is None:
            raise RuntimeError("the lane is not running")
        return await bridge(self, self._nursery, function, *args)

    def kick(self) -> None:
        if self._asleep:
            self._asleep = False
            os.eventfd_write(self._bell, 1)

    # -- the one trio task

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Drive everything until cancelled; then every session is cancelled and its `finally` blocks run."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._sweeper)
            task_status.started()
            quiet = True
            try:
                while True:
                    if quiet and not self._queue:
                        self._asleep = True
                        await trio.lowlevel.wait_readable(self.epoll.fileno())
                        self._asleep = False
                    else:
                        await trio.lowlevel.checkpoint()
                    quiet = self._visit()
            finally:
                self._nursery = None
                self.end_all()
                self._close_all()
                nursery.cancel_scope.cancel()

    def _visit(self) -> bool:
        """Rounds, for as long as there is something to do. Under a load that leaves pauses most of them are far
        shorter than a wait through trio, which costs as much as a small request: so they are waited for here, a
        little. True: nothing came for that long."""
        quiet = False
        until = time.monotonic() + VISIT_SECONDS
        for _ in range(ROUNDS_A_VISIT):
            quiet = not self._round(0 if self._queue else LINGER_SECONDS)
            if quiet or self.now >= until:
                break
        if self.lulls:
            self._look_at_clock()
            self.lull(quiet)
        return quiet

    def _round(self, seconds: float = 0) -> bool:
        """Wait for events for so long, resume whom they concern, then the run queue. False: nothing was there."""
        events = self.epoll.poll(seconds, EVENTS_A_ROUND)
        if not events and not self._queue:
            if self.closing:
                self._close_all()
            return False
        self.now_ns = now_ns = time.monotonic_ns()
        self.now = now_ns / 1e9
        self.wall = time.time()
        get = self.conns.get
        for fd, event in events:
            conn = get(fd)
            if conn is None:
                listening = self.listening.get(fd)
                if listening is not None:
                    self.call(listening.ready)
                elif fd == self._bell:
                    os.eventfd_read(fd)
                continue
            if event == _USUAL:
                conn.readable = conn.writable = True
            else:
                if event & _READ:
                    conn.readable = True
                    if event & _LAST:
                        conn.last = True
                if event & _WRITE:
                    conn.writable = True
            session = conn.waiter
            if session is None:
                # The same as `call`, inlined: answers over HTTP/2 come in here.
                on_idle = conn.on_idle
                if on_idle is not None:
                    self.current = None  # type: ignore[assignment]  # outside of any session, as there
                    try:
                        on_idle(conn)
                    except Exception as error:
                        self.called(error)
                continue
            if session.queued or session.done:
                continue  # a queued one has its turn in this round anyway
            # The same as `step`, inlined: this is the hottest call there is.
            self.current = session
            self.credit = TURN_READS
            try:
                token = session.resume(None)
            except StopIteration:
                self._ended(session, None)
            except BaseException as error:
                self._ended(session, error)
            else:
                if token is not PARKED:
                    self.foreign(session, token)
        if self._queue:
            self.turn()
        if self.at_round_end:
            self.finish_round()
        if self.closing:
            self._close_all()
        return True

    def _look_at_clock(self) -> None:
        self.now_ns = time.monotonic_ns()
        self.now = self.now_ns / 1e9
        self.wall = time.time()

    def _resume_listening(self) -> None:
        rested = [listening for due, listening in self._resting if due <= self.now]
        self._resting = [(due, listening) for due, listening in self._resting if due > self.now]
        for listening in rested:
            listening.paused = False
            self.epoll.register(listening.sock.fileno(), select.EPOLLIN)

    def _close_all(self) -> None:
        closing, self.closing = self.closing, []
        for sock in closing:
            sock.close()

    async def _sweeper(self) -> None:
        while True:
            await trio.sleep(SWEEP_SECONDS)
            self._look_at_clock()
            self.sweep()
            if self._resting:
                self._resume_listening()
            if self.closing:
                self._close_all()

    def close(self) -> None:
        """Give back the epoll, once `run` has ended, and the connections that no session owned."""
        for conn in list(self.conns.values()):
            conn.close()
        self._close_all()
        self.epoll.close()
        os.close(self._bell)
