"""Listening sockets: slots share a port, a second daemon doesn't, and a failure leaves nothing open.

Loopback sockets on ports that the kernel picks: whether the kernel shares a port can't be told without it.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from supervisor.arbiter.listeners import CannotListen, Key, Listeners, open_plain, open_slots
from supervisor.ground.config import Bind
from supervisor.ground.tier import ListenerSpec, Transport
from tests.leftovers import open_files


def spec(
    port: int = 0, transport: Transport = Transport.TCP, host: str = "127.0.0.1", name: str = "web"
) -> ListenerSpec:
    return ListenerSpec(name, Bind(host, port), transport)


@pytest.fixture
def listeners() -> Iterator[Listeners]:
    listeners = Listeners(slots=8)
    yield listeners
    listeners.close_all()


@pytest.mark.parametrize("transport", Transport)
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_all_slots_share_one_port(transport: Transport, host: str) -> None:
    sockets = open_slots("edge/web", spec(0, transport, host), 8)
    assert len({sock.getsockname() for sock in sockets}) == 1
    assert not any(sock.getblocking() for sock in sockets)
    for sock in sockets:
        sock.close()


@pytest.mark.parametrize("transport", Transport)
def test_a_port_in_use_is_refused_by_name_even_where_it_would_be_shared(transport: Transport) -> None:
    with socket.socket(socket.AF_INET, transport.value) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        if transport is Transport.TCP:
            other.listen()
        port = other.getsockname()[1]
        before = open_files()
        with pytest.raises(CannotListen) as failure:
            open_slots("edge/web", spec(port, transport), 8)
        assert open_files() <= before
    assert str(failure.value) == (
        f"edge/web: can't listen on 127.0.0.1:{port}: port in use by another listener of this daemon"
    )


def test_an_address_of_another_machine_is_named() -> None:
    with pytest.raises(CannotListen, match=r"192\.0\.2\.1:80: this machine has no such address"):
        open_slots("edge/web", spec(80, host="192.0.2.1"), 8)


def test_opening_is_all_or_none(listeners: Listeners) -> None:
    before = open_files()
    with pytest.raises(CannotListen):
        listeners.open([Key("edge", spec()), Key("edge", spec(80, host="192.0.2.1", name="far"))])
    assert open_files() <= before


def test_what_is_open_is_not_opened_again_and_closes_by_key(listeners: Listeners) -> None:
    web, game = Key("edge", spec()), Key("gateway", spec(name="game"))
    listeners.keep(listeners.open([web, game]))
    assert listeners.open([web]) == {}
    assert list(listeners.keys("edge")) == [web]
    assert list(listeners.of("gateway")) == ["game"]
    assert len(listeners.foreign("edge")) == 8
    listeners.close([web])
    assert listeners.of("edge") == {}
    assert web.row == "edge/web"


def test_a_renamed_listener_keeps_its_queues(listeners: Listeners) -> None:
    (first,) = listeners.open([Key("edge", spec())]).values()
    port = first[0].getsockname()[1]
    for sock in first:
        sock.close()
    old, new = Key("edge", spec(port)), Key("gateway", spec(port, name="renamed"))
    listeners.keep(listeners.open([old]))
    with socket.create_connection(("127.0.0.1", port)) as waiting:
        listeners.keep(listeners.open([new]))
        listeners.close([old])
        queued = [accepted for sock in listeners.of("gateway")["renamed"] if (accepted := accept(sock))]
        assert [address for _, address in queued] == [waiting.getsockname()]
        for sock, _ in queued:
            sock.close()


def accept(sock: socket.socket) -> tuple[socket.socket, object] | None:
    try:
        return sock.accept()
    except BlockingIOError:
        return None


def test_a_plain_socket_is_nobody_elses() -> None:
    with open_plain("admin", Bind("127.0.0.1", 0)) as admin:
        port = admin.getsockname()[1]
        with pytest.raises(CannotListen, match="port in use"):
            open_plain("admin", Bind("127.0.0.1", port))
