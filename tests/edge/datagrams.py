"""A UDP listener in one worker, driven by hand: real sockets on loopback, no lane, no daemon."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import attrs

from edge.config import EdgeTable
from edge.udp import AnySlot, UdpListener
from supervisor.ground import pools as pools_module
from supervisor.ground.config import load_bytes
from supervisor.ground.pools import Pools
from supervisor.plane import layout
from supervisor.plane.flows import Flows
from supervisor.plane.layout import Kind
from supervisor.plane.memory import Plane


@attrs.define(eq=False)
class Watched:
    """What a lane's `watch` gives."""

    lane: FakeLane
    sock: socket.socket
    ready: Callable[[], None]

    def close(self) -> None:
        if self in self.lane.watched:
            self.lane.watched.remove(self)


@attrs.define(eq=False)
class FakeLane:
    now: float = 1000.0
    watched: list[Watched] = attrs.field(factory=list)

    @property
    def now_ns(self) -> int:
        return int(self.now * 1e9)

    def watch(self, sock: socket.socket, ready: Callable[[], None]) -> Watched:
        self.watched.append(Watched(self, sock, ready))
        return self.watched[-1]

    def turn(self, seconds: float = 2) -> None:
        """Wait until something is ready, and go on until nothing is."""
        while True:
            poll = select.poll()
            by_fd = {one.sock.fileno(): one for one in self.watched}
            for fd in by_fd:
                poll.register(fd, select.POLLIN)
            events = poll.poll(seconds * 1000)
            if not events:
                return
            for fd, _ in events:
                if by_fd[fd] in self.watched:
                    by_fd[fd].ready()
            seconds = 0.02


class House:
    """One slot of one listener; `servers` and `client` are the test's own sockets."""

    def __init__(self, keys: str = "", servers: int = 2, pool: str = "") -> None:
        self.lane = FakeLane()
        self.servers = [udp_socket() for _ in range(servers)]
        self.text = f"""
[pools.p]
servers = {[f"127.0.0.1:{sock.getsockname()[1]}" for sock in self.servers]}
outlier = {{ consecutive_failures = 100 }}
{pool}
[edge.listeners.l]
bind = "127.0.0.1:1"
protocol = "udp"
pool = "p"
"""
        config: Any = load_bytes((self.text + keys).encode(), "x.toml", Path("/"), {"edge": EdgeTable})
        self.plane = Plane.create()
        self.column = self.plane.claim_column("edge", 1)
        for kind, name in (*pools_module.rows(config), (Kind.LISTENER, "edge/l")):
            self.plane.allocate(kind, name)
        self.pool = Pools(config, self.plane, self.column)["p"]
        row = self.plane.row(Kind.LISTENER, "edge/l")
        self.full: list[tuple[int, str]] = []
        self.handed: list[Any] = []
        flows = Flows(self.plane)
        lane: Any = self.lane
        self.listener = UdpListener(
            name="l",
            lane=lane,
            cells=self.plane.cells,
            row=self.plane.counters(Kind.LISTENER, row, self.column),
            table=config.tier("edge").listeners["l"],
            pool=self.pool,
            segment=lambda slot: flows.segment(row, slot),
            hand_over=lambda listener, slot, sessions: self.handed.extend(sessions),
            tell_full=lambda count, limit: self.full.append((count, limit)),
        )
        self.sock = udp_socket()
        self.listener.attach(0, self.sock)
        self.clients: list[socket.socket] = []

    def table(self, keys: str) -> Any:
        config: Any = load_bytes((self.text + keys).encode(), "x.toml", Path("/"), {"edge": EdgeTable})
        return config.tier("edge").listeners["l"]

    @property
    def slot(self) -> AnySlot:
        return self.listener.polled[0]

    def client(self) -> socket.socket:
        sock = udp_socket()
        sock.connect(self.sock.getsockname())
        self.clients.append(sock)
        return sock

    def count(self, field: int) -> int:
        return self.listener.cells[self.listener.row + field]

    def later(self, seconds: float) -> None:
        self.lane.now += seconds
        self.listener.sweep()

    def close(self) -> None:
        for slot in [*self.listener.polled]:
            self.listener.detach(slot)
        self.later(100)
        left = [one.sock for one in self.lane.watched]
        assert not left, "somebody still watches"
        assert self.count(layout.Listener.SESSIONS) == 0
        assert all(server.in_flight() == 0 for server in self.pool.servers)
        for sock in (*self.servers, *self.clients, self.sock):
            sock.close()
        self.plane.close()


def udp_socket() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)
    return sock


def arrived(socks: Iterable[socket.socket]) -> list[list[tuple[bytes, Any]]]:
    """What has come to each: data and source."""
    found = []
    for sock in socks:
        got = []
        while True:
            try:
                got.append(sock.recvfrom(65535))
            except BlockingIOError:
                break
        found.append(got)
    return found
