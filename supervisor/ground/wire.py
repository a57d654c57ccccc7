"""The wire: small typed messages between the processes, descriptors attached where needed.

Every column of the plane has a Unix datagram socketpair, made by the supervisor before the first fork: the sending
ends are inherited by all, the receiving end is read by the column's process alone. A message is an attrs class
registered under a name; it travels as JSON, or as it packs itself, behind the incarnation of the receiver it is meant
for, so that what was sent to a dead process never reaches its successor. Sending never blocks: a full mailbox is
`False` and a count. What must outlive a process stands in the plane, not here; what is large (a configuration) travels
as a memfd (`cargo`). Nothing is ever unpickled here.
"""

from __future__ import annotations

import array
import json
import os
import select
import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, Self, TypeVar, cast, runtime_checkable

import attrs
from cattrs.preconf.json import make_converter

MAX_MESSAGE = 60 * 1024  # bytes; a datagram is one contiguous kernel buffer, larger payloads travel as a memfd
MAX_DESCRIPTORS = 250  # a message; the kernel's SCM_MAX_FD is 253
MAILBOX_BYTES = 1024 * 1024  # asked for; about 2,700 small messages. The kernel clamps it to net.core.wmem_max

_STAMP = struct.Struct("=Q")
_CREDENTIALS = struct.Struct("=iII")  # struct ucred: pid, uid, gid
_ANCILLARY = socket.CMSG_SPACE(_CREDENTIALS.size) + socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize)
_converter = make_converter()
_types: dict[str, type[Any]] = {}
_names: dict[type[Any], str] = {}
_packed: dict[str, type[Packed]] = {}  # of those types

T = TypeVar("T")


@runtime_checkable
class Packed(Protocol):
    """A message that is sent too often for JSON, at a tenth of its price."""

    def pack(self) -> bytes: ...

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """What `pack` made; raises any Exception for anything else."""
        ...


def message(name: str) -> Callable[[type[T]], type[T]]:
    """Register an attrs class under the name by which it travels; a name taken by another class is our error. One with
    `pack` and `unpack` (`Packed`) makes its own bytes."""

    def register(cls: type[T]) -> type[T]:
        if name in _types and _types[name].__qualname__ != cls.__qualname__:
            raise ValueError(f"two messages are called {name!r}")
        _types[name] = cls
        _names[cls] = name
        if issubclass(cls, Packed):
            _packed[name] = cls
        return cls

    return register


class Undecodable(ValueError):
    """A datagram that is no message; it costs itself only."""


def encode(value: object) -> bytes:
    """The bytes of a registered message. TypeError for an unregistered class, ValueError for one over `MAX_MESSAGE`."""
    name = _names.get(type(value))
    if name is None:
        raise TypeError(f"{type(value).__qualname__} is not a registered message")
    if name in _packed:
        data = name.encode() + b"\0" + cast(Packed, value).pack()
    else:
        data = json.dumps([name, _converter.unstructure(value)], separators=(",", ":")).encode()
    if len(data) > MAX_MESSAGE:
        raise ValueError(f"message {name!r} has {len(data)} bytes, over {MAX_MESSAGE}")
    return data


def decode(data: bytes) -> object:
    """The message in `data`; only `Undecodable` escapes."""
    try:
        if data[:1] != b"[":
            tag, _, packed = data.partition(b"\0")
            return _packed[tag.decode()].unpack(packed)
        name, body = json.loads(data)
        return _converter.structure(body, _types[name])
    except Exception as error:  # json, cattrs and the classes' own validators raise from unrelated trees
        raise Undecodable(f"{type(error).__name__}: {error}") from error


@attrs.frozen
class Letter:
    """A message as received. The descriptors are the receiver's to close; the process id is the kernel's word."""

    message: object
    fds: list[int]
    sender_pid: int


