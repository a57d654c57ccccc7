from __future__ import annotations

import errno
import os
import select
import socket
from typing import Any

import attrs
import pytest

from edge import outbound


@attrs.frozen
class FakeServer:
    family: int
    sockaddr: tuple[str, int]


def closed(host: str) -> Any:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((host, 0))
        return FakeServer(family, sock.getsockname()[:2])


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_closed_port_is_gone_and_the_queue_of_errors_empty_afterwards(host: str) -> None:
    with outbound.towards(closed(host)) as sock:
        sock.send(b"x")
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        assert poll.poll(2000)
        with pytest.raises(ConnectionRefusedError) as caught:
            sock.recv(10)
        assert outbound.is_gone(sock, caught.value)
        assert not poll.poll(0), "epoll would go on waking"


def test_what_waits_in_the_queue_counts_when_nothing_else_is_to_be_read() -> None:
    with outbound.towards(closed("127.0.0.1")) as sock:
        sock.send(b"x")
        select.select([sock], [], [], 2)
        assert outbound.is_gone(sock, BlockingIOError(errno.EAGAIN, ""))


def test_a_full_buffer_or_a_datagram_too_large_says_nothing_of_the_server() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        target: Any = FakeServer(socket.AF_INET, server.getsockname())
        with outbound.towards(target) as sock:
            for number in (errno.EAGAIN, errno.ENOBUFS, errno.EMSGSIZE, errno.EPERM):
                assert not outbound.is_gone(sock, OSError(number, os.strerror(number)))
            with pytest.raises(OSError) as caught:
                sock.send(b"x" * 65535)
            assert not outbound.is_gone(sock, caught.value)


def test_a_session_that_moves_keeps_its_port() -> None:
    target = closed("127.0.0.1")
    with outbound.towards(target) as sock:
        port = sock.getsockname()[1]
    with outbound.towards(target, port) as again:
        assert again.getsockname()[1] == port
