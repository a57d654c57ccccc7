"""Free ports of the loopback address, for programs that must be told their port.

A port is found by binding 0 and letting go of it: another program could take it in between, but the kernel hands
out ephemeral ports at random, and what we handed out ourselves is remembered and not given twice.
"""

import socket

_given: set[int] = set()


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port that is free for `kind` on 127.0.0.1, and was not given before in this process."""
    while True:
        with socket.socket(socket.AF_INET, kind) as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port not in _given:
            _given.add(port)
            return port


def free_tcp_port() -> int:
    """A free TCP port."""
    return free_port(socket.SOCK_STREAM)


def free_udp_port() -> int:
    """A free UDP port."""
    return free_port(socket.SOCK_DGRAM)