@attrs.define(eq=False)
class Mailbox:
    """One process's place on the wire: its own receiving end and everybody's sending ends."""

    column: int
    incarnation: int
    _receiver: socket.socket
    _senders: Sequence[socket.socket]
    _incarnation_of: Callable[[int], int]
    sent: int = 0
    dropped: int = 0  # not sent: the receiver's mailbox was full, or nobody lives in that column
    stale: int = 0  # received, but meant for an earlier incarnation
    malformed: int = 0

    def fileno(self) -> int:
        return self._receiver.fileno()

    @property
    def socket(self) -> socket.socket:
        """The receiving end, to be polled."""
        return self._receiver

    def send(
        self, column: int, message: object, fds: Sequence[int] = (), before: Callable[[], bool] | None = None
    ) -> bool:
        """Send to who lives in `column`; False when nobody does or its mailbox is full. The sender keeps its fds.
        `before` is called at the last moment, when all but the sending is done; nothing is sent if it says False."""
        incarnation = self._incarnation_of(column)
        if not incarnation:
            self.dropped += 1
            return False
        buffers = (_STAMP.pack(incarnation), encode(message))
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else ()
        if before is not None and not before():
            return False
        try:
            self._senders[column].sendmsg(buffers, ancillary)
        except OSError:
            # EAGAIN: full. ENOBUFS, ETOOMANYREFS: no room for descriptors in flight. All mean the same: not now.
            self.dropped += 1
            return False
        self.sent += 1
        return True

    def wait_for_room(self, column: int, seconds: float) -> bool:
        """Wait until the mailbox of `column` takes messages again; for what must not be lost, and a moment at most."""
        room = select.poll()
        room.register(self._senders[column], select.POLLOUT)
        return bool(room.poll(seconds * 1000))

    def receive(self) -> Letter | None:
        """The next message meant for this incarnation, or None when there is none now."""
        while True:
            try:
                data, ancillary, flags, _ = self._receiver.recvmsg(
                    _STAMP.size + MAX_MESSAGE, _ANCILLARY, socket.MSG_CMSG_CLOEXEC
                )
            except (BlockingIOError, InterruptedError):
                return None
            fds, pid = _unpack(ancillary)
            try:
                if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) or len(data) < _STAMP.size:
                    raise Undecodable("truncated")
                if _STAMP.unpack_from(data)[0] != self.incarnation:
                    self.stale += 1
                else:
                    letter = Letter(decode(data[_STAMP.size :]), fds, pid)
                    fds = []
                    return letter
            except Undecodable:
                self.malformed += 1
            finally:
                close_all(fds)


def close_all(fds: Iterable[int]) -> None:
    """Close descriptors that came with a message nobody wanted."""
    for fd in fds:
        os.close(fd)


def _unpack(ancillary: list[tuple[int, int, bytes]]) -> tuple[list[int], int]:
    fds = array.array("i")
    pid = 0
    for level, kind, data in ancillary:
        if level != socket.SOL_SOCKET:
            continue
        if kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        elif kind == socket.SCM_CREDENTIALS:
            pid = _CREDENTIALS.unpack_from(data)[0]
    return list(fds), pid


@attrs.define(eq=False)
class Wire:
    """All the socketpairs, as the supervisor keeps them."""

    _receivers: list[socket.socket]
    _senders: list[socket.socket]

    @classmethod
    def create(cls, columns: int) -> Wire:
        """A pair for each column: between the peers of a pair the kernel's limit of 10 datagrams does not hold."""
        receivers, senders = [], []
        for _ in range(columns):
            sender, receiver = socket.socketpair(
                socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
            )
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAILBOX_BYTES)
            # The kernel then names the sender of each message: a configuration is believed from the supervisor only.
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            receivers.append(receiver)
            senders.append(sender)
        return cls(receivers, senders)

    @classmethod
    def adopt(cls, pairs: Iterable[tuple[int, int]]) -> Wire:
        """The socketpairs that an earlier supervisor made: receiving and sending end by column."""
        wire = cls([], [])
        for receiver, sender in pairs:
            wire._receivers.append(socket.socket(fileno=receiver))
            wire._senders.append(socket.socket(fileno=sender))
        for end in (*wire._receivers, *wire._senders):
            end.setblocking(False)
        return wire

    def descriptors(self) -> tuple[tuple[int, int], ...]:
        """By column: receiving and sending end."""
        pairs = zip(self._receivers, self._senders, strict=True)
        return tuple((receiver.fileno(), sender.fileno()) for receiver, sender in pairs)

    def mailbox(self, column: int, incarnation: int, incarnation_of: Callable[[int], int]) -> Mailbox:
        """The mailbox of `column`; `incarnation_of` reads from the plane who lives in a column now, 0 for nobody."""
        return Mailbox(column, incarnation, self._receivers[column], self._senders, incarnation_of)

    def keep_only(self, column: int) -> None:
        """In a child after the fork: close every receiving end but its own."""
        for other, receiver in enumerate(self._receivers):
            if other != column:
                receiver.close()

    def empty(self, column: int) -> int:
        """Throw away what a dead process left unread, so that its descriptors close now; how many messages that was."""
        count = 0
        while True:
            try:
                _, ancillary, _, _ = self._receivers[column].recvmsg(0, _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
            except (BlockingIOError, InterruptedError):
                return count
            close_all(_unpack(ancillary)[0])
            count += 1

    def close(self) -> None:
        for end in (*self._receivers, *self._senders):
            end.close()
