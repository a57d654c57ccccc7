"""The listening sockets: opened and kept by the supervisor, a fixed number of slots for each listener.

SO_REUSEPORT would let a second daemon of the same user bind silently and take half of the connections, so a plain bind
comes first: it fails where anybody else listens, and the error then says who.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterable, Iterator

import attrs

from supervisor.arbiter import local
from supervisor.arbiter.activation import Activated
from supervisor.arbiter.holder import holder
from supervisor.ground.config import Bind
from supervisor.ground.tier import ListenerSpec, Transport
from supervisor.plane.layout import MAX_SLOTS

MIN_SLOTS = 8  # so that up to 8 workers can share evenly enough on a small machine
DATAGRAM_BUFFER = (
    1024 * 1024
)  # bytes asked for, each way; the usual 208 KiB hold a burst of 160 packets. Clamped by the kernel


class CannotListen(Exception):
    """A socket that can't be opened, with the cause and, where it is known, the cure."""


@attrs.frozen
class Key:
    """A listener as the supervisor knows it: a change of any part makes it another one."""

    tier: str
    spec: ListenerSpec

    @property
    def row(self) -> str:
        """Its name in the plane."""
        return f"{self.tier}/{self.spec.name}"


def slot_count() -> int:
    """Twice the machine's CPUs, not only the usable ones: those can change while the sockets can't."""
    return min(MAX_SLOTS, max(MIN_SLOTS, 2 * (os.cpu_count() or 1)))


@attrs.define(eq=False)
class Listeners:
    """All open listeners."""

    slots: int = attrs.Factory(slot_count)
    activated: Activated = attrs.Factory(Activated)
    shared: set[str] = attrs.field(factory=set, init=False)  # rows whose slots are one socket
    _open: dict[Key, list[socket.socket]] = attrs.field(factory=dict, init=False)

    def open(self, keys: Iterable[Key]) -> dict[Key, list[socket.socket]]:
        """The sockets of those that are not open yet; all or none, and not kept before `keep`. Raises CannotListen.

        A listener under another name (or tier) on an address that is open already gets the same sockets again: nothing
        that waits in their queues is lost by a renaming.
        """
        opened: dict[Key, list[socket.socket]] = {}
        with contextlib.ExitStack() as stack:
            for key in keys:
                if key not in self._open:
                    opened[key] = self._again(key) or self._open_slots(key)
                    for sock in opened[key]:
                        stack.callback(sock.close)
            stack.pop_all()
        return opened

    def _open_slots(self, key: Key) -> list[socket.socket]:
        spec = key.spec
        given = self.activated.find(spec.bind, spec.transport.value)[: self.slots]
        if not given and spec.bind.is_local:
            self.shared.add(key.row)
            try:
                return local.open_local(spec, self.slots)
            except local.Occupied as error:
                raise CannotListen(f"{key.row}: can't listen on {spec.bind}: {error}") from None
        if not given:
            return open_slots(key.row, spec, self.slots)
        sockets, alone = join(key.row, spec, given, self.slots)
        (self.shared.add if alone else self.shared.discard)(key.row)
        return sockets

    def _again(self, key: Key) -> list[socket.socket]:
        address = (key.spec.bind, key.spec.transport)
        for other, sockets in self._open.items():
            if (key.spec.bind.port or key.spec.bind.is_local) and (other.spec.bind, other.spec.transport) == address:
                copies = [sock.dup() for sock in sockets]
                for copy in copies if key.spec.transport is Transport.TCP else ():
                    copy.listen(key.spec.backlog)
                return copies
        return []

    def keep(self, opened: dict[Key, list[socket.socket]]) -> None:
        """These are ours from now on."""
        self._open.update(opened)

    def close(self, keys: Iterable[Key]) -> None:
        """The supervisor's copies; the port closes when the workers have closed theirs."""
        for key in keys:
            known = key in self._open
            for sock in self._open.pop(key, ()):
                sock.close()
            if known and key.spec.bind.is_local and all(other.spec.bind != key.spec.bind for other in self._open):
                local.remove(key.spec.bind.host)

    def close_all(self) -> None:
        self.close(tuple(self._open))

    def all(self) -> set[Key]:
        """Those that are open."""
        return set(self._open)

    def keys(self, tier: str) -> Iterator[Key]:
        """Those of one tier."""
        return (key for key in self._open if key.tier == tier)

    def sockets(self, key: Key) -> list[socket.socket]:
        """One listener's, a slot each."""
        return self._open[key]

    def of(self, tier: str) -> dict[str, list[socket.socket]]:
        """A tier's sockets by listener, as its workers inherit them."""
        return {key.spec.name: self._open[key] for key in self.keys(tier)}

    def foreign(self, tier: str) -> list[socket.socket]:
        """Sockets that a process of `tier` must not hold."""
        return [sock for key, sockets in self._open.items() if key.tier != tier for sock in sockets]


