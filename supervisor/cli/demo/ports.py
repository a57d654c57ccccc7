"""Free ports of the loopback address, for programs that must be told their port.

A port lies below those that the kernel gives to outgoing connections, so that no client happens to hold it in the
moment before its program binds it. Processes that ask at the same time (the demo, the benchmark, tests that run side by
side) never get the same one: each claims a block of ports by the name of a socket, which is nobody else's while the
process lives, and leaves no file behind.
"""

import errno
import functools
import random
import socket
from pathlib import Path

LOWEST = 10_000  # below stand the well-known services
BLOCK = 32  # ports: a descriptor for each would be many
EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
DEFAULT_EPHEMERAL = 32_768  # Linux's own, where /proc doesn't say

_unused: list[int] = []  # of the blocks that this process claimed


@functools.cache
def _range() -> tuple[int, int]:
    """The lowest port to give, and the first above the highest."""
    try:
        first = int(EPHEMERAL.read_text().split()[0])
    except OSError:
        first = DEFAULT_EPHEMERAL
    # Where outgoing connections may have nearly every port, there is no range beside theirs.
    return (LOWEST, first) if first > 2 * LOWEST else (LOWEST, 65_536)


def _claim() -> range:
    """A block of ports that was nobody's, and is ours until the process ends. OSError where none is left."""
    blocks = list(range(*_range(), BLOCK))
    random.shuffle(blocks)
    for first in blocks:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as claim:
            try:
                claim.bind(f"\0portway-ports-{first}")
            except OSError:
                continue
            claim.detach()  # held by the process itself from now on
            return range(first, min(first + BLOCK, _range()[1]))
    raise OSError(errno.EADDRINUSE, "every block of ports is claimed")


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port of 127.0.0.1 that is free for `kind`, and is given to nobody else while this process lives."""
    while True:
        if not _unused:
            _unused.extend(_claim())
        port = _unused.pop()
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                return port


def free_tcp_port() -> int:
    """A free TCP port."""
    return free_port(socket.SOCK_STREAM)


def free_udp_port() -> int:
    """A free UDP port."""
    return free_port(socket.SOCK_DGRAM)
