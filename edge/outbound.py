"""What the kinds of UDP listeners have in common: a socket towards one server, and what the network's complaints mean.

With IP_RECVERR the kernel tells of every ICMP error, not of a closed port alone (ip(7)). Each stands in an error queue
that has to be read: while it has something, epoll goes on waking.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator

from supervisor.ground.pools import Server

IP_RECVERR, IPV6_RECVERR = 11, 25  # linux/in.h, linux/in6.h
MAX_ERRORS = 64  # read at a time
DATAGRAMS_A_WAKE = 64  # from a listener's socket, before others have their turn
LARGEST = 65535  # bytes: what the IPv4 length field can say

# The server is not there. Not among them: a datagram too large for the path (EMSGSIZE: the next is sent in fragments),
# and a full buffer.
GONE = frozenset({errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EPROTO})

_EXTENDED = struct.Struct("=IBBBBII")  # struct sock_extended_err


def towards(server: Server, port: int = 0) -> socket.socket:
    """A socket connected to the server, from `port` if that is given. Raises OSError."""
    sock = socket.socket(server.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        if server.family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
        if port:
            sock.bind(("", port))
        sock.connect(server.sockaddr)
    except OSError:
        sock.close()
        raise
    return sock


def is_gone(sock: socket.socket, error: OSError) -> bool:
    """Whether what a send or a receive raised, or what waits in the error queue, says that the server is not there."""
    numbers = {error.errno, *_queued(sock)}
    return not GONE.isdisjoint(numbers)


def _queued(sock: socket.socket) -> Iterator[int]:
    """The error numbers in the queue, which is then empty."""
    for _ in range(MAX_ERRORS):
        try:
            _, ancillary, _, _ = sock.recvmsg(0, 512, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)
        except OSError:
            return
        for level, kind, data in ancillary:
            known = (level, kind) in ((socket.IPPROTO_IP, IP_RECVERR), (socket.IPPROTO_IPV6, IPV6_RECVERR))
            if known and len(data) >= _EXTENDED.size:
                yield _EXTENDED.unpack_from(data)[0]
