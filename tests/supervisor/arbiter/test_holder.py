"""Who holds a port: found for our own sockets, silent about free ports. (Loopback, on ports the kernel picks.)"""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from supervisor.arbiter.holder import held, holder


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_the_process_that_listens_is_named(kind: socket.SocketKind, family: socket.AddressFamily) -> None:
    with socket.socket(family, kind) as sock:
        sock.bind(("::1" if family is socket.AF_INET6 else "127.0.0.1", 0))
        if kind is socket.SOCK_STREAM:
            sock.listen()
        port = sock.getsockname()[1]
        found = holder(port, kind)
        assert held(port, kind)
    assert not held(port, kind)
    assert found is not None
    assert found.pid == os.getpid()
    assert str(found) == f"{Path('/proc/self/comm').read_text().strip()} (process {os.getpid()})"


def test_a_port_that_only_clients_use_has_no_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert holder(client.getsockname()[1], socket.SOCK_STREAM) is None
        assert not held(client.getsockname()[1], socket.SOCK_STREAM)


def test_what_can_not_be_read_is_nobody(tmp_path: Path) -> None:
    assert holder(80, socket.SOCK_STREAM, tmp_path) is None
    assert not held(80, socket.SOCK_STREAM, tmp_path)
