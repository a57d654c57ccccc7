"""Sockets of a service manager: taken from the environment, found by their address, joined by our own."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.arbiter.activation import Activated, shown
from supervisor.arbiter.advice import advice
from supervisor.arbiter.listeners import CannotListen, Key, Listeners
from supervisor.ground.config import Bind, load_bytes
from supervisor.ground.tier import ListenerSpec, Transport
from tests.leftovers import open_files


@pytest.fixture
def given() -> Iterator[Callable[..., socket.socket]]:
    made = []

    def make(transport: Transport = Transport.TCP, reuse: bool = True, host: str = "127.0.0.1") -> socket.socket:
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, transport.value)
        made.append(sock)
        if reuse:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((host, 0))
        sock.setblocking(False)
        if transport is Transport.TCP:
            sock.listen()
        return sock

    yield make
    for sock in made:
        sock.close()


def key(sock: socket.socket, name: str = "web") -> Key:
    host, port = sock.getsockname()[:2]
    kind = Transport(sock.type)
    return Key("edge", ListenerSpec(name, Bind(host, port), kind))


def clients_meet(sockets: list[socket.socket], port: int, count: int = 30) -> int:
    """How many of the slots got a connection."""
    clients = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(count)]
    met = set()
    for number, sock in enumerate(sockets):
        while True:
            try:
                connection, _ = sock.accept()
            except BlockingIOError:
                break
            connection.close()
            met.add(number)
    for client in clients:
        client.close()
    return len(met)


@pytest.mark.parametrize("reuse", [True, False])
def test_our_own_slots_join_the_given_socket(given: Callable[..., socket.socket], reuse: bool) -> None:
    sock = given(reuse=reuse)
    listeners = Listeners(slots=8, activated=Activated([sock.dup()]))
    opened = listeners.open([key(sock)])
    listeners.keep(opened)
    (sockets,) = opened.values()
    assert len({os.fstat(one.fileno()).st_ino for one in sockets}) == 8
    assert os.fstat(sockets[0].fileno()).st_ino == os.fstat(sock.fileno()).st_ino
    assert clients_meet(sockets, sock.getsockname()[1]) > 1
    assert not listeners.shared
    listeners.close_all()
    listeners.activated.close()


def test_where_the_kernel_allows_none_beside_it_all_slots_are_the_one(
    given: Callable[..., socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    sock = given()
    other_user_s(monkeypatch)
    listeners = Listeners(slots=8, activated=Activated([sock.dup()]))
    (sockets,) = listeners.open([key(sock)]).values()
    assert {os.fstat(one.fileno()).st_ino for one in sockets} == {os.fstat(sock.fileno()).st_ino}
    assert listeners.shared == {"edge/web"}
    assert clients_meet(sockets, sock.getsockname()[1]) == 1
    for one in sockets:
        one.close()
    config = load_bytes(b"", "x.toml", Path("/"), {})
    listeners.keep({key(sock): []})
    assert [event for event, _ in advice(config, (), listeners, None) if "socket" in event] == [
        "one socket for all workers"
    ]
    listeners.activated.close()


def test_datagrams_of_one_socket_would_go_to_any_worker_so_that_is_refused(
    given: Callable[..., socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    sock = given(Transport.UDP)
    other_user_s(monkeypatch)
    before = open_files()
    listeners = Listeners(slots=8, activated=Activated([sock.dup()]))
    with pytest.raises(CannotListen, match="needs ReusePort=yes"):
        listeners.open([key(sock)])
    listeners.activated.close()
    assert open_files() <= before


def other_user_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the kernel has it for a socket that another user has bound."""

    def refuse(*_: Any) -> socket.socket:
        raise CannotListen("in use")

    monkeypatch.setattr("supervisor.arbiter.listeners._slot", refuse)


def test_a_listener_that_goes_and_comes_back_finds_its_socket_again(given: Callable[..., socket.socket]) -> None:
    sock = given()
    listeners = Listeners(slots=8, activated=Activated([sock.dup()]))
    listeners.keep(listeners.open([key(sock)]))
    listeners.close([key(sock)])
    with socket.create_connection(sock.getsockname(), 5):  # nobody is there: it waits with the manager's copy
        listeners.keep(listeners.open([key(sock, "again")]))
        (sockets,) = [listeners.of("edge")["again"]]
        sockets[0].setblocking(True)
        sockets[0].settimeout(5)
        sockets[0].accept()[0].close()
    listeners.close_all()
    listeners.activated.close()


def test_they_are_known_by_family_kind_address_and_port(given: Callable[..., socket.socket]) -> None:
    sock = given(host="::1")
    port = sock.getsockname()[1]
    activated = Activated([sock.dup()])
    (found,) = activated.find(Bind("0:0:0:0:0:0:0:1", port), socket.SOCK_STREAM)
    found.close()
    assert activated.find(Bind("::1", port), socket.SOCK_DGRAM) == []
    assert activated.find(Bind("::1", port - 1), socket.SOCK_STREAM) == []
    assert activated.find(Bind("127.0.0.1", port), socket.SOCK_STREAM) == []
    assert activated.unused([(Bind("::1", port), socket.SOCK_STREAM)]) == []
    assert activated.unused([]) == [f"[::1]:{port}"] == [shown(sock)]
    activated.close()


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_PID": "1", "LISTEN_FDS": "1"},
        {"LISTEN_PID": "42", "LISTEN_FDS": "many"},
        {"LISTEN_PID": "42", "LISTEN_FDS": "5000"},
        {"LISTEN_FDS": "1"},
    ],
)
def test_what_is_meant_for_another_process_is_left_alone(environ: dict[str, str]) -> None:
    assert Activated.take(environ, 42).sockets == []
    assert environ == {}


def test_they_are_taken_once_and_never_block_nor_pass_on(
    given: Callable[..., socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    sock = given().dup()
    monkeypatch.setattr("supervisor.arbiter.activation.FIRST", sock.fileno())
    os.set_inheritable(sock.fileno(), True)
    environ = {"LISTEN_PID": "42", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "x", "OTHER": "1"}
    activated = Activated.take(environ, 42)
    assert environ == {"OTHER": "1"}
    assert not sock.get_inheritable()
    assert not activated.sockets[0].getblocking()
    sock.detach()
    activated.close()