def open_slots(name: str, spec: ListenerSpec, count: int) -> list[socket.socket]:
    """`count` sockets on the same address. Raises CannotListen."""
    kind = spec.transport.value
    port = spec.bind.port
    sockets: list[socket.socket] = []
    try:
        with _socket(spec.bind, kind) as probe:
            _bind(probe, name, spec.bind, port, kind)
        for _ in range(count):
            sockets.append(_slot(name, spec, port))
            port = sockets[0].getsockname()[1]  # port 0: the first slot gets one, the others join it
        # Only when all are bound: whoever connects meanwhile is refused, not queued on a slot that is then closed.
        _listen(sockets, spec)
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def join(name: str, spec: ListenerSpec, given: list[socket.socket], count: int) -> tuple[list[socket.socket], bool]:
    """The sockets that a service manager gave, and as many beside them as make `count`; whether the kernel allowed none
    beside them, and the slots are one socket. Raises CannotListen, and then none is left open."""
    sockets = [*given]
    try:
        for sock in given:
            # Whoever bound it may not have set this; a socket of the same user may join even then.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            while len(sockets) < count:
                sockets.append(_slot(name, spec, spec.bind.port))
        except CannotListen:
            if spec.transport is Transport.UDP:
                raise CannotListen(
                    f"{name}: can't listen on {spec.bind} beside the socket that the service manager gave: its unit "
                    f"needs ReusePort=yes, and the daemon the same user; or let the daemon open the port itself"
                ) from None
            for extra in sockets[len(given) :]:
                extra.close()
            del sockets[len(given) :]
            sockets += [given[number % len(given)].dup() for number in range(len(given), count)]
            _listen(sockets, spec)
            return sockets, True
        _listen(sockets, spec)
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets, False


def open_plain(name: str, bind: Bind, backlog: int = 128, activated: Activated | None = None) -> socket.socket:
    """One listening TCP socket that nobody shares (the admin's). Raises CannotListen."""
    for given in () if activated is None else activated.find(bind, socket.SOCK_STREAM):
        return given
    sock = _socket(bind, socket.SOCK_STREAM)
    try:
        _bind(sock, name, bind, bind.port, socket.SOCK_STREAM)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def _slot(name: str, spec: ListenerSpec, port: int) -> socket.socket:
    """One of the sockets that share a port, bound. Raises CannotListen."""
    sock = _socket(spec.bind, spec.transport.value)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if spec.transport is Transport.UDP:
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                sock.setsockopt(socket.SOL_SOCKET, option, DATAGRAM_BUFFER)
        _bind(sock, name, spec.bind, port, spec.transport.value)
    except BaseException:
        sock.close()
        raise
    return sock


def _listen(sockets: Iterable[socket.socket], spec: ListenerSpec) -> None:
    for sock in sockets if spec.transport is Transport.TCP else ():
        sock.listen(spec.backlog)


def _socket(bind: Bind, kind: int) -> socket.socket:
    sock = socket.socket(bind.family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    if kind == socket.SOCK_STREAM:
        # Connections of an earlier daemon in TIME_WAIT don't hold the port; one that listens does, even with this set.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if bind.family == socket.AF_INET6:
        # "[::]" is IPv6 only: else clients of IPv4 come as ::ffff:a.b.c.d, and no network in the file matches them.
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return sock


def _bind(sock: socket.socket, name: str, bind: Bind, port: int, kind: int) -> None:
    try:
        sock.bind((bind.host, port))
    except OSError as error:
        raise CannotListen(f"{name}: can't listen on {bind}: {_reason(error, port, kind)}") from None


def _reason(error: OSError, port: int, kind: int) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            who = holder(port, socket.SocketKind(kind))
            if who is None:
                return "port in use by a process that this user can't see"
            return (
                "port in use by another listener of this daemon" if who.pid == os.getpid() else f"port in use by {who}"
            )
        case errno.EACCES:
            return "no permission; ports below 1024 need root or CAP_NET_BIND_SERVICE"
        case errno.EADDRNOTAVAIL:
            return "this machine has no such address"
    return error.strerror or str(error)
