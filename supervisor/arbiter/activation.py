"""Sockets that a service manager has opened for us: `LISTEN_FDS` and `LISTEN_PID`, sd_listen_fds(3).

Each is used by the listener that is bound to the same address, whenever there is one: the originals stay here for the
life of the daemon, so that a listener that a reload takes away and another brings back finds its socket again. The
manager holds them, too; clients that come while no daemon runs wait in its queue.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterable, MutableMapping

import attrs

from supervisor.ground.config import Bind

FIRST = 3  # SD_LISTEN_FDS_START
MAX = 1024  # sockets; a number beyond is no number of ours
_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


@attrs.define(eq=False)
class Activated:
    """The sockets that came, in the order in which they came."""

    sockets: list[socket.socket] = attrs.field(factory=list)

    @classmethod
    def take(cls, environ: MutableMapping[str, str], pid: int) -> Activated:
        """Those that are meant for this process; the variables go, they are meant for nobody else. OSError for a
        descriptor that is not open or no socket."""
        words = [environ.pop(name, "") for name in _VARIABLES]
        if words[0] != str(pid) or not words[1].isdecimal() or int(words[1]) > MAX:
            return cls()
        taken = cls()
        try:
            for fd in range(FIRST, FIRST + int(words[1])):
                os.set_inheritable(fd, False)
                sock = socket.socket(fileno=fd)
                sock.setblocking(False)
                taken.sockets.append(sock)
        except OSError:
            taken.close()
            raise
        return taken

    def find(self, bind: Bind, kind: int) -> list[socket.socket]:
        """Copies of those bound to this address; no address has port 0."""
        return [sock.dup() for sock in self.sockets if _is_bound(sock, bind, kind)]

    def unused(self, binds: Iterable[tuple[Bind, int]]) -> list[str]:
        """The addresses of those that none of these is bound to, as people write them."""
        wanted = [*binds]
        return [shown(sock) for sock in self.sockets if not any(_is_bound(sock, bind, kind) for bind, kind in wanted)]

    def close(self) -> None:
        """Our copies; in a child, too."""
        for sock in self.sockets:
            sock.close()
        self.sockets.clear()


def shown(sock: socket.socket) -> str:
    """`127.0.0.1:80`, `[::]:80`, or the path of a Unix socket."""
    address = sock.getsockname()
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return str(address)
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"


def _is_bound(sock: socket.socket, bind: Bind, kind: int) -> bool:
    if sock.family != bind.family or sock.type != kind:
        return False
    if bind.is_local:
        return bool(sock.getsockname() == bind.host)
    host, port = sock.getsockname()[:2]
    return bool(port == bind.port and ipaddress.ip_address(host) == ipaddress.ip_address(bind.host))
